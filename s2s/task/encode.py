"""Pairs of texts to examples, as a config has them trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from s2s.config import Config
from s2s.task.trained import about, turns
from s2s.text.batching import Example, make_example
from s2s.text.copying import Copier
from s2s.text.corpus import Pair
from s2s.text.keywords import Keywords, to_keyword
from s2s.text.turns import shorten
from s2s.text.vocabulary import Tokenizer


class Encoded(NamedTuple):
    """An example, the pair as the task has it, and whether its source was shortened."""

    example: Example
    pair: Pair
    cut: bool


@dataclass(frozen=True)
class Encoder:
    """What a pair becomes; may be copied to another process. copier: of a model that copies."""

    config: Config
    source: Tokenizer
    target: Tokenizer
    keywords: Keywords | None
    copier: Copier | None

    @classmethod
    def of(cls, config: Config, tokenizers: tuple[Tokenizer, Tokenizer], keywords: Keywords | None) -> Encoder:
        """tokenizers: as the task has them, see `for_task`."""
        return cls(config, *tokenizers, keywords, None if config.copy.name == "none" else Copier(*tokenizers))

    def __call__(self, pair: Pair) -> Encoded:
        """The best segmentation of a pair of the corpus. Its pair has the source before it was shortened."""
        pair = self.as_task(pair)
        text, ids, flags = self._shortened(pair.source, self.source.encode(pair.source))
        example = make_example(text, ids, pair.target, self.target.encode(pair.target), self.copier)
        return Encoded(example, pair, bool(flags))

    def sample(self, pair: Pair, alpha: float, seed: int) -> Example:
        """A random segmentation of a pair as the task has it, a function of (pair, alpha, seed) alone."""
        text, ids, _ = self._shortened(pair.source, self.source.sample(pair.source, alpha, seed))
        return make_example(text, ids, pair.target, self.target.sample(pair.target, alpha, seed), self.copier)

    def fits(self, example: Example) -> bool:
        """Whether an example is within the limits of training."""
        limit = self.config.trainer
        return len(example.source) <= limit.max_source and len(example.target) <= limit.max_target

    def as_task(self, pair: Pair) -> Pair:
        """A pair of the corpus as the task has it."""
        if self.keywords is None:
            return pair
        target = to_keyword(pair.target, self.keywords) if self.config.task.reply == "to_keyword" else pair.target
        return pair._replace(source=about(pair.source, self.keywords, self.config.task.topics), target=target)

    def _shortened(self, source: str, ids: Sequence[int]) -> tuple[str, list[int], frozenset[str]]:
        limit = self.config.trainer.max_source
        return shorten(source, ids, self.config.task.overlong, limit, turns(self.config))
