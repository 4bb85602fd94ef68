"""`s2s gallery`: every mechanism of the folder, with what the given runs say."""

import dataclasses
import json
import re

import pytest

from s2s import registry
from s2s.command import gallery
from s2s.command.compare import Run
from s2s.task.trained import load_trained

NAMES = registry.group_names("attention")


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """A moment of timing: the numbers don't matter here."""
    from s2s.task import step_cost

    whole = step_cost.step_costs
    monkeypatch.setattr(step_cost, "step_costs", lambda names: whole(names, repeats=1))


@pytest.fixture(scope="module")
def none_run(s2s, tmp_path_factory):
    changes = (
        "attention=none",
        "trainer.steps=2",
        "optim.warmup=1",
        "corpus.train=40",
        "corpus.dev=4",
        "corpus.test=6",
    )
    small = ("encoder.width=8", "decoder.width=8", "threads=1", "device=cpu", "trainer.samples=0")
    done = s2s("train", "teach/reverse", *changes, *small, f"output={tmp_path_factory.mktemp('none')}")
    assert done.code == 0, done.err
    return done.out.strip()


def article(page, name):
    return re.search(rf'<article id="{name}".*?</article>', page, re.S)[0]


def test_runs_and_what_they_say(s2s, reverse_run, none_run, tmp_path):
    ladder = tmp_path / "ladder.json"
    cells = {"copy": {"expected": "fail", "reason": "one vector", "accuracy": 0.25}}
    ladder.write_text(json.dumps({"tasks": ["copy"], "rows": {"none": {"why": "w", "cells": cells}}}), encoding="utf-8")
    done = s2s("gallery", reverse_run, none_run, "-o", tmp_path / "g", "--ladder", ladder)
    assert (done.code, done.out) == (0, f"{tmp_path / 'g' / 'index.html'}\n"), done.err
    page = (tmp_path / "g/index.html").read_text(encoding="utf-8")
    assert re.findall(r'<article id="(\w+)"', page) == NAMES
    additive, none, dot = (article(page, name) for name in ("additive", "none", "dot"))
    log = [json.loads(line) for line in (reverse_run / "log.jsonl").read_text(encoding="utf-8").split("\n")[:-1]]
    test = next(event for event in log if event["event"] == "test")
    score = json.loads((reverse_run / "scores.json").read_text(encoding="utf-8"))["test"][0]
    for shown in (
        "teach/reverse, 160 steps",
        f"{log[0]['parameters']:,}",
        f"{score['value']:.1f}",
        f"{score['low']:.1f} to {score['high']:.1f}",
        f"{test['attention']['entropy']:.2f}",
        f"{test['attention']['monotonicity']:.2f}",
        f"{test['alignment']['error_rate']:.3f}",
        "Ladder: not measured",
        "made to write the reference",
    ):
        assert shown in additive, shown
    assert str(reverse_run) not in page
    assert "gives no weights" in none
    assert ("25.0 %" in none, "one vector" in none, "<svg" in none) == (True, True, False)
    assert "No run given." in dot
    assert (tmp_path / "g/images/additive.svg").is_file()
    assert sorted(path.name for path in (tmp_path / "g/images").iterdir()) == ["additive.svg"]
    text = (tmp_path / "g/README.md").read_text(encoding="utf-8")
    assert re.findall(r"^### (\w+)$", text, re.M) == NAMES


def test_the_sentence_is_of_the_corpus_or_given(s2s, reverse_run, tmp_path):
    page = tmp_path / "g/index.html"
    s2s("gallery", reverse_run, "-o", tmp_path / "g")
    source, target = re.findall(r'<dd dir="auto" lang="">(.*?)</dd>', page.read_text(encoding="utf-8"))
    references = (reverse_run / "test.ref").read_text(encoding="utf-8").split("\n")
    assert target in references
    assert source.split() == target.split()[::-1]
    assert len(source.split()) == 6  # the longest there are: nearest to ten
    done = s2s("gallery", reverse_run, "-o", tmp_path / "g", "--sentence", "ba be bi", "--reference", "ba ba ba")
    assert done.code == 0, done.err
    assert re.findall(r'<dd dir="auto" lang="">(.*?)</dd>', page.read_text(encoding="utf-8")) == [
        "ba be bi",
        "ba ba ba",
    ]
    words = re.findall(r"<li>(\S+) ← ", article(page.read_text(encoding="utf-8"), "additive"))
    assert words == ["ba", "ba", "ba", "&lt;/s&gt;"]
    assert s2s("gallery", reverse_run, "-o", tmp_path / "g", "--sentence", "ba be bi").code == 0
    assert "Its own output: bi be ba" in page.read_text(encoding="utf-8")
    s2s("gallery", reverse_run, "-o", tmp_path / "g", "--split", "dev")
    assert re.findall(r'lang="">(.*?)</dd>', page.read_text(encoding="utf-8"))[1] not in references


