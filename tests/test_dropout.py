"""Dropout from few random bits: as torch's in all that can be told from outside."""

import pytest
import torch

from s2s.dropout import Dropout


def kept(p, *shape, seed=0):
    torch.manual_seed(seed)
    return Dropout(p)(torch.ones(*shape)) != 0


@pytest.mark.parametrize("p", [0.1, 0.3, 0.5, 0.9])
def test_shares_and_means(p):
    """Within five standard deviations, of all elements and of each of the four that share a draw."""
    torch.manual_seed(1)
    out = Dropout(p)(torch.ones(400_000))
    assert out.unique().tolist() == [0.0, pytest.approx(1 / (1 - p), rel=1e-4)]
    deviation = (p * (1 - p)) ** 0.5
    for part in (out, *out.view(-1, 4).unbind(1)):
        assert abs((part == 0).double().mean() - p) < 5 * deviation / len(part) ** 0.5


def test_elements_are_dropped_independently():
    found = kept(0.5, 400_000).double() - 0.5
    for apart in (1, 2, 3, 4, 5, 8, 64):
        assert abs((found[apart:] * found[:-apart]).mean() / 0.25) < 5 / len(found) ** 0.5


def test_gradients_are_those_of_what_was_kept():
    x = torch.randn(7, 9, requires_grad=True)
    out = Dropout(0.4)(x)
    (gradient,) = torch.autograd.grad(out.sum(), x)
    torch.testing.assert_close(gradient * x, out)
    assert (gradient == 0).any()


@pytest.mark.parametrize("shape", [(), (1,), (3,), (5, 7), (2, 0, 3), (4, 4)])
def test_any_shape_and_dtype(shape):
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        out = Dropout(0.5)(torch.ones(shape, dtype=dtype))
        assert (out.shape, out.dtype) == (shape, dtype)
    wide = torch.ones(6, 4).t()
    assert Dropout(0.5)(wide).shape == (4, 6)


def test_a_seed_gives_the_same_and_another_does_not():
    assert torch.equal(kept(0.5, 100), kept(0.5, 100))
    assert not torch.equal(kept(0.5, 100), kept(0.5, 100, seed=1))


def test_nothing_happens_when_not_in_training_or_without_probability():
    x = torch.randn(5, 5)
    assert torch.equal(Dropout(0.5).eval()(x), x)
    assert torch.equal(Dropout(0.0)(x), x)
    assert torch.equal(Dropout(1.0)(x), torch.zeros(5, 5))
