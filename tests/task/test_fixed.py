"""A model whose weights are laid out for decoding: the same outputs, anew when its weights change."""

import dataclasses
import math

import pytest
import torch
from test_invariance import CASES, lines, trained

from s2s.model.fixed import with_fixed_weights
from s2s.products import PackedWeight
from s2s.search import SearchConfig
from s2s.task.generate import Generator
from s2s.task.stream import Stream

SEARCH = {"beam": 3, "max_length": 6, "min_length": 6}


@pytest.fixture
def all_packed(monkeypatch):
    """Weights are packed however small they are."""
    monkeypatch.setattr("s2s.products._WORTH_PACKING", 1)


@pytest.mark.parametrize(("attention", "decoder"), CASES)
def test_outputs_are_those_of_the_model_itself(attention, decoder, all_packed):
    one = dataclasses.replace(trained(attention, decoder))
    packed = [value for part in one.ready().modules() for value in vars(part).values() if type(value) is PackedWeight]
    assert packed
    assert all(weight._packed is not None for weight in packed)
    fast = Generator([one], SearchConfig(**SEARCH))(lines())
    plain = dataclasses.replace(one)
    plain._ready["float32"] = one._ready["float32"][0], one.model
    assert plain.ready() is one.model
    slow = Generator([plain], SearchConfig(**SEARCH))(lines())
    assert [result.tokens for result in fast] == [result.tokens for result in slow]
    exact = torch.tensor([result.log_prob for result in slow])
    torch.testing.assert_close(torch.tensor([result.log_prob for result in fast]), exact, rtol=1e-4, atol=1e-4)


def test_it_is_made_once_and_anew_when_weights_change(all_packed):
    one = dataclasses.replace(trained("additive", "feed"))
    before = one.ready()
    assert one.ready() is before
    with torch.no_grad():
        one.model.output.weight.mul_(1.0)
    assert one.ready() is not before


def test_it_shares_what_it_does_not_lay_out():
    model = trained("additive", "feed").model
    made = with_fixed_weights(model, "float32")
    assert made.source_embedding is model.source_embedding
    assert type(model.output) is torch.nn.Linear


def test_a_stream_writes_by_it(all_packed):
    one = dataclasses.replace(trained("monotonic", "feed"))
    before = dict(one._ready)
    Stream(one, wait_k=math.inf).read("a")
    assert not before
    assert "float32" in one._ready
