"""What is added to a plain log-probability to rank outputs of different lengths (Wu et al. 2016, arXiv 1609.08144)."""

from __future__ import annotations

import torch
from torch import Tensor

# Attention to a source position is taken to be at least this much, so that a word never looked at (hard or sparse
# attention gives exact zeros) costs a lot but not infinitely much.
LEAST_COVERAGE = 1e-6


def length_penalty(length: int, alpha: float) -> float:
    """lp(Y) = ((5 + |Y|) / 6) ** alpha, eq. 14; the log-probability is divided by it. `length` counts EOS."""
    return float(((5.0 + length) / 6.0) ** alpha)


def coverage_penalty(coverage: Tensor, beta: float, mask: Tensor | None = None) -> Tensor:
    """cp(X; Y) = beta * sum_i log(min(sum_j p_ij, 1)), eq. 14, never positive; it is added to the score.

    coverage: (N, S) attention that each source position has had so far. mask: (N, S) bool, True = a real token.
    Returns (N,).
    """
    logs = coverage.clamp(LEAST_COVERAGE, 1.0).log()
    if mask is not None:
        logs = logs.masked_fill(~mask, 0.0)
    return beta * logs.sum(1)


def source_mask(lengths: Tensor, width: int) -> Tensor:
    """(N, width) bool, True at the first `lengths` positions of each row. lengths: (N,)."""
    return torch.arange(width, device=lengths.device) < lengths[:, None]
