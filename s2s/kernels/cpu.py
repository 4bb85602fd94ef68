"""Fused versions for a CPU, in C: what each takes and gives.

Tensors are float32 on a CPU (`s2s.kernels.compiled`), and contiguous unless it says otherwise.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from s2s.kernels.build import library

_PARTS = 16  # as in c/common.h
_KINDS = {torch.float32, torch.bool, torch.int64, torch.int16}  # the last one for the bits of bfloat16


@functools.cache
def _function(name: str, tensors: int, sizes: int, scales: int) -> Callable[..., None]:
    """A function of the library that takes so many arrays, sizes and real numbers, and the number of threads."""
    found = getattr(library(), name)
    found.restype = None
    kinds = ((ctypes.c_void_p, tensors), (ctypes.c_int64, sizes), (ctypes.c_float, scales), (ctypes.c_int, 1))
    found.argtypes = [kind for kind, times in kinds for _ in range(times)]
    return found  # type: ignore[no-any-return]


def _run(name: str, tensors: tuple[Tensor | None, ...], sizes: tuple[int, ...], *scales: float) -> None:
    arrays = []
    for tensor in tensors:
        if tensor is not None and tensor.dtype not in _KINDS:  # it would be read as what it isn't
            raise TypeError(f"{name} takes no {tensor.dtype}")
        arrays.append(None if tensor is None else tensor.data_ptr())
    function = _function(name, len(tensors), len(sizes), len(scales))
    function(*arrays, *sizes, *scales, torch.get_num_threads())


def _fit(*given: tuple[Tensor | None, tuple[int, ...]]) -> None:
    """Raises ValueError for a tensor of another shape: a kernel would read what isn't there."""
    for tensor, shape in given:
        if tensor is not None and tensor.shape != shape:
            raise ValueError(f"a kernel was given {tuple(tensor.shape)}, and expected {shape}")


def tanh_into(x: Tensor, y: Tensor) -> Tensor:
    """y = tanh(x) of contiguous tensors, which may be the same."""
    _run("tanh_forward", (x, y), (x.numel(),))
    return y


class _Tanh(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        x = x.contiguous()
        y = tanh_into(x, torch.empty_like(x))
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, d_y: Tensor) -> Tensor:
        (y,) = ctx.saved_tensors
        d_y, d_x = d_y.contiguous(), torch.empty_like(y)
        _run("tanh_backward", (y, d_y, d_x), (y.numel(),))
        return d_x


def tanh(x: Tensor) -> Tensor:
    """tanh with a gradient."""
    return _Tanh.apply(x)  # type: ignore[no-any-return, no-untyped-call]


