"""The measurement of a server runs, and sees the same answers."""

import importlib.util
from pathlib import Path

import pytest

pytest.importorskip("fastapi")


def test_it_tells_the_ratio_and_the_first_word(talk_run, capsys):
    path = Path(__file__).resolve().parents[2] / "bench" / "serving.py"
    spec = importlib.util.spec_from_file_location("serving", path)
    serving = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(serving)
    assert serving.main([str(talk_run), "--clients", "4", "--rounds", "1"]) == 0
    out = capsys.readouterr().out
    assert "the same answers" in out
    assert "first word after" in out
