"""Additive attention in one pass: energies, masked softmax and context, without the (B, T, S, A) tensor in memory.

Bahdanau et al. 2014, arXiv 1409.0473, A.1.2: e_ts = v . tanh(q_t + k_s), w = softmax(e), c_t = sum_s w_ts h_s. The
backward pass takes the tanh anew. Of one step (T = 1) with B = 128, S = 32, A = 512 in float32 the plain version writes
and reads that tensor of 8 MB some five times forward and backward; here keys (8 MB) are read once each way.

A program of the forward and of the query's backward kernel has one (b, t); one of the keys' backward kernel has a block
of S and walks over T. Nothing is added atomically, so results don't depend on which program comes first.
"""

# mypy: ignore-errors
# ruff: noqa: N803

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from s2s.kernels.common import tanh


@triton.jit
def _block(rows, b, s, S, a, A, ACC: tl.constexpr):
    """Rows s and columns a of source b in a tensor (B, S, A); 0 beyond its ends."""
    inside = (s < S)[:, None] & (a < A)[None, :]
    return tl.load(rows + (b * S + s[:, None]) * A + a[None, :], mask=inside, other=0.0).to(ACC)


@triton.jit
def _forward(
    query, keys, vector, mask, values, context, weights, T, S, A, V,
    ACC: tl.constexpr, BS: tl.constexpr, BA: tl.constexpr, BV: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0)
    b = row // T
    lanes = tl.arange(0, BS)
    highest = tl.full((), float("-inf"), ACC)
    for start in range(0, S, BS):  # energies, kept where the weights will stand, and their maximum
        s = start + lanes
        real = (s < S) & (tl.load(mask + b * S + s, mask=s < S, other=0) != 0)
        energy = tl.zeros((BS,), ACC)
        for first in range(0, A, BA):
            a = first + tl.arange(0, BA)
            q = tl.load(query + row * A + a, mask=a < A, other=0.0).to(ACC)
            v = tl.load(vector + a, mask=a < A, other=0.0).to(ACC)
            energy += tl.sum(v[None, :] * tanh(q[None, :] + _block(keys, b, s, S, a, A, ACC)), 1)
        energy = tl.where(real, energy, float("-inf"))
        tl.store(weights + row * S + s, energy, mask=s < S)
        highest = tl.maximum(highest, tl.max(energy, 0))
    tl.debug_barrier()  # what one thread of the program has stored another may load
    shift = tl.where(highest == float("-inf"), 0.0, highest)
    total = tl.zeros((), ACC)
    for start in range(0, S, BS):
        s = start + lanes
        energy = tl.load(weights + row * S + s, mask=s < S, other=float("-inf"))
        total += tl.sum(tl.exp(energy - shift), 0)
    scale = tl.where(total > 0.0, 1.0 / tl.where(total > 0.0, total, 1.0), 0.0)  # a masked row gets zeros
    for start in range(0, S, BS):
        s = start + lanes
        energy = tl.load(weights + row * S + s, mask=s < S, other=float("-inf"))
        tl.store(weights + row * S + s, tl.exp(energy - shift) * scale, mask=s < S)
    tl.debug_barrier()
    for first in range(0, V, BV):
        d = first + tl.arange(0, BV)
        found = tl.zeros((BV,), ACC)
        for start in range(0, S, BS):
            s = start + lanes
            w = tl.load(weights + row * S + s, mask=s < S, other=0.0)
            found += tl.sum(w[:, None] * _block(values, b, s, S, d, V, ACC), 0)
        tl.store(context + row * V + d, found, mask=d < V)


@triton.jit
def _backward_query(
    query, keys, vector, weights, d_weights, d_energy, d_query, d_vector, T, S, A,
    ACC: tl.constexpr, BS: tl.constexpr, BA: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0)
    b = row // T
    lanes = tl.arange(0, BS)
    mean = tl.zeros((), ACC)
    for start in range(0, S, BS):
        s = start + lanes
        w = tl.load(weights + row * S + s, mask=s < S, other=0.0)
        mean += tl.sum(w * tl.load(d_weights + row * S + s, mask=s < S, other=0.0), 0)
    for start in range(0, S, BS):  # through the softmax
        s = start + lanes
        w = tl.load(weights + row * S + s, mask=s < S, other=0.0)
        d = tl.load(d_weights + row * S + s, mask=s < S, other=0.0)
        tl.store(d_energy + row * S + s, w * (d - mean), mask=s < S)
    tl.debug_barrier()
    for first in range(0, A, BA):
        a = first + tl.arange(0, BA)
        q = tl.load(query + row * A + a, mask=a < A, other=0.0).to(ACC)
        v = tl.load(vector + a, mask=a < A, other=0.0).to(ACC)
        to_query = tl.zeros((BA,), ACC)
        to_vector = tl.zeros((BA,), ACC)
        for start in range(0, S, BS):
            s = start + lanes
            e = tl.load(d_energy + row * S + s, mask=s < S, other=0.0)
            squashed = tanh(q[None, :] + _block(keys, b, s, S, a, A, ACC))
            to_query += tl.sum(e[:, None] * (1.0 - squashed * squashed), 0)
            to_vector += tl.sum(e[:, None] * squashed, 0)
        tl.store(d_query + row * A + a, to_query * v, mask=a < A)
        tl.store(d_vector + row * A + a, to_vector, mask=a < A)


