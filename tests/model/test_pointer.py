"""The pointer-generator against its equations, and a whole model that copies against itself, step by step."""

from __future__ import annotations

import math

import pytest
import torch
from model_toys import batch, tiny

from s2s.errors import ConfigError, UsageError
from s2s.model.copying import PointerGenerator, pointer
from s2s.model.seq2seq import Copies, start_search
from s2s.train.step import target_loss
from s2s.types import BOS, EOS, UNK, DecoderOutput

VOCABULARY, EXTRA, FEATURES, CONTEXT, LENGTH = 9, 2, 4, 3, 5


def given(rows=6, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    head = PointerGenerator(FEATURES, CONTEXT, bias=0.3).to(dtype)
    with torch.no_grad():
        head.gate.weight.copy_(torch.randn(head.gate.weight.shape, generator=generator))

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    weights = draw(rows, LENGTH).softmax(-1)
    output = DecoderOutput(draw(rows, FEATURES), draw(rows, CONTEXT), weights, (), {})
    copies = torch.randint(3, VOCABULARY + EXTRA, (rows, LENGTH), generator=generator)
    return head, output, copies, draw(rows, VOCABULARY).log_softmax(-1)


def naive(head, output, copies, generated):
    """P(w) = p softmax(w) + (1 - p) sum of the attention to where w stands, a word at a time."""
    rows = []
    for row in range(copies.size(0)):
        joined = torch.cat([output.features[row], output.context[row]])
        p = 1 / (1 + math.exp(-(joined @ head.gate.weight[0] + head.gate.bias[0]).item()))
        row_probs = []
        for word in range(VOCABULARY + EXTRA):
            copied = sum(a.item() for a, x in zip(output.weights[row], copies[row], strict=True) if x == word)
            made = generated[row, word].exp().item() if word < VOCABULARY else 0.0
            row_probs.append(p * made + (1 - p) * copied)
        rows.append(row_probs)
    return torch.tensor(rows)


def test_probabilities_are_those_of_the_equation_and_sum_to_one():
    head, output, copies, generated = given()
    found = head.log_probs(generated, output, copies, EXTRA).exp()
    torch.testing.assert_close(found.float(), naive(head, output, copies, generated), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(found.sum(1), torch.ones_like(found[:, 0]), atol=1e-6, rtol=0)


def test_what_training_sees_is_what_decoding_sees():
    head, output, copies, generated = given()
    whole = head.log_probs(generated, output, copies, EXTRA)
    for shift in range(LENGTH):
        targets = copies[:, shift]
        log_generate, log_copied = head.target_log_probs(output, copies, targets)
        made = generated.gather(1, targets.clamp(max=VOCABULARY - 1).unsqueeze(1)).squeeze(1)
        made = made.masked_fill(targets >= VOCABULARY, -torch.inf)
        mixed = torch.logaddexp(made + log_generate, log_copied)
        torch.testing.assert_close(mixed, whole.gather(1, targets.unsqueeze(1)).squeeze(1), atol=1e-6, rtol=1e-5)


def test_a_word_that_is_nowhere_in_the_source_costs_a_finite_loss():
    head, output, copies, _ = given()
    found = head.target_log_probs(output, copies, torch.zeros(copies.size(0), dtype=torch.int64))[1]
    assert torch.isfinite(found).all()
    assert (found < -20).all()


def test_the_gate_starts_as_asked():
    head = pointer(FEATURES, CONTEXT, bias=2.0)
    log_generate, log_copy = head.log_gates(torch.randn(3, FEATURES), torch.randn(3, CONTEXT))
    torch.testing.assert_close(log_generate.exp(), torch.full((3,), 1 / (1 + math.exp(-2))))
    torch.testing.assert_close(log_generate.exp() + log_copy.exp(), torch.ones(3))
    for bias in (float("nan"), 21.0):
        with pytest.raises(ConfigError, match="-20 to 20"):
            pointer(FEATURES, CONTEXT, bias=bias)


def test_without_weights_it_is_refused():
    head, output, copies, generated = given()
    with pytest.raises(ConfigError, match="copying needs attention weights"):
        head.log_probs(generated, output._replace(weights=None), copies, EXTRA)


MODELS = [
    {},
    {"input_feed": False},
    {"style": "bahdanau", "cell": "gru", "layers": 2},
    {"encoder": "transformer", "decoder": "transformer", "attention": "multihead", "layers": 2},
]


def copying(**options):
    """A model that copies, and a batch in which each source has a word of its own that is in its target too."""
    model, one = tiny(**options), batch()
    torch.manual_seed(5)
    model.copy = pointer(model.decoder.output_size, model.decoder.context_size, bias=-0.5).to(model.output.weight.dtype)
    with torch.no_grad():
        model.copy.gate.weight.normal_()
    size = model.output.out_features
    copies = one.source.clone()
    copies[:, 0] = size
    copies[0, 1] = size + 1
    outputs = one.target_out.clone()
    outputs[:, 0] = size
    outputs[0, 1] = size + 1
    inputs = one.target_in.clone()
    inputs[:, 1:] = outputs[:, :-1].masked_fill(outputs[:, :-1] >= size, UNK)
    return model, one._replace(copies=copies, target_out=outputs, target_in=inputs)


@pytest.mark.parametrize("options", MODELS)
def test_the_loss_is_what_steps_of_a_search_give(options):
    model, one = copying(**options)
    loss, _ = target_loss(model, one, model(one))
    with torch.no_grad():
        step, state = start_search(model, one.source, one.source_lengths, copies=Copies(one.copies, 2))
        total = 0.0
        tokens = torch.full((one.source.size(0),), BOS)
        for position in range(one.target_out.size(1)):
            output = step(tokens, state, torch.arange(one.source.size(0)))
            assert output.log_probs.size(1) == model.output.out_features + 2
            state, tokens = output.state, one.target_out[:, position]
            picked = output.log_probs.gather(1, tokens.unsqueeze(1)).squeeze(1)
            total -= float(picked[position < one.target_lengths].sum())
            tokens = tokens.where(position < one.target_lengths, EOS)
    assert loss.nll.item() == pytest.approx(total, rel=1e-5)


def test_the_gradient_reaches_the_gate_and_the_attention():
    model, one = copying(dtype=torch.float64)
    loss, _ = target_loss(model, one, model(one), 0.1)
    loss.loss.backward()
    score = [p for name, p in model.named_parameters() if "attention" in name]
    assert model.copy.gate.weight.grad.abs().sum() > 0
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in score)


def test_a_model_that_copies_must_be_told_what():
    model, one = copying()
    with pytest.raises(ConfigError, match="the batch doesn't say what"):
        target_loss(model, one._replace(copies=None), model(one))
    step, state = start_search(model, one.source, one.source_lengths)
    with pytest.raises(UsageError, match="isn't told what"):
        step(torch.full((3,), BOS), state, torch.arange(3))
