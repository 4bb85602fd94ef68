"""The joined model: gradients against finite differences, what a search sees, shared weights."""

from contextlib import nullcontext
from functools import partial
from itertools import product

import pytest
import torch
from model_toys import MIXED, SOURCE, STYLES, TARGET, batch, flat, kind, tiny

from s2s.attention import self_attention
from s2s.errors import ConfigError
from s2s.gather import linear
from s2s.model import decoder as decoder_module
from s2s.model import recurrent as recurrent_module
from s2s.model import recurrent_decoder, recurrent_encoder
from s2s.model.seq2seq import real_positions, seq2seq, start_search, step_function
from s2s.state import select
from s2s.train.loss import smoothed_cross_entropy
from s2s.types import BOS, PAD, Memory

ROTATED = ["additive", "general", "location", "additive_normed", "concat", "scaled_dot"]
WHOLE = [
    {
        "cell": cell,
        "style": style,
        "input_feed": feed,
        "layers": layers,
        "deep_output": number % 2 == 0,
        "residual": layers == 2,
        "attention": ROTATED[number % len(ROTATED)],
        "tie": ["target", "none", "all"][number % 3],
        "bidirectional": number % 4 != 3,
    }
    for number, (cell, (style, feed), layers) in enumerate(product(("lstm", "gru"), STYLES, (1, 2)))
]


def loss_of(model, given):
    features = real_positions(model(given).features, given.target_lengths)
    targets = real_positions(given.target_out, given.target_lengths)
    return smoothed_cross_entropy(features, model.output.weight, model.output.bias, targets, smoothing=0.1).loss


@pytest.mark.parametrize(
    "options",
    [*WHOLE, *MIXED],
    ids=["-".join(str(o[k]) for k in ("cell", "style", "input_feed", "layers", "attention")) for o in WHOLE]
    + [kind(options) for options in MIXED],
)
def test_gradients_of_the_whole_loss_equal_finite_differences(options):
    """Every parameter, along a random direction, in float64: through the step loop, the handwritten backward pass
    of the cell, the gathered products, attention and the loss with its own gradients."""
    model = tiny(**options, dtype=torch.float64).train()
    given = batch(((2, 3), (4, 1)))
    loss_of(model, given).backward()
    generator = torch.Generator().manual_seed(0)
    shift = 1e-5
    for name, parameter in model.named_parameters():
        direction = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        values = []
        with torch.no_grad():
            for sign in (1, -2, 1):
                parameter.add_(direction, alpha=sign * shift)
                values.append(loss_of(model, given).item())
        slope = (values[0] - values[1]) / (2 * shift)
        found = (parameter.grad * direction).sum().item()
        # the embedding of padding is never learned from as input
        if parameter is model.source_embedding.weight and options.get("tie") != "all":
            assert not parameter.grad[PAD].any()
        assert found == pytest.approx(slope, rel=1e-6, abs=1e-7), name
        assert abs(slope) > 1e-9, f"{name} does not matter, so nothing was tested"


@pytest.mark.parametrize("cell", ["lstm", "gru"])
@pytest.mark.parametrize("style, feed", [style for style in STYLES if style[1]])
def test_gathered_gradients_equal_plain_ones(monkeypatch, cell, style, feed):
    model, given = tiny(cell=cell, style=style, input_feed=feed, layers=2, dtype=torch.float64), batch()
    parameters = list(model.parameters())
    gathered = torch.autograd.grad(loss_of(model, given), parameters)
    monkeypatch.setattr(decoder_module, "gathered", nullcontext)
    plain = torch.autograd.grad(loss_of(model, given), parameters)
    for one, other in zip(gathered, plain, strict=True):
        torch.testing.assert_close(one, other, atol=1e-11, rtol=1e-11)
    assert recurrent_module.linear is linear  # nothing else was swapped


