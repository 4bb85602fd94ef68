"""Summaries that need no model: what any model has to beat, and what taking words from the source can reach."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence

from s2s.errors import UsageError
from s2s.score.flags import units

NAMES = ("lead", "random", "oracle")


def extracts(
    sources: Sequence[str], references: Sequence[Sequence[str]], words: int, *, seed: int = 1
) -> dict[str, list[str]]:
    """For each source, `words` of its whitespace-separated words in a row: by name of the extract, in order.

    lead: the first ones. random: from anywhere, the same for a seed and a place in the list. oracle: those that share
    most with a reference (unigram F1 without case, the earlier ones first): an upper bound, as it knows the reference.
    references: streams, as many lines each as there are sources. Raises UsageError for fewer than one word.
    """
    if words < 1:
        raise UsageError("an extract has at least one word", where="words", expected="1 or more", found=str(words))
    made: dict[str, list[str]] = {name: [] for name in NAMES}
    for number, (source, *targets) in enumerate(zip(sources, *references, strict=True)):
        given = source.split()
        last = max(0, len(given) - words)
        starts = {
            "lead": 0,
            "random": random.Random(f"{seed}:{number}").randint(0, last),
            "oracle": _best_start(given, targets, words),
        }
        for name, start in starts.items():
            made[name].append(" ".join(given[start : start + words]))
    return made


def _best_start(given: Sequence[str], targets: Sequence[str], words: int) -> int:
    """Where the extract begins that shares most with a target."""
    spelled = [units(word) for word in given]
    wanted = [Counter(units(target)) for target in targets]
    best, found = 0, -1.0
    for start in range(max(1, len(given) - words + 1)):
        own = Counter(unit for word in spelled[start : start + words] for unit in word)
        score = max((_f1(own, one) for one in wanted), default=0.0)
        if score > found:
            best, found = start, score
    return best


def _f1(one: Counter[str], other: Counter[str]) -> float:
    total = one.total() + other.total()
    return 2 * (one & other).total() / total if total else 0.0
