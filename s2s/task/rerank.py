"""Which of several outputs is given: by mutual information with the input, and by what is dull in a conversation."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from s2s.errors import ConfigError, UsageError
from s2s.task.likelihood import log_likelihoods
from s2s.task.trained import Trained
from s2s.text.lines import clean
from s2s.types import Result

AVOIDED = frozenset({"generic", "repeated", "unwanted"})  # flags of outputs that are given only for want of others
_NO_WORD = re.compile(r"[\W_]+")


@dataclass(frozen=True)
class Rerank:
    """How the outputs of a search are put into another order; the first one is given.

    Maximum mutual information (Li et al. 2016, arXiv 1510.03055) with models in run or bundle folders: language_model
    gives p(T), a model of outputs alone (section 4.2.1: log p(T|S) - weight log p(T), of the first `first` tokens);
    reverse gives p(S|T), a model from outputs to inputs (4.2.2: (1 - weight) log p(T|S) + weight log p(S|T)). With
    both, the terms are added. length: added for each token of the output (4.5).
    avoid: texts that are given only where there is nothing else, letter case and punctuation aside (generic replies).
    fresh: so are those that the speaker has said before in the context. unwanted: words and phrases, in any letter
    case; so are outputs that hold one, and where there is nothing else it is starred out. draws: samples to choose
    from, where a search samples; else it is the beam.
    """

    language_model: str | None = None
    reverse: str | None = None
    weight: float = 0.5
    first: int = 5
    length: float = 0.0
    avoid: tuple[str, ...] = ()
    fresh: bool = False
    unwanted: tuple[str, ...] = ()
    draws: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.weight <= 1:
            raise ConfigError("out of range", where="--mmi-weight", expected="0 to 1", found=f"{self.weight:g}")
        if self.draws < 1:
            raise ConfigError("out of range", where="--draws", expected="at least 1", found=str(self.draws))
        if self.first < 1:
            raise ConfigError("out of range", where="--mmi-first", expected="at least 1", found=str(self.first))

    def __bool__(self) -> bool:
        """Whether it changes anything."""
        return bool(self.language_model or self.reverse or self.avoid or self.fresh or self.unwanted or self.length)


class Reranker:
    """Puts outputs into the order that a `Rerank` asks for. language_model, reverse: its models, loaded."""

    def __init__(self, asked: Rerank, language_model: Trained | None, reverse: Trained | None) -> None:
        """Raises UsageError for a model that was trained for something else."""
        self._asked, self._language_model, self._reverse = asked, language_model, reverse
        self._avoid = {plain(text) for text in asked.avoid}
        words = sorted(filter(None, map(str.strip, asked.unwanted)), key=len, reverse=True)
        self._unwanted = re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, words))})(?!\w)", re.I) if words else None
        for model, direction in ((language_model, "none"), (reverse, "backward")):
            found = None if model is None else model.config.corpus.options.get("direction")
            if model is not None and found != direction:
                raise UsageError(
                    "this model can't rerank",
                    where="--mmi-lm" if direction == "none" else "--mmi-reverse",
                    expected=f"one trained with corpus.direction={direction}",
                    found=f"corpus.direction={found}",
                )

    def __call__(self, results: Sequence[Result]) -> list[Result]:
        """Each result with its outputs in the new order, by their new scores; those without output stay as they are.

        Outputs that should be avoided have the flag `generic`, `repeated` or `unwanted`.
        """
        candidates = [(result.nbest or (result,)) if result.tokens else () for result in results]
        scores = iter(self._scores([one for own in candidates for one in own]))
        return [
            self._sorted(result, own, scores) if own else result
            for result, own in zip(results, candidates, strict=True)
        ]

    def _sorted(self, result: Result, outputs: Sequence[Result], scores: Iterator[float]) -> Result:
        marked = [
            (self._flags(result.input, one.text), replace(one, score=score))
            for one, score in zip(outputs, scores, strict=False)
        ]
        marked.sort(key=lambda pair: (len(pair[0]), -pair[1].score))
        nbest = tuple(
            replace(one, text=self._starred(one.text), flags=tuple(sorted({*one.flags, *flags})))
            for flags, one in marked
        )
        return replace(nbest[0], nbest=nbest)

    def _flags(self, context: str, text: str) -> set[str]:
        own = plain(text)
        flags = {"generic"} if own in self._avoid else set()
        if self._asked.fresh and own in {plain(turn) for turn in context.split("\n")[-2::-2]}:
            flags.add("repeated")
        if self._unwanted is not None and self._unwanted.search(text):
            flags.add("unwanted")
        return flags

    def _starred(self, text: str) -> str:
        return text if self._unwanted is None else self._unwanted.sub(lambda found: "*" * len(found.group()), text)

    def _scores(self, outputs: Sequence[Result]) -> list[float]:
        asked, weight = self._asked, self._asked.weight
        if not (self._language_model or self._reverse):
            return [one.score + asked.length * len(one.tokens) for one in outputs]
        share = 1 - weight if self._reverse else 1.0
        scores = [share * one.log_prob + asked.length * len(one.tokens) for one in outputs]
        if self._language_model is not None:
            pairs = [("-", one.text) for one in outputs]
            for number, own in enumerate(_likelihoods(self._language_model, pairs)):
                scores[number] -= weight * sum(own[: asked.first])
        if self._reverse is not None:
            pairs = [(one.text, self._reverse.recased(clean(one.input.split("\n")[-1])[0])) for one in outputs]
            for number, own in enumerate(_likelihoods(self._reverse, pairs)):
                scores[number] += weight * sum(own)
        return scores


def _likelihoods(trained: Trained, pairs: Sequence[tuple[str, str]]) -> list[list[float]]:
    """The log-probability of each token of each target; the texts are clean and cased as in training."""
    examples = [trained.example(source, target, "truncate") for source, target in pairs]
    return [own.tolist() for own in log_likelihoods(trained, examples)]


def plain(text: str) -> str:
    """A text without letter case, punctuation and doubled spaces."""
    return _NO_WORD.sub(" ", text.casefold()).strip()