def test_a_gallery_grows_by_a_run_at_a_time(s2s, reverse_run, none_run, tmp_path):
    words = ("-o", tmp_path / "g", "--sentence", "ba be bi", "--reference", "bi be ba")
    assert s2s("gallery", reverse_run, *words).code == 0
    page = tmp_path / "g/index.html"
    first = article(page.read_text(encoding="utf-8"), "additive")
    assert s2s("gallery", none_run, "-o", tmp_path / "g", "--update").code == 0
    text = page.read_text(encoding="utf-8")
    figure = re.compile("<figure>.*</figure>", re.S)
    assert figure.search(article(text, "additive"))[0] == figure.search(first)[0]
    assert "teach/reverse, 160 steps" in article(text, "additive")
    assert "teach/reverse, 2 steps" in article(text, "none")
    assert "|tok:13a|" in text  # of the scores
    assert s2s("gallery", "-o", tmp_path / "g", "--update").code == 0  # no new run: cards and costs may have changed
    assert "teach/reverse, 2 steps" in article(page.read_text(encoding="utf-8"), "none")
    done = s2s("gallery", reverse_run, "-o", tmp_path / "g", "--update", "--sentence", "bi be ba")
    assert (done.code, "expected ba be bi | bi be ba; found bi be ba" in done.err) == (2, True)
    assert s2s("gallery", "-o", tmp_path / "g").code == 0
    assert "teach/reverse" not in page.read_text(encoding="utf-8")  # without --update it begins anew


def test_what_is_not_the_default_is_told(reverse_run):
    model = load_trained(reverse_run, device="cpu")
    attention = dataclasses.replace(model.config.attention, options={**model.config.attention.options, "heads": 2})
    other = dataclasses.replace(model, config=dataclasses.replace(model.config, attention=attention))
    run = Run("x", steps=1000, minutes=2.0)
    assert gallery._told(run, model) == "teach/reverse, 1,000 steps in 2.0 minutes"
    assert gallery._told(run, other) == "teach/reverse, attention.heads=2, 1,000 steps in 2.0 minutes"


def test_without_runs_every_mechanism_is_there(s2s, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # no ladder lies there
    assert s2s("gallery", "-o", "g").code == 0
    page = (tmp_path / "g/index.html").read_text(encoding="utf-8")
    assert re.findall(r'<article id="(\w+)"', page) == NAMES
    assert "The ladder was not measured." in page
    assert "<svg" not in page


def test_the_ladder_of_the_docs_is_taken_by_itself(s2s, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "docs").mkdir()
    (tmp_path / gallery.LADDER).write_text('{"tasks": ["hop"], "rows": {}}', encoding="utf-8")
    assert s2s("gallery", "-o", "g").code == 0
    assert "hop</th>" in (tmp_path / "g/index.html").read_text(encoding="utf-8")


def test_wrong_words(s2s, reverse_run, copy_run, tmp_path):
    out = ("-o", tmp_path / "g")
    for words, told in (
        ((reverse_run,), "-o"),
        ((tmp_path, *out), "is no run folder"),
        ((reverse_run, copy_run, *out), "two runs of attention=additive"),
        ((reverse_run, *out, "--reference", "x"), "--sentence TEXT"),
        ((*out, "--sentence", "x"), "shown as runs attend to it"),
        ((reverse_run, *out, "--sentence", " "), "--sentence: the sentence is blank"),
        ((reverse_run, *out, "--sentence", "ba", "--reference", " "), "one of them is blank"),
        ((reverse_run, *out, "--sentence", "ba " * 30), "at most 20 are taken at once"),
        ((reverse_run, *out, "--sentence", "ba " * 30, "--reference", "ba"), "too long for the model"),
        ((reverse_run, *out, "--split", "none"), "one of train, dev, test"),
        ((*out, "--ladder", tmp_path / "no.json"), "can't be read"),
    ):
        done = s2s("gallery", *words)
        assert (done.code, done.out) == (2, ""), (words, done.err)
        assert told in done.err
        assert not (tmp_path / "g").exists()


def test_a_picture_has_a_size(s2s, reverse_run, tmp_path, monkeypatch):
    monkeypatch.setattr(gallery, "MAX_PIECES", 3)
    done = s2s("gallery", reverse_run, "-o", tmp_path, "--sentence", "ba be bi")
    assert (done.code, "at most 3 pieces a side; found 4 and 4" in done.err) == (2, True)