@triton.jit
def _backward_keys(
    query, keys, vector, d_energy, d_keys, T, S, A, ACC: tl.constexpr, BS: tl.constexpr, BA: tl.constexpr
):
    b = tl.program_id(0)
    s = tl.program_id(1) * BS + tl.arange(0, BS)
    a = tl.program_id(2) * BA + tl.arange(0, BA)
    inside = (s < S)[:, None] & (a < A)[None, :]
    v = tl.load(vector + a, mask=a < A, other=0.0).to(ACC)
    k = _block(keys, b, s, S, a, A, ACC)
    found = tl.zeros((BS, BA), ACC)
    for t in range(0, T):
        row = b * T + t
        q = tl.load(query + row * A + a, mask=a < A, other=0.0).to(ACC)
        e = tl.load(d_energy + row * S + s, mask=s < S, other=0.0)
        squashed = tanh(q[None, :] + k)
        found += e[:, None] * (1.0 - squashed * squashed)
    tl.store(d_keys + (b * S + s[:, None]) * A + a[None, :], found * v[None, :], mask=inside)


def _blocks(length: int, size: int) -> dict[str, Any]:
    """Block sizes for a source of `length` and an inner width of `size`."""
    return {
        "BS": min(32, max(16, triton.next_power_of_2(length))),
        "BA": min(128, max(16, triton.next_power_of_2(size))),
    }


class _Additive(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, query: Tensor, keys: Tensor, vector: Tensor, mask: Tensor, values: Tensor
    ) -> tuple[Tensor, Tensor]:
        query, keys, values = query.contiguous(), keys.contiguous(), values.contiguous()
        vector, mask = vector.contiguous(), mask.contiguous()
        (batch, steps, size), length, width = query.shape, keys.size(1), values.size(2)
        exact = torch.promote_types(query.dtype, torch.float32)
        ctx.acc = tl.float64 if exact == torch.float64 else tl.float32
        ctx.blocks = _blocks(length, size)
        weights = query.new_empty(batch, steps, length, dtype=exact)
        context = values.new_empty(batch, steps, width)
        if context.numel() or weights.numel():
            _forward[(batch * steps,)](
                query, keys, vector, mask.view(torch.uint8), values, context, weights, steps, length, size, width,
                ACC=ctx.acc, BV=min(128, max(16, triton.next_power_of_2(width))), **ctx.blocks,
            )  # fmt: skip
        ctx.save_for_backward(query, keys, vector, values, weights)
        return context, weights.to(query.dtype)

    @staticmethod
    def backward(ctx: Any, d_context: Tensor, d_weights: Tensor) -> tuple[Tensor | None, ...]:
        query, keys, vector, values, weights = ctx.saved_tensors
        (batch, steps, size), length = query.shape, keys.size(1)
        d_weights = d_weights.to(weights.dtype)
        d_weights = torch.baddbmm(d_weights, d_context.to(weights.dtype), values.to(weights.dtype).transpose(1, 2))
        d_values = torch.bmm(weights.to(d_context.dtype).transpose(1, 2), d_context)
        d_energy, d_query = torch.empty_like(weights), query.new_empty(query.shape)
        d_vector = query.new_empty(batch * steps, size, dtype=weights.dtype)
        d_keys = keys.new_empty(keys.shape)
        _backward_query[(batch * steps,)](
            query, keys, vector, weights, d_weights.contiguous(), d_energy, d_query, d_vector, steps, length, size,
            ACC=ctx.acc, **ctx.blocks,
        )  # fmt: skip
        grid = (batch, triton.cdiv(length, ctx.blocks["BS"]), triton.cdiv(size, ctx.blocks["BA"]))
        _backward_keys[grid](query, keys, vector, d_energy, d_keys, steps, length, size, ACC=ctx.acc, **ctx.blocks)
        return d_query, d_keys, d_vector.sum(0).to(vector.dtype), None, d_values.to(values.dtype)


def additive_attention(
    query: Tensor, keys: Tensor, vector: Tensor, mask: Tensor, values: Tensor
) -> tuple[Tensor, Tensor]:
    """Context (B, T, V) and weights (B, T, S) of query (B, T, A), keys (B, S, A), vector (A,), values (B, S, V).

    mask: (B, S) bool, True = may attend; a row without any gets zeros. The softmax is taken in float32 at least.
    """
    context, weights = _Additive.apply(query, keys, vector, mask, values)
    return context, weights
