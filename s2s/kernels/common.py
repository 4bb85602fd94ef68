"""What several kernels take."""

# mypy: ignore-errors

import triton
import triton.language as tl


@triton.jit
def tanh(x):
    """By the logistic function."""
    return 2.0 * tl.sigmoid(2.0 * x) - 1.0
