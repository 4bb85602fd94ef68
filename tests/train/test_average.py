"""Averages of weights."""

import pytest
import torch
from torch import nn
from train_toys import tiny

from s2s.train.average import MovingAverage, mean


def test_the_moving_average_by_hand():
    model = nn.Linear(1, 1, bias=False)
    model.weight.data.fill_(1.0)
    average, expected = MovingAverage(model, 0.5), 1.0
    for step, value in enumerate([3.0, -2.0, 10.0, 4.0, 4.0, 0.0, 9.0, 1.0, 2.0, 5.0]):
        model.weight.data.fill_(value)
        average.update(step)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * value
        assert average.shadow[0].item() == pytest.approx(expected, rel=1e-6)
    assert (1 + 9) / (10 + 9) > 0.5  # so both branches of the minimum were walked


def test_inside_the_model_has_the_average_and_outside_its_own_weights():
    model = tiny()
    average = MovingAverage(model, 0.9)
    for step in range(3):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter))
        average.update(step)
    own = [p.detach().clone() for p in model.parameters()]
    with average.applied():
        for parameter, shadow in zip(model.parameters(), average.shadow, strict=True):
            assert torch.equal(parameter, shadow)
        assert model.output.weight is model.decoder.embedding.weight
    assert all(torch.equal(a, b) for a, b in zip(own, model.parameters(), strict=True))
    with pytest.raises(ZeroDivisionError), average.applied():
        raise ZeroDivisionError
    assert all(torch.equal(a, b) for a, b in zip(own, model.parameters(), strict=True))


def test_it_goes_on_from_its_state():
    model = tiny()
    first = MovingAverage(model, 0.9)
    with torch.no_grad():
        model.output.bias.add_(1)
    first.update(0)
    second = MovingAverage(model, 0.9)
    second.load({name: value.clone() for name, value in first.state().items()})
    assert set(first.state()) == {name for name, _ in model.named_parameters()}
    for average in (first, second):
        average.update(1)
    assert all(torch.equal(a, b) for a, b in zip(first.shadow, second.shadow, strict=True))


def test_frozen_weights_are_left_alone():
    model = nn.Linear(2, 2)
    model.bias.requires_grad_(False)
    assert list(MovingAverage(model, 0.9).state()) == ["weight"]


def test_the_mean_of_states():
    states = [
        {"a": torch.full((2,), float(value)), "b": torch.tensor([value], dtype=torch.bfloat16)} for value in (1, 2, 6)
    ]
    found = mean(states)
    assert found["a"].tolist() == [3.0, 3.0]
    assert found["b"].dtype == torch.bfloat16
    third = mean([{"a": torch.tensor([0.1])}] * 3)["a"]
    assert torch.equal(third, torch.tensor([0.1]))  # no rounding on the way
