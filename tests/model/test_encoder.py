"""Encoders: padding changes nothing, and packed torch modules compute the same."""

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from s2s.errors import ConfigError
from s2s.model import recurrent_encoder
from s2s.model.encoder import reverse_within

LENGTHS = torch.tensor([4, 1, 6])
INPUT, WIDTH = 5, 6
cells = pytest.mark.parametrize("cell", ["lstm", "gru"])


def made(**options):
    torch.manual_seed(0)
    return recurrent_encoder(INPUT, **{"width": WIDTH, **options}).double().eval()


def embedded(extra=0):
    torch.manual_seed(1)
    return torch.randn(3, 6 + extra, INPUT, dtype=torch.float64)


def packed_reference(encoder, inputs, cell, layers):
    """nn.LSTM or nn.GRU over packed sequences with the encoder's weights: states (zero in padding) and final."""
    directions = 2 if encoder.bidirectional else 1
    kind = {"lstm": nn.LSTM, "gru": nn.GRU}[cell]
    reference = kind(INPUT, WIDTH // directions, layers, batch_first=True, bidirectional=directions == 2).double()
    weights = {}
    for number in range(layers):
        for stack, suffix in ((encoder.forward_layers, ""), (encoder.backward_layers, "_reverse"))[:directions]:
            for name, value in stack[number].rnn.named_parameters():
                weights[name.replace("_l0", f"_l{number}") + suffix] = value
    reference.load_state_dict(weights)
    packed, last = reference(pack_padded_sequence(inputs, LENGTHS, batch_first=True, enforce_sorted=False))
    states, _ = pad_packed_sequence(packed, batch_first=True)
    hidden = last[0] if cell == "lstm" else last
    return states, torch.cat(list(hidden[-directions:]), -1)


@cells
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("bidirectional", [True, False])
def test_it_computes_what_packed_torch_modules_compute(cell, layers, bidirectional):
    encoder = made(cell=cell, layers=layers, bidirectional=bidirectional)
    encoded = encoder(embedded(), LENGTHS)
    states, final = packed_reference(encoder, embedded(), cell, layers)
    torch.testing.assert_close(encoded.states, states)
    torch.testing.assert_close(encoded.final, final)
    assert encoded.mask.tolist() == [[j < length for j in range(6)] for length in LENGTHS.tolist()]


@cells
@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize("bidirectional", [True, False])
def test_padding_changes_nothing(cell, residual, bidirectional):
    encoder = made(cell=cell, layers=2, residual=residual, bidirectional=bidirectional)
    inputs = embedded().requires_grad_()
    encoded = encoder(inputs, LENGTHS)
    encoded.states.sum().backward()
    padding = ~encoded.mask
    assert not encoded.states[padding].any()
    assert not inputs.grad[padding].any()
    assert inputs.grad[~padding].all()
    loud = inputs.detach().masked_fill(padding.unsqueeze(-1), 1e3)
    other = encoder(loud, LENGTHS)
    assert torch.equal(other.states, encoded.states)
    assert torch.equal(other.final, encoded.final)
    wide = encoder(torch.cat([loud, torch.full((3, 3, INPUT), 9.0).double()], 1), LENGTHS)
    torch.testing.assert_close(wide.states[:, :6], encoded.states)
    torch.testing.assert_close(wide.final, encoded.final)
    assert not wide.states[:, 6:].any()
    for row in range(3):  # and a row alone is the row of a batch
        alone = encoder(inputs.detach()[row : row + 1, : LENGTHS[row]], LENGTHS[row : row + 1])
        torch.testing.assert_close(alone.states[0], encoded.states[row, : LENGTHS[row]])
        torch.testing.assert_close(alone.final[0], encoded.final[row])


def test_the_final_state_is_that_after_the_last_word_in_each_direction():
    encoded = made()(embedded(), LENGTHS)
    half = WIDTH // 2
    for row, length in enumerate(LENGTHS.tolist()):
        torch.testing.assert_close(encoded.final[row, :half], encoded.states[row, length - 1, :half])
        torch.testing.assert_close(encoded.final[row, half:], encoded.states[row, 0, half:])


@cells
def test_residual_adds_the_input_where_widths_agree(cell):
    plain, residual = made(cell=cell), made(cell=cell, residual=True)  # INPUT != WIDTH: nothing to add
    assert torch.equal(plain(embedded(), LENGTHS).states, residual(embedded(), LENGTHS).states)
    plain, residual = (made(cell=cell, width=4, bidirectional=False, layers=2, residual=flag) for flag in (False, True))
    residual.load_state_dict(plain.state_dict())
    lower = made(cell=cell, width=4, bidirectional=False, layers=1)
    lower.load_state_dict({k: v for k, v in plain.state_dict().items() if ".1." not in k})
    mask = torch.arange(6) < LENGTHS.unsqueeze(1)
    first = lower(embedded(), LENGTHS).states
    second = plain(embedded(), LENGTHS).states
    torch.testing.assert_close(residual(embedded(), LENGTHS).states, (first + second) * mask.unsqueeze(-1))


def test_residual_adds_what_dropout_has_not_touched():
    encoder, lower = (made(width=4, bidirectional=False, layers=layers, residual=True) for layers in (2, 1))
    lower.load_state_dict({k: v for k, v in encoder.state_dict().items() if ".1." not in k})
    encoder.dropout = torch.nn.Threshold(torch.inf, 0.0)  # everything is dropped
    layer, nothing = encoder.forward_layers[1], torch.zeros(3, 6, 4).double()
    alone, _ = layer.sequence(nothing, layer.zeros(nothing))
    mask = torch.arange(6) < LENGTHS.unsqueeze(1)
    expected = (lower(embedded(), LENGTHS).states + alone) * mask.unsqueeze(-1)
    torch.testing.assert_close(encoder(embedded(), LENGTHS).states, expected)


def test_dropout_lies_between_layers_and_only_in_training():
    one, two, inputs = made(layers=1, dropout=0.5).train(), made(layers=2, dropout=0.5), embedded()
    assert torch.equal(one(inputs, LENGTHS).states, one(inputs, LENGTHS).states)
    assert torch.equal(two(inputs, LENGTHS).states, two(inputs, LENGTHS).states)
    two.train()
    assert not torch.equal(two(inputs, LENGTHS).states, two(inputs, LENGTHS).states)


def test_reverse_within_by_hand():
    states = torch.tensor([[1, 2, 3, 9], [4, 9, 8, 7], [1, 2, 3, 4]]).unsqueeze(-1)
    lengths = torch.tensor([3, 1, 4])
    found = reverse_within(states, lengths)
    assert found.squeeze(-1).tolist() == [[3, 2, 1, 9], [4, 9, 8, 7], [4, 3, 2, 1]]
    assert torch.equal(reverse_within(found, lengths), states)
    assert torch.equal(reverse_within(states, torch.zeros(3, dtype=torch.int64)), states)


@pytest.mark.parametrize(
    "options, named",
    [
        ({"width": 7}, "encoder.width.*an even number; found 7"),
        ({"width": 0}, "encoder.width.*found 0"),
        ({"width": 10**9}, "encoder.width.*found 1000000000"),
        ({"layers": 0}, "encoder.layers.*1 to 64; found 0"),
        ({"layers": 10**9}, "encoder.layers"),
        ({"layers": True}, "encoder.layers.*found True"),
        ({"dropout": 1.0}, "encoder.dropout.*found 1.0"),
        ({"dropout": float("nan")}, "encoder.dropout.*found nan"),
        ({"cell": "rnn"}, "cell.*lstm or gru; found 'rnn'"),
    ],
)
def test_wrong_options_are_named(options, named):
    with pytest.raises(ConfigError, match=named):
        recurrent_encoder(INPUT, **{"width": WIDTH, **options})


def test_an_odd_width_is_fine_in_one_direction():
    assert recurrent_encoder(INPUT, width=7, bidirectional=False).width == 7
