"""The measurement of a server runs, and sees the same answers."""

import pytest

from bench import serving

pytest.importorskip("fastapi")


def test_it_tells_the_ratio_and_the_first_word(talk_run, capsys):
    assert serving.main([str(talk_run), "--clients", "4", "--rounds", "1"]) == 0
    out = capsys.readouterr().out
    assert "the same answers" in out
    assert "first word after" in out
