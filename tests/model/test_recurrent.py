"""One recurrent layer: fused, stepped and torch's own cells are the same function with the same gradients."""

import pytest
import torch
from torch import nn

from s2s.errors import ConfigError
from s2s.gather import gathered
from s2s.model.recurrent import RecurrentLayer, _LSTMGates

BATCH, STEPS, INPUT, SIZE = 3, 4, 5, 6
cells = pytest.mark.parametrize("cell", ["lstm", "gru"])


def layer_and_inputs(cell):
    torch.manual_seed(0)
    layer = RecurrentLayer(cell, INPUT, SIZE).double()
    for parameter in layer.parameters():
        parameter.data.normal_(std=0.7)
    inputs = torch.randn(BATCH, STEPS, INPUT, dtype=torch.float64, requires_grad=True)
    state = tuple(
        torch.randn(BATCH, SIZE, dtype=torch.float64, requires_grad=True) for _ in range(2 if cell == "lstm" else 1)
    )
    return layer, inputs, state


def stepped(layer, inputs, state, late):
    """The sequence by `inputs` and `step`, its last `late` input features given only at each step."""
    known = layer.inputs(inputs[..., : INPUT - late])
    weights = layer.recurrence(late)
    outputs = []
    for step in range(STEPS):
        state = layer.step(known[:, step], inputs[:, step, INPUT - late :] if late else None, state, weights)
        outputs.append(state[0])
    return torch.stack(outputs, 1), state


def by_cells(layer, inputs, state):
    """The sequence by torch's LSTMCell or GRUCell with the same weights."""
    cell = {"lstm": nn.LSTMCell, "gru": nn.GRUCell}[layer.cell](INPUT, SIZE).double()
    given = {name.removesuffix("_l0"): value for name, value in layer.rnn.named_parameters()}
    outputs = []
    for step in range(STEPS):
        hidden = state if layer.cell == "lstm" else state[0]
        made = torch.func.functional_call(cell, given, (inputs[:, step], hidden))
        state = made if layer.cell == "lstm" else (made,)
        outputs.append(state[0])
    return torch.stack(outputs, 1), state


def gradients(result, layer, inputs, state):
    """Of a random function of outputs and last state, in inputs, first state and parameters."""
    outputs, last = result
    generator = torch.Generator().manual_seed(1)
    value = sum(
        (part * torch.randn(part.shape, generator=generator, dtype=torch.float64)).sum() for part in (outputs, *last)
    )
    return torch.autograd.grad(value, [inputs, *state, *layer.parameters()])


@cells
@pytest.mark.parametrize("late", [0, 1, 3, INPUT])
@pytest.mark.parametrize("gather", [False, True], ids=["plain", "gathered"])
def test_steps_fused_call_and_torch_cells_agree_in_values_and_gradients(cell, late, gather):
    layer, inputs, state = layer_and_inputs(cell)
    fused, reference = layer.sequence(inputs, state), by_cells(layer, inputs, state)
    if gather:
        with gathered():
            made = stepped(layer, inputs, state, late)
    else:
        made = stepped(layer, inputs, state, late)
    wanted = gradients(reference, layer, inputs, state)
    for result in (fused, made):
        torch.testing.assert_close(result, reference, atol=1e-12, rtol=1e-12)
        for one, other in zip(gradients(result, layer, inputs, state), wanted, strict=True):
            torch.testing.assert_close(one, other, atol=1e-10, rtol=1e-10)


def test_the_handwritten_backward_pass_of_the_gates():
    gates = torch.randn(2, 12, dtype=torch.float64, requires_grad=True)
    state = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(_LSTMGates.apply, (gates, state))
    assert torch.autograd.gradcheck(lambda g, c: _LSTMGates.apply(g, c)[0], (gates, state))  # one output alone
    assert torch.autograd.gradcheck(lambda g, c: _LSTMGates.apply(g, c)[1], (gates, state))


@cells
def test_a_sequence_in_parts_threads_its_state(cell):
    layer, inputs, state = layer_and_inputs(cell)
    whole, last = layer.sequence(inputs, state)
    first, between = layer.sequence(inputs[:, :1], state)
    rest, end = layer.sequence(inputs[:, 1:], between)
    torch.testing.assert_close(torch.cat([first, rest], 1), whole)
    torch.testing.assert_close(end, last)


@cells
def test_the_state_before_a_sequence_is_zero(cell):
    layer, inputs, _ = layer_and_inputs(cell)
    state = layer.zeros(inputs)
    assert [tuple(part.shape) for part in state] == [(BATCH, SIZE)] * (2 if cell == "lstm" else 1)
    expected = layer.rnn(inputs)[0]
    assert torch.equal(layer.sequence(inputs, state)[0], expected)


def test_forget_gates_start_open():
    layer = RecurrentLayer("lstm", INPUT, SIZE)
    bias = layer.rnn.bias_ih_l0 + layer.rnn.bias_hh_l0
    assert torch.equal(bias[SIZE : 2 * SIZE], torch.ones(SIZE))
    assert (bias[:SIZE].abs() < 1).all()


def test_an_unknown_cell_is_refused():
    with pytest.raises(ConfigError, match="expected lstm or gru; found 'rnn'"):
        RecurrentLayer("rnn", INPUT, SIZE)
