"""Soft attention over the whole source: one public builder a mechanism, as the files in `conf/attention/` name them.

Every builder, here and in the other modules of this room, takes the sizes that are known at run time first (query_size:
width of the decoder's query, memory_size: width of the encoder's states) and its options as keywords; what it shares
with others is in `Options`. Raises ConfigError for a value out of range.
"""

from __future__ import annotations

from s2s.attention.base import Attention, NoAttention, ScoredAttention, scored
from s2s.attention.options import Options, whole
from s2s.attention.score import LocationScore, ScoreName, make_score
from s2s.errors import ConfigError

DEFAULT = Options()


def none(query_size: int, memory_size: int) -> Attention:
    """No attention: the control that every mechanism is compared with."""
    return NoAttention(memory_size)


def soft(name: ScoreName, query_size: int, memory_size: int, size: int | None, options: Options) -> ScoredAttention:
    """Soft attention with a score by name. size: of the inner layer of additive scores, None for the query's width."""
    if size is not None:
        whole("size", size)
    return scored(query_size, memory_size, options, lambda q, k: make_score(name, q, k, size=size, heads=options.heads))


def additive(query_size: int, memory_size: int, *, size: int | None = None, options: Options = DEFAULT) -> Attention:
    """Bahdanau et al. 2014 (arXiv 1409.0473). size: width A of the inner layer, by default the query's."""
    return soft("additive", query_size, memory_size, size, options)


def additive_normed(
    query_size: int, memory_size: int, *, size: int | None = None, options: Options = DEFAULT
) -> Attention:
    """Additive with a normalised vector and a learned gain (Raffel et al. 2017, arXiv 1704.00784, eq. 16)."""
    return soft("additive_normed", query_size, memory_size, size, options)


def concat(query_size: int, memory_size: int, *, size: int | None = None, options: Options = DEFAULT) -> Attention:
    """Luong et al. 2015 (arXiv 1508.04025, eq. 8): additive without a bias, its two matrices read as one."""
    return soft("concat", query_size, memory_size, size, options)


def dot(query_size: int, memory_size: int, *, options: Options = DEFAULT) -> Attention:
    """Luong et al. 2015, eq. 8. The query must be as wide as the keys."""
    return soft("dot", query_size, memory_size, None, options)


def scaled_dot(query_size: int, memory_size: int, *, options: Options = DEFAULT) -> Attention:
    """Dot over the square root of the width (Vaswani et al. 2017, arXiv 1706.03762, eq. 1), unprojected."""
    return soft("scaled_dot", query_size, memory_size, None, options)


def general(query_size: int, memory_size: int, *, options: Options = DEFAULT) -> Attention:
    """Luong et al. 2015, eq. 8: bilinear, so that query and memory may differ in width."""
    return soft("general", query_size, memory_size, None, options)


def location(query_size: int, memory_size: int, *, max_source: int = 200, options: Options = DEFAULT) -> Attention:
    """Luong et al. 2015, eq. 9. max_source: source tokens that can be attended; those beyond get no mass.

    Raises ConfigError for several heads: there are no keys that they could share.
    """
    whole("max_source", max_source)
    if options.heads > 1:
        raise ConfigError(
            "attention=location looks at positions only and has nothing to share between heads",
            where="attention.heads",
            expected="1",
            found=str(options.heads),
            hint="Take attention=general for several heads",
        )
    return scored(query_size, memory_size, options, lambda q, _: LocationScore(q, max_source))
