"""Weight gradients of a loop as one product: the same values and gradients as plain linear maps."""

import pytest
import torch
from torch.nn import functional as F

from s2s import gather
from s2s.gather import contexts, energies, gathered, linear
from s2s.products import PackedWeight

STEPS = 4


@pytest.fixture
def products(monkeypatch):
    """How many uses each product stands for that is taken for a gradient, in their order."""
    found = []
    original = gather._Anchor.backward

    def counted(ctx, gradient):
        found.append(len(ctx.gathered.left))
        return original(ctx, gradient)

    monkeypatch.setattr(gather._Anchor, "backward", staticmethod(counted))
    return found


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


def reading(query, keys, values, *, heads=1):
    """A loop that asks a memory (B, S, D) for its next query, with a view of it made anew at each step."""
    asked, found = query, []
    for _ in range(STEPS):
        by_head = [part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in (asked, keys, values)]
        weights = torch.softmax(energies(by_head[0], by_head[1]), -1)
        asked = torch.tanh(contexts(weights, by_head[2]).transpose(1, 2).flatten(2)) + asked
        found.append(asked)
    return torch.cat(found, 1)


def memory():
    return leaf(3, 1, 6), leaf(3, 5, 6), leaf(3, 5, 6, seed=1)


@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize("shared", [False, True], ids=["apart", "shared"])
def test_a_memory_gets_the_gradients_of_plain_products(heads, shared):
    query, keys, values = memory()
    given = (query, keys, keys if shared else values)
    expected = reading(*given, heads=heads)
    with gathered():
        found = reading(*given, heads=heads)
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=1e-12)
    outer = torch.randn_like(expected)
    leaves = given[:2] if shared else given
    wanted, made = torch.autograd.grad(expected, leaves, outer), torch.autograd.grad(found, leaves, outer)
    for one, other in zip(made, wanted, strict=True):
        torch.testing.assert_close(one, other, atol=1e-12, rtol=1e-12)


def test_a_memory_is_multiplied_once_whatever_the_steps(products):
    with gathered():
        value = reading(*memory()).sum()
    value.backward()
    assert products == [STEPS, STEPS]


def test_a_memory_without_gradient_is_read_plainly():
    query, keys, values = memory()
    with gathered():
        value = reading(query, keys.detach(), values).sum()
        assert len(gather._loop.get()) == 1
    wanted = torch.autograd.grad(reading(query, keys.detach(), values).sum(), (query, values))
    for one, other in zip(torch.autograd.grad(value, (query, values)), wanted, strict=True):
        torch.testing.assert_close(one, other)


def test_weights_are_laid_out_once_a_loop_and_let_go(monkeypatch):
    made = []
    monkeypatch.setattr("s2s.products._WORTH_PACKING", 1)
    monkeypatch.setattr(gather, "PackedWeight", lambda weight: made.append(weight) or PackedWeight(weight))
    given = [part.detach().float().requires_grad_() for part in inputs()]
    with gathered():
        value = loop(linear, *given).sum()
        (used,) = gather._loop.get().values()
    assert len(made) == 1
    assert used._onward is None
    value.backward()
    assert len(made) == 2
    assert used._back is None
    again = [part.detach().requires_grad_() for part in given]
    loop(plain, *again).sum().backward()
    for one, other in zip(given, again, strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-4, atol=1e-4)


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


def test_the_weight_is_multiplied_once_whatever_the_steps(products):
    """The point of it: one product for the weight's gradient instead of one for each use."""
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
