"""bench/growth.py: exponents, points of a curve, what is kept, the page."""

import json

import pytest

from bench import growth


def points(factor=1.0):
    return [
        {"size": size, "seconds": factor * size / 1000, "peak_mb": 300, "held_mb": size**2} for size in (10, 99, 1000)
    ]


def test_exponents_are_those_of_the_upper_half():
    assert growth.exponent([(size, 3.0 * size**1.5) for size in (1, 2, 4, 8)]) == pytest.approx(1.5)
    flat_then_linear = [(1, 5.0), (2, 5.0), (4, 5.0), (8, 10.0), (16, 20.0), (32, 40.0)]
    assert growth.exponent(growth.upper(flat_then_linear)) == pytest.approx(1.0)
    assert growth.upper([1, 2, 3]) == [2, 3]
    assert growth.upper([1, 2]) == [1, 2]


@pytest.mark.parametrize("name", ["source length, monotonic", "source length, multihead", "beam"])
def test_points_of_a_curve(name, monkeypatch):
    monkeypatch.setattr(growth, "USUAL", {"length": 5, "vocabulary": 50, "width": 16, "batch": 2, "beam": 0})
    point = growth.point(name, 3)
    assert point["size"] == 3
    assert point["seconds"] > 0
    assert point["peak_mb"] > 50
    assert point["held_mb"] >= 0


def test_a_point_in_a_process_of_its_own_is_kept_beside_others(tmp_path, monkeypatch):
    monkeypatch.setattr(growth, "RESULTS", tmp_path)
    monkeypatch.setattr(growth, "CURVES", {"beam": ("beam", (2,))})
    growth.keep({"corpus size": points(), "beam": points()})
    found = growth.run(["beam"])
    path = growth.keep(found)
    assert json.loads(path.read_text())["found"] == {"corpus size": points(), **found}
    assert [point["size"] for point in found["beam"]] == [2]
    with pytest.raises(SystemExit):
        growth.main(["run", "colour"])


def test_a_page_comes_from_what_was_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(growth, "RESULTS", tmp_path)
    with pytest.raises(SystemExit, match="no result yet"):
        growth.main(["show"])
    growth.keep({"batch": points(), "source length, dot": points(2.0), "source length, additive": points()})
    assert growth.main(["show"]) == 0
    text = (tmp_path / "README.md").read_text()
    assert "| batch | 10 | 1,000 | 10 to 1,000 | 300 to 300 | 1.00 | 2.00 | 99 |" in text
    assert (tmp_path / "growth.png").read_bytes().startswith(b"\x89PNG")
