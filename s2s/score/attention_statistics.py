"""How sharp and how monotonic an attention is, from its weights alone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from s2s.score.alignment import Weights, as_matrix


@dataclass(frozen=True)
class AttentionStatistics:
    """Means over a corpus; None where no row or no sentence has a value.

    entropy: nats a target token. relative_entropy: the same as a share of ln S, 0 (one source position) to 1 (uniform).
    monotonicity: a sentence, -1 to 1, see `monotonicity`. rows: target tokens counted. sentences: those with two rows.
    """

    entropy: float | None
    relative_entropy: float | None
    monotonicity: float | None
    rows: int
    sentences: int


def entropy(weights: Weights) -> NDArray[np.float64]:
    """Entropy in nats of each row of weights (T, S), normalised to sum to one. A row without weight gives NaN."""
    matrix = as_matrix(weights)
    total = matrix.sum(1, keepdims=True)
    shares = np.divide(matrix, total, out=np.zeros_like(matrix), where=total > 0)
    logs = np.log(shares, out=np.zeros_like(shares), where=shares > 0)
    found: NDArray[np.float64] = np.maximum(-(shares * logs).sum(1), 0.0)
    found[total[:, 0] <= 0] = np.nan
    return found


def monotonicity(weights: Weights) -> float | None:
    """Kendall's distance turned into a score: 1 if the source position never moves back, -1 if it always does.

    1 - 2 b / n, where n counts all pairs of target positions of weights (T, S), and b those whose later one has its
    largest weight further left in the source; equal positions don't count as moving back (compare Birch and Osborne
    2010). None with fewer than two rows that have weight.
    """
    matrix = as_matrix(weights)
    positions = [int(row.argmax()) for row in matrix if row.any()]
    if len(positions) < 2:
        return None
    back = 0
    seen = np.zeros(matrix.shape[1], dtype=np.int64)  # how many earlier target positions point at each source position
    for position in positions:
        back += int(seen[position + 1 :].sum())
        seen[position] += 1
    return 1 - 2 * back / (len(positions) * (len(positions) - 1) / 2)


def attention_statistics(sentences: Iterable[Weights]) -> AttentionStatistics:
    """Statistics of many weight matrices (T, S); entropies are means over rows, monotonicity over sentences."""
    entropies: list[float] = []
    relative: list[float] = []
    scores: list[float] = []
    for weights in sentences:
        matrix = as_matrix(weights)
        found = entropy(matrix)
        found = found[~np.isnan(found)]
        entropies.extend(found.tolist())
        if matrix.shape[1] > 1:
            relative.extend((found / np.log(matrix.shape[1])).tolist())
        score = monotonicity(matrix)
        if score is not None:
            scores.append(score)
    return AttentionStatistics(_mean(entropies), _mean(relative), _mean(scores), len(entropies), len(scores))


def _mean(values: list[float]) -> float | None:
    return float(np.mean(values)) if values else None
