"""Monotonic attention that looks back from where it stops: MoChA, MILk and their multi-head form."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from s2s.attention.align import Alignment
from s2s.attention.base import Attention, ScoredAttention, scored
from s2s.attention.functional import split_heads
from s2s.attention.keyvalue import KeyValue
from s2s.attention.monotonic import Estimator, MonotonicAlignment
from s2s.attention.multihead import ProjectedQuery
from s2s.attention.options import Options, choice, plain_softmax, whole
from s2s.attention.scan import linear_scan
from s2s.attention.score import Score, ScoreName, make_score
from s2s.errors import ConfigError
from s2s.types import AttentionOutput, Encoded, Memory, State

# An energy of masked positions. Finite, for differences of minus infinity are NaN; exp of it is 0 beside any other.
_LOW = -1e30

_CHUNK = 4

DEFAULT = Options()
MULTIHEAD = Options(heads=4, kv="project")
Kind = Literal["infinite", "hard", "chunk"]


def look_back(stops: Tensor, energies: Tensor, mask: Tensor, window: int | None) -> Tensor:
    """Weights of a softmax over the `window` positions that end where a step stops; None: over all up to there.

    stops: probabilities of stopping, or one 1, (B, H, T, S); energies (B, H, T, S); mask (B, S).
    beta_j = sum_{k=j}^{j+w-1} a_k exp(u_j - lse_k), lse_k = log sum_{l=k-w+1}^{k} exp(u_l): Chiu & Raffel 2018, arXiv
    1712.05382, section 2.3; Arivazhagan et al. 2019, arXiv 1906.05218, section 3. Each exponent is at most 0 as u_j is
    within the sum, so no energy overflows or is cut off.
    """
    if not mask.size(1):
        return stops
    real = mask[:, None, None]
    u = energies.to(stops.dtype).masked_fill(~real, _LOW)
    if window is None:
        sums = torch.logcumsumexp(u, -1)
        decay = F.pad(sums[..., :-1] - sums[..., 1:], (0, 1))
        spread = torch.exp(u - sums) * linear_scan(decay, stops, reverse=True)
    else:
        size = min(window, u.size(-1))
        before = F.pad(u, (size - 1, 0), value=_LOW).unfold(-1, size, 1)  # of each k, the window that ends there
        sums = F.pad(before.logsumexp(-1), (0, size - 1), value=-_LOW)
        after = F.pad(stops, (0, size - 1)).unfold(-1, size, 1)  # of each j, the stops whose windows hold it
        spread = (after * torch.exp(u.unsqueeze(-1) - sums.unfold(-1, size, 1))).sum(-1)
    return spread.masked_fill(~real, 0.0)


class LookingBack(ScoredAttention):
    """A monotonic alignment says where to stop; a second score, on keys of its own, weighs what stands before that."""

    def __init__(
        self,
        score: Score,
        align: Alignment,
        key_value: KeyValue,
        second: Score,
        window: int | None,
        *,
        heads: int,
        dropout: float,
    ) -> None:
        super().__init__(score, align, key_value, heads=heads, dropout=dropout)
        self.second, self.window = second, window

    def make_memory(self, encoded: Encoded) -> Memory:
        """As for every score, with the second score's keys as `extra`."""
        material, values = self.key_value(encoded.states)
        keys, second = self.score.keys(material), self.second.keys(material)
        if self.heads == 1:
            return Memory(keys.squeeze(1), values, encoded.mask, (second.squeeze(1),))
        return Memory(keys, split_heads(values, self.heads).contiguous(), encoded.mask, (second,))

    def attend(self, query: Tensor, memory: Memory, state: State, need_weights: bool) -> AttentionOutput:
        """Attend with query (B, T, Q). In eval mode the stops are hard, and the weights the softmax up to them."""
        energies = self.score(query, self.by_head(memory.keys))
        # a bf16 sum over the stops would lose what the scan keeps
        exact = energies.to(torch.promote_types(energies.dtype, torch.float32))
        stops, state, aux = self.align(exact, memory.mask, state, query)
        weights = look_back(stops, self.second(query, self.by_head(memory.extra[0])), memory.mask, self.window)
        return self.read(weights.to(energies.dtype), memory, state, aux, need_weights)


