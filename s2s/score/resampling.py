"""Sufficient statistics of a scored corpus, and resampling of them: bootstrap intervals and paired tests.

The draws are those of sacrebleu's own `significance` module (numpy's default generator, in the same order), so numbers
agree with it. They are drawn and summed in pieces, so memory grows with the lines, not with lines times samples.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from s2s.errors import UsageError

SEED = 12345  # sacrebleu's own default
SAMPLES = 1000
MIN_SAMPLES = 40  # below, one sample is more than the 2.5 % that are cut off at each end
_TRIALS_AT_ONCE = 256  # a multiple of 32: numpy draws booleans 32 at a time, so pieces continue one stream

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Statistics:
    """What a metric keeps of each line, so that any sum over lines can be scored.

    metric: its name. rows: (N, K), one row a line. score: sums (K,) -> the corpus score of those lines.
    sign: settings of a resampling (bs, ar, seed) -> the signature string. value: the score of all lines.
    """

    metric: str
    rows: Array
    score: Callable[[Array], float]
    sign: Callable[[Mapping[str, int]], str]
    value: float
    higher_is_better: bool = True
    details: dict[str, float] = field(default_factory=dict)


def check_resampling(seed: int, samples: int) -> None:
    """Refuse settings that no resampling can use.

    Raises UsageError where the seed is negative or there are fewer than 40 samples.
    """
    if seed < 0:
        raise UsageError("a seed is not negative", where="seed", expected="an integer >= 0", found=str(seed))
    if samples < MIN_SAMPLES:
        raise UsageError(
            "too few samples for a 95 % interval or a p-value",
            where="samples",
            expected=f"at least {MIN_SAMPLES}",
            found=str(samples),
        )


def bootstrap(statistics: Statistics, *, seed: int, samples: int) -> Array:
    """Scores (samples,) of corpora of the same size drawn with replacement (Koehn 2004).

    The draws depend on the seed and the number of lines alone, so two systems scored on the same references are
    resampled in pairs.
    """
    rng = np.random.default_rng(seed)
    lines = len(statistics.rows)
    scores = np.empty(samples)
    for sample in range(samples):
        counts = np.bincount(rng.choice(lines, size=lines, replace=True), minlength=lines)
        scores[sample] = statistics.score(counts @ statistics.rows)
    return scores


def bounds(scores: Array) -> tuple[float, float]:
    """The 95 % percentile interval of resampled scores: one fortieth is cut off at each end."""
    ordered = np.sort(scores)
    cut = len(ordered) // 40
    return float(ordered[cut]), float(ordered[-cut - 1])


def randomise(first: Statistics, second: Statistics, *, seed: int, trials: int) -> Array:
    """Absolute score differences (trials,) after swapping a random half of the lines between two systems.

    The null distribution of approximate randomisation (Riezler and Maxwell 2005, section 3).
    """
    rng = np.random.default_rng(seed)
    change = second.rows - first.rows  # (N, K)
    total_first, total_second = first.rows.sum(0), second.rows.sum(0)
    differences = np.empty(trials)
    for start in range(0, trials, _TRIALS_AT_ONCE):
        at_once = min(_TRIALS_AT_ONCE, trials - start)
        swapped = rng.integers(2, size=(at_once, len(change)), dtype=bool).astype(np.float64) @ change
        for row, moved in enumerate(swapped):
            differences[start + row] = abs(first.score(total_first + moved) - second.score(total_second - moved))
    return differences


def p_value(null: Array, observed: float) -> float:
    """The share of null statistics at least as large as the observed one, plus one for the observation itself.

    Ties count as not less (Noreen 1989; Riezler and Maxwell 2005), where sacrebleu's `>` gives two identical systems
    p = 1/(samples + 1), and two systems that differ in a single line the same in approximate randomisation.
    """
    tolerance = 1e-9  # equal but for rounding
    return float((np.sum(null >= observed - tolerance) + 1) / (len(null) + 1))
