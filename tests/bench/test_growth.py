"""bench/growth.py: exponents, points of a curve, the page."""

import json

import pytest

from bench import growth


def test_exponents_are_those_of_the_upper_half():
    assert growth.exponent([(size, 3.0 * size**1.5) for size in (1, 2, 4, 8)]) == pytest.approx(1.5)
    flat_then_linear = [(1, 5.0), (2, 5.0), (4, 5.0), (8, 10.0), (16, 20.0), (32, 40.0)]
    assert growth.exponent(flat_then_linear) == pytest.approx(1.0)
    assert growth.exponent([(1, 1.0), (10, 100.0)]) == pytest.approx(2.0)


@pytest.mark.parametrize("name", ["source length, monotonic", "beam"])
def test_points_of_a_curve(name, monkeypatch):
    monkeypatch.setattr(growth, "USUAL", {"length": 5, "vocabulary": 50, "width": 16, "batch": 2, "beam": 0})
    points = growth.curve(name, (2, 3))
    assert [point["size"] for point in points] == [2, 3]
    assert all(point["seconds"] > 0 and point["peak_mb"] > 50 for point in points)


def test_a_page_comes_from_what_was_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(growth, "RESULTS", tmp_path)
    with pytest.raises(SystemExit, match="no result yet"):
        growth.main(["show"])
    points = [{"size": size, "seconds": size / 1000, "peak_mb": 300} for size in (10, 100, 1000)]
    done = {
        "date": "2026-01-01",
        "machine": {"CPU": "a chip"},
        "found": {"batch": points, "source length, dot": points},
    }
    (tmp_path / "2026-01-01.json").write_text(json.dumps(done))
    assert growth.main(["show"]) == 0
    assert "| batch | 10 | 1,000 | 10 to 1,000 | 300 to 300 | 1.00 |" in (tmp_path / "README.md").read_text()
    assert (tmp_path / "growth.png").read_bytes().startswith(b"\x89PNG")
