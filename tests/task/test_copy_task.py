"""Copying learned from nothing: the task that no model solves without it, and what is refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

import s2s
from s2s.app import compose
from s2s.errors import ConfigError, UsageError
from s2s.show.console import progress
from s2s.task.generate import Generator, Options
from s2s.task.model import Model
from s2s.task.prepare import load_corpus, load_tokenizers, prepare
from s2s.task.training import train
from s2s.types import UNK, Overlong, Result

MARKED = [
    *("corpus.task=marked", "corpus.unseen=true", "corpus.symbols=400", "corpus.min_length=3", "corpus.train=1500"),
    *("text.size=64", "trainer.steps=200", "trainer.valid_sentences=20", "trainer.samples=2", "threads=1"),
]


def solved(folder: Path, *more: str) -> tuple[Model, float]:
    """A model trained on the task, and its share of right answers on the test."""
    config = compose("teach/copy", [*MARKED, *more])
    folder.mkdir()
    train(config, folder, "", progress())
    model = s2s.load(folder, device="cpu")
    pairs = load_corpus(config).splits["test"]
    found = model.translate([pair.source for pair in pairs])
    return model, sum(one == pair.target for one, pair in zip(found, pairs, strict=True)) / len(pairs)


@pytest.fixture(scope="module")
def copying(tmp_path_factory: pytest.TempPathFactory) -> tuple[Model, float]:
    return solved(tmp_path_factory.mktemp("copying") / "run", "copy=pointer")


def test_symbols_never_seen_are_copied(copying: tuple[Model, float]) -> None:
    assert copying[1] > 0.95


def test_without_copying_they_cannot_be_written(tmp_path: Path) -> None:
    assert solved(tmp_path / "run")[1] == 0.0


def test_a_loaded_model_copies_any_word(copying: tuple[Model, float]) -> None:
    model, _ = copying
    result = model.translate("ba * Zürich! bo", details=True)
    assert result.text == "Zürich!"
    assert result.pieces[0] == "Zürich!"
    assert result.tokens[0] >= model.trained[0].target.size  # no word of the vocabulary
    with pytest.raises(UsageError, match="copies"):
        list(model.stream(["ba", "*", "bo"], wait_k=2))


def test_merge_goes_on_with_the_joined_outputs_until_they_fit(copying: tuple[Model, float]) -> None:
    trained = copying[0].trained
    text = " ".join(f"x{i} * Y{i} z{i}" for i in range(6))  # 24 words

    def run(overlong: Overlong, text: str) -> Result:
        options = Options(overlong=overlong, max_source=8, alignment=True)
        return Generator(trained, trained[0].config.search, options)([text])[0]

    split, merged = run("split", text), run("merge", text)
    assert "split" in split.flags
    assert len(split.text.split()) == 3  # the symbols of three parts
    again = run("refuse", split.text)
    assert merged.text == again.text
    assert (merged.tokens, merged.alignment, merged.input) == (again.tokens, again.alignment, text)
    assert {"split", "merged"} <= set(merged.flags)
    short = " ".join(text.split()[:8])
    assert run("merge", short) == run("split", short)


def test_what_is_drawn_for_a_merged_text_does_not_depend_on_its_neighbours(copying: tuple[Model, float]) -> None:
    trained, long = copying[0].trained, " ".join(f"x{i} * Y{i} z{i}" for i in range(9))
    config = dataclasses.replace(trained[0].config.search, beam=1, sample=True, temperature=50.0)
    generator = Generator(trained, config, Options(overlong="merge", max_source=8))
    first, second = (generator([before, long, long])[1:] for before in ("a * b", long))
    assert [one.text for one in first] == [one.text for one in second]
    assert len({one.text for one in first}) == 2  # and each line has draws of its own


def test_sources_are_cut_in_training_as_in_use_and_counted() -> None:
    changes = ["text.size=64", "corpus.unseen=true", "corpus.task=marked", "corpus.symbols=400", "copy=pointer"]
    limits = ["trainer.max_source=8", "task.overlong=truncate"]
    config = compose("teach/copy", [*changes, *limits])
    corpus = load_corpus(config)
    prepared = prepare(config, corpus, load_tokenizers(config, corpus))
    lengths = [len(pair.source.split()) for pair in corpus.splits["train"]]
    assert prepared.cut["train"] == sum(length > 8 for length in lengths) > 0
    assert prepared.too_long == {"train": 0, "dev": 0}
    for example, pair in zip(prepared.train, corpus.splits["train"], strict=True):
        assert example.copies is not None
        assert len(example.source) == len(example.copies.source) == min(8, len(pair.source.split()))
        seen = pair.target in pair.source.split()[:8]
        known = prepared.target.encode(pair.target) != [UNK]
        assert (example.copies.target[0] == UNK) == (not seen and not known)  # what was cut off can't be copied
    left_out = prepare(compose("teach/copy", [*changes, limits[0]]), corpus, load_tokenizers(config, corpus))
    assert left_out.too_long["train"] == prepared.cut["train"]
    assert left_out.cut == {}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (["attention=none"], "copy=pointer needs attention weights that sum to one.*take attention=additive"),
        (["attention=local_p"], "take attention.renormalise=true"),
        (["attention=static_feature"], "weights that sum to one"),
        (["text=sentencepiece"], "needs one vocabulary for both sides: `text.joint=true`"),
        (["optim.rdrop=1", "model.dropout=0.1"], "optim.rdrop"),
        (["copy.bias=30"], "-20 to 20"),
    ],
)
def test_what_cannot_copy_is_refused(changes: list[str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        compose("teach/copy", ["copy=pointer", *changes])
