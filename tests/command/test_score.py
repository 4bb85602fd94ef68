"""`s2s score` as a user types it."""

import argparse
import io
import json
import sys

import pytest
from sacrebleu.metrics import BLEU, CHRF, TER

from s2s.command.score import add_arguments, run
from s2s.errors import DataError, UsageError

HYPOTHESES = ["The cat sat on the Mat .", "", "It is a good day today\u2028really.", "قطة على السجادة"]
REFERENCES = [
    "The cat sat on the mat.",
    "Blank on the other side.",
    "It's a good day today\u2028really.",
    "القطة على السجادة",
]


@pytest.fixture
def files(tmp_path):
    paths = []
    for name, lines in (("hyp", HYPOTHESES), ("ref", REFERENCES), ("ref2", HYPOTHESES[::-1])):
        path = tmp_path / f"{name}.txt"
        path.write_bytes("\n".join([*lines, ""]).encode())
        paths.append(str(path))
    return paths


def score(*argv):
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return run(parser.parse_args([str(argument) for argument in argv]))


def test_prints_a_line_a_metric_with_interval_and_signature(files, capsys):
    assert score("-m", "bleu,chrf,ter", *files[:2]) == 0
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert [line.split()[0] for line in lines] == ["bleu", "chrf", "ter"]
    assert err == ""
    for line, metric in zip(lines, (BLEU(), CHRF(), TER()), strict=True):
        # Not n_bootstrap=1000: sacrebleu fails to average samples of which some are exactly 0.
        value = metric.corpus_score(HYPOTHESES, [REFERENCES]).score
        metric.n_bootstrap, metric.seed = 1000, 12345
        assert line.split()[1] == f"{value:.2f}"
        assert f"({metric.get_signature()})" in line
        assert "[" in line


def test_no_intervals_and_default_metrics(files, capsys):
    assert score("--no-intervals", *files[:2]) == 0
    out = capsys.readouterr().out
    assert [line.split()[0] for line in out.splitlines()] == ["bleu", "chrf"]
    assert "[" not in out
    assert "bs:" not in out


@pytest.mark.parametrize("flag", ["-lc", "--lowercase"])
def test_lowercase_is_sacrebleus(flag, files, capsys):
    assert score(flag, "--json", "--no-intervals", *files[:2]) == 0
    found = json.loads(capsys.readouterr().out)
    for entry, metric in zip(found, (BLEU(lowercase=True), CHRF(lowercase=True)), strict=True):
        assert entry["value"] == pytest.approx(metric.corpus_score(HYPOTHESES, [REFERENCES]).score)
        assert "case:lc" in entry["signature"] == str(metric.get_signature())


def test_json_tokenize_samples_and_several_references(files, capsys):
    assert score("--json", "-m", "bleu", "--tokenize", "intl", "--samples", "50", "--seed", "3", *files) == 0
    [entry] = json.loads(capsys.readouterr().out)
    assert entry["name"] == "bleu"
    assert entry["low"] <= entry["value"] <= entry["high"]
    assert {"nrefs:2", "bs:50", "seed:3", "tok:intl"} <= set(entry["signature"].split("|"))
    assert entry["higher_is_better"] is True


def test_standard_input(files, capsys, monkeypatch):
    score("--no-intervals", *files[:2])
    expected = capsys.readouterr().out
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("\r\n".join(HYPOTHESES).encode())))
    score("--no-intervals", "-", files[1])
    assert capsys.readouterr().out == expected


def test_empty_files_give_no_score_and_say_so(tmp_path, capsys):
    empty = tmp_path / "empty"
    empty.write_bytes(b"")
    assert score(empty, empty) == 0
    assert capsys.readouterr() == ("", "s2s score: no lines, so no score\n")
    assert score("--json", empty, empty) == 0
    assert json.loads(capsys.readouterr().out) == []


def test_unequal_counts_name_the_file_and_both_counts(files, tmp_path):
    short = tmp_path / "short.txt"
    short.write_text("one line\n")
    with pytest.raises(DataError, match=r"short\.txt: another number of lines.*expected 4 lines; found 1"):
        score(files[0], files[1], short)


def test_invalid_bytes(files, tmp_path, capsys):
    bad = tmp_path / "bad.txt"
    bad.write_bytes(b"The cat \xff sat\n\n\n\n")
    with pytest.raises(DataError, match=r"bad\.txt:1"):
        score(bad, files[1])
    assert score("--errors", "replace", "--no-intervals", bad, files[1]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("bleu")
    assert "1 invalid" in err


def test_wrong_use(files):
    with pytest.raises(UsageError, match="Did you mean bleu"):
        score("-m", "blue", *files[:2])
    with pytest.raises(UsageError, match="no metric"):
        score("-m", "", *files[:2])
    with pytest.raises(UsageError, match="unknown tokeniser"):
        score("--tokenize", "moses", *files[:2])
    with pytest.raises(UsageError, match="samples"):
        score("--samples", "1", *files[:2])
    with pytest.raises(UsageError, match="only once"):
        score("-", "-")
    with pytest.raises(DataError, match="no such file"):
        score("missing.txt", files[1])
