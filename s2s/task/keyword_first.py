"""Replies that are written around a keyword: backwards from it to the first word, then on to the end (seq2BF)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from s2s.config import SearchConfig
from s2s.errors import UsageError
from s2s.task.generate import Generator, Options
from s2s.task.request import Request
from s2s.task.trained import Trained
from s2s.text.keywords import words
from s2s.text.lines import is_blank
from s2s.types import Result


class KeywordFirst(Generator):
    """Sequence to backward and forward sequences (Mou et al. 2016, arXiv 1607.00970).

    The keyword is the one that goes best with the message by mutual information. A model that was trained with
    task.reply=to_keyword writes from it back to the first word; the others then have that half as the beginning of
    their reply. So the keyword stands in every reply: of the outputs that a search finds, the best one that holds it as
    a word is given, and where none does the first half alone (flag `half`). Requests with a prefix keep their own.
    """

    def __init__(
        self,
        models: Sequence[Trained],
        config: SearchConfig,
        options: Options | None = None,
        rerank: Callable[[Sequence[Result]], list[Result]] | None = None,
        draws: int = 1,
        *,
        backward: Trained,
    ) -> None:
        """Raises UsageError for a backward model that is none, and what `Generator` raises."""
        super().__init__(models, config, options, self._choose, draws)
        if backward.keywords is None or backward.config.task.reply != "to_keyword":
            raise UsageError(
                "this model can't write backwards from a keyword",
                where="--keyword-model",
                expected="one trained with task.reply=to_keyword",
                found=f"task.reply={backward.config.task.reply}",
            )
        self._before, self._known = rerank, backward.keywords
        self._backward = Generator(
            [backward], replace(backward.config.search, nbest=1), Options(self.options.batch_size)
        )
        self._halves: list[tuple[str, str]] = []  # keyword and first half of each record of the window, or blank ones

    def keyword(self, text: str) -> str:
        """What the reply to a context will hold; blank where nothing is known."""
        return next(iter(self._known.best(text.split("\n")[-1], 1)), "")

    def window(self, records: Sequence[Request | str], numbers: Sequence[int]) -> list[Result]:
        """As of any generator."""
        requests = [Request(record) if isinstance(record, str) else record for record in records]
        free = ["" if one.prefix or is_blank(one.text) else self.keyword(one.text) for one in requests]
        asked = [Request(one.text, keyword) for one, keyword in zip(requests, free, strict=True) if keyword]
        written = iter(self._backward(asked))
        self._halves = [(keyword, _half(keyword, next(written).text) if keyword else "") for keyword in free]
        begun = [replace(one, prefix=half or one.prefix) for one, (_, half) in zip(requests, self._halves, strict=True)]
        return super().window(begun, numbers)

    def _choose(self, results: Sequence[Result]) -> list[Result]:
        """The outputs that hold their keyword first; in the order of another rerank, if there is one."""
        ordered = self._before(results) if self._before is not None else results
        return [_holding(one, *half) for one, half in zip(ordered, self._halves, strict=True)]


def _half(keyword: str, written: str) -> str:
    """What a reply begins with: the written words in their order, the keyword at the end."""
    found = written.split()
    return " ".join(reversed(found)) if found and words(found[0]) == [keyword] else keyword


def _holding(result: Result, keyword: str, half: str) -> Result:
    if not keyword or not result.tokens:
        return result
    outputs = sorted(result.nbest or (result,), key=lambda one: keyword not in words(one.text))  # stable
    if keyword not in words(outputs[0].text):
        outputs = [replace(outputs[0], text=half, flags=tuple(sorted({*outputs[0].flags, "half"})))]
    return replace(outputs[0], nbest=tuple(outputs))