class _Gates(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gates: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
        _fit((gates, (cell.size(0), 4 * cell.size(1))))
        gates, cell = gates.contiguous(), cell.contiguous()
        activated, hidden, following = torch.empty_like(gates), torch.empty_like(cell), torch.empty_like(cell)
        _run("lstm_forward", (gates, cell, activated, hidden, following), (cell.size(0), cell.size(1)))
        ctx.save_for_backward(activated, cell, following)
        return hidden, following

    @staticmethod
    def backward(ctx: Any, d_hidden: Tensor, d_following: Tensor) -> tuple[Tensor, Tensor]:
        activated, cell, following = ctx.saved_tensors
        d_gates, d_cell = torch.empty_like(activated), torch.empty_like(cell)
        given = (activated, cell, following, d_hidden.contiguous(), d_following.contiguous(), d_gates, d_cell)
        _run("lstm_backward", given, (cell.size(0), cell.size(1)))
        return d_gates, d_cell


def lstm_gates(gates: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
    """The next (h, c), each (B, H), of gates (B, 4H) before their activation and cell (B, H)."""
    return _Gates.apply(gates, cell)  # type: ignore[no-any-return, no-untyped-call]


class _Softmax(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, energies: Tensor, mask: Tensor) -> Tensor:
        energies, weights = energies.contiguous(), torch.empty_like(energies, memory_format=torch.contiguous_format)
        length = energies.size(-1)
        rows = energies.numel() // length
        sharing = rows // (mask.numel() // length)
        _run("softmax_forward", (energies, mask.contiguous(), weights), (rows, length, sharing))
        ctx.save_for_backward(weights)
        return weights

    @staticmethod
    def backward(ctx: Any, d_weights: Tensor) -> tuple[Tensor, None]:
        (weights,) = ctx.saved_tensors
        length, d_energies = weights.size(-1), torch.empty_like(weights)
        _run("softmax_backward", (weights, d_weights.contiguous(), d_energies), (weights.numel() // length, length))
        return d_energies, None


def softmax(energies: Tensor, mask: Tensor) -> Tensor:
    """Softmax of energies (B, ..., S) among the positions of mask (B, 1, ..., S) bool; zeros where there is none."""
    return _Softmax.apply(energies, mask)  # type: ignore[no-any-return, no-untyped-call]


def _strides(tensor: Tensor) -> tuple[int, int, int]:
    return tensor.stride()[:3]  # type: ignore[return-value]


def dot_forward(
    query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, scale: float
) -> tuple[Tensor, Tensor]:
    """Context (B, T, H, V) and weights (B, H, T, S) of query (B, H, T, K), keys (B, H, S, K), values (B, H, S, V).

    Weights are softmax(scale query . keys). mask: contiguous (B, S) bool, None for all. The last axis of the others is
    contiguous.
    """
    (batch, heads, steps, size), length, width = query.shape, keys.size(2), values.size(3)
    _fit((keys, (batch, heads, length, size)), (values, (batch, heads, length, width)), (mask, (batch, length)))
    context, weights = query.new_empty(batch, steps, heads, width), query.new_empty(batch, heads, steps, length)
    sizes = (*_strides(query), *_strides(keys), *_strides(values), batch, heads, steps, length, size, width)
    _run("dot_forward", (query, keys, values, mask, context, weights), sizes, scale)
    return context, weights


def dot_backward(
    keys: Tensor,
    values: Tensor,
    mask: Tensor | None,
    weights: Tensor,
    d_context: Tensor,
    d_weights: Tensor | None,
    scale: float,
) -> tuple[Tensor, Tensor]:
    """Gradients of query . keys (B, H, T, S) and of query (B, H, T, K).

    d_context (B, T, H, V), weights and d_weights (B, H, T, S) are contiguous.
    """
    (batch, heads, steps, length), size, width = weights.shape, keys.size(3), values.size(3)
    d_energies, d_query = torch.empty_like(weights), weights.new_empty(batch, steps, heads, size)
    given = (keys, values, mask, weights, d_context, d_weights, d_energies, d_query)
    sizes = (*_strides(keys), *_strides(values), batch, heads, steps, length, size, width)
    _run("dot_backward", given, sizes, scale)
    return d_energies, d_query.transpose(1, 2)


@functools.cache
def _sequence_room() -> Callable[[int, int, int, int], int]:
    found = library().sequence_room  # type: ignore[union-attr]
    found.restype, found.argtypes = ctypes.c_int64, [ctypes.c_int64] * 4
    return found


def _rooms(query: Tensor, length: int, width: int) -> Tensor:
    """What each part of the work lays its keys, values and energies out in."""
    steps, size = query.shape[2:]
    return query.new_empty(_PARTS, _sequence_room()(steps, length, size, width))


def sequence_forward(
    query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, scale: float, causal: bool
) -> tuple[Tensor, Tensor]:
    """As `dot_forward`, for many queries. causal: the last queries are the last keys, and see none after their own."""
    (batch, heads, steps, size), length, width = query.shape, keys.size(2), values.size(3)
    _fit((keys, (batch, heads, length, size)), (values, (batch, heads, length, width)), (mask, (batch, length)))
    context, weights = query.new_empty(batch, steps, heads, width), query.new_empty(batch, heads, steps, length)
    sizes = (*_strides(query), *_strides(keys), *_strides(values), batch, heads, steps, length, size, width)
    given = (query, keys, values, mask, context, weights, _rooms(query, length, width))
    _run("sequence_forward", given, (*sizes, int(causal)), scale)
    return context, weights


def sequence_backward(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    weights: Tensor,
    d_context: Tensor,
    d_weights: Tensor | None,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of query (B, H, T, K), keys (B, H, S, K) and values (B, H, S, V).

    d_context (B, T, H, V), weights and d_weights (B, H, T, S) are contiguous.
    """
    (batch, heads, steps, length), size, width = weights.shape, keys.size(3), values.size(3)
    d_query, d_keys = query.new_empty(batch, steps, heads, size), query.new_empty(batch, length, heads, size)
    d_values = query.new_empty(batch, length, heads, width)
    given = (query, keys, values, weights, d_context, d_weights, d_query, d_keys, d_values)
    sizes = (*_strides(query), *_strides(keys), *_strides(values), batch, heads, steps, length, size, width)
    _run("sequence_backward", (*given, _rooms(query, length, width)), sizes, scale)
    return d_query.transpose(1, 2), d_keys.transpose(1, 2), d_values.transpose(1, 2)


def additive_forward(
    query: Tensor, keys: Tensor, vector: Tensor, mask: Tensor, values: Tensor
) -> tuple[Tensor, Tensor]:
    """Context (B, T, V) and weights (B, T, S) of query (B, T, A), keys (B, S, A), vector (A,), values (B, S, V).

    mask: (B, S) bool, True = may attend; a row without any gets zeros. All contiguous.
    """
    (batch, steps, size), length, width = query.shape, keys.size(1), values.size(2)
    _fit((keys, (batch, length, size)), (vector, (size,)), (mask, (batch, length)), (values, (batch, length, width)))
    context, weights = query.new_empty(batch, steps, width), query.new_empty(batch, steps, length)
    given = (query, keys, vector, mask, values, context, weights)
    _run("additive_forward", given, (batch, steps, length, size, width))
    return context, weights


def additive_backward(
    query: Tensor,
    keys: Tensor,
    vector: Tensor,
    mask: Tensor,
    values: Tensor,
    weights: Tensor,
    d_context: Tensor,
    d_weights: Tensor | None,
    d_keys: Tensor,
) -> tuple[Tensor, Tensor]:
    """Gradients of query (B, T, A) and vector (A,); that of the keys is added to d_keys. That of values isn't here."""
    (batch, steps, size), length, width = query.shape, keys.size(1), values.size(2)
    d_query, d_vectors = torch.empty_like(query), query.new_empty(batch, size)
    given = (query, keys, vector, mask, values, weights, d_context, d_weights, torch.empty_like(weights))
    _run("additive_backward", (*given, d_query, d_keys, d_vectors), (batch, steps, length, size, width))
    return d_query, d_vectors.sum(0)


class CrossEntropy(NamedTuple):
    """What `cross_entropy` gives for N rows."""

    norms: Tensor  # (N,) log of the sum of e^logit
    log_probs: Tensor  # (N,) of the targets
    shares: Tensor  # (N,) of a target's probability that is generated, not copied
    d_bias: Tensor | None  # (V,), with learning


def cross_entropy(
    logits: Tensor,
    bias: Tensor,
    targets: Tensor,
    *,
    log_generate: Tensor | None,
    log_copied: Tensor | None,
    counts: Tensor | None,
    smoothing: float,
    learning: bool,
) -> CrossEntropy:
    """Losses of logits (N, V) without their bias; with learning the logits become their gradients.

    logits: float32 or bfloat16, which are rounded then and nothing else is; rows may lie apart.
    targets: (N,) int64, below V or, of what can only be copied, from V on. The others are as in `s2s.train.loss`.
    Raises IndexError for a target out of range.
    """
    rows, size = logits.shape
    _fit((bias, (size,)), (targets, (rows,)), (log_generate, (rows,)), (log_copied, (rows,)), (counts, (rows,)))
    least, most = (int(one) for one in torch.aminmax(targets))
    if least < 0 or (log_generate is None and most >= size):
        raise IndexError(f"targets are from {least} to {most}, in a vocabulary of {size}")
    norms, log_probs, shares = bias.new_empty(3, rows).unbind()
    d_bias = bias.new_empty(_PARTS if learning else 0, size)
    half = logits.dtype == torch.bfloat16
    given, rounded = (logits.view(torch.int16), bias.new_empty(_PARTS, size)) if half else (logits, None)
    read = [None if one is None else one.contiguous() for one in (bias, targets, log_generate, log_copied, counts)]
    _run(
        "cross_entropy",
        (given, rounded, *read, norms, log_probs, shares, d_bias),
        (rows, size, logits.stride(0), int(learning)),
        smoothing,
    )
    return CrossEntropy(norms, log_probs, shares, d_bias.sum(0) if learning else None)


def largest(rows: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """The `width` largest numbers of each row (N, V), largest first, the first one among equals; and their places.

    Both (N, width); width is at most V. A row with NaN has NaN as its first.
    """
    values, ids = rows.new_empty(rows.size(0), width), rows.new_empty(rows.size(0), width, dtype=torch.int64)
    _run("largest", (rows, values, ids), (rows.size(0), rows.size(1), width))
    return values, ids


def transposed(matrix: Tensor) -> Tensor:
    """The transposed of a contiguous matrix, contiguous."""
    made = matrix.new_empty(matrix.size(1), matrix.size(0))
    _run("transpose", (matrix, made), (matrix.size(0), matrix.size(1)))
    return made
