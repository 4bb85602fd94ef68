"""Guided alignment from links to attention, through the parts that a run is made of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from s2s.app import compose
from s2s.config import Config
from s2s.errors import DataError
from s2s.score.alignment import GoldAlignment, alignment_error_rate, format_links
from s2s.task.align import align
from s2s.task.prepare import Prepared, load_corpus, load_tokenizers, prepare
from s2s.task.trained import Trained
from s2s.task.training import set_up, start_run
from s2s.text.corpus.base import Corpus, DataReport, Pair, SplitReport
from s2s.text.corpus.synthetic import links as true_links
from s2s.train.step import update

SMALL = [
    "corpus.train=300",
    "corpus.dev=30",
    "corpus.test=0",
    "corpus.symbols=40",
    "encoder.width=24",
    "decoder.width=24",
    "decoder.input_feed=false",
    "model.embedding=24",
    "trainer.batch_tokens=300",
    "optim.warmup=5",
    "threads=1",
]
AUTO = ["optim.guided_alignment=1", "trainer.links=auto"]


def prepared(config: Config, corpus: Corpus | None = None) -> Prepared:
    corpus = corpus or load_corpus(config)
    return prepare(config, corpus, load_tokenizers(config, corpus))


def by_file(path: Path, *more: str) -> Config:
    return compose("teach/reverse", [*SMALL, "optim.guided_alignment=1", f"trainer.links={path}", *more])


def error_rate(config: Config, steps: int = 60) -> float:
    """On dev, after a few steps of training."""
    device = set_up(config)
    data = prepared(config)
    run, plan, batch = start_run(config, data, device), data.plan(config), data.batch(config)
    batches = [(epoch, rows) for epoch in range(50) for rows in plan.epoch(epoch)][:steps]
    for epoch, rows in batches:
        update(run.model.train(), [batch(rows, epoch)], run.optimizer, config.optim, rate=0.01)
    trained = Trained(run.model.eval(), data.source, data.target, config, ("a", "b"))
    pairs = [(pair.source, pair.target) for pair in data.dev_pairs]
    found = [frozenset(one.links if one else ()) for one in align(trained, pairs)]
    gold = [frozenset(true_links("reverse", source.split())) for source, _ in pairs]
    return alignment_error_rate(found, [GoldAlignment(own, own) for own in gold]).error_rate


def test_guided_training_aligns_better_after_the_same_steps() -> None:
    plain = error_rate(compose("teach/reverse", SMALL))
    guided = error_rate(compose("teach/reverse", [*SMALL, *AUTO]))
    assert guided < plain - 0.2


def test_links_that_are_found_are_those_of_the_training_examples_and_stay_the_same() -> None:
    config = compose("teach/copy", [*SMALL, *AUTO])
    data = prepared(config)
    for example in data.train:
        assert example.links == [(place, place) for place in range(len(example.source))]
    assert all(example.links is None for example in data.dev)
    assert data.links_fingerprint() == prepared(config).links_fingerprint()
    other = prepared(compose("teach/reverse", [*SMALL, *AUTO]))
    assert data.links_fingerprint() != other.links_fingerprint()
    assert prepared(compose("teach/copy", SMALL)).links_fingerprint() is None
    batch = data.batch(config)([4, 7], 0)
    assert batch.links is not None
    assert torch.equal(batch.links.sum((1, 2)), batch.target_lengths.float())


def test_links_of_a_file_belong_to_the_pairs_in_order_and_too_long_ones_are_left_out_with_theirs(
    tmp_path: Path,
) -> None:
    config = by_file(tmp_path / "links", "trainer.max_source=8", "trainer.max_target=8")
    train = load_corpus(config).splits["train"]
    lines = [format_links(true_links("reverse", pair.source.split())) for pair in train]
    (tmp_path / "links").write_text("".join(f"{line}\n" for line in lines))
    data = prepared(config)
    assert data.too_long["train"] > 0
    for pair, example in zip(data.pairs, data.train, strict=True):
        assert example.links == true_links("reverse", pair.source.split())
    first = data.links_fingerprint()
    (tmp_path / "links").write_text("".join(f"{line}\n" for line in [*lines[:-1], ""]))
    assert prepared(config).links_fingerprint() != first


def test_a_link_of_words_links_all_of_their_pieces(tmp_path: Path) -> None:
    pairs = [Pair("ab c", "x yz", "1"), Pair("c", "x", "2")]
    corpus = Corpus(
        "toy",
        "a",
        "b",
        {"train": pairs, "dev": pairs},
        DataReport({"train": SplitReport(2, 2), "dev": SplitReport(2, 2)}),
    )
    (tmp_path / "links").write_text("0-1 1p0\n\n")
    data = prepared(by_file(tmp_path / "links", "text=characters"), corpus)
    # a, b, space, c and x, space, y, z; a space belongs to the word after it
    assert data.train[0].links == [(2, 0), (3, 0), (0, 1), (1, 1), (0, 2), (1, 2), (0, 3), (1, 3)]
    assert data.train[1].links == []


@pytest.mark.parametrize(
    "text, words",
    [
        ("0-0\n", "1 lines"),
        ("0-0\n0-0\n0-0\n", "expected 2 lines, one for each pair"),
        (
            "0-0\n0-1\n",
            "links:2: token 1 (0-1) points outside the sentence; expected source below 1 and target below 1",
        ),
        ("0-0\n0:0\n", "token 1 is no link"),
        (None, "no such file"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_with_its_line(tmp_path: Path, text: str | None, words: str) -> None:
    pairs = [Pair("ab c", "x yz", "1"), Pair("c", "x", "2")]
    report = DataReport(
        {"train": SplitReport(3, 2, {"blank side": 1}, {"blank side": "f:7"}), "dev": SplitReport(2, 2)}
    )
    corpus = Corpus("toy", "a", "b", {"train": pairs, "dev": pairs}, report)
    if text is not None:
        (tmp_path / "links").write_text(text)
    with pytest.raises(DataError) as caught:
        prepared(by_file(tmp_path / "links"), corpus)
    assert words in str(caught.value)
    assert str(tmp_path / "links") in str(caught.value)
    assert ("blank side 1" in str(caught.value)) == ("line" in words)


def test_a_run_goes_on_only_with_the_links_it_began_with(s2s: Any, tmp_path: Path) -> None:
    links = tmp_path / "links"
    config = by_file(links)
    lines = [format_links(true_links("reverse", pair.source.split())) for pair in load_corpus(config).splits["train"]]
    links.write_text("\n".join(lines))
    steps = ["trainer.steps=6", "trainer.validate_every=null", "trainer.samples=0", "trainer.valid_sentences=1"]
    options = [*SMALL, *steps, "optim.guided_alignment=1", f"trainer.links={links}", f"output={tmp_path / 'runs'}"]
    done = s2s("train", "teach/reverse", *options)
    assert done.code == 0, done.err
    run = done.lines[-1]
    links.write_text("\n".join(["", *lines[1:]]))
    refused = s2s("train", "--resume", run, "trainer.steps=7")
    assert refused.code == 2
    assert "what the training pairs are linked by has changed" in refused.err
    links.write_text("\n".join(lines))
    assert s2s("train", "--resume", run, "trainer.steps=7").code == 0
