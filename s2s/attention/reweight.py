"""Attention whose weights are scaled by what each source position weighs by itself."""

from __future__ import annotations

import torch
from torch import Tensor

from s2s.attention.base import Attention, ScoredAttention
from s2s.errors import ConfigError, UsageError
from s2s.types import AttentionOutput, Encoded, Memory, State


class Reweighted(Attention):
    """w_tj = a_tj p_j / sum_k a_tk p_k, scaled to the sum of a_t: Nallapati et al. 2016, arXiv 1602.06023, section 2.4.

    a is the attention's own, p_j = `Encoded.prior`, the weight of the sentence that position j stands in. State and
    losses are those of the attention.
    """

    def __init__(self, inner: Attention) -> None:
        super().__init__()
        if not isinstance(inner, ScoredAttention) or inner.heads > 1:
            raise ConfigError(
                "weights of sentences scale the weights of one head",
                where="model.hierarchical",
                expected="an attention that scores positions, with attention.heads=1",
                found=f"{inner.heads} heads" if isinstance(inner, ScoredAttention) else type(inner).__name__,
                hint="take attention=additive, or model.hierarchical=false",
            )
        self.inner = inner
        self.memory_size, self.sums_to_one = inner.memory_size, inner.sums_to_one

    def make_memory(self, encoded: Encoded) -> Memory:
        """The attention's own, and p as the last of `extra`."""
        if encoded.prior is None:
            raise UsageError("the source has no weights of sentences", where="attention", expected="Encoded.prior")
        memory = self.inner.make_memory(encoded)
        return memory._replace(extra=(*memory.extra, encoded.prior))

    def initial_state(self, memory: Memory) -> State:
        """The attention's own."""
        return self.inner.initial_state(memory._replace(extra=memory.extra[:-1]))

    def attend(self, query: Tensor, memory: Memory, state: State, need_weights: bool) -> AttentionOutput:
        """Attend with query (B, T, Q): context (B, T, V), weights (B, T, S)."""
        *extra, prior = memory.extra
        output = self.inner.attend(query, memory._replace(extra=tuple(extra)), state, True)
        assert output.weights is not None
        own = output.weights.to(torch.promote_types(output.weights.dtype, torch.float32))
        scaled = own * prior.unsqueeze(1)
        least = torch.finfo(scaled.dtype).tiny
        weights = (scaled * (own.sum(-1, True) / scaled.sum(-1, True).clamp_min(least))).to(memory.values.dtype)
        context = torch.bmm(self.inner.dropout(weights), memory.values)
        return output._replace(context=context, weights=weights if need_weights else None)

    def output_size(self, query_size: int) -> int:
        """The attention's own."""
        return self.inner.output_size(query_size)

    def output_part(self, state: Tensor) -> Tensor:
        """The attention's own."""
        return self.inner.output_part(state)

    def loss(self, aux: dict[str, Tensor], log_prob: Tensor) -> Tensor | None:
        """The attention's own."""
        return self.inner.loss(aux, log_prob)
