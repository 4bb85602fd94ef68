"""`s2s eval`: the scores of a split, by the path that training takes."""

import json
import shutil

import pytest


def test_it_gives_what_training_gave(s2s, reverse_run, tmp_path):
    done = s2s("eval", reverse_run, "-o", tmp_path / "new" / "out.txt")
    assert done.code == 0, done.err
    scores = json.loads((reverse_run / "scores.json").read_text(encoding="utf-8"))["test"]
    assert len(done.lines) == len(scores) == 2
    for line, score in zip(done.lines, scores, strict=True):
        shown = f"{score['name']} {score['value']:.2f} [{score['low']:.2f}, {score['high']:.2f}] ({score['signature']})"
        assert line == shown
    assert (tmp_path / "new" / "out.txt").read_bytes() == (reverse_run / "test.hyp").read_bytes()
    assert "60 pairs of test, " in done.err
    assert "isn't what" not in done.err


def test_json_and_another_split(s2s, reverse_run):
    done = s2s("eval", reverse_run / "model", "--split", "dev", "--json", "--batch-size", "7")
    facts = json.loads(done.out)
    assert (facts["split"], facts["pairs"], facts["same_corpus"]) == ("dev", 50, True)
    assert [score["name"] for score in facts["scores"]] == ["bleu", "chrf"]
    assert facts["scores"][0]["value"] > 90
    assert facts["sentences_per_second"] > 0


def test_another_search_changes_the_outputs(s2s, reverse_run, tmp_path):
    done = s2s("eval", reverse_run, "--beam", "1", "--max-length", "2", "-o", tmp_path / "out.txt")
    assert done.code == 0
    assert all(len(line.split()) <= 2 for line in (tmp_path / "out.txt").read_text(encoding="utf-8").split("\n"))
    assert "unfinished" in done.err


def test_a_split_that_is_not_there_is_answered_with_those_that_are(s2s, reverse_run):
    done = s2s("eval", reverse_run, "--split", "tset")
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert "--split tset" in done.err
    assert "expected one of train, dev, test" in done.err


def test_a_bundle_without_a_log_says_nothing_of_the_corpus(s2s, reverse_run, tmp_path):
    shutil.copytree(reverse_run / "model", tmp_path / "alone")
    done = s2s("eval", tmp_path / "alone", "--json")
    assert json.loads(done.out)["same_corpus"] is None


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--beam", "0"), "search.beam=0"),
        (("-o", "/proc/no/such"), "-o /proc/no/such"),
        (("--nbest", "2"), "unrecognized arguments"),
    ],
)
def test_wrong_options(s2s, reverse_run, monkeypatch, options, told):
    monkeypatch.setattr("s2s.task.generate.search", lambda *_, **__: pytest.fail("the model was called"))
    done = s2s("eval", reverse_run, *options)
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert told in done.err
