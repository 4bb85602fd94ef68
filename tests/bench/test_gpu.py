"""bench/gpu.py: every mode that runs here, with graphs that are noted and repeated, and the page of what was kept."""

import json

import pytest
from replay import ReplayingRecorder, as_on_a_gpu  # noqa: F401

from bench import gpu, kept


@pytest.fixture
def small(monkeypatch):
    for name, value in {"WARM": 2, "UPDATES": 1, "SEARCHES": 1, "WRITTEN": 3, "SENTENCES": 2}.items():
        monkeypatch.setattr(gpu, name, value)


@pytest.mark.parametrize("name", gpu.ROWS)
def test_a_row_has_all_modes_that_run_here(name, small, as_on_a_gpu, monkeypatch):  # noqa: F811
    plain = gpu.point(name, "cpu", 64)
    assert [(what, list(rates)) for what, rates in plain.items()] == [
        ("training", ["operation by operation"]),
        ("search", ["operation by operation"]),
    ]
    made = []
    monkeypatch.setattr("s2s.recording.recorder", lambda device: made.append(ReplayingRecorder()) or made[-1])
    monkeypatch.setattr("s2s.kernels.usable", lambda device: False)
    rates = gpu.point(name, "cpu", 64)
    assert list(rates["training"]) == ["operation by operation", "graphs"]
    assert all(rate > 0 for of_mode in rates.values() for rate in of_mode.values())
    assert sum(one.replayed for one in made) >= 2


def test_a_row_that_fails_says_so_and_what_was_kept_becomes_a_page(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(gpu, "RESULTS", tmp_path)

    class Done:
        returncode, stdout, stderr = 1, "", "no GPU"

    monkeypatch.setattr(gpu.subprocess, "run", lambda *given, **options: Done)
    assert gpu.main(["run", "monotonic"]) == 1
    assert "| monotonic | failed |" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())
    assert gpu.main(["show"]) == 0
    rows = [line for line in (tmp_path / "README.md").read_text().splitlines() if "not measured" in line]
    assert len(rows) == len(gpu.ROWS)
    assert rows[0] == "| additive | not measured |  |  | 1,000,000 |"
    found = {"additive": {"training": {"operation by operation": 50.0, "graphs": 200.0}, "search": {}}}
    (tmp_path / "2026-01-01-a-gpu.json").write_text(
        json.dumps({"date": "2026-01-01", "machine": {"GPU": "A GPU", "CPU": "a chip"}, "found": found})
    )
    assert gpu.main(["show"]) == 0
    text = (tmp_path / "README.md").read_text()
    assert "| additive, training | graphs | 200 tokens/s | 4.00 | 1,000,000 |" in text
    assert "| general, not fed | not measured |  |  | 2,000,000 |" in text
    assert "GPU A GPU, CPU a chip" in text
    assert kept.place(tmp_path, {"date": "d", "machine": {"GPU": "X 1"}}, "GPU").name == "d-x-1.json"
