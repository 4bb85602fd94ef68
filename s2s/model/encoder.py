"""The recurrent encoder: embedded source to what attention reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from s2s.dropout import Dropout
from s2s.errors import ConfigError
from s2s.model.base import Encoder, SelfAttentionBuilder, check_sizes
from s2s.model.recurrent import Cell, CellState, RecurrentLayer
from s2s.types import Encoded, State


def reverse_within(states: Tensor, lengths: Tensor) -> Tensor:
    """Each row of states (B, S, D) reversed within its own length (B,); padding stays where it is."""
    positions = torch.arange(states.size(1), device=states.device)
    index = (lengths.unsqueeze(1) - 1 - positions).where(positions < lengths.unsqueeze(1), positions)
    return states.gather(1, index.unsqueeze(-1).expand_as(states))


class _Online(NamedTuple):
    """Where a source that grows stands; all batch first."""

    cells: tuple[CellState, ...]  # of the forward direction, a layer
    waiting: Tensor  # (B, W, E): embedded tokens of a chunk that isn't whole yet
    final: Tensor  # (B, F)


class RecurrentEncoder(Encoder):
    """A stack of (bidirectional) recurrent layers (Bahdanau et al. 2014, section 3.2).

    Sequences are padded, not packed: the forward direction never sees its padding before its last real step, and the
    backward direction runs forward over each row reversed within its length. So padding changes nothing, and one fused
    call runs each direction. `width` is the width of the states, both directions together.

    chunk: the backward direction runs within chunks of so many tokens, each by itself, so that no state depends on more
    than the rest of its chunk. `final` is the forward direction's last state and that of the backward direction at the
    beginning of the last chunk.
    """

    def __init__(
        self,
        input_size: int,
        *,
        cell: Cell,
        layers: int,
        width: int,
        bidirectional: bool,
        chunk: int | None,
        dropout: float,
        residual: bool,
    ) -> None:
        super().__init__()
        directions = 2 if bidirectional else 1
        self.width, self.bidirectional, self.chunk, self.residual = width, bidirectional, chunk, residual
        self.online = not bidirectional or chunk is not None
        sizes = [input_size] + [width] * (layers - 1)
        self.forward_layers = _stack(cell, sizes, width // directions)
        self.backward_layers = _stack(cell, sizes if bidirectional else [], width // directions)
        self.dropout = Dropout(dropout)

    def forward(self, embedded: Tensor, lengths: Tensor) -> Encoded:
        """embedded (B, S, E), lengths (B,) to states (B, S, width), final (B, width) and mask (B, S)."""
        return self._run(embedded, lengths, self._start(embedded))[0]

    def extend(self, embedded: Tensor, state: State, *, last: bool) -> tuple[Encoded, State]:
        """As the contract says: every token is encoded once, and with `chunk` as soon as its chunk is whole."""
        past = _Online(*state) if state else self._first(embedded)
        inputs = torch.cat([past.waiting, embedded], 1)
        ready = inputs.size(1)
        if self.chunk is not None and not last:
            ready -= ready % self.chunk
        inputs, waiting = inputs[:, :ready], inputs[:, ready:]
        if not ready:
            states = inputs.new_zeros(inputs.size(0), 0, self.width)
            return Encoded(states, past.final, states.any(-1)), past._replace(waiting=waiting)
        encoded, cells = self._run(inputs, torch.full((inputs.size(0),), ready, device=inputs.device), past.cells)
        return encoded, _Online(cells, waiting, encoded.final)

    def _start(self, like: Tensor) -> tuple[CellState, ...]:
        return tuple(layer.zeros(like) for layer in self.forward_layers)

    def _first(self, embedded: Tensor) -> _Online:
        return _Online(self._start(embedded), embedded[:, :0], embedded.new_zeros(embedded.size(0), self.width))

    def _run(
        self, embedded: Tensor, lengths: Tensor, cells: tuple[CellState, ...]
    ) -> tuple[Encoded, tuple[CellState, ...]]:
        """All layers, from where the forward direction stands to where it stands then."""
        length = embedded.size(1)
        mask = torch.arange(length, device=embedded.device) < lengths.unsqueeze(1)
        last = (lengths - 1).clamp(min=0)
        states, after = embedded, []
        finals: list[Tensor] = []
        for number, layer in enumerate(self.forward_layers):
            inputs = self.dropout(states) if number else states
            outputs, cell = layer.sequence(inputs, cells[number])
            after.append(cell)
            finals = [_at(outputs, last)]
            if self.bidirectional:
                reverse = self._backward(self.backward_layers[number], inputs, lengths)
                size = self.chunk or max(length, 1)
                finals.append(_at(reverse, torch.div(last, size, rounding_mode="floor") * size))
                outputs = torch.cat([outputs, reverse], -1)
            states = outputs + states if self.residual and outputs.shape == states.shape else outputs
        encoded = Encoded(states.masked_fill(~mask.unsqueeze(-1), 0.0), torch.cat(finals, -1), mask)
        return encoded, tuple(after)

    def _backward(self, layer: RecurrentLayer, inputs: Tensor, lengths: Tensor) -> Tensor:
        """The backward direction (B, S, H) of inputs (B, S, I), within each chunk: chunks are rows of their own."""
        batch, length = inputs.shape[:2]
        size = self.chunk or max(length, 1)
        count = -(-length // size)
        rows = F.pad(inputs, (0, 0, 0, count * size - length)).reshape(batch * count, size, -1)
        starts = size * torch.arange(count, device=inputs.device)
        own = (lengths.unsqueeze(1) - starts).clamp(0, size).flatten()
        outputs, _ = layer.sequence(reverse_within(rows, own), layer.zeros(rows))
        return reverse_within(outputs, own).reshape(batch, count * size, -1)[:, :length]


def _at(states: Tensor, places: Tensor) -> Tensor:
    """states (B, S, H) at places (B,): (B, H)."""
    return states.gather(1, places.view(-1, 1, 1).expand(-1, 1, states.size(2))).squeeze(1)


def _stack(cell: Cell, input_sizes: Sequence[int], size: int) -> Sequence[RecurrentLayer]:
    return cast(Sequence[RecurrentLayer], nn.ModuleList(RecurrentLayer(cell, width, size) for width in input_sizes))


def recurrent_encoder(
    input_size: int,
    self_attention: SelfAttentionBuilder | None = None,
    *,
    cell: Cell = "lstm",
    layers: int = 1,
    width: int = 256,
    bidirectional: bool = True,
    chunk: int | None = None,
    dropout: float = 0.0,
    residual: bool = False,
) -> RecurrentEncoder:
    """A recurrent encoder. input_size: width of the embeddings. It has no self-attention, whatever makes one.

    cell: lstm or gru. layers: depth, 1 to 64. width: of the states, both directions together (even if bidirectional).
    chunk: tokens within which the backward direction runs, so that a source can be encoded while it grows; None: the
    whole source. dropout: between layers. residual: each layer adds its input where the widths agree. Raises
    ConfigError.
    """
    check_sizes("encoder", layers, width, dropout=dropout)
    if bidirectional and width % 2:
        raise ConfigError(
            "a bidirectional encoder shares its width between two directions",
            where="encoder.width",
            expected="an even number",
            found=str(width),
        )
    if chunk is not None and (isinstance(chunk, bool) or not isinstance(chunk, int) or not 1 <= chunk <= 1 << 20):
        raise ConfigError("value out of range", where="encoder.chunk", expected=f"1 to {1 << 20}", found=repr(chunk))
    if chunk is not None and not bidirectional:
        raise ConfigError(
            "chunks are for the backward direction, and there is none",
            where="encoder.chunk",
            expected="null, or encoder.bidirectional=true",
            found=str(chunk),
        )
    return RecurrentEncoder(
        input_size,
        cell=cell,
        layers=layers,
        width=width,
        bidirectional=bidirectional,
        chunk=chunk,
        dropout=dropout,
        residual=residual,
    )
