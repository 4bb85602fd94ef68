"""Weight gradients of a step loop as one product.

In a loop over time, autograd multiplies a thin gradient by a thin input at every step and adds the result to a
weight-sized buffer: T small products and T passes over the buffer. Inside `gathered()` the linear maps that go through
`linear` only note their input and output gradient, and the product over all steps is taken once, when the backward pass
has gone through the first step. Values and gradients are the same up to rounding.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from s2s.products import FixedWeight

_loop: ContextVar[dict[int, _Gathered] | None] = ContextVar("gathered_loop", default=None)


class _Gathered:
    """What the steps of one loop noted for one weight."""

    def __init__(self, weight: Tensor, dtype: torch.dtype) -> None:
        self.inputs: list[Tensor] = []
        self.gradients: list[Tensor] = []
        self.weight = weight  # keeps the id in the loop's table valid
        self.anchor: Tensor = _Anchor.apply(weight, self, dtype)  # type: ignore[no-untyped-call]


class _Anchor(torch.autograd.Function):
    """Stands between the weight and all its uses, in the precision of products; its backward runs after theirs."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, gathered: _Gathered, dtype: torch.dtype) -> Tensor:
        ctx.gathered, ctx.dtype = gathered, weight.dtype
        ctx.set_materialize_grads(False)
        return weight.view_as(weight) if dtype == weight.dtype else weight.to(dtype)

    @staticmethod
    def backward(ctx: Any, _: Tensor | None) -> tuple[Tensor | None, None, None]:
        gathered: _Gathered = ctx.gathered
        if not gathered.inputs:
            return None, None, None
        product = torch.cat(gathered.gradients).t() @ torch.cat(gathered.inputs)
        gathered.inputs.clear()
        gathered.gradients.clear()
        return product.to(ctx.dtype), None, None


class _Step(torch.autograd.Function):
    """x (N, I) @ anchor (O, I).T + added (N, O) or (O,), noting what the weight's gradient needs."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, anchor: Tensor, added: Tensor, gathered: _Gathered) -> Tensor:
        ctx.dtype, x = x.dtype, x.to(anchor.dtype)
        ctx.save_for_backward(x, anchor)
        ctx.gathered = gathered
        ctx.reduced = added.dim() == 1
        if anchor.dtype == gathered.weight.dtype:
            return torch.addmm(added, x, anchor.t())
        return added + torch.mm(x, anchor.t())

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, Tensor, None]:
        x, anchor = ctx.saved_tensors
        rounded = gradient.to(anchor.dtype)
        ctx.gathered.inputs.append(x)
        ctx.gathered.gradients.append(rounded)
        return (rounded @ anchor).to(ctx.dtype), None, gradient.sum(0) if ctx.reduced else gradient, None


@contextmanager
def gathered() -> Iterator[None]:
    """Inside, `linear` gathers weight gradients until the loop's backward pass is over."""
    token = _loop.set({})
    try:
        yield
    finally:
        _loop.reset(token)


def at_once(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """A linear map of all steps at once. On a CPU the result is as precise as the weight, whatever autocast does."""
    found = F.linear(x, weight, bias)
    return found.to(weight.dtype) if x.device.type == "cpu" else found


def linear(x: Tensor, weight: Tensor | FixedWeight, added: Tensor | None = None) -> Tensor:
    """x (..., I) times weight (O, I) transposed, plus `added` (a bias (O,), or (..., O)). Gathered in `gathered()`."""
    if isinstance(weight, FixedWeight):
        return weight.product(x, added)
    loop = _loop.get()
    half = torch.is_autocast_enabled(x.device.type)
    # gathering pays on a CPU; a GPU's autocast picks dtypes inside F.linear
    if loop is None or not torch.is_grad_enabled() or (half and x.device.type != "cpu"):
        if added is None or added.dim() == 1:
            return F.linear(x, weight, added)
        return F.linear(x, weight) + added
    if id(weight) not in loop:
        loop[id(weight)] = _Gathered(weight, torch.get_autocast_dtype("cpu") if half else weight.dtype)
    gathered_weight = loop[id(weight)]
    rows = x.reshape(-1, x.size(-1))
    if added is None:
        added = weight.new_zeros(weight.size(0))
    elif added.dim() > 1:
        added = added.reshape(-1, weight.size(0))
    return _Step.apply(rows, gathered_weight.anchor, added, gathered_weight).view(*x.shape[:-1], weight.size(0))  # type: ignore[no-any-return, no-untyped-call]
