"""To compare a kernel of a CPU with its plain version in float64."""

import pytest
import torch

from s2s import kernels

needs_c = pytest.mark.skipif(
    kernels.kind(torch.device("cpu")) != "C", reason="needs a C compiler, and no S2S_KERNELS=plain"
)
NEAR = {"rtol": 3e-6, "atol": 3e-6}


def values_and_gradients(function, *given):
    """What a function gives, and the gradients of a fixed weighting of it, in the precision of what is given."""
    leaves = [one.detach().requires_grad_() if one.is_floating_point() else one for one in given]
    found = function(*leaves)
    found = found if isinstance(found, tuple) else (found,)
    torch.manual_seed(5)
    outer = [torch.randn(one.shape, dtype=torch.float64).to(one.dtype) for one in found]
    wanted = [one for one in leaves if one.requires_grad]
    return [*found, *torch.autograd.grad(found, wanted, outer, allow_unused=True)]


def assert_same(fused, plain, *given, **near):
    exact = [one.double() if one.is_floating_point() else one for one in given]
    for made, expected in zip(values_and_gradients(fused, *given), values_and_gradients(plain, *exact), strict=True):
        assert made.dtype == torch.float32
        torch.testing.assert_close(made.double(), expected, **(near or NEAR))


def masks(batch, length):
    mask = torch.rand(batch, length) < 0.7
    mask[0], mask[-1] = False, True  # nothing to look at; everything
    return mask
