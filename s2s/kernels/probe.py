"""The least of kernels: whether Triton can compile and run one here."""

# mypy: ignore-errors

import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def _add_one(number):
    tl.store(number, tl.load(number) + 1.0)


def add_one(number: Tensor) -> float:
    """The number of a tensor (1,) plus one, by a kernel."""
    _add_one[(1,)](number)
    return number.item()
