"""The linear recurrence along the source in one pass, a row at a time: see `s2s.attention.scan`.

A composition of two steps q -> a q + x is one of these again, (a1 a2, a2 x1 + x2), so a block of positions is a
parallel prefix of them (Blelloch 1990, "Prefix Sums and Their Applications", section 4), and blocks follow each other.
The plain version multiplies by a matrix of S x S decays, which it has to make and keep; here decays and inputs are read
once.
"""

# mypy: ignore-errors
# ruff: noqa: N803

import triton
import triton.language as tl
from torch import Tensor

_BLOCK = 256  # most positions that a program takes at once


@triton.jit
def _compose(first_a, first_x, second_a, second_x):
    return first_a * second_a, second_a * first_x + second_x


@triton.jit
def _scan(log_decay, inputs, out, S, REVERSE: tl.constexpr, ACC: tl.constexpr, BS: tl.constexpr):
    row = tl.program_id(0).to(tl.int64) * S
    lanes = tl.arange(0, BS)
    before = tl.zeros((), ACC)
    for start in range(0, S, BS):
        inside = start + lanes < S
        place = S - 1 - start - lanes if REVERSE else start + lanes
        between = place if REVERSE else place - 1  # the decay from the position before, in the order of the recurrence
        known = inside & (between >= 0) & (between < S - 1)
        x = tl.load(inputs + row + place, mask=inside, other=0.0).to(ACC)
        a = tl.exp(tl.load(log_decay + row + between, mask=known, other=float("-inf")).to(ACC))
        a = tl.where(inside, a, 1.0)  # beyond the end nothing changes, so the last lane has the last value
        reach, q = tl.associative_scan((a, x), 0, _compose)
        q += reach * before
        tl.store(out + row + place, q, mask=inside)
        before = tl.sum(tl.where(lanes == BS - 1, q, 0.0), 0)


def scan(log_decay: Tensor, inputs: Tensor, *, reverse: bool) -> Tensor:
    """q (..., S) of decays and inputs (..., S), which are as in `s2s.attention.scan.linear_scan`; in the inputs' dtype.

    Sums are float32 at least.
    """
    log_decay, inputs = log_decay.contiguous(), inputs.contiguous()
    out, length = inputs.new_empty(inputs.shape), inputs.size(-1)
    if out.numel():
        block = min(_BLOCK, max(16, triton.next_power_of_2(length)))
        exact = tl.float64 if inputs.element_size() == 8 else tl.float32
        rows = out.numel() // length
        _scan[(rows,)](
            log_decay, inputs, out, length, REVERSE=reverse, ACC=exact, BS=block, num_warps=max(1, block // 64)
        )
    return out
