"""Soft attention by one kernel, energies to context, in a step loop and out of it. On a CPU in C, on a GPU in Triton.

In a loop the gradients of keys and values are gathered (`s2s.gather`). The plain versions are the scores, the
normaliser and `s2s.gather.contexts`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from s2s.gather import Gathered, anchored
from s2s.kernels import compiled, count, cpu, usable

FEW = 4  # queries of a source that go through its keys one by one; more are better off with matrix products
LONGEST = 128  # keys; of more, the weights of all queries take much memory


class _DotAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        keys: Tensor,
        values: Tensor,
        mask: Tensor | None,
        scale: float,
        keys_noted: Gathered | None,
        values_noted: Gathered | None,
    ) -> tuple[Tensor, Tensor]:
        query, keys, values = (one if one.stride(-1) == 1 else one.contiguous() for one in (query, keys, values))
        context, weights = cpu.dot_forward(query, keys, values, mask, scale)
        count(2 * weights.numel() * (keys.size(3) + values.size(3)))
        ctx.save_for_backward(query, keys, values, mask, weights)
        ctx.scale, ctx.keys_noted, ctx.values_noted = scale, keys_noted, values_noted
        ctx.set_materialize_grads(False)
        return context, weights

    @staticmethod
    def backward(ctx: Any, d_context: Tensor | None, d_weights: Tensor | None) -> tuple[Tensor | None, ...]:
        query, keys, values, mask, weights = ctx.saved_tensors
        batch, heads, steps, _ = weights.shape
        d_context, d_weights = _made(d_context, values, (batch, steps, heads, values.size(3))), _dense(d_weights)
        d_energies, d_query = cpu.dot_backward(keys, values, mask, weights, d_context, d_weights, ctx.scale)
        count(2 * weights.numel() * (keys.size(3) + values.size(3)))
        d_keys = _product(d_energies, query, ctx.keys_noted)
        d_values = _product(weights, d_context.transpose(1, 2), ctx.values_noted)
        return d_query, d_keys, d_values, None, None, None, None


class _SequenceAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, scale: float, causal: bool
    ) -> tuple[Tensor, Tensor]:
        query, keys, values = (one if one.stride(-1) == 1 else one.contiguous() for one in (query, keys, values))
        context, weights = cpu.sequence_forward(query, keys, values, mask, scale, causal)
        count(2 * weights.numel() * (keys.size(3) + values.size(3)))
        ctx.save_for_backward(query, keys, values, weights)
        ctx.scale = scale
        ctx.set_materialize_grads(False)
        return context, weights

    @staticmethod
    def backward(ctx: Any, d_context: Tensor | None, d_weights: Tensor | None) -> tuple[Tensor | None, ...]:
        query, keys, values, weights = ctx.saved_tensors
        batch, heads, steps, _ = weights.shape
        d_context, d_weights = _made(d_context, values, (batch, steps, heads, values.size(3))), _dense(d_weights)
        count(4 * weights.numel() * (keys.size(3) + values.size(3)))
        found = cpu.sequence_backward(query, keys, values, weights, d_context, d_weights, ctx.scale)
        return *found, None, None, None


class _AdditiveAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        keys: Tensor,
        vector: Tensor,
        mask: Tensor,
        values: Tensor,
        keys_summed: Gathered | None,
        values_noted: Gathered | None,
    ) -> tuple[Tensor, Tensor]:
        query, keys, vector, values = (one.contiguous() for one in (query, keys, vector, values))
        context, weights = cpu.additive_forward(query, keys, vector, mask, values)
        count(2 * weights.numel() * (keys.size(2) + values.size(2)))
        ctx.save_for_backward(query, keys, vector, mask, values, weights)
        ctx.keys_summed, ctx.values_noted = keys_summed, values_noted
        ctx.set_materialize_grads(False)
        return context, weights

    @staticmethod
    def backward(ctx: Any, d_context: Tensor | None, d_weights: Tensor | None) -> tuple[Tensor | None, ...]:
        query, keys, vector, mask, values, weights = ctx.saved_tensors
        d_context = _made(d_context, values, (*weights.shape[:2], values.size(2)))
        d_keys = torch.zeros_like(keys) if ctx.keys_summed is None else ctx.keys_summed.total()
        given = (query, keys, vector, mask, values, weights, d_context, _dense(d_weights))
        d_query, d_vector = cpu.additive_backward(*given, d_keys)
        count(2 * weights.numel() * (keys.size(2) + values.size(2)))
        d_values = _product(weights, d_context, ctx.values_noted)
        return d_query, d_keys if ctx.keys_summed is None else None, d_vector, None, d_values, None, None


def _dense(gradient: Tensor | None) -> Tensor | None:
    return None if gradient is None else gradient.contiguous()


def _made(gradient: Tensor | None, like: Tensor, shape: tuple[int, ...]) -> Tensor:
    """A gradient that may not have been asked for."""
    return like.new_zeros(shape) if gradient is None else gradient.contiguous()


def _product(left: Tensor, right: Tensor, noted: Gathered | None) -> Tensor | None:
    """left^T right, the gradient of a memory; None where it is noted instead."""
    if noted is None:
        return left.transpose(-2, -1) @ right
    noted.note(left, right)
    return None


def dot_attention(
    query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, scale: float, causal: bool = False
) -> tuple[Tensor, Tensor] | None:
    """Context (B, T, H V) and weights (B, H, T, S) = softmax(scale query . keys); None where no kernel does that.

    query (B, H, T, K), keys (B, H, S, K), values (B, H, S, V); mask: (B, S) bool, True = may attend, or None for all; a
    row without any gets zeros. causal: the last T keys are those of the queries, which see none after their own.
    """
    steps, length = query.size(2), keys.size(2)
    few = steps <= FEW and (steps == 1 or not causal)
    if not (few or length <= LONGEST) or not compiled(query, keys, values):
        return None
    mask = None if mask is None else mask.contiguous()
    if few:
        own, keys_noted = anchored(query, keys)
        read, values_noted = anchored(query, values)
        given = (query, own, read, mask, scale, keys_noted, values_noted)
        context, weights = _DotAttention.apply(*given)  # type: ignore[no-untyped-call]
    else:
        context, weights = _SequenceAttention.apply(query, keys, values, mask, scale, causal)  # type: ignore[no-untyped-call]
    return context.flatten(2), weights


def additive_attention(
    query: Tensor, keys: Tensor, vector: Tensor, mask: Tensor, values: Tensor
) -> tuple[Tensor, Tensor]:
    """Context (B, T, V) and weights (B, T, S) = softmax(v . tanh(query + keys)).

    query (B, T, A), keys (B, S, A), vector (A,), values (B, S, V); mask: (B, S) bool, True = may attend; a row without
    any gets zeros.
    """
    if usable(query.device):
        from s2s.kernels.additive import additive_attention as in_triton

        return in_triton(query, keys, vector, mask, values)
    own, keys_summed = anchored(query, keys)
    read, values_noted = anchored(query, values)
    given = (query, own, vector, mask.contiguous(), read, keys_summed, values_noted)
    return _AdditiveAttention.apply(*given)  # type: ignore[no-any-return, no-untyped-call]
