"""Static attention: one context for the whole decode; the layer that weighs features; the attentive reader."""

import math

import numpy as np
import pytest
import torch
from attention_toys import attend, drawn, made

from s2s.attention import FeatureAttention, build
from s2s.errors import ConfigError, UsageError
from s2s.types import Encoded

CASES = [("static", 4, 4, {}), ("static", 4, 4, {"hops": 3}), ("static_feature", 4, 4, {}), ("reader", 4, 4, {})]
each = pytest.mark.parametrize("case", CASES, ids=["static", "hops", "static_feature", "reader"])


@each
def test_every_step_gets_the_same_whatever_it_asks(case):
    module = made(case)
    query, encoded = drawn(case, steps=5, lengths=[2, 4])
    context, weights = attend(module, query, encoded)
    assert torch.equal(context, context[:, :1].expand_as(context))
    assert weights is None or torch.equal(weights, weights[:, :1].expand_as(weights))
    assert torch.equal(attend(module, torch.randn_like(query), encoded)[0], context)


@each
def test_the_source_is_read_once_and_steps_cost_nothing_of_its_length(case):
    module = made(case)
    query, encoded = drawn(case)
    memory = module.remember(encoded)
    expected = module(query, memory, ())
    blank = memory._replace(keys=memory.keys * torch.nan, values=memory.values * torch.nan)
    assert torch.equal(module(query, blank, ()).context, expected.context)


@each
def test_the_order_of_words_changes_weights_alike_and_the_context_not_at_all(case):
    module = made(case)
    query, encoded = drawn(case, length=6, lengths=[6, 6])
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    context, weights = attend(module, query, encoded)
    other, permuted = attend(module, query, encoded._replace(states=encoded.states[:, order]))
    torch.testing.assert_close(other, context)
    if weights is not None:
        torch.testing.assert_close(permuted, weights[..., order])


def test_additive_attention_with_a_constant_query_is_static():
    static, additive = made(("static", 4, 5, {"size": 3})), made(("additive", 4, 5, {"size": 3}))
    query, encoded = drawn(("static", 4, 5, {}), lengths=[2, 4])
    constant = torch.randn(4)
    with torch.no_grad():
        static.inner.weight.copy_(additive.score.key_weight)
        static.inner.bias.copy_(additive.score.query_weight @ constant + additive.score.bias)
        static.vectors.copy_(additive.score.vector.unsqueeze(0))
    expected = attend(additive, constant.expand(2, 3, 4), encoded)
    torch.testing.assert_close(attend(static, query, encoded), expected)


def test_hops_are_readings_of_their_own_joined_and_reported():
    both = made(("static", 4, 4, {"hops": 2}))
    query, encoded = drawn(CASES[0], lengths=[2, 4])
    memory = both.remember(encoded)
    output = both(query, memory, ())
    assert output.context.shape == (2, 3, 8)
    for hop in range(2):
        one = made(CASES[0])
        one.load_state_dict({**both.state_dict(), "vectors": both.vectors[hop : hop + 1].detach()})
        context, weights = attend(one, query, encoded)
        torch.testing.assert_close(output.context[..., 4 * hop : 4 * hop + 4], context)
        torch.testing.assert_close(output.aux["heads"][:, :, hop], weights)
    torch.testing.assert_close(output.aux["heads"].mean(2), output.weights)
    assert both(query, memory, (), need_weights=False).aux == {}


def test_the_penalty_is_lin_et_al_s_at_every_target_position_and_drives_hops_apart():
    module = made(("static", 4, 4, {"hops": 3, "penalty": 0.5}))
    query, encoded = drawn(CASES[0], length=6)
    rows = module.remember(encoded).extra[1]
    expected = []
    for b in range(2):
        total = 0.0
        for i in range(3):
            for k in range(3):
                total += ((rows[b, i] @ rows[b, k]).item() - (i == k)) ** 2
        expected.append(0.5 * total)
    output = module.train()(query, module.remember(encoded), ())
    torch.testing.assert_close(output.aux["loss"], torch.tensor(expected).unsqueeze(1).expand(2, 3))
    torch.testing.assert_close(
        module.loss({"loss": output.aux["loss"][:, 0]}, torch.zeros(2)), torch.tensor(sum(expected))
    )
    assert "loss" not in module.eval()(query, module.remember(encoded), ()).aux
    assert "loss" not in made(("static", 4, 4, {"hops": 3})).train()(query, module.remember(encoded), ()).aux

    optimizer = torch.optim.Adam(module.parameters(), lr=0.05)
    for _ in range(150):
        optimizer.zero_grad()
        module.train()(query, module.remember(encoded), ()).aux["loss"].sum().backward()
        optimizer.step()
    after = module.remember(encoded).extra[1]
    overlap = [(w @ w.transpose(1, 2)).triu(1).sum().item() for w in (rows, after)]
    assert overlap[1] < overlap[0] / 3


def keras_layer(states, mask, kernel, bias):
    """The layer of the notes in NumPy: x (B, S, D), mask (B, S), W (D, D), b (D) to (B, D)."""
    weights = np.exp(np.tanh(np.dot(states, kernel) + bias))
    weights = weights * mask[..., None].astype(states.dtype)
    weights = weights / (weights.sum(axis=1, keepdims=True) + 1e-7)
    return (states * weights).sum(axis=1)


