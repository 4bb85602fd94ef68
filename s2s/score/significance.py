"""Is one system better than another, or was it luck? Paired tests on the same references.

Both tests follow sacrebleu's `PairedTest` (same statistics, same draws, same signatures) except at ties, which count
against a difference: see `s2s.score.resampling.p_value`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from s2s.errors import UsageError
from s2s.score.diversity import DIVERSITY, diversity
from s2s.score.metrics import PLAIN, Scoring, metric_names, statistics
from s2s.score.resampling import SAMPLES, SEED, Statistics, bootstrap, bounds, check_resampling, p_value, randomise

TRIALS = 10_000


@dataclass(frozen=True)
class PairedResult:
    """One system under one metric and one test, against the first system of the list (the baseline).

    score: on the whole corpus. mean, low, high: of the bootstrap samples; None in a randomisation test.
    p_value: of the difference to the baseline, two-sided; None for the baseline itself, and for all under a metric of
    `s2s.score.diversity`.
    """

    test: str  # "bootstrap" or "randomisation"
    metric: str
    system: str
    score: float
    higher_is_better: bool
    p_value: float | None
    signature: str
    mean: float | None = None
    low: float | None = None
    high: float | None = None


def paired_tests(
    systems: Sequence[tuple[str, Sequence[str]]],
    references: Sequence[Sequence[str]],
    names: Sequence[str] = ("bleu",),
    scoring: Scoring = PLAIN,
    *,
    seed: int = SEED,
    samples: int = SAMPLES,
    trials: int = TRIALS,
) -> list[PairedResult]:
    """Paired bootstrap (Koehn 2004) and paired approximate randomisation (Riezler and Maxwell 2005) for each metric.

    systems: (name, lines) of at least two systems; the first is the baseline. references: a list of streams.
    samples: bootstrap samples. trials: random swaps. The same seed gives the same result.
    Returns, for each metric, all systems under bootstrap and then all under randomisation, in the order given. With k
    systems there are k - 1 comparisons: correct for that where many are compared.
    Raises UsageError on fewer than two systems, a repeated system, or an unknown metric; DataError on unequal counts.
    """
    labels = [label for label, _ in systems]
    if len(labels) < 2:
        raise UsageError("a paired test compares systems", expected="at least 2", found=str(len(labels)))
    repeated = sorted({label for label in labels if labels.count(label) > 1})
    if repeated:
        raise UsageError(f"two systems have the same name: {', '.join(repeated)}")
    check_resampling(seed, samples)
    check_resampling(seed, trials)
    results: list[PairedResult] = []
    for name in metric_names(names):
        if name in DIVERSITY:
            results += _untested(name, systems)
            continue
        scored = [(label, statistics(name, lines, references, scoring)) for label, lines in systems]
        results += _bootstrap_test(scored, seed, samples)
        results += _randomisation_test(scored, seed, trials)
    return results


def _bootstrap_test(scored: Sequence[tuple[str, Statistics]], seed: int, samples: int) -> list[PairedResult]:
    drawn = [bootstrap(found, seed=seed, samples=samples) for _, found in scored]
    baseline = scored[0][1]
    results = []
    for (label, found), scores in zip(scored, drawn, strict=True):
        p: float | None = None
        if found is not baseline:
            differences = np.abs(scores - drawn[0])
            # Shifted to the null hypothesis, where no difference is expected.
            p = p_value(differences - differences.mean(), abs(found.value - baseline.value))
        result = _result("bootstrap", label, found, p, {"bs": samples, "seed": seed})
        low, high = bounds(scores)
        results.append(replace(result, mean=float(scores.mean()), low=low, high=high))
    return results


def _randomisation_test(scored: Sequence[tuple[str, Statistics]], seed: int, trials: int) -> list[PairedResult]:
    baseline = scored[0][1]
    results = []
    for label, found in scored:
        p: float | None = None
        if found is not baseline:
            null = randomise(baseline, found, seed=seed, trials=trials)
            p = p_value(null, abs(found.value - baseline.value))
        results.append(_result("randomisation", label, found, p, {"ar": trials, "seed": seed}))
    return results


def _untested(name: str, systems: Sequence[tuple[str, Sequence[str]]]) -> list[PairedResult]:
    """The scores alone, of a metric that can't be resampled."""
    scores = [(label, diversity(name, lines)) for label, lines in systems]
    return [
        PairedResult(test, name, label, score.value, score.higher_is_better, None, score.signature)
        for test in ("bootstrap", "randomisation")
        for label, score in scores
    ]


def _result(test: str, label: str, found: Statistics, p: float | None, settings: dict[str, int]) -> PairedResult:
    signature = found.sign(settings)
    return PairedResult(test, found.metric, label, found.value, found.higher_is_better, p, signature)
