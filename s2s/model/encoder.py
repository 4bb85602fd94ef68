"""Encoders: embedded source to what attention reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from s2s.errors import ConfigError
from s2s.model.recurrent import Cell, RecurrentLayer
from s2s.types import Encoded


def reverse_within(states: Tensor, lengths: Tensor) -> Tensor:
    """Each row of states (B, S, D) reversed within its own length (B,); padding stays where it is."""
    positions = torch.arange(states.size(1), device=states.device)
    index = (lengths.unsqueeze(1) - 1 - positions).where(positions < lengths.unsqueeze(1), positions)
    return states.gather(1, index.unsqueeze(-1).expand_as(states))


class RecurrentEncoder(nn.Module):
    """A stack of (bidirectional) recurrent layers (Bahdanau et al. 2014, section 3.2).

    Sequences are padded, not packed: the forward direction never sees its padding before its last real step, and the
    backward direction runs forward over each row reversed within its length. So padding changes nothing, and one fused
    call runs each direction. `width` is the width of the states, both directions together.
    """

    def __init__(
        self,
        input_size: int,
        *,
        cell: Cell,
        layers: int,
        width: int,
        bidirectional: bool,
        dropout: float,
        residual: bool,
    ) -> None:
        super().__init__()
        directions = 2 if bidirectional else 1
        self.width, self.bidirectional, self.residual = width, bidirectional, residual
        sizes = [input_size] + [width] * (layers - 1)
        self.forward_layers = _stack(cell, sizes, width // directions)
        self.backward_layers = _stack(cell, sizes if bidirectional else [], width // directions)
        self.dropout = nn.Dropout(dropout)

    def forward(self, embedded: Tensor, lengths: Tensor) -> Encoded:
        """embedded (B, S, E), lengths (B,) to states (B, S, width), final (B, width) and mask (B, S)."""
        batch, length = embedded.shape[:2]
        mask = torch.arange(length, device=embedded.device) < lengths.unsqueeze(1)
        last = (lengths - 1).clamp(min=0).view(batch, 1, 1)
        states, finals = embedded, []
        for number, layer in enumerate(self.forward_layers):
            inputs = self.dropout(states) if number else states
            forward, _ = layer.sequence(inputs, layer.zeros(inputs))
            finals = [forward.gather(1, last.expand(batch, 1, forward.size(2))).squeeze(1)]
            if self.bidirectional:
                back = self.backward_layers[number]
                reverse, _ = back.sequence(reverse_within(inputs, lengths), back.zeros(inputs))
                finals.append(reverse.gather(1, last.expand(batch, 1, reverse.size(2))).squeeze(1))
                forward = torch.cat([forward, reverse_within(reverse, lengths)], -1)
            states = forward + states if self.residual and forward.shape == states.shape else forward
        return Encoded(states.masked_fill(~mask.unsqueeze(-1), 0.0), torch.cat(finals, -1), mask)


def _stack(cell: Cell, input_sizes: Sequence[int], size: int) -> Sequence[RecurrentLayer]:
    return cast(Sequence[RecurrentLayer], nn.ModuleList(RecurrentLayer(cell, width, size) for width in input_sizes))


def recurrent_encoder(
    input_size: int,
    *,
    cell: Cell = "lstm",
    layers: int = 1,
    width: int = 256,
    bidirectional: bool = True,
    dropout: float = 0.0,
    residual: bool = False,
) -> RecurrentEncoder:
    """A recurrent encoder. input_size: width of the embeddings.

    cell: lstm or gru. layers: depth, 1 to 64. width: of the states, both directions together (even if bidirectional).
    dropout: between layers. residual: each layer adds its input where the widths agree. Raises ConfigError.
    """
    check_sizes("encoder", layers, width, dropout)
    if bidirectional and width % 2:
        raise ConfigError(
            "a bidirectional encoder shares its width between two directions",
            where="encoder.width",
            expected="an even number",
            found=str(width),
        )
    return RecurrentEncoder(
        input_size,
        cell=cell,
        layers=layers,
        width=width,
        bidirectional=bidirectional,
        dropout=dropout,
        residual=residual,
    )


def check_sizes(where: str, layers: int, width: int, dropout: float) -> None:
    """Refuse sizes that no machine here can hold, before anything is allocated. Raises ConfigError."""
    for key, value, low, high in (("layers", layers, 1, 64), ("width", width, 1, 1 << 16)):
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise ConfigError(
                "value out of range", where=f"{where}.{key}", expected=f"{low} to {high}", found=repr(value)
            )
    if not 0 <= dropout < 1:
        raise ConfigError("value out of range", where=f"{where}.dropout", expected="0 <= p < 1", found=repr(dropout))
