"""The selective gate against its equation, and inside a model."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from model_toys import batch, tiny

from s2s.app import compose
from s2s.errors import UsageError
from s2s.model.selective import SelectiveGate
from s2s.task.stream import Stream
from s2s.task.trained import Trained, build_model
from s2s.text.vocabulary import Vocabulary
from s2s.types import Encoded


def test_it_is_the_equation_and_leaves_padding_and_final_alone():
    torch.manual_seed(0)
    gate, mask = SelectiveGate(4), torch.tensor([[True, True, False]])
    encoded = Encoded(torch.randn(1, 3, 4) * mask.unsqueeze(-1), torch.randn(1, 4), mask)
    found = gate(encoded)
    for place in range(3):
        h, s = encoded.states[0, place], encoded.final[0]
        share = 1 / (1 + torch.exp(-(gate.own.weight @ h + gate.whole.weight @ s + gate.own.bias)))
        torch.testing.assert_close(found.states[0, place], h * share)
    assert found.states[0, 2].abs().sum() == 0
    assert found.final is encoded.final
    assert found.mask is mask


def test_attention_sees_what_the_gate_lets_through():
    model, one = tiny(), batch()
    plain = model(one).features
    model.selective = SelectiveGate(model.encoder.width)
    with torch.no_grad():
        model.selective.own.bias.fill_(1e4)
        torch.testing.assert_close(model(one).features, plain)  # all
        model.selective.own.bias.fill_(-1e4)
        nothing = model(one)
    assert nothing.context.abs().max() == 0
    model.selective.own.bias.data.fill_(0.5)
    model(one).features.sum().backward()
    assert model.selective.whole.weight.grad.abs().sum() > 0


def test_it_is_an_option_of_every_encoder_and_cannot_stream():
    words = Vocabulary("words", list("abcdefgh"))
    for encoder in ("gru", "transformer"):
        config = compose("teach/copy", [f"encoder={encoder}", "model.selective=true"])
        assert build_model(config, words.size, words.size).selective is not None
    changes = ["attention=mocha", "encoder.bidirectional=false", "decoder.bridge=zero", "model.selective=true"]
    config = compose("teach/copy", changes)
    model = build_model(config, words.size, words.size).eval()
    with pytest.raises(UsageError, match=r"model\.selective: a gate that knows the whole source can't stream"):
        Stream(Trained(model, words, words, config, ("a", "b")))
    plain = dataclasses.replace(config, model=dataclasses.replace(config.model, selective=False))
    Stream(Trained(build_model(plain, words.size, words.size).eval(), words, words, plain, ("a", "b")))
