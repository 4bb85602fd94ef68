"""What an LSTM does with its gates, in one pass each way: some dozen operations of a step become one.

Hochreiter & Schmidhuber 1997 with forget gates, in torch's gate order i, f, g, o: c' = f c + i g, h' = o tanh(c'). The
plain version is `s2s.model.recurrent._LSTMGates`.
"""

# mypy: ignore-errors
# ruff: noqa: N803

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from s2s.kernels.common import tanh

_BLOCK = 256  # most units of a row that a program takes


@triton.jit
def _forward(gates, cell, activated, hidden, following, H, ACC: tl.constexpr, BH: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    unit = tl.program_id(1) * BH + tl.arange(0, BH)
    real = unit < H
    at, own = row * 4 * H + unit, row * H + unit
    i = tl.sigmoid(tl.load(gates + at, mask=real, other=0.0).to(ACC))
    f = tl.sigmoid(tl.load(gates + at + H, mask=real, other=0.0).to(ACC))
    g = tanh(tl.load(gates + at + 2 * H, mask=real, other=0.0).to(ACC))
    o = tl.sigmoid(tl.load(gates + at + 3 * H, mask=real, other=0.0).to(ACC))
    new = f * tl.load(cell + own, mask=real, other=0.0).to(ACC) + i * g
    tl.store(activated + at, i, mask=real)
    tl.store(activated + at + H, f, mask=real)
    tl.store(activated + at + 2 * H, g, mask=real)
    tl.store(activated + at + 3 * H, o, mask=real)
    tl.store(hidden + own, o * tanh(new), mask=real)
    tl.store(following + own, new, mask=real)


@triton.jit
def _backward(
    activated, cell, following, d_hidden, d_following, d_gates, d_cell, H, ACC: tl.constexpr, BH: tl.constexpr
):
    row = tl.program_id(0).to(tl.int64)
    unit = tl.program_id(1) * BH + tl.arange(0, BH)
    real = unit < H
    at, own = row * 4 * H + unit, row * H + unit
    i = tl.load(activated + at, mask=real, other=0.0).to(ACC)
    f = tl.load(activated + at + H, mask=real, other=0.0).to(ACC)
    g = tl.load(activated + at + 2 * H, mask=real, other=0.0).to(ACC)
    o = tl.load(activated + at + 3 * H, mask=real, other=0.0).to(ACC)
    squashed = tanh(tl.load(following + own, mask=real, other=0.0).to(ACC))
    to_hidden = tl.load(d_hidden + own, mask=real, other=0.0).to(ACC)
    to_cell = tl.load(d_following + own, mask=real, other=0.0).to(ACC) + to_hidden * o * (1.0 - squashed * squashed)
    before = tl.load(cell + own, mask=real, other=0.0).to(ACC)
    tl.store(d_gates + at, to_cell * g * i * (1.0 - i), mask=real)
    tl.store(d_gates + at + H, to_cell * before * f * (1.0 - f), mask=real)
    tl.store(d_gates + at + 2 * H, to_cell * i * (1.0 - g * g), mask=real)
    tl.store(d_gates + at + 3 * H, to_hidden * squashed * o * (1.0 - o), mask=real)
    tl.store(d_cell + own, to_cell * f, mask=real)


def _plan(cell: Tensor) -> tuple[tuple[int, int], dict[str, Any]]:
    """The grid of programs and their constants."""
    rows, size = cell.shape
    block = min(_BLOCK, max(16, triton.next_power_of_2(size)))
    exact = tl.float64 if cell.dtype == torch.float64 else tl.float32
    return (rows, triton.cdiv(size, block)), {"ACC": exact, "BH": block}


class _Gates(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gates: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
        gates, cell = gates.contiguous(), cell.contiguous()
        activated, hidden, following = torch.empty_like(gates), torch.empty_like(cell), torch.empty_like(cell)
        if cell.numel():
            grid, constants = _plan(cell)
            _forward[grid](gates, cell, activated, hidden, following, cell.size(1), **constants)
        ctx.save_for_backward(activated, cell, following)
        return hidden, following

    @staticmethod
    def backward(ctx: Any, d_hidden: Tensor, d_following: Tensor) -> tuple[Tensor, Tensor]:
        activated, cell, following = ctx.saved_tensors
        d_gates, d_cell = torch.empty_like(activated), torch.empty_like(cell)
        if cell.numel():
            grid, constants = _plan(cell)
            given = d_hidden.contiguous(), d_following.contiguous()
            _backward[grid](activated, cell, following, *given, d_gates, d_cell, cell.size(1), **constants)
        return d_gates, d_cell


def lstm_gates(gates: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
    """The next (h, c), each (B, H), of gates (B, 4H) before their activation and cell (B, H); in the cell's dtype."""
    return _Gates.apply(gates, cell)