def _looking_back(
    query_size: int,
    memory_size: int,
    options: Options,
    score: Callable[[int, int], Score],
    align: Alignment,
    window: int | None,
) -> ScoredAttention:
    """Put one together, as `s2s.attention.base.scored`; score: makes each of the two."""
    key_value = KeyValue(options.kv, memory_size, query_size)
    first, second = (score(query_size, key_value.key_size) for _ in range(2))
    return LookingBack(first, align, key_value, second, window, heads=options.heads, dropout=options.dropout)


def mocha(
    query_size: int,
    memory_size: int,
    *,
    score: ScoreName = "additive_normed",
    chunk: int = _CHUNK,
    bias: float = 0.0,
    noise: float = 1.0,
    preserve: bool = True,
    estimator: Estimator = "expected",
    latency_average: float = 0.0,
    options: Options = DEFAULT,
) -> Attention:
    """Monotonic chunkwise attention (Chiu & Raffel 2018, arXiv 1712.05382), exact for any energies.

    chunk: positions w that the second softmax sees, the one it stops at and those before it. The paper takes 2 for
    speech and 8 for summaries; 4 pieces are a phrase of article, adjective and noun, within which two languages differ
    in order. bias, noise, preserve, estimator, latency_average: as in `monotonic`. Raises ConfigError.
    """
    plain_softmax("mocha", options)
    align = MonotonicAlignment(
        options.heads,
        bias=bias,
        noise=noise,
        preserve=preserve,
        estimator=estimator,
        latency_average=latency_average,
    )
    window = whole("chunk", chunk)
    return _looking_back(
        query_size, memory_size, options, lambda q, k: make_score(score, q, k, heads=options.heads), align, window
    )


def milk(
    query_size: int,
    memory_size: int,
    *,
    score: ScoreName = "additive_normed",
    bias: float = 0.0,
    noise: float = 1.0,
    preserve: bool = True,
    estimator: Estimator = "expected",
    latency_average: float = 0.0,
    options: Options = DEFAULT,
) -> Attention:
    """Monotonic infinite lookback (Arivazhagan et al. 2019, arXiv 1906.05218): all that was read is attended to.

    bias, noise, preserve, estimator, latency_average: as in `monotonic`. Raises ConfigError.
    """
    plain_softmax("milk", options)
    align = MonotonicAlignment(
        options.heads,
        bias=bias,
        noise=noise,
        preserve=preserve,
        estimator=estimator,
        latency_average=latency_average,
    )
    return _looking_back(
        query_size, memory_size, options, lambda q, k: make_score(score, q, k, heads=options.heads), align, None
    )


def mma(
    query_size: int,
    memory_size: int,
    *,
    kind: Kind = "infinite",
    score: ScoreName = "scaled_dot",
    chunk: int = _CHUNK,
    bias: float = 0.0,
    noise: float = 1.0,
    preserve: bool = True,
    estimator: Estimator = "expected",
    latency_average: float = 0.0,
    latency_variance: float = 0.0,
    options: Options = MULTIHEAD,
) -> Attention:
    """Monotonic multihead attention (Ma et al. 2020, arXiv 1909.12406): each head stops where it likes.

    Queries are projected, as keys and values are with kv=project. kind: infinite (MMA-IL), hard (MMA-H) or chunk, with
    `chunk` positions. latency_average, latency_variance: weights of losses on the heads' delays, see
    `s2s.attention.monotonic.delay_loss`; 0 is off (the paper tries 0.1 and more). The rest as in `monotonic`. Raises
    ConfigError.
    """
    plain_softmax("mma", options)
    choice("kind", kind, ("infinite", "hard", "chunk"))
    if kind != "chunk" and whole("chunk", chunk) != _CHUNK:
        raise ConfigError(
            "chunk has a meaning only with kind=chunk",
            where="attention.chunk",
            expected=f"{_CHUNK}, or attention.kind=chunk",
            found=f"{chunk} with kind={kind}",
        )
    align = MonotonicAlignment(
        options.heads,
        bias=bias,
        noise=noise,
        preserve=preserve,
        estimator=estimator,
        latency_average=latency_average,
        latency_variance=latency_variance,
    )

    def projected(query_size: int, key_size: int) -> Score:
        return ProjectedQuery(make_score(score, query_size, key_size, heads=options.heads), query_size)

    if kind == "hard":
        return scored(query_size, memory_size, options, projected, align)
    window = None if kind == "infinite" else chunk
    return _looking_back(query_size, memory_size, options, projected, align, window)
