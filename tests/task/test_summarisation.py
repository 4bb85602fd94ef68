"""What a run of the task summarisation has beside that of another: ROUGE, extracts, statistics of its summaries."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from s2s.app import compose
from s2s.config import TaskConfig
from s2s.score.metrics import compute
from s2s.score.summary import summary_statistics
from s2s.show.console import progress
from s2s.task.evaluate import score_extracts
from s2s.task.prepare import load_corpus
from s2s.task.training import train
from s2s.text.corpus import Pair

SMALL = [
    *("task=summarisation", "corpus.task=skip", "corpus.train=200", "corpus.dev=20", "corpus.test=30"),
    *(
        "trainer.steps=4",
        "optim.warmup=1",
        "trainer.batch_tokens=300",
        "trainer.samples=2",
        "trainer.valid_sentences=5",
        "threads=1",
    ),
]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    folder.mkdir()
    train(compose("teach/copy", SMALL), folder, "", progress())
    return folder


def test_extracts_are_scored_beside_the_model(run: Path) -> None:
    config = compose("teach/copy", SMALL)
    pairs = load_corpus(config).splits
    words = round(sum(len(pair.target.split()) for pair in pairs["train"]) / len(pairs["train"]))
    scores = json.loads((run / "scores.json").read_text())
    assert list(scores) == ["test", *(f"test {name}-{words}" for name in ("lead", "random", "oracle"))]
    assert all([one["name"] for one in own] == ["rouge1", "rouge2", "rougeL"] for own in scores.values())
    lead = [" ".join(pair.source.split()[:words]) for pair in pairs["test"]]
    (wanted,) = compute(["rouge1"], lead, [[pair.target for pair in pairs["test"]]], intervals=True)
    found = scores[f"test lead-{words}"][0]
    assert (found["value"], found["low"], found["signature"]) == (wanted.value, wanted.low, wanted.signature)
    assert scores[f"test oracle-{words}"][0]["value"] >= found["value"]


def test_statistics_of_the_summaries_are_logged_and_told(run: Path) -> None:
    events = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    (test,) = (event for event in events if event["event"] == "test")
    outputs = (run / "test.hyp").read_text().split("\n")[:-1]
    sources = [pair.source for pair in load_corpus(compose("teach/copy", SMALL)).splits["test"]]
    found = summary_statistics(sources, outputs)
    assert test["summary"]["novel"] == {str(order): share for order, share in found.novel.items()}
    assert test["summary"]["compression"] == found.compression
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "summaries of test: " in page
    assert "lead-" in page
    assert "ROUGE-L" in page


def test_the_best_model_is_chosen_by_rouge(run: Path) -> None:
    events = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert all({"rouge1", "rouge2", "rougeL"} <= set(event) for event in events if event["event"] == "valid")


def test_every_reference_counts() -> None:
    pairs = [Pair("a b c d e f", "x y", "", ("x y", "a b")), Pair("a b c", "a b", "")]
    (score,) = score_extracts(pairs, TaskConfig(metrics=["rouge1"]), 2, intervals=False)["lead-2"]
    assert (score.value, "nrefs:2" in score.signature) == (100.0, True)


def test_extracts_have_the_words_that_are_asked_for() -> None:
    pairs = [Pair("a b c d e f", "e f", "")]
    found = score_extracts(pairs, TaskConfig(metrics=["rouge1"]), 2, intervals=False)
    assert {name: scores[0].value for name, scores in found.items() if name != "random-2"} == {
        "lead-2": 0.0,
        "oracle-2": 100.0,
    }
