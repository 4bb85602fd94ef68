"""Corpus to tokenizers to examples: what training starts from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from s2s.config import Config
from s2s.errors import DataError
from s2s.text.batching import BatchPlan, Example, example_lengths
from s2s.text.corpus import Corpus, Pair
from s2s.text.vocabulary import Recipe, Tokenizer


@dataclass(frozen=True)
class Prepared:
    """A corpus as ids. train, dev: pairs within the length limits; too_long: how many were left out of each."""

    corpus: Corpus
    source: Tokenizer
    target: Tokenizer
    train: list[Example]
    dev: list[Example]
    dev_pairs: list[Pair]
    pairs: list[Pair]
    too_long: dict[str, int] = field(default_factory=dict)

    def plan(self, config: Config) -> BatchPlan:
        """The batches of training."""
        trainer = config.trainer
        return BatchPlan(example_lengths(self.train), trainer.batch_tokens, config.seed, trainer.pad_multiple)

    def fetch(self, config: Config) -> _Fetch:
        """Examples by number; with subword sampling, segmented anew in each epoch."""
        return _Fetch(self, config.trainer.subword_sample, config.seed)


@dataclass(frozen=True)
class _Fetch:
    prepared: Prepared
    alpha: float
    seed: int

    def __call__(self, rows: Sequence[int], epoch: int) -> list[Example]:
        """The examples `rows` of training as they are in `epoch`."""
        if not self.alpha:
            return [self.prepared.train[row] for row in rows]
        seed = self.seed * 1_000_003 + epoch
        source, target = self.prepared.source, self.prepared.target
        return [
            Example(source.sample(pair.source, self.alpha, seed), target.sample(pair.target, self.alpha, seed))
            for pair in (self.prepared.pairs[row] for row in rows)
        ]


def load_corpus(config: Config) -> Corpus:
    """The corpus of a config; raises DataError for what is wrong with it."""
    corpus: Corpus = config.corpus.build()
    return corpus


def train_tokenizers(config: Config, corpus: Corpus) -> tuple[Tokenizer, Tokenizer]:
    """Tokenizers of source and target, trained on the training split."""
    recipe: Recipe = config.text.build()
    train = corpus.splits["train"]
    return recipe.train([pair.source for pair in train], [pair.target for pair in train])


def prepare(config: Config, corpus: Corpus, tokenizers: tuple[Tokenizer, Tokenizer]) -> Prepared:
    """Examples of train and dev. Pairs above `trainer.max_source` or `max_target` tokens are left out and counted.

    Raises DataError if nothing is left, or if more than half of train is left out.
    """
    source, target = tokenizers
    kept: dict[str, tuple[list[Example], list[Pair]]] = {}
    too_long = {}
    for split in ("train", "dev"):
        pairs = corpus.splits.get(split, [])
        examples = [Example(source.encode(pair.source), target.encode(pair.target)) for pair in pairs]
        fits = [
            len(e.source) <= config.trainer.max_source and len(e.target) <= config.trainer.max_target for e in examples
        ]
        kept[split] = (
            [e for e, fit in zip(examples, fits, strict=True) if fit],
            [p for p, fit in zip(pairs, fits, strict=True) if fit],
        )
        too_long[split] = fits.count(False)
    train = corpus.splits["train"]
    if len(kept["train"][0]) * 2 < len(train):
        raise DataError(
            f"{too_long['train']} of {len(train)} training pairs are longer than the limits",
            where="trainer.max_source, trainer.max_target",
            expected="at most half",
            hint="Raise the limits, or check text.size: too small a vocabulary makes long sequences",
        )
    if not kept["dev"][0]:
        raise DataError("there are no dev pairs to choose a model by", where=f"corpus {corpus.name}")
    return Prepared(
        corpus, source, target, kept["train"][0], kept["dev"][0], kept["dev"][1], kept["train"][1], too_long
    )
