"""Dropout whose masks cost a CPU a fifth to a seventh of torch's time: four decisions from each 64 bits drawn."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

_STEPS = 1 << 16  # that a probability is rounded to


class _Masked(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, kept: Tensor, scale: float) -> Tensor:
        ctx.save_for_backward(kept)
        ctx.scale = scale
        return x.mul(scale).mul_(kept)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return gradient.mul(ctx.scale).mul_(ctx.saved_tensors[0]), None, None


class Dropout(nn.Dropout):
    """In training, zeros with probability p, and the rest divided by 1 - p (Srivastava et al. 2014).

    On a CPU p is rounded to a 65,536th, and draws come from torch's random state as 64-bit numbers; elsewhere it is
    torch's own.
    """

    def forward(self, x: Tensor) -> Tensor:
        """x of any shape."""
        dropped = round(self.p * _STEPS)
        if not self.training or x.device.type != "cpu" or dropped in (0, _STEPS):
            return super().forward(x)
        drawn = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
        kept = drawn.view(torch.int16)[: x.numel()].view(x.shape) >= dropped - _STEPS // 2
        return _Masked.apply(x, kept, _STEPS / (_STEPS - dropped))  # type: ignore[no-any-return, no-untyped-call]