def test_padding_is_never_learned_from():
    given, wide = batch(), batch(pad_multiple=16)
    model = tiny(dtype=torch.float64)
    parameters = list(model.parameters())
    narrow, padded = loss_of(model, given), loss_of(model, wide)
    torch.testing.assert_close(narrow, padded)
    for one, other in zip(
        torch.autograd.grad(narrow, parameters), torch.autograd.grad(padded, parameters), strict=True
    ):
        torch.testing.assert_close(one, other)


def test_real_positions_in_order():
    values = torch.arange(12).view(2, 3, 2)
    assert real_positions(values, torch.tensor([2, 3])).tolist() == [[0, 1], [2, 3], [6, 7], [8, 9], [10, 11]]
    assert real_positions(values, torch.tensor([0, 0])).shape == (0, 2)


@pytest.mark.parametrize("tie", ["none", "target", "all"])
def test_ties_share_storage(tie):
    model = tiny(tie=tie)
    output, target, source = model.output.weight, model.decoder.embedding.weight, model.source_embedding.weight
    assert (output is target) == (tie != "none")
    assert (source is target) == (tie == "all")
    assert (output.data_ptr() == target.data_ptr()) == (tie != "none")
    names = [name for name, _ in model.named_parameters()]
    assert len(set(names)) == len(names) == len(list(model.parameters()))
    again = tiny(tie=tie, seed=5)
    with torch.no_grad():  # as a bundle or checkpoint is loaded: by the names of the parameters
        for name, parameter in again.named_parameters():
            parameter.copy_(dict(model.named_parameters())[name])
    assert torch.equal(again(batch()).features, model(batch()).features)
    assert (again.output.weight is again.decoder.embedding.weight) == (tie != "none")


def test_tie_all_needs_one_vocabulary():
    assert SOURCE != TARGET
    with pytest.raises(ConfigError, match=f"model.tie=all.*{SOURCE} and {TARGET}.*text.joint=true"):
        seq2seq(
            source_size=SOURCE,
            target_size=TARGET,
            embedding=4,
            dropout=0.0,
            tie="all",
            encoder=partial(recurrent_encoder, width=6),
            decoder=partial(recurrent_decoder, width=6),
            attention=lambda query, memory: None,
            self_attention=self_attention.none,
        )


def test_log_probs_are_normalised_float32():
    model = tiny().to(torch.bfloat16)
    found = model.log_probs(torch.randn(5, 4).bfloat16())
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.exp().sum(-1), torch.ones(5))


def search_of(model, given, rows=None):
    keep = torch.arange(given.source.size(0)) if rows is None else torch.tensor(rows)
    return start_search(model, given.source[keep], given.source_lengths[keep])


STEPPED = [{"style": s, "input_feed": f, "attention": a} for s, f in STYLES for a in ("none", "additive")]


@pytest.mark.parametrize("options", [*STEPPED, *MIXED], ids=kind)
def test_steps_equal_teacher_forcing_whatever_the_rows(options):
    """Hypotheses come, go, change places and change their source's row: each sees its own source and history."""
    model, given = tiny(**options), batch(((3, 5), (5, 5), (1, 5)))
    with torch.no_grad():
        forced = model(given, need_weights=True)
        expected = model.log_probs(forced.features)
        step, state = search_of(model, given)
        rows = torch.arange(3)
        for position, taken in enumerate(([0, 1, 2], [2, 0, 0, 1], [3, 1, 2, 0, 0], [0, 3, 4], [1], [0])):
            # `taken` are places in the last step's order
            index = torch.tensor(taken)
            state, rows = select(state, index), rows[index]
            output = step(given.target_in[rows, position], state, rows)
            torch.testing.assert_close(output.log_probs, expected[rows, position], atol=1e-6, rtol=1e-6)
            assert output.log_probs.dtype == torch.float32
            if options.get("attention") == "none":
                assert output.weights is None
            else:
                torch.testing.assert_close(output.weights, forced.weights[rows, position], atol=1e-6, rtol=1e-6)
            state = output.state


