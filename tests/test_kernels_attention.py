"""Attention by kernels of a CPU, against the plain versions in float64."""

import pytest
import torch
from exact import assert_same, masks, needs_c

from s2s import kernels
from s2s.attention import build
from s2s.attention.functional import additive_energies_plain, masked_softmax
from s2s.attention.fused import FEW, LONGEST, additive_attention, dot_attention
from s2s.attention.self_attention import multihead
from s2s.gather import gathered
from s2s.types import Encoded

pytestmark = needs_c


@pytest.mark.parametrize("shape", [(3, 1, 1), (3, 4, 7), (3, 2, 5, 40)], ids=str)
def test_masked_softmax(shape, calls):
    torch.manual_seed(2)
    mask = masks(shape[0], shape[-1]).view(shape[0], *[1] * (len(shape) - 2), shape[-1])
    assert_same(lambda e: masked_softmax(e, mask), lambda e: masked_softmax(e, mask), 20 * torch.randn(shape))
    assert calls == ["softmax_forward", "softmax_backward"]
    assert not masked_softmax(torch.randn(shape), mask)[0].any()
    low = torch.full(shape, -1e4)
    torch.testing.assert_close(masked_softmax(low, mask)[-1], torch.full(shape[1:], 1 / shape[-1]))


@pytest.mark.parametrize("mask", [(5,), (4, 5), (3, 4, 5), (1, 1, 5)], ids=str)
def test_other_masks_are_left_to_the_plain_version(mask, calls):
    masked_softmax(torch.randn(3, 4, 5), torch.ones(mask, dtype=torch.bool))
    assert not calls


def dot_plain(query, keys, values, mask, scale, causal=False):
    steps, length = query.size(2), keys.size(2)
    allowed = torch.ones(keys.size(0), 1, 1, length, dtype=torch.bool) if mask is None else mask[:, None, None]
    if causal:
        allowed = allowed & torch.ones(steps, length, dtype=torch.bool).tril(length - steps)
    weights = masked_softmax(scale * query @ keys.transpose(2, 3), allowed)
    return (weights @ values).transpose(1, 2).flatten(2), weights


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("shape", [(3, 1, 1, 1, 1, 1), (3, 2, FEW, 9, 5, 4), (3, 4, 1, 40, 16, 33)], ids=str)
def test_dot_attention(shape, masked, calls):
    torch.manual_seed(3)
    batch, heads, steps, length, size, width = shape
    mask = masks(batch, length) if masked else None
    query, keys = torch.randn(batch, steps, heads, size), torch.randn(batch, length, heads, size)
    values = torch.randn(batch, length, heads, width)

    def by_head(function):  # heads as slices of the width: strides that aren't those of a contiguous tensor
        return lambda q, k, v: function(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), mask, 0.5)

    assert_same(by_head(dot_attention), by_head(dot_plain), query, keys, values, rtol=1e-5, atol=1e-5)
    assert calls == ["dot_forward", "dot_backward"]
    context, weights = dot_attention(query.transpose(1, 2), keys.transpose(1, 2), values.transpose(1, 2), mask, 1)
    if masked:
        assert not context[0].any()
        assert not weights[0].any()


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("shape", [(3, 1, 5, 5, 1, 1), (3, 2, 9, 33, 5, 4), (3, 4, 40, 40, 16, 70)], ids=str)
def test_dot_attention_of_many_queries(shape, masked, causal, calls):
    torch.manual_seed(3)
    batch, heads, steps, length, size, width = shape
    mask = masks(batch, length) if masked else None
    query, keys = torch.randn(batch, steps, heads, size), torch.randn(batch, length, heads, size)
    values = torch.randn(batch, length, heads, width)

    def by_head(function, outputs):  # heads as slices of the width; without weights they have no gradient
        return lambda q, k, v: function(*(one.transpose(1, 2) for one in (q, k, v)), mask, 0.5, causal)[:outputs]

    for outputs in (1, 2):
        fused, plain = by_head(dot_attention, outputs), by_head(dot_plain, outputs)
        assert_same(fused, plain, query, keys, values, rtol=1e-5, atol=1e-5)
    assert calls == ["sequence_forward", "sequence_backward"] * 2


def test_dot_attention_does_not_hide_what_is_not_a_number(calls):
    query, keys = torch.randn(1, 1, 9, 4), torch.randn(1, 1, 9, 4)
    query[0, 0, 3, 2] = torch.nan
    context, weights = dot_attention(query, keys, keys, None, 1.0, causal=True)
    assert context[0, 3].isnan().all()
    assert weights[0, 0, 3, :4].isnan().all()
    assert context[0, [0, 1, 2, 4, 5, 6, 7, 8]].isfinite().all()
    assert calls == ["sequence_forward"]


def additive_plain(query, keys, vector, mask, values):
    weights = masked_softmax(additive_energies_plain(query, keys, vector), mask.unsqueeze(1))
    return weights @ values, weights


