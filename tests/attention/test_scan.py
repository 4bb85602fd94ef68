"""The linear recurrence along the source, against the recurrence itself."""

import pytest
import torch

from s2s.attention.scan import LinearScan, linear_scan


def naive(log_decay, inputs, reverse=False):
    length = inputs.size(-1)
    found = torch.zeros_like(inputs)
    q = torch.zeros_like(inputs[..., 0])
    for j in reversed(range(length)) if reverse else range(length):
        between = j if reverse else j - 1
        q = (q * log_decay[..., between].exp() if 0 <= between < length - 1 else 0.0) + inputs[..., j]
        found[..., j] = q
    return found


def drawn(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    decay = -4 * torch.rand(shape, generator=generator, dtype=torch.float64) ** 4
    decay[..., 3::11] = -torch.inf  # nothing is left at all
    decay[..., 1::7] = 0.0  # all is left
    return decay, torch.randn(shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("length", [1, 2, 5, 20, 64, 65, 130, 2000, 4200])
def test_it_is_the_recurrence(length, reverse):
    decay, inputs = drawn(2, 3, length)
    expected = naive(decay, inputs, reverse)
    torch.testing.assert_close(linear_scan(decay, inputs, reverse=reverse), expected, atol=1e-12, rtol=1e-12)
    # of positive numbers nothing cancels: float32 keeps its relative precision, however little is left
    expected = naive(decay, inputs.abs(), reverse)
    single = linear_scan(decay.float(), inputs.abs().float(), reverse=reverse)
    torch.testing.assert_close(single.double(), expected, atol=0, rtol=2e-6)


def test_of_no_position():
    assert linear_scan(torch.zeros(2, 0), torch.zeros(2, 0)).shape == (2, 0)


def test_a_decay_that_would_underflow_as_a_product_is_exact():
    decay = torch.full((1, 400), -3.0)  # the product over all is e^-1197
    expected = (1 - torch.exp(-3.0 * torch.arange(1, 401, dtype=torch.float64))) / (1 - torch.exp(torch.tensor(-3.0)))
    torch.testing.assert_close(linear_scan(decay, torch.ones(1, 400))[0].double(), expected, atol=0, rtol=1e-6)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("length", [1, 4, 65, 140])
def test_gradients(length, reverse):
    decay, inputs = drawn(2, length)
    decay = decay.clamp(min=-30.0)  # differences can't be taken around minus infinity
    arguments = (decay.requires_grad_(), inputs.requires_grad_())
    assert torch.autograd.gradcheck(lambda d, x: linear_scan(d, x, reverse=reverse), arguments, fast_mode=True)


def test_gradients_are_finite_where_nothing_is_left_and_over_long_sources():
    decay, inputs = drawn(2, 2000)
    leaves = decay.float().requires_grad_(), inputs.float().requires_grad_()
    with torch.autograd.set_detect_anomaly(True):
        found = torch.autograd.grad(linear_scan(*leaves).square().sum(), leaves)
    assert all(part.isfinite().all() for part in found)
    assert not found[0][decay == -torch.inf].any()
    assert found[0].any()


@pytest.mark.parametrize("length", [5, 130])
def test_one_prepared_for_many_steps_gives_each_of_them(length):
    decay, inputs = drawn(2, 3, 4, length)
    scans = LinearScan(decay).unbind(2)
    assert len(scans) == 4
    for step, scan in enumerate(scans):
        for reverse in (False, True):
            expected = naive(decay[:, :, step], inputs[:, :, step], reverse)
            torch.testing.assert_close(scan(inputs[:, :, step], reverse=reverse), expected, atol=1e-12, rtol=1e-12)
