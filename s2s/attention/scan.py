"""Linear recurrences along the source, exact and stable, without a Python loop over positions.

    q_j = exp(d_{j-1}) q_{j-1} + x_j        d_j <= 0: log of what is left between positions j and j + 1

The usual closed form, cumprod * cumsum(x / cumprod), underflows: cumprod reaches 0 within a few dozen positions and
has to be clipped. Here q = M x with M_jk = exp(d_k + ... + d_{j-1}) inside a block of positions, each of these sums
taken by itself, so that no large numbers cancel; the ends of the blocks obey the same recurrence, a block at a time.
On a GPU one kernel takes the recurrence as it is (`s2s.kernels.scan`).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from s2s.kernels import usable

_BLOCK = 64  # positions of a block: a source of usual length is one

# exp of it is 0 in every float type, so a decay of exactly 0 (minus infinity) loses nothing by it, and its gradient is
# 0; sums with minus infinity itself could meet plus infinity or 0 * inf on the way and make NaN.
_FLOOR = -1e4


class _Level(NamedTuple):
    """M within blocks of positions, and how what stands before a block reaches into it."""

    within: Tensor  # (..., size, size) of the only block, or (..., blocks, size, size)
    carry: Tensor | None  # (..., blocks, size): what is left at each position of the block before's end


_Levels = tuple[_Level, ...]  # of all positions, of the blocks' last ones, ...


def _levels(log_decay: Tensor) -> _Levels:
    """M for decays (..., S), in parts."""
    into = log_decay.clamp(min=_FLOOR).roll(1, -1)  # between the position before and this one
    length = into.size(-1)
    blocks = max(1, -(-length // _BLOCK))
    size = -(-length // blocks)
    carry = None
    rest: _Levels = ()
    if blocks > 1:
        into = F.pad(into, (0, blocks * size - length))
        into = into.view(*into.shape[:-1], blocks, size)
        sums = into.cumsum(-1)
        carry = sums.exp()
        # the ends of all blocks but the last: the decay between two of them is that of the whole later block
        rest = _levels(sums[..., 1:, -1])
    between = into.unsqueeze(-1).expand(*into.shape, size).tril(-1).cumsum(-2)
    return (_Level(between.exp_().tril_(), carry), *rest)


def _forwards(levels: _Levels, x: Tensor) -> Tensor:
    """M x for x (..., S)."""
    within, carry = levels[0]
    if carry is None:
        return (within * x.unsqueeze(-2)).sum(-1)
    inside = (within * _blocks(x, carry).unsqueeze(-2)).sum(-1)
    before = F.pad(_forwards(levels[1:], inside[..., :-1, -1]), (1, 0))
    return (inside + carry * before.unsqueeze(-1)).flatten(-2)[..., : x.size(-1)]


def _backwards(levels: _Levels, x: Tensor) -> Tensor:
    """M transposed times x: the same recurrence from the end."""
    within, carry = levels[0]
    if carry is None:
        return (within * x.unsqueeze(-1)).sum(-2)
    blocks = _blocks(x, carry)
    after = _backwards(levels[1:], (carry * blocks).sum(-1)[..., 1:])
    inside = torch.cat([blocks[..., :-1], blocks[..., -1:] + F.pad(after, (0, 1)).unsqueeze(-1)], -1)
    return (within * inside.unsqueeze(-1)).sum(-2).flatten(-2)[..., : x.size(-1)]


def _blocks(x: Tensor, carry: Tensor) -> Tensor:
    """x (..., S) as (..., blocks, size), zeros behind it."""
    padded = F.pad(x, (0, carry.size(-2) * carry.size(-1) - x.size(-1)))
    return padded.view(*x.shape[:-1], *carry.shape[-2:])


def _applied(log_decay: Tensor, levels: _Levels | None, x: Tensor, reverse: bool) -> Tensor:
    """M x or its transpose times x. levels: M; None where a kernel does without."""
    if levels is not None:
        return (_backwards if reverse else _forwards)(levels, x)
    from s2s.kernels.scan import scan

    return scan(log_decay, x, reverse=reverse)


class _Scan(torch.autograd.Function):
    """M x or its transpose. The gradient is the recurrence the other way round: no more matrices are kept than M."""

    @staticmethod
    def forward(ctx: Any, log_decay: Tensor, x: Tensor, levels: _Levels | None, reverse: bool) -> Tensor:
        q = _applied(log_decay, levels, x, reverse)
        ctx.save_for_backward(log_decay, q)
        ctx.levels, ctx.reverse = levels, reverse
        return q

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor, None, None]:
        log_decay, q = ctx.saved_tensors
        d_x = _applied(log_decay, ctx.levels, gradient, not ctx.reverse)
        d_decay = None
        if ctx.needs_input_grad[0]:
            # d loss / d d_j: what passes from j to j + 1 (or back) times the gradient of where it arrives
            start, end = (d_x, q) if ctx.reverse else (q, d_x)
            d_decay = F.pad(start[..., :-1] * end[..., 1:] * log_decay[..., :-1].exp(), (0, min(1, q.size(-1))))
        return d_decay, d_x, None, None


class LinearScan:
    """The recurrence for given decays, prepared once for any number of inputs.

    log_decay: (..., S), at most 0, minus infinity allowed; that of the last position has no effect.
    """

    def __init__(self, log_decay: Tensor) -> None:
        self.log_decay = log_decay
        self._levels: _Levels | None = None
        if not usable(log_decay.device):
            with torch.no_grad():
                self._levels = _levels(log_decay)

    def __call__(self, inputs: Tensor, *, reverse: bool = False) -> Tensor:
        """q (..., S) of inputs (..., S), in their dtype; differentiable once in both."""
        q: Tensor = _Scan.apply(self.log_decay, inputs, self._levels, reverse)  # type: ignore[no-untyped-call]
        return q

    def unbind(self, axis: int) -> list[LinearScan]:
        """One prepared recurrence for each index of a leading axis, counted from the front."""
        levels: list[_Levels | None]
        if self._levels is None:  # a kernel reads them row by row
            decays = self.log_decay.movedim(axis, 0).contiguous().unbind(0)
            levels = [None] * len(decays)
        else:
            decays = self.log_decay.unbind(axis)
            within = [level.within.unbind(axis) for level in self._levels]
            carry = [None if level.carry is None else level.carry.unbind(axis) for level in self._levels]
            levels = [
                tuple(_Level(w[one], None if c is None else c[one]) for w, c in zip(within, carry, strict=True))
                for one in range(len(decays))
            ]
        scans = []
        for decay, own in zip(decays, levels, strict=True):
            scan = LinearScan.__new__(LinearScan)
            scan.log_decay, scan._levels = decay, own
            scans.append(scan)
        return scans


def linear_scan(log_decay: Tensor, inputs: Tensor, *, reverse: bool = False) -> Tensor:
    """q_j = exp(log_decay_{j-1}) q_{j-1} + inputs_j along the last axis: (..., S), the same shape for all.

    log_decay: at most 0 (minus infinity allowed), between positions j and j + 1; the last has no effect.
    reverse: from the end, q_j = exp(log_decay_j) q_{j+1} + inputs_j.
    """
    return LinearScan(log_decay)(inputs, reverse=reverse)
