"""One recurrent layer (LSTM or GRU), run over a whole sequence by one fused call or stepped by a decoder."""

from __future__ import annotations

import copy
import functools
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from s2s.activations import tanh_
from s2s.errors import ConfigError
from s2s.gather import at_once, linear
from s2s.kernels import compiled, cpu, usable
from s2s.products import FixedWeight

Cell = Literal["lstm", "gru"]
CellState = tuple[Tensor, ...]  # LSTM: (h, c), GRU: (h,); each (B, H)
# Of the gates (None for a GRU whose input is all known before), and of a GRU's own state (None for an LSTM).
StepWeights = tuple[Tensor | FixedWeight | None, Tensor | FixedWeight | None]


class _LSTMGates(torch.autograd.Function):
    """Gates (B, 4H) and cell (B, H) to the next (h, c), with the backward pass by hand: few passes over memory.

    Hochreiter & Schmidhuber 1997 with forget gates, in torch's gate order i, f, g, o.
    """

    @staticmethod
    def forward(ctx: Any, gates: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
        size = cell.size(1)
        activated = torch.sigmoid(gates)
        i, f, g, o = activated.chunk(4, 1)
        tanh_(g.copy_(gates[:, 2 * size : 3 * size]))
        following = torch.addcmul(f * cell, i, g)
        squashed = tanh_(following.clone())
        ctx.save_for_backward(activated, cell, squashed)
        return o * squashed, following

    @staticmethod
    def backward(ctx: Any, d_hidden: Tensor, d_following: Tensor) -> tuple[Tensor, Tensor]:
        activated, cell, squashed = ctx.saved_tensors
        size = cell.size(1)
        i, f, g, o = activated.chunk(4, 1)
        d_cell = torch.addcmul(d_following, d_hidden * o, 1 - squashed * squashed)
        # derivatives of the activations: s(1 - s) for the three sigmoids, 1 - g^2 for the tanh
        d_gates = activated * (1 - activated)
        d_gates[:, 2 * size : 3 * size] = 1 - g * g
        outer = torch.cat([d_cell * g, d_cell * cell, d_cell * i, d_hidden * squashed], 1)
        return d_gates.mul_(outer), d_cell * f


def _lstm_gates(gates: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
    if usable(gates.device):
        from s2s.kernels.lstm import lstm_gates

        return lstm_gates(gates, cell)
    if compiled(gates, cell):
        return cpu.lstm_gates(gates, cell)
    hidden, following = _LSTMGates.apply(gates, cell)  # type: ignore[no-untyped-call]
    return hidden, following


@functools.cache
def _has_fused(cell: Cell, dtype: torch.dtype) -> bool:
    """Whether this processor has torch's fused kernel in a half precision: older ones lack it, and torch raises."""
    try:
        with torch.random.fork_rng(devices=[]), torch.inference_mode(False), torch.enable_grad():
            rnn = nn.LSTM(1, 1) if cell == "lstm" else nn.GRU(1, 1)
            with torch.autocast("cpu", dtype):
                rnn(torch.zeros(1, 1, 1))[0].sum().backward()
    except RuntimeError:
        return False
    return True


class RecurrentLayer(nn.Module):
    """An LSTM (Hochreiter & Schmidhuber 1997) or GRU (Cho et al. 2014, arXiv 1406.1078) layer.

    `sequence` runs a whole sequence through the fused kernel of the device. `inputs` and `step` do the same in parts:
    all inputs are projected in one product, then each step adds what is known only then.
    """

    def __init__(self, cell: Cell, input_size: int, size: int) -> None:
        super().__init__()
        kinds: dict[str, type[nn.LSTM] | type[nn.GRU]] = {"lstm": nn.LSTM, "gru": nn.GRU}
        if cell not in kinds:
            raise ConfigError("unknown cell", where="cell", expected="lstm or gru", found=repr(cell))
        self.cell, self.input_size, self.size = cell, input_size, size
        self.kind: type[FixedWeight] | None = None  # what steps multiply by, if not plain tensors
        self._parts: dict[str, tuple[object, Tensor | FixedWeight]] = {}
        self.rnn = kinds[cell](input_size, size, batch_first=True)
        if cell == "lstm":  # forget gates start open (Jozefowicz et al. 2015)
            with torch.no_grad():
                self._weight("bias_ih")[size : 2 * size].fill_(1.0)
                self._weight("bias_hh")[size : 2 * size].zero_()

    def _weight(self, name: str) -> Tensor:
        """One of torch's weights of the layer: weight_ih (G H, I), weight_hh (G H, H), bias_ih and bias_hh (G H,)."""
        return cast(Tensor, getattr(self.rnn, f"{name}_l0"))

    def zeros(self, like: Tensor) -> CellState:
        """The state before a sequence, (B, H) for a tensor whose first axis is B."""
        zero = like.new_zeros(like.size(0), self.size)
        return (zero, zero) if self.cell == "lstm" else (zero,)

    def sequence(self, inputs: Tensor, state: CellState) -> tuple[Tensor, CellState]:
        """inputs (B, T, I) to outputs (B, T, H) and the state after the last step.

        On a CPU both are as precise as the weights, whatever autocast does.
        """
        half = inputs.device.type == "cpu" and torch.is_autocast_enabled("cpu")
        if half and not _has_fused(self.cell, torch.get_autocast_dtype("cpu")):
            with torch.autocast("cpu", enabled=False):
                return self.sequence(inputs.float(), tuple(part.float() for part in state))
        first = tuple(part.unsqueeze(0).contiguous() for part in state)
        outputs, last = self.rnn(inputs, first if self.cell == "lstm" else first[0])
        state = tuple(part.squeeze(0) for part in (last if self.cell == "lstm" else (last,)))
        if half:
            return outputs.float(), tuple(part.float() for part in state)
        return outputs, state

    def inputs(self, inputs: Tensor) -> Tensor:
        """The share of the gates that the first `inputs.size(-1)` input features give: (B, T, I') to (B, T, G H).

        The rest of the input, if any, is given to `step` as `late`. The bias is in here.
        """
        weight = self._kept("known", inputs.size(-1))
        if isinstance(weight, FixedWeight):
            return weight.product(inputs, self.bias())
        return at_once(inputs, weight, self.bias())

    def with_fixed_weights(self, kind: type[FixedWeight]) -> RecurrentLayer:
        """The same layer, with steps that multiply by weights of this kind; the parameters are shared."""
        made = copy.copy(self)
        made.kind, made._parts = kind, {}
        return made

    def bias(self) -> Tensor:
        """What is added to the input's share of the gates, (G H,); a GRU's hidden bias stands inside its reset gate."""
        return self._weight("bias_ih") + self._weight("bias_hh") if self.cell == "lstm" else self._weight("bias_ih")

    def recurrence(self, late_size: int) -> StepWeights:
        """The weights that `step` needs, joined once a sequence: (G H, late + H); a GRU's (G H, late) and (G H, H)."""
        if self.cell == "lstm":
            return self._kept("late", late_size), None
        return self._kept("late", late_size) if late_size else None, self._kept("hidden", self.size)

    def _kept(self, part: Literal["known", "late", "hidden"], size: int) -> Tensor | FixedWeight:
        """A part of the weights as steps multiply by it: of `size` known or late input features, or of a GRU's state.

        A search makes one step at a time: it is kept for as long as the weights stay what they are.
        """
        outer, own = self._weight("weight_ih"), self._weight("weight_hh")
        if torch.is_grad_enabled():
            return self._part(part, size)
        key = (part, size, outer.data_ptr(), outer._version, own.data_ptr(), own._version)
        if self._parts.get(part, (None,))[0] != key:
            made = self._part(part, size).contiguous()
            self._parts[part] = (key, made if self.kind is None else self.kind(made))
        return self._parts[part][1]

    def _part(self, part: str, size: int) -> Tensor:
        if part == "known":
            return self._weight("weight_ih")[:, :size]
        if part == "hidden":
            return self._weight("weight_hh")
        late = self._weight("weight_ih")[:, self.input_size - size :]
        return torch.cat([late, self._weight("weight_hh")], 1) if self.cell == "lstm" else late

    def step(self, known: Tensor, late: Tensor | None, state: CellState, weights: StepWeights) -> CellState:
        """The state after one step. known: (B, G H) from `inputs`. late: (B, L), input features known only now."""
        hidden = state[0]
        joined, hidden_weight = weights
        if hidden_weight is None:
            assert joined is not None
            gates = linear(hidden if late is None else torch.cat([late, hidden], 1), joined, known)
            return _lstm_gates(gates, state[1].to(gates.dtype))
        outer = known if late is None or joined is None else linear(late, joined, known)
        inner = linear(hidden, hidden_weight, self._weight("bias_hh"))
        reset_o, update_o, new_o = outer.chunk(3, 1)
        reset_i, update_i, new_i = inner.chunk(3, 1)
        update = torch.sigmoid(update_o + update_i)
        candidate = torch.tanh(new_o + torch.sigmoid(reset_o + reset_i) * new_i)
        return (torch.lerp(candidate, hidden.to(candidate.dtype), update),)