def test_rows_that_a_search_changes_in_place_are_seen():
    model, given = tiny(), batch()
    with torch.no_grad():
        step, state = search_of(model, given)
        rows = torch.tensor([0, 1, 2])
        tokens = torch.full((3,), BOS)
        first = step(tokens, state, rows)
        rows.copy_(torch.tensor([2, 2, 1]))
        found = step(tokens, select(state, rows), rows)
    torch.testing.assert_close(found.log_probs, first.log_probs[torch.tensor([2, 2, 1])])


def test_a_memory_is_projected_once_a_source(monkeypatch):
    model, given = tiny(), batch()
    calls = []
    remember = model.decoder.attention.remember
    monkeypatch.setattr(model.decoder.attention, "remember", lambda encoded: calls.append(1) or remember(encoded))
    with torch.no_grad():
        step, state = search_of(model, given)
        for rows in ([0, 1, 2], [0, 0, 1, 1, 2, 2], [1]):
            index = torch.tensor(rows)
            step(torch.full((len(rows),), BOS), select(state, index), index)
    assert calls == [1]


def memories_read(model, monkeypatch):
    """A list that gets the memory of each call of the decoder."""
    seen, forward = [], model.decoder.forward

    def spy(tokens, memory, state, **options):
        seen.append(memory)
        return forward(tokens, memory, state, **options)

    monkeypatch.setattr(model.decoder, "forward", spy)
    return seen


@pytest.mark.parametrize("attention", ["additive", "coverage"])
def test_beams_share_a_source_unless_the_attention_has_a_state(attention, monkeypatch):
    model, given = tiny(attention=attention), batch()
    seen = memories_read(model, monkeypatch)
    step, state = search_of(model, given)
    index = torch.tensor([0, 0, 1, 1, 2, 2])
    found = step(torch.full((6,), BOS), select(state, index), index)
    alone, state = search_of(model, given)
    each = alone(torch.full((3,), BOS), state, torch.arange(3))
    assert [type(one).__name__ for one in seen] == ["SharedMemory" if attention == "additive" else "Memory", "Memory"]
    torch.testing.assert_close(found.log_probs, each.log_probs[index])
    torch.testing.assert_close(found.weights, each.weights[index])


@torch.no_grad()
def test_what_a_mechanism_keeps_beside_keys_and_values_is_indexed_too(monkeypatch):
    model, given = tiny(), batch()
    memory, state = model.start(given.source, given.source_lengths)
    seen = memories_read(model, monkeypatch)
    step = step_function(model, Memory(*memory[:3], (torch.arange(3),)))
    for rows in ([2, 0], [0, 0, 0, 0, 1, 2, 2]):
        index = torch.tensor(rows)
        step(torch.full((len(rows),), BOS), select(state, index), index)
        assert torch.equal(seen[-1].extra[0], index)


def test_the_first_state_belongs_to_the_search_alone():
    model, given = tiny(), batch()
    with torch.no_grad():
        step, state = search_of(model, given)
        first = step(torch.full((3,), BOS), state, torch.arange(3))
        again = step(torch.full((3,), BOS), state, torch.arange(3))
    assert torch.equal(first.log_probs, again.log_probs)  # a step changes nothing that it was given
    for part in flat(state):
        assert torch.isfinite(part).all()


BF16 = [{"cell": c, "style": s, "input_feed": f, "layers": 2} for c in ("lstm", "gru") for s, f in STYLES]


@pytest.mark.parametrize("options", [*BF16, *MIXED], ids=kind)
def test_bf16_autocast_stays_near_float32(options):
    model, given = tiny(**options), batch()
    exact = loss_of(model, given)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = loss_of(model, given)
    mixed.backward()
    assert mixed.item() == pytest.approx(exact.item(), rel=0.02)
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in model.parameters())
