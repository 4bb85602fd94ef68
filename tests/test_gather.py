"""Weight gradients of a loop as one product: the same values and gradients as plain linear maps."""

import pytest
import torch
from torch.nn import functional as F

from s2s import gather
from s2s.gather import gathered, linear

STEPS = 4


def leaf(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed + sum(shape))
    return torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_()


def plain(x, weight, added=None):
    return F.linear(x, weight) if added is None else F.linear(x, weight) + added


def loop(function, x, weight, bias, known):
    """A recurrence that uses one weight in three ways: with a bias, with known rows added, and with nothing."""
    state, states = x, []
    for step in range(STEPS):
        state = torch.tanh(function(state, weight, bias))
        state = torch.tanh(function(state, weight, known[:, step]))
        state = state + function(state.unsqueeze(1), weight).squeeze(1)
        states.append(state)
    return torch.stack(states, 1)


def inputs():
    return leaf(3, 5), leaf(5, 5), leaf(5), leaf(3, STEPS, 5)


def test_values_and_gradients_are_those_of_plain_maps():
    given = inputs()
    expected = loop(plain, *given)
    with gathered():
        found = loop(linear, *given)
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=1e-12)
    outer = torch.randn_like(expected)
    wanted, made = torch.autograd.grad(expected, given, outer), torch.autograd.grad(found, given, outer)
    for one, other in zip(made, wanted, strict=True):
        torch.testing.assert_close(one, other, atol=1e-12, rtol=1e-12)


def test_gradcheck():
    def function(*given):
        with gathered():
            return loop(linear, *given)

    assert torch.autograd.gradcheck(function, inputs(), fast_mode=True)


@pytest.mark.parametrize("step", range(STEPS))
def test_a_loss_that_sees_only_some_steps(step):
    given = inputs()
    expected = torch.autograd.grad(loop(plain, *given)[:, step].sum(), given)
    with gathered():
        states = loop(linear, *given)
    for one, other in zip(torch.autograd.grad(states[:, step].sum(), given), expected, strict=True):
        torch.testing.assert_close(one, other)


def test_a_second_backward_pass_through_the_same_graph_counts_once():
    given = inputs()
    with gathered():
        value = loop(linear, *given).sum()
    first = torch.autograd.grad(value, given, retain_graph=True)
    second = torch.autograd.grad(value, given)
    for one, other in zip(first, second, strict=True):
        assert torch.equal(one, other)


def test_two_loops_keep_their_gradients_apart():
    x, weight, bias, known = inputs()
    values = []
    for scale in (1, 2):
        with gathered():
            values.append(loop(linear, scale * x, weight, bias, known).sum())
    (both,) = torch.autograd.grad(values[0] + values[1], weight, retain_graph=True)
    alone = [torch.autograd.grad(value, weight, retain_graph=True)[0] for value in values]
    torch.testing.assert_close(both, alone[0] + alone[1])


@pytest.mark.parametrize("frozen", [0, 1, 2, 3])
def test_what_needs_no_gradient_gets_none(frozen):
    given = list(inputs())
    given[frozen] = given[frozen].detach()
    expected = loop(plain, *given).sum()
    with gathered():
        value = loop(linear, *given).sum()
    free = [part for part in given if part.requires_grad]
    for one, other in zip(torch.autograd.grad(value, free), torch.autograd.grad(expected, free), strict=True):
        torch.testing.assert_close(one, other)


def test_the_weight_is_multiplied_once_whatever_the_steps(monkeypatch):
    """The point of it: one product for the weight's gradient instead of one for each use."""
    products = []
    original = gather._Anchor.backward

    def counted(ctx, gradient):
        products.append(len(ctx.gathered.inputs))
        return original(ctx, gradient)

    monkeypatch.setattr(gather._Anchor, "backward", staticmethod(counted))
    with gathered():
        value = loop(linear, *inputs()).sum()
    value.backward()
    assert products == [3 * STEPS]


def test_outside_of_a_loop_and_without_gradients_it_is_a_plain_map():
    x, weight, bias, known = inputs()
    assert torch.equal(linear(x, weight, bias), F.linear(x, weight, bias))
    assert torch.equal(linear(x, weight, known[:, 0]), F.linear(x, weight) + known[:, 0])
    with gathered(), torch.no_grad():
        assert torch.equal(linear(x, weight, bias), F.linear(x, weight, bias))
    with torch.autocast("cpu", torch.bfloat16):
        assert linear(x.float(), weight.float()).dtype == torch.bfloat16


def test_a_loop_that_ends_with_an_error_gathers_no_more():
    with pytest.raises(ZeroDivisionError), gathered():
        raise ZeroDivisionError
    assert gather._loop.get() is None


def in_float32(given):
    return [value.detach().float().requires_grad_() for value in given]


def test_under_autocast_products_are_rounded_and_the_rest_is_not():
    given = in_float32(inputs())
    expected = loop(plain, *given)
    with torch.autocast("cpu", torch.bfloat16), gathered():
        found = loop(linear, *given)
    assert found.dtype == torch.float32
    assert 0 < float((found - expected).detach().norm() / expected.detach().norm()) < 0.03
    outer = leaf(*expected.shape, seed=3).detach().float()
    wanted, made = torch.autograd.grad(expected, given, outer), torch.autograd.grad(found, given, outer)
    for one, other in zip(made, wanted, strict=True):
        assert one.dtype == torch.float32
        assert float((one - other).norm() / other.norm()) < 0.05


def test_under_autocast_all_steps_at_once_are_as_precise_as_the_weight():
    x, weight, bias, _ = in_float32(inputs())
    with torch.autocast("cpu", torch.bfloat16):
        assert F.linear(x, weight, bias).dtype == torch.bfloat16
        assert gather.at_once(x, weight, bias).dtype == torch.float32
    torch.testing.assert_close(gather.at_once(x, weight, bias), F.linear(x, weight, bias), atol=0, rtol=0)
