"""The mathematics of attention as pure functions. Shapes as in `s2s.types`; a mask is bool, True = may attend."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from s2s.activations import by_logistic, tanh_
from s2s.kernels import compiled, cpu

# Elements of the (B, T, S, A) tensor of additive attention that are held at once: 64 MB in float32; and in a step of a
# search, where nothing of it is kept, 1 MB, which a processor's cache holds.
_CHUNK, _CACHED = 1 << 24, 1 << 18
# exp(-2 x) = 2^(_POWER x), which is three times as fast; the product of two is within float32 up to an x of _TAME.
_POWER, _TAME = -2 / math.log(2), 20.0


def masked_softmax(energies: Tensor, mask: Tensor) -> Tensor:
    """Softmax over the last axis among the positions that `mask` allows.

    energies: (B, T, S); mask: broadcastable to it, bool. Computed in float32 at least. A row without any allowed
    position gives zeros and zero gradients, never NaN: where there is a gradient, its energies are replaced before the
    softmax; its weights are zeroed after.
    """
    if _one_mask_a_source(energies, mask) and compiled(energies):
        return cpu.softmax(energies, mask)
    hidden = ~mask
    scores = energies.to(torch.promote_types(energies.dtype, torch.float32)).masked_fill(hidden, float("-inf"))
    if scores.requires_grad:
        scores = scores.masked_fill(hidden.all(-1, keepdim=True), 0.0)
        return torch.softmax(scores, -1).masked_fill(hidden, 0.0).to(energies.dtype)
    return torch.softmax(scores, -1).masked_fill_(hidden, 0.0).to(energies.dtype)


def _one_mask_a_source(energies: Tensor, mask: Tensor) -> bool:
    """Whether the mask is (B, 1, ..., S) for energies (B, ..., S), as that of a source is."""
    ends = energies.shape[:1] + energies.shape[-1:]
    same = mask.dim() == energies.dim() and mask.shape[:1] + mask.shape[-1:] == ends
    return same and mask.numel() == ends.numel() > 0 and energies.numel() > 0


def additive_energies_plain(query: Tensor, keys: Tensor, vector: Tensor) -> Tensor:
    """e_ij = v . tanh(q_i + k_j) with the whole (B, T, S, A) tensor in memory: the reference for `additive_energies`.

    query: (B, T, A); keys: (B, S, A); vector: (A,). Returns (B, T, S). Bahdanau et al. 2014, arXiv 1409.0473, A.1.2.
    """
    return torch.tanh(query.unsqueeze(2) + keys.unsqueeze(1)) @ vector


class _AdditiveEnergies(torch.autograd.Function):
    """The same with bounded memory: the tanh tensor is kept if it is small, else recomputed a chunk of T at a time."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, keys: Tensor, vector: Tensor) -> Tensor:
        (batch, steps, size), length = query.shape, keys.size(1)
        chunk = max(1, _CHUNK // max(1, batch * length * size))
        if chunk >= steps:
            activation = tanh_(query.unsqueeze(2) + keys.unsqueeze(1))
            ctx.save_for_backward(query, keys, vector, activation)
            return activation @ vector
        ctx.save_for_backward(query, keys, vector)
        parts = [tanh_(part.unsqueeze(2) + keys.unsqueeze(1)) @ vector for part in torch.split(query, chunk, 1)]
        return torch.cat(parts, 1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        query, keys, vector, *kept = ctx.saved_tensors
        (batch, _, size), length = query.shape, keys.size(1)
        chunk = query.size(1) if kept else max(1, _CHUNK // max(1, batch * length * size))
        d_query, d_keys, d_vector = torch.empty_like(query), None, torch.zeros_like(vector)
        for start in range(0, query.size(1), max(1, chunk)):
            part = slice(start, start + chunk)
            d_energy = gradient[:, part].contiguous()
            activation = kept[0] if kept else tanh_(query[:, part].unsqueeze(2) + keys.unsqueeze(1))
            d_vector += activation.reshape(-1, size).t() @ d_energy.reshape(-1)
            slope = torch.addcmul(vector.expand_as(activation), activation * activation, vector, value=-1.0)
            inner = slope.mul_(d_energy.unsqueeze(-1))
            d_query[:, part] = inner.sum(2)
            over_steps = inner.squeeze(1) if inner.size(1) == 1 else inner.sum(1)
            d_keys = over_steps if d_keys is None else d_keys.add_(over_steps)
        return d_query, torch.zeros_like(keys) if d_keys is None else d_keys, d_vector


def additive_energies(query: Tensor, keys: Tensor, vector: Tensor) -> Tensor:
    """e_ij = v . tanh(q_i + k_j) in bounded memory. Shapes and source as in `additive_energies_plain`."""
    vector, keys = vector.to(query.dtype), keys.to(query.dtype)
    if not torch.is_grad_enabled() and by_logistic(query):
        return _cached_energies(query, keys, vector)
    if query.device.type == "cpu" and torch.is_autocast_enabled("cpu"):  # whose tanh and sums over few numbers are slow
        with torch.autocast("cpu", enabled=False):
            return additive_energies(query.float(), keys.float(), vector.float())
    return _AdditiveEnergies.apply(query, keys, vector)  # type: ignore[no-any-return, no-untyped-call]


def _cached_energies(query: Tensor, keys: Tensor, vector: Tensor) -> Tensor:
    """Energies (B, T, S) without gradient: a few rows or queries at a time through memory that is used again.

    As `tanh_`, with its passes over the (B, T, S, A) tensor folded into those that are made anyway. Several queries of
    a source share its exponentials: sigmoid(2 (q + k)) = 1 / (1 + exp(-2 q) exp(-2 k)).
    """
    (batch, steps, size), length = query.shape, keys.size(1)
    asked = max(1, min(steps, _CACHED // max(1, length * size)))
    rows = max(1, _CACHED // max(1, asked * length * size))
    twice, one = 2 * vector, query.new_ones(())
    shares = steps > 1 and _is_tame(query) and _is_tame(keys)
    queries = (query.mul(_POWER).exp2_() if shares else 2 * query).unsqueeze(2)
    energies = query.new_empty(batch, steps, length)
    scratch = query.new_empty(min(rows, batch), asked, length, size)
    powers = query.new_empty(min(rows, batch) if shares else 0, length, size)
    for start in range(0, batch, rows):
        part = slice(start, start + rows)
        own = keys[part]
        if shares:
            own = torch.mul(own, _POWER, out=powers[: own.size(0)]).exp2_()
        own = own.unsqueeze(1)
        for first in range(0, steps, asked):
            some = queries[part, first : first + asked]
            room = scratch[: some.size(0), : some.size(1)]
            if shares:
                squashed = torch.addcmul(one, some, own, out=room).reciprocal_()
            else:
                squashed = torch.add(some, own, alpha=2, out=room).sigmoid_()
            energies[part, first : first + asked] = squashed @ twice
    return energies.sub_(vector.sum())


def _is_tame(x: Tensor) -> bool:
    if not x.numel():
        return True
    least, most = torch.aminmax(x)
    return bool((least >= -_TAME) & (most <= _TAME))  # not so where there is NaN


def split_heads(x: Tensor, heads: int) -> Tensor:
    """(B, T, H d) to (B, H, T, d): each head takes its slice of the width."""
    if heads == 1:
        return x.unsqueeze(1)
    return x.view(*x.shape[:2], heads, x.size(2) // heads).transpose(1, 2)


def merge_heads(x: Tensor) -> Tensor:
    """(B, H, T, d) to (B, T, H d)."""
    return x.squeeze(1) if x.size(1) == 1 else x.transpose(1, 2).flatten(2)


def lengths_of(mask: Tensor) -> Tensor:
    """How far the real positions of a mask (B, S) reach: (B,) int64, the place after the last; 0 for an empty row."""
    places = torch.arange(1, mask.size(1) + 1, device=mask.device)
    return (mask * places).amax(1) if mask.size(1) else mask.sum(1)
