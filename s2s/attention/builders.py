"""One public builder a mechanism: what the files in `conf/attention/` name.

Every builder takes the sizes that are known at run time first (query_size: width of the decoder's query, memory_size:
width of the encoder's states) and its options as keywords. Raises ConfigError for a value out of range.
"""

from __future__ import annotations

import math

from s2s.attention.base import Attention, NoAttention, SoftAttention
from s2s.attention.score import AdditiveScore, DotScore, GeneralScore, LocationScore
from s2s.errors import ConfigError


def _positive(name: str, value: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 1 << 20:
        raise ConfigError(
            f"{name} is out of range", where="attention", expected=f"1 to {1 << 20}, whole", found=repr(value)
        )
    return value


def _probability(name: str, value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not (math.isfinite(value) and 0 <= value < 1):
        raise ConfigError(f"{name} is out of range", where="attention", expected="0 <= value < 1", found=repr(value))
    return float(value)


def _sizes(query_size: int, memory_size: int) -> tuple[int, int]:
    return _positive("query_size", query_size), _positive("memory_size", memory_size)


def none(query_size: int, memory_size: int) -> Attention:
    """No attention: the control that every mechanism is compared with."""
    return NoAttention(_sizes(query_size, memory_size)[1])


def _additive(
    query_size: int, memory_size: int, size: int | None, dropout: float, *, bias: bool, normed: bool
) -> Attention:
    query_size, memory_size = _sizes(query_size, memory_size)
    inner = _positive("size", query_size if size is None else size)
    score = AdditiveScore(query_size, memory_size, inner, bias=bias, normed=normed)
    return SoftAttention(score, memory_size, dropout=_probability("dropout", dropout))


def additive(query_size: int, memory_size: int, *, size: int | None = None, dropout: float = 0.0) -> Attention:
    """Bahdanau et al. 2014 (arXiv 1409.0473). size: width A of the inner layer, by default the query's."""
    return _additive(query_size, memory_size, size, dropout, bias=True, normed=False)


def additive_normed(query_size: int, memory_size: int, *, size: int | None = None, dropout: float = 0.0) -> Attention:
    """Additive with a normalised vector and a learned gain (Raffel et al. 2017, arXiv 1704.00784, eq. 16)."""
    return _additive(query_size, memory_size, size, dropout, bias=True, normed=True)


def concat(query_size: int, memory_size: int, *, size: int | None = None, dropout: float = 0.0) -> Attention:
    """Luong et al. 2015 (arXiv 1508.04025, eq. 8): additive without a bias, its two matrices read as one."""
    return _additive(query_size, memory_size, size, dropout, bias=False, normed=False)


def dot(query_size: int, memory_size: int, *, dropout: float = 0.0) -> Attention:
    """Luong et al. 2015, eq. 8. The query must be as wide as the memory."""
    score = DotScore(*_sizes(query_size, memory_size))
    return SoftAttention(score, memory_size, dropout=_probability("dropout", dropout))


def scaled_dot(query_size: int, memory_size: int, *, dropout: float = 0.0) -> Attention:
    """Dot over the square root of the width (Vaswani et al. 2017, arXiv 1706.03762, eq. 1), unprojected."""
    score = DotScore(*_sizes(query_size, memory_size), scaled=True)
    return SoftAttention(score, memory_size, dropout=_probability("dropout", dropout))


def general(query_size: int, memory_size: int, *, dropout: float = 0.0) -> Attention:
    """Luong et al. 2015, eq. 8: bilinear, so that query and memory may differ in width."""
    score = GeneralScore(*_sizes(query_size, memory_size))
    return SoftAttention(score, memory_size, dropout=_probability("dropout", dropout))


def location(query_size: int, memory_size: int, *, max_source: int = 200, dropout: float = 0.0) -> Attention:
    """Luong et al. 2015, eq. 9. max_source: source tokens that can be attended; those beyond get no mass."""
    query_size, memory_size = _sizes(query_size, memory_size)
    score = LocationScore(query_size, _positive("max_source", max_source))
    return SoftAttention(score, memory_size, dropout=_probability("dropout", dropout))
