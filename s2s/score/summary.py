"""What summaries are like beside their scores: how much is copied, new, repeated, or not to be found in the source."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from s2s.score.flags import units

ORDERS = (1, 2, 3)
# Numbers, and words with a capital inside or at the front that don't begin a sentence.
_NUMBER = re.compile(r"\d+(?:[.,:]\d+)*")
_NAME = re.compile(r"(?<![.!?:;]\s)(?<!^)\b[^\W\d_]*[A-ZÀ-ÖØ-Þ][\w+.-]*\w\b")


@dataclass(frozen=True)
class SummaryStatistics:
    """Of all summaries together; shares are between 0 and 1, and None where there is nothing to take one of.

    novel: for n = 1, 2, 3 the share of n-grams of words that don't stand in the source (See et al. 2017, section 5).
    copied: share of words that stand in runs of three or more taken from the source as they are.
    compression: words of the sources over words of the summaries. repeated: share of bigrams that stood in the same
    summary before. unsupported: share of summaries with a number or name that the source lacks, see `unsupported`.
    """

    novel: dict[int, float | None]
    copied: float | None
    compression: float | None
    repeated: float | None
    unsupported: float | None


def summary_statistics(sources: Sequence[str], outputs: Sequence[str]) -> SummaryStatistics:
    """The statistics of outputs, each with its source. Words are those of `s2s.score.flags.units`, without case."""
    new, all_grams = dict.fromkeys(ORDERS, 0), dict.fromkeys(ORDERS, 0)
    copied = words = source_words = repeats = bigrams = 0
    for source, output in zip(sources, outputs, strict=True):
        read, written = units(source), units(output)
        source_words += len(read)
        words += len(written)
        for order in ORDERS:
            known = set(_grams(read, order))
            made = _grams(written, order)
            all_grams[order] += len(made)
            new[order] += sum(gram not in known for gram in made)
        copied += _in_runs(read, written)
        pairs = _grams(written, 2)
        bigrams += len(pairs)
        repeats += len(pairs) - len(set(pairs))
    wrong = sum(bool(unsupported(source, output)) for source, output in zip(sources, outputs, strict=True))
    return SummaryStatistics(
        {order: _share(new[order], all_grams[order]) for order in ORDERS},
        _share(copied, words),
        _share(source_words, words),
        _share(repeats, bigrams),
        _share(wrong, len(outputs)),
    )


def unsupported(source: str, output: str) -> list[str]:
    """Numbers and names of the output that the source doesn't hold, in order: what is likely to be made up.

    A name is a word with a capital letter that doesn't begin the text or a sentence. Case is ignored in the source.
    Missed: names in scripts without capitals, in lower-cased text, and at the beginning. A heuristic: an abbreviation
    that is formed from the source ("World Wide Web", "WWW") is flagged.
    """
    known = set(units(source))
    numbers = set(_NUMBER.findall(source))
    found = [match.group() for match in _NUMBER.finditer(output) if match.group() not in numbers]
    for match in _NAME.finditer(output):
        word = match.group()
        if not any(letter.isdigit() for letter in word) and not set(units(word)) <= known:
            found.append(word)
    return sorted(dict.fromkeys(found), key=output.index)


def _grams(words: Sequence[str], order: int) -> list[tuple[str, ...]]:
    return list(zip(*(words[start:] for start in range(order)), strict=False))


def _in_runs(read: Sequence[str], written: Sequence[str], shortest: int = 3) -> int:
    """How many words stand in some run of `shortest` words that the source has too."""
    known = set(_grams(read, shortest))
    covered = {
        start + place
        for start, gram in enumerate(_grams(written, shortest))
        if gram in known
        for place in range(shortest)
    }
    return len(covered)


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
