"""Products of a step loop with what stays the same in it: weights, and the memory of a source.

In a loop over time, autograd multiplies a thin gradient by a thin input at every step and adds the result to a buffer
as large as the weight or the memory: T small products and T passes over the buffer. Inside `gathered()` what goes
through `linear`, `energies` and `contexts` only notes both factors, and the product over all steps is taken once, when
the backward pass has gone through the first step; what comes through `windows` notes its places, and is added up then.
A kernel may add what is no product to one buffer for all steps (`anchored`, `Gathered.total`).
The products that stay in the loop take weights that are laid out once for all steps (`s2s.products`). Values and
gradients are the same up to rounding.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from s2s.products import FixedWeight, PackedWeight

_Loop = dict[tuple[int, torch.Size, tuple[int, ...]], "Gathered"]
_loop: ContextVar[_Loop | None] = ContextVar("gathered_loop", default=None)


class Gathered:
    """One factor that all steps of a loop have in common, (..., O, I), and what they noted for its gradient.

    That is the sum over the steps of left^T right, (..., N, O) and (..., N, I), and of what they noted for single rows.
    """

    def __init__(self, factor: Tensor, dtype: torch.dtype) -> None:
        self.left: list[Tensor] = []
        self.right: list[Tensor] = []
        self.places: list[Tensor] = []  # (N,) int64 among the rows of the factor
        self.rows: list[Tensor] = []  # (N, I)
        self.factor = factor  # keeps its key in the loop's table valid
        self._total: Tensor | None = None
        self.anchor: Tensor = _Anchor.apply(factor, self, dtype)  # type: ignore[no-untyped-call]
        self._onward: PackedWeight | None = None
        self._back: PackedWeight | None = None

    def onward(self) -> PackedWeight:
        """A weight (O, I) for the steps."""
        if self._onward is None:
            self._onward = PackedWeight(self.anchor)
        return self._onward

    def back(self) -> PackedWeight:
        """A weight transposed, (I, O), for their backward passes."""
        if self._back is None:
            self._back = PackedWeight(self.anchor.t())
        return self._back

    def forward_over(self) -> None:
        """No step comes any more."""
        self._onward = None

    def note(self, left: Tensor, right: Tensor) -> None:
        """What a step adds to the gradient."""
        self.left.append(left)
        self.right.append(right)

    def note_rows(self, places: Tensor, rows: Tensor) -> None:
        """The same of a step that took some rows."""
        self.places.append(places)
        self.rows.append(rows)

    def total(self) -> Tensor:
        """What steps add to the gradient in place, as large as the factor."""
        if self._total is None:
            self._total = torch.zeros_like(self.factor)
        return self._total

    def gradient(self) -> Tensor | None:
        """That of all steps. What was noted goes."""
        self._back, found, self._total = None, self._total, None
        if self.left:
            left = torch.cat(self.left, -2)
            self.left.clear()
            right = torch.cat(self.right, -2)
            self.right.clear()
            product = left.transpose(-2, -1) @ right
            found = product if found is None else found.add_(product)
        if self.rows:
            found = self.factor.new_zeros(self.factor.shape) if found is None else found
            flat = found.view(-1, found.size(-1))
            for places, rows in zip(self.places, self.rows, strict=True):
                flat.index_add_(0, places, rows)
            self.places.clear()
            self.rows.clear()
        return found


class _Anchor(torch.autograd.Function):
    """Stands between a factor and all its uses, in the precision of products; its backward runs after theirs."""

    @staticmethod
    def forward(ctx: Any, factor: Tensor, gathered: Gathered, dtype: torch.dtype) -> Tensor:
        ctx.gathered, ctx.dtype = gathered, factor.dtype
        ctx.set_materialize_grads(False)
        return factor.view_as(factor) if dtype == factor.dtype else factor.to(dtype)

    @staticmethod
    def backward(ctx: Any, _: Tensor | None) -> tuple[Tensor | None, None, None]:
        gradient = ctx.gathered.gradient()
        return None if gradient is None else gradient.to(ctx.dtype), None, None


class _Step(torch.autograd.Function):
    """x (N, I) @ anchor (O, I).T + added (N, O) or (O,), noting what the weight's gradient needs."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, anchor: Tensor, added: Tensor, gathered: Gathered) -> Tensor:
        ctx.dtype, x = x.dtype, x.to(anchor.dtype)
        ctx.save_for_backward(x, anchor)  # the anchor, so that torch sees to its not being changed in between
        ctx.gathered = gathered
        ctx.reduced = added.dim() == 1
        if anchor.dtype == gathered.factor.dtype:
            return gathered.onward().product(x, added)
        return added + gathered.onward().product(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, Tensor, None]:
        x, _ = ctx.saved_tensors
        rounded = gradient.to(x.dtype)
        ctx.gathered.note(rounded, x)
        back = ctx.gathered.back().product(rounded).to(ctx.dtype)
        return back, None, gradient.sum(0) if ctx.reduced else gradient, None


class _Energies(torch.autograd.Function):
    """queries (..., T, K) @ anchor (..., S, K)^T."""

    @staticmethod
    def forward(ctx: Any, queries: Tensor, anchor: Tensor, gathered: Gathered) -> Tensor:
        ctx.save_for_backward(queries, anchor)
        ctx.gathered = gathered
        return torch.matmul(queries, anchor.transpose(-2, -1))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        queries, anchor = ctx.saved_tensors
        ctx.gathered.note(gradient, queries)
        return torch.matmul(gradient, anchor), None, None