def test_the_feature_layer_equals_the_keras_layer():
    torch.manual_seed(0)
    layer = FeatureAttention(8)
    states = 2 * torch.randn(5, 11, 8)
    mask = torch.arange(11) < torch.tensor([[11], [7], [1], [0], [3]])
    mask[0, 4] = False  # a hole
    kernel, bias = layer.inner.weight.detach().t().numpy(), layer.inner.bias.detach().numpy()
    expected = keras_layer(states.numpy(), mask.numpy(), kernel, bias)
    found = layer(states, mask)
    np.testing.assert_allclose(found.detach().numpy(), expected, atol=1e-6, rtol=0)
    assert not found[3].any()
    total = layer.weights(states, mask).sum(1)[mask.any(1)]
    assert (total <= 1 + 1e-6).all()
    assert (total > 1 - 1e-6).all()
    module = made(("static_feature", 3, 8, {}))
    module.layer.load_state_dict(layer.state_dict())
    context, weights = attend(module, torch.zeros(5, 2, 3), Encoded(states, states.sum(1), mask))
    torch.testing.assert_close(context, found.unsqueeze(1).expand(5, 2, 8))
    assert weights is None
    assert not module.has_weights
    assert not module.sums_to_one


def test_without_parameters_the_feature_layer_is_the_mean_of_the_words():
    layer = FeatureAttention(4)
    for parameter in layer.parameters():
        torch.nn.init.zeros_(parameter)
    _, encoded = drawn(CASES[2], lengths=[2, 4])
    expected = torch.stack([encoded.states[0, :2].mean(0), encoded.states[1].mean(0)])
    torch.testing.assert_close(layer(encoded.states, encoded.mask), expected)


@pytest.mark.parametrize("length", [2, 50])
def test_no_word_can_get_more_of_a_feature_than_its_bound(length):
    layer = FeatureAttention(3)
    torch.nn.init.eye_(layer.inner.weight)
    torch.nn.init.zeros_(layer.inner.bias)
    states = torch.full((1, length, 3), -1e3)
    states[:, 0] = 1e3
    weights = layer.weights(states, torch.ones(1, length, dtype=torch.bool))
    bound = math.e**2 / (math.e**2 + length - 1)
    torch.testing.assert_close(weights.max().item(), bound, atol=1e-6, rtol=0)
    torch.testing.assert_close((weights.max() / weights.min()).item(), math.e**2, atol=1e-4, rtol=0)


def test_dropout_of_feature_weights_is_for_training():
    layer = FeatureAttention(4, dropout=0.5)
    _, encoded = drawn(CASES[2])
    assert not torch.equal(layer.train()(encoded.states, encoded.mask), layer(encoded.states, encoded.mask))
    assert torch.equal(layer.eval()(encoded.states, encoded.mask), layer(encoded.states, encoded.mask))


def test_the_reader_asks_with_the_summary_of_the_source():
    module = made(CASES[3])
    query, encoded = drawn(CASES[3], length=6, lengths=[3, 6])
    context, weights = attend(module, query, encoded)
    concat = build("concat", query_size=4, memory_size=4)
    concat.load_state_dict(module.inner.state_dict())
    found, expected = attend(concat, encoded.final.unsqueeze(1), encoded)
    torch.testing.assert_close(weights, expected.expand(-1, 3, -1))
    merged = torch.tanh(found @ module.found.weight.t() + encoded.final.unsqueeze(1) @ module.asked.weight.t())
    torch.testing.assert_close(context, merged.expand(-1, 3, -1))
    assert not torch.allclose(attend(module, query, encoded._replace(final=-encoded.final))[1], weights)


def test_the_reader_asks_a_longer_source_with_its_newer_summary():
    module = made(CASES[3])
    query, encoded = drawn(CASES[3], length=6)
    first = Encoded(encoded.states[:, :2], torch.randn(2, 4), encoded.mask[:, :2])
    rest = Encoded(encoded.states[:, 2:], encoded.final, encoded.mask[:, 2:])
    grown = module.extend(module.remember(first), rest)
    torch.testing.assert_close(module(query, grown, ()).context, attend(module, query, encoded)[0])


def test_a_summary_of_another_width_is_refused():
    _, encoded = drawn(CASES[3])
    with pytest.raises(UsageError, match=r"reader.*as wide as the states \(4\).*found 7"):
        made(CASES[3]).remember(encoded._replace(final=torch.zeros(2, 7)))


def test_heads_of_static_are_refused_with_hops_as_the_way_out():
    with pytest.raises(ConfigError, match=r"attention\.heads.*expected 1.*found 2.*attention\.hops=2"):
        build("static", query_size=4, memory_size=4, heads=2)


@pytest.mark.parametrize(
    ("name", "option", "value"),
    [
        ("static", "hops", 0),
        ("static", "size", 0),
        ("static", "penalty", -1.0),
        ("static_feature", "dropout", 1.0),
    ],
)
def test_values_out_of_range_are_refused(name, option, value):
    with pytest.raises(ConfigError, match=rf"attention\.{option}.*found {value}"):
        build(name, query_size=4, memory_size=4, **{option: value})


@pytest.mark.parametrize("option", ["heads", "kv", "normaliser", "temperature"])
def test_static_feature_has_no_options_that_its_equation_has_no_room_for(option):
    with pytest.raises(ConfigError, match=option):
        build("static_feature", query_size=4, memory_size=4, **{option: 1})