@pytest.mark.parametrize(
    "shape", [(2, 1, 1, 3, 2), (3, 2, 5, 20, 7), (2, 1, 40, 130, 129), (2, 3, 33, 16, 16)], ids=str
)
def test_additive_attention(shape, calls):
    torch.manual_seed(4)
    batch, steps, length, size, width = shape
    query, keys, vector = torch.randn(batch, steps, size), torch.randn(batch, length, size), torch.randn(size)
    given = query, keys, vector, masks(batch, length), torch.randn(batch, length, width)
    assert_same(additive_attention, additive_plain, *given, rtol=2e-5, atol=2e-5)
    assert calls == ["additive_forward", "additive_backward"]


@pytest.mark.parametrize("name", ["additive", "concat", "additive_normed", "general", "scaled_dot", "multihead"])
def test_a_loop_gathers_the_same_gradients_with_kernels_and_without(name, calls):
    torch.manual_seed(6)
    attention = build(name, query_size=8, memory_size=8)
    states, queries = torch.randn(4, 6, 8), torch.randn(4, 3, 8)
    mask = masks(4, 6)
    found = []
    for choice in ("plain", "auto"):
        kernels.use(choice)
        leaves = [one.clone().requires_grad_() for one in (states, queries)]
        memory = attention.remember(Encoded(states=leaves[0], mask=mask, final=states[:, 0]))
        with gathered():
            outputs = [attention(one, memory, ()) for one in leaves[1].split(1, 1)]
        loss = sum(output.context.pow(2).sum() + output.weights.pow(3).sum() for output in outputs)
        found.append([*outputs[-1][:2], *torch.autograd.grad(loss, [*leaves, *attention.parameters()])])
        assert bool(calls) == (choice == "auto")
    torch.testing.assert_close(found[1], found[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("changes", [{"heads": 2}, {"normaliser": "sparsemax"}, {"temperature": 2.0}, {"dropout": 0.5}])
def test_what_one_kernel_does_not_cover_is_left_to_the_plain_version(changes, calls):
    attention = build("additive", query_size=4, memory_size=4, **changes)
    states = torch.randn(2, 3, 4)
    memory = attention.remember(Encoded(states=states, mask=torch.ones(2, 3, dtype=torch.bool), final=states[:, 0]))
    attention(states[:, :1], memory, ())
    assert "additive_forward" not in calls
    attention.eval()(states[:, :1], memory, ())
    assert ("additive_forward" in calls) == ("dropout" in changes)


@pytest.mark.parametrize("name", ["additive", "general"])
def test_a_memory_that_several_rows_read_is_left_to_the_plain_version(name, calls):
    attention = build(name, query_size=4, memory_size=4)
    states, query = torch.randn(1, 3, 4), torch.randn(5, 1, 4)
    memory = attention.remember(Encoded(states=states, mask=torch.ones(1, 3, dtype=torch.bool), final=states[:, 0]))
    found = attention(query, memory, ()).context
    assert not {"additive_forward", "dot_forward"} & set(calls)
    each = [attention(one, memory, ()).context for one in query.split(1)]
    torch.testing.assert_close(found, torch.cat(each))


@pytest.mark.parametrize(
    ("steps", "length", "taken"),
    [
        (FEW, LONGEST + 1, "dot_forward"),
        (FEW + 1, LONGEST, "sequence_forward"),
        (FEW + 1, LONGEST + 1, "softmax_forward"),
    ],
)
def test_which_kernel_is_taken_depends_on_how_many_queries_and_keys_there_are(steps, length, taken, calls):
    attention = build("general", query_size=4, memory_size=4)
    states, mask = torch.randn(2, length, 4), torch.ones(2, length, dtype=torch.bool)
    memory = attention.remember(Encoded(states=states, mask=mask, final=states[:, 0]))
    found = attention(states[:, :steps], memory, ())
    assert calls == [taken]
    each = [attention(one, memory, ()).context for one in states[:, :steps].split(1, 1)]
    torch.testing.assert_close(found.context, torch.cat(each, 1))


@torch.no_grad()
def test_a_step_of_self_attention(calls):
    attention = multihead(16, None, heads=4)
    x = torch.randn(3, 5, 16)
    whole, _, _ = attention(x, attention.initial_state(x), causal=True)
    state, steps = attention.initial_state(x), []
    for one in x.split(1, 1):
        found, _, state = attention(one, state, causal=True)
        steps.append(found)
    torch.testing.assert_close(torch.cat(steps, 1), whole, rtol=1e-5, atol=1e-5)
    assert calls == ["sequence_forward"] + ["dot_forward"] * 5


@pytest.mark.parametrize("length", [20, LONGEST + 1])
@pytest.mark.parametrize("causal", [False, True])
def test_self_attention_is_the_same_with_kernels_and_without(causal, length, calls):
    torch.manual_seed(9)
    attention, x, mask = multihead(16, None, heads=4), torch.randn(3, length, 16), masks(3, length)
    found = []
    for choice in ("plain", "auto"):
        kernels.use(choice)
        given = x.clone().requires_grad_()
        output, weights, _ = attention(given, attention.initial_state(x), mask=mask, causal=causal, need_weights=True)
        found.append([output, weights, *torch.autograd.grad(output.pow(2).sum(), [given, *attention.parameters()])])
        output, _, _ = attention(x, attention.initial_state(x), mask=mask, causal=causal)
        torch.testing.assert_close(output, found[-1][0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found[1], found[0], rtol=1e-4, atol=1e-5)
    assert ("sequence_backward" in calls) == (length <= LONGEST)