class _Contexts(torch.autograd.Function):
    """weights (..., T, S) @ anchor (..., S, V)."""

    @staticmethod
    def forward(ctx: Any, weights: Tensor, anchor: Tensor, gathered: Gathered) -> Tensor:
        ctx.save_for_backward(weights, anchor)
        ctx.gathered = gathered
        return torch.matmul(weights, anchor)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        weights, anchor = ctx.saved_tensors
        ctx.gathered.note(weights, gradient)
        return torch.matmul(gradient, anchor.transpose(-2, -1)), None, None


class _Windows(torch.autograd.Function):
    """Rows (N, W) among those of anchor (B, S, K)."""

    @staticmethod
    def forward(ctx: Any, anchor: Tensor, index: Tensor, gathered: Gathered) -> Tensor:
        ctx.save_for_backward(index)
        ctx.gathered = gathered
        return F.embedding(index, anchor.flatten(0, 1))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, None, None]:
        (index,) = ctx.saved_tensors
        ctx.gathered.note_rows(index.flatten(), gradient.flatten(0, 1))
        return None, None, None


@contextmanager
def gathered() -> Iterator[None]:
    """Inside, gradients of weights and memory are gathered until the loop's backward pass is over."""
    loop: _Loop = {}
    token = _loop.set(loop)
    try:
        yield
    finally:
        _loop.reset(token)
        for factor in loop.values():
            factor.forward_over()


def _of_loop(factor: Tensor, dtype: torch.dtype) -> Gathered | None:
    """Where the loop notes what a factor's gradient needs; None outside of a loop. Views of one tensor share it."""
    loop = _loop.get()
    if loop is None or not torch.is_grad_enabled():
        return None
    key = factor.data_ptr(), factor.shape, factor.stride()
    if key not in loop:
        loop[key] = Gathered(factor, dtype)
    return loop[key]


def at_once(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """A linear map of all steps at once. On a CPU the result is as precise as the weight, whatever autocast does."""
    found = F.linear(x, weight, bias)
    return found.to(weight.dtype) if x.device.type == "cpu" else found


def linear(x: Tensor, weight: Tensor | FixedWeight, added: Tensor | None = None) -> Tensor:
    """x (..., I) times weight (O, I) transposed, plus `added` (a bias (O,), or (..., O)). Gathered in `gathered()`."""
    if isinstance(weight, FixedWeight):
        return weight.product(x, added)
    half = torch.is_autocast_enabled(x.device.type)
    # gathering pays on a CPU; a GPU's autocast picks dtypes inside F.linear
    dtype = torch.get_autocast_dtype("cpu") if half else weight.dtype
    gathered_weight = None if half and x.device.type != "cpu" else _of_loop(weight, dtype)
    if gathered_weight is None:
        if added is None or added.dim() == 1:
            return F.linear(x, weight, added)
        return F.linear(x, weight) + added
    rows = x.reshape(-1, x.size(-1))
    if added is None:
        added = weight.new_zeros(weight.size(0))
    elif added.dim() > 1:
        added = added.reshape(-1, weight.size(0))
    return _Step.apply(rows, gathered_weight.anchor, added, gathered_weight).view(*x.shape[:-1], weight.size(0))  # type: ignore[no-any-return, no-untyped-call]


def energies(queries: Tensor, keys: Tensor) -> Tensor:
    """queries (B, H, T, K) times keys (B, H, S, K) transposed: (B, H, T, S). Gathered in `gathered()`."""
    memory = _memory(queries, keys)
    if memory is None:
        return torch.matmul(queries, keys.transpose(-2, -1))
    return _Energies.apply(queries, memory.anchor, memory)  # type: ignore[no-any-return, no-untyped-call]


def contexts(weights: Tensor, values: Tensor) -> Tensor:
    """c_i = sum_j a_ij v_j: weights (B, H, T, S) times values (B, H, S, V), (B, H, T, V). Gathered in `gathered()`."""
    memory = _memory(weights, values)
    if memory is None:
        return torch.matmul(weights, values)
    return _Contexts.apply(weights, memory.anchor, memory)  # type: ignore[no-any-return, no-untyped-call]


def windows(memory: Tensor, index: Tensor) -> Tensor:
    """What stands at places (N, W) of the B S in a memory (B, S, K): (N, W, K). Gathered in `gathered()`."""
    noted = _memory(memory, memory)
    if noted is None:
        return F.embedding(index, memory.flatten(0, 1))
    return _Windows.apply(noted.anchor, index, noted)  # type: ignore[no-any-return, no-untyped-call]


def anchored(x: Tensor, memory: Tensor) -> tuple[Tensor, Gathered | None]:
    """A memory as a step on x reads it, and where the step notes or adds what the memory's gradient needs.

    None: outside of a loop; then the step returns the gradient.
    """
    noted = _noted(x, memory)
    return (memory, None) if noted is None else (noted.anchor, noted)


def _memory(x: Tensor, memory: Tensor) -> Gathered | None:
    """Where products with a memory are noted: those that autocast leaves as they are."""
    return None if torch.is_autocast_enabled("cpu") else _noted(x, memory)


def _noted(x: Tensor, memory: Tensor) -> Gathered | None:
    """Where what a step on x does with a memory is noted: on a CPU, in one precision."""
    if not memory.requires_grad or memory.device.type != "cpu" or x.dtype != memory.dtype:
        return None
    return _of_loop(memory, memory.dtype)
