"""How varied the outputs of one system are, whatever they were to say: distinct-n, entropy-n, generic replies.

These depend on how many outputs there are (more outputs repeat more), so they compare on equal inputs only, and samples
of the lines would be biased: they have no intervals and no paired tests.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from s2s import __version__
from s2s.errors import DataError
from s2s.score.flags import units
from s2s.types import Score

DIVERSITY = ("distinct1", "distinct2", "distinct3", "entropy1", "entropy2", "entropy3", "generic")
GENERIC_SHARE = 1 / 200  # of the outputs that are the same, from which on one is generic


def diversity(name: str, outputs: Sequence[str]) -> Score:
    """The score of one of `DIVERSITY`. Words are `s2s.score.flags.units`: of every script, without case or punctuation.

    distinctN: different n-grams in percent of all n-grams of all outputs (Li et al. 2016, arXiv 1510.03055, who divide
    by all words instead). entropyN: of the distribution of all n-grams, in nats (Zhang et al. 2018, arXiv 1809.05972).
    Both are 0 where there is no n-gram. generic: outputs in percent that say the same, punctuation and case aside, as
    at least one in 200, and two; blank ones are the same too. Lower is better for generic alone.
    Raises DataError where there are no outputs.
    """
    if not outputs:
        raise DataError("there is nothing to score", expected="at least one line", found="0 lines")
    words = [tuple(units(text)) for text in outputs]
    kind, order = name.rstrip("123"), int(name[-1]) if name[-1].isdigit() else 0
    if kind == "generic":
        same = Counter(words)
        least = max(2, math.ceil(GENERIC_SHARE * len(outputs)))
        value = 100.0 * sum(count for count in same.values() if count >= least) / len(outputs)
        signature = f"least:1/{round(1 / GENERIC_SHARE)}"
    else:
        grams = Counter(gram for own in words for gram in zip(*(own[k:] for k in range(order)), strict=False))
        total = grams.total()
        if kind == "distinct":
            value, signature = 100.0 * len(grams) / max(1, total), "per:ngrams"
        else:
            value = -math.fsum(count / total * math.log(count / total) for count in grams.values()) + 0.0
            signature = "log:e"
    return Score(
        name,
        value,
        f"lines:{len(outputs)}|{signature}|case:lc|tok:units|version:s2s-{__version__}",
        higher_is_better=kind != "generic",
    )
