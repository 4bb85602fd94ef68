"""Decoding in int8: near to float32, the same whatever the neighbours, and only where it's asked for."""

import dataclasses

import pytest
import torch
from test_invariance import DECODERS, lines, trained

from s2s.errors import UsageError
from s2s.gather import linear
from s2s.model.fixed import with_fixed_weights
from s2s.model.recurrent import RecurrentLayer
from s2s.products import Int8Weight
from s2s.task.model import Model

CASES = [("additive", decoder) for decoder in DECODERS] + [("multihead", "transformer"), ("location", "feed")]


def by_hand(x, weight):
    """The product with both sides rounded as they are, in whole numbers."""
    scales = weight.abs().amax(1) / 63
    row_scales = x.abs().amax(-1, keepdim=True) / 127
    exact = (x / row_scales + 0.5).floor().double() @ (weight / scales[:, None]).round().double().t()
    return (exact * row_scales * scales).float()


def test_a_product_is_that_of_rounded_numbers_and_near_the_exact_one():
    torch.manual_seed(1)
    x, weight, bias = torch.randn(3, 4, 70), torch.randn(90, 70), torch.randn(90)
    packed = Int8Weight(weight)
    torch.testing.assert_close(packed.product(x, bias), by_hand(x, weight) + bias)
    exact = x @ weight.t()
    assert (packed.product(x) - exact).norm() < 0.03 * exact.norm()
    assert linear(x, packed, bias).shape == (3, 4, 90)
    assert packed.size(0) == 90


def test_the_largest_numbers_do_not_saturate():
    x, weight = torch.full((2, 512), 3.0), torch.full((64, 512), -2.0)
    torch.testing.assert_close(Int8Weight(weight).product(x), x @ weight.t())


def test_a_row_depends_on_no_other():
    torch.manual_seed(2)
    packed, x = Int8Weight(torch.randn(50, 40)), torch.randn(70, 40) * torch.logspace(-3, 3, 70)[:, None]
    alone = torch.cat([packed.product(row[None]) for row in x])
    assert torch.equal(packed.product(x), alone)


def test_rows_of_zeros_and_rows_that_are_not_finite():
    packed = Int8Weight(torch.cat([torch.zeros(1, 8), torch.ones(3, 8)]))
    made = packed.product(torch.stack([torch.zeros(8), torch.ones(8), torch.full((8,), torch.nan)]))
    assert not made[0].any()
    assert made[1].isfinite().all()
    assert not made[2].isfinite().any()


@pytest.mark.parametrize(("attention", "decoder"), CASES)
def test_outputs_are_near_those_of_float32_and_the_same_in_any_company(attention, decoder):
    model = Model([trained(attention, decoder)])
    before = {name: value.clone() for name, value in model.trained[0].model.named_parameters()}
    texts = lines()
    search = {"beam": 3, "max_length": 6, "min_length": 6}
    exact = model.generator(**search)(texts)
    whole = model.generator(precision="int8", **search)(texts)
    alone = model.generator(precision="int8", batch_size=1, **search)(texts)
    assert [one.tokens for one in whole] == [one.tokens for one in alone]
    mean = sum(abs(one.log_prob - other.log_prob) for one, other in zip(whole, exact, strict=True)) / len(texts)
    assert 0 < mean < 1.0  # of six tokens
    after = dict(model.trained[0].model.named_parameters())
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert [one.tokens for one in model.generator(**search)(texts)] == [one.tokens for one in exact]


def test_what_steps_multiply_by_is_rounded():
    for attention, decoder, fewest in (("additive", "feed", 4), ("multihead", "transformer", 20)):
        made = with_fixed_weights(trained(attention, decoder).model, "int8")
        rounded = [value for part in made.modules() for value in vars(part).values() if isinstance(value, Int8Weight)]
        steps = [part for part in made.modules() if isinstance(part, RecurrentLayer)]
        assert len(rounded) + len(steps) >= fewest
        assert all(layer.kind is Int8Weight for layer in steps)


def test_kept_parts_of_weights_follow_the_weights():
    torch.manual_seed(3)
    layer, known, late = RecurrentLayer("lstm", 6, 4), torch.randn(2, 16), torch.randn(2, 3)

    def step():
        return layer.step(known, late, layer.zeros(known), layer.recurrence(3))[0]

    with torch.no_grad():
        first = step()
        layer.rnn.weight_ih_l0.add_(1.0)
        changed = step()
    assert not torch.equal(first, changed)
    torch.testing.assert_close(step().detach(), changed)


def test_it_is_refused_where_there_is_no_such_product(monkeypatch):
    monkeypatch.setattr("s2s.products._has", lambda name: False)
    with pytest.raises(UsageError, match="int8"):
        Model([dataclasses.replace(trained("additive", "feed"))]).generator(precision="int8")
