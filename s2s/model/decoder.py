"""Recurrent decoders: target tokens, memory and state to features, in both classic styles.

When a query is made is the decoder's business, not the attention's:

- `luong` (Luong et al. 2015, arXiv 1508.04025): the cell runs, its new state asks. With input feeding the last
  attentional vector enters the cell, so it goes step by step; without, the whole target runs through one fused call and
  one batched attention.
- `bahdanau` (Bahdanau et al. 2014, arXiv 1409.0473): the previous state asks, the context enters the cell.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, cast

import torch
from torch import Tensor, nn

from s2s.attention.base import Attention
from s2s.errors import ConfigError
from s2s.gather import gathered, linear
from s2s.model.embedding import Embedding
from s2s.model.encoder import check_sizes
from s2s.model.recurrent import Cell, CellState, RecurrentLayer
from s2s.types import DecoderOutput, Encoded, Memory, State

Style = Literal["luong", "bahdanau"]


class _Past(NamedTuple):
    """The decoder's state: what `State` holds, by name. All batch first."""

    cells: tuple[CellState, ...]  # a layer: (h, c) or (h,), each (B, H)
    feed: Tensor  # (B, O): the last attentional vector; O = 0 without input feeding
    attention: State


class RecurrentDecoder(nn.Module):
    """A recurrent decoder with any attention. `output_size` is the width of the features it returns.

    It keeps the promise of chunk invariance: one call with T tokens equals any split of it that threads the state.
    """

    def __init__(
        self,
        embedding: Embedding,
        attention: Attention,
        *,
        final_size: int,
        output_size: int,
        cell: Cell,
        layers: int,
        width: int,
        style: Style,
        input_feed: bool,
        deep_output: bool,
        dropout: float,
        embedding_dropout: float,
        residual: bool,
    ) -> None:
        super().__init__()
        self.embedding, self.attention = embedding, attention
        self.style, self.residual, self.width, self.output_size = style, residual, width, output_size
        self.late_size = {"luong": output_size if input_feed else 0, "bahdanau": attention.memory_size}[style]
        embedding_size = embedding.embedding_dim
        sizes = [embedding_size + self.late_size] + [width] * (layers - 1)
        layers_made = nn.ModuleList(RecurrentLayer(cell, size, width) for size in sizes)
        self.layers = cast(Sequence[RecurrentLayer], layers_made)
        self.bridge = nn.Linear(final_size, layers * width * (2 if cell == "lstm" else 1))
        self.readout = nn.Linear(width + attention.memory_size, output_size)
        self.readout_embedding = nn.Linear(embedding_size, output_size, bias=False) if deep_output else None
        self.embedding_dropout, self.dropout = nn.Dropout(embedding_dropout), nn.Dropout(dropout)

    def initial_state(self, encoded: Encoded, memory: Memory) -> State:
        """State before the first token: in each layer h = tanh(W final), c = W' final; final sums up the source."""
        parts = self.bridge(encoded.final).chunk(2 if self.layers[0].cell == "lstm" else 1, 1)
        split = [part.chunk(len(self.layers), 1) for part in (parts[0].tanh(), *parts[1:])]
        cells = tuple(tuple(kind[number] for kind in split) for number in range(len(self.layers)))
        feed = encoded.final.new_zeros(encoded.final.size(0), self.late_size if self.style == "luong" else 0)
        return _Past(cells, feed, self.attention.initial_state(memory))

    def forward(self, tokens: Tensor, memory: Memory, state: State, *, need_weights: bool = True) -> DecoderOutput:
        """tokens (B, T): features (B, T, output_size), context (B, T, V), weights (B, T, S) if asked for."""
        past = _Past(*state)
        embedded = self.embedding_dropout(self.embedding(tokens))
        if self.late_size:
            with gathered():
                return self._stepwise(embedded, memory, past, need_weights)
        return self._at_once(embedded, memory, past, need_weights)

    def _known(self, embedded: Tensor) -> Tensor | None:
        """The share of the readout that is known before the loop, (B, T, O), or None without deep output."""
        return None if self.readout_embedding is None else self.readout_embedding(embedded)

    def _read(self, hidden: Tensor, context: Tensor, known: Tensor | None) -> Tensor:
        """Attentional vector tanh(W [h; c] (+ W' e)): Luong et al. eq. 5, with the embedding for deep output."""
        joined = torch.cat([self.dropout(hidden), context.to(hidden.dtype)], -1)
        inner = linear(joined, self.readout.weight, self.readout.bias)
        return torch.tanh(inner if known is None else inner + known)

    def _at_once(self, embedded: Tensor, memory: Memory, past: _Past, need_weights: bool) -> DecoderOutput:
        states, cells = embedded, []
        for number, layer in enumerate(self.layers):
            inputs = self.dropout(states) if number else states
            outputs, cell = layer.sequence(inputs, past.cells[number])
            states = outputs + states if self.residual and number else outputs
            cells.append(cell)
        attended = self.attention(states, memory, past.attention, need_weights=need_weights)
        features = self._read(states, attended.context, self._known(embedded))
        new = _Past(tuple(cells), past.feed, attended.state)
        return DecoderOutput(features, attended.context, attended.weights, new, attended.aux)

    def _stepwise(self, embedded: Tensor, memory: Memory, past: _Past, need_weights: bool) -> DecoderOutput:
        known, readable = self.layers[0].inputs(embedded).unbind(1), self._known(embedded)
        weights = [
            layer.recurrence(self.late_size if not n else layer.input_size) for n, layer in enumerate(self.layers)
        ]
        cells, feed, attention_state = list(past.cells), past.feed, past.attention
        hiddens, contexts, alignments, features, auxiliary = [], [], [], [], []
        for position, first in enumerate(known):
            if self.style == "bahdanau":
                asked = self.attention(cells[-1][0].unsqueeze(1), memory, attention_state, need_weights=need_weights)
                top = self._advance(first, asked.context.squeeze(1), cells, weights)
            else:
                top = self._advance(first, feed, cells, weights)
                asked = self.attention(top.unsqueeze(1), memory, attention_state, need_weights=need_weights)
                feed = self._read(top, asked.context.squeeze(1), None if readable is None else readable[:, position])
                features.append(feed)
            attention_state = asked.state
            hiddens.append(top)
            contexts.append(asked.context)
            alignments.append(asked.weights)
            auxiliary.append(asked.aux)
        context = torch.cat(contexts, 1)
        if self.style == "bahdanau":
            output = self._read(torch.stack(hiddens, 1), context, readable)
        else:
            output = torch.stack(features, 1)
        kept = [w for w in alignments if w is not None]
        aux = {key: torch.cat([step[key] for step in auxiliary], 1) for key in auxiliary[0]}
        new = _Past(tuple(cells), feed, attention_state)
        return DecoderOutput(output, context, torch.cat(kept, 1) if kept else None, new, aux)

    def _advance(
        self, known: Tensor, late: Tensor, cells: list[CellState], weights: list[tuple[Tensor, Tensor | None]]
    ) -> Tensor:
        """One step of every layer; `cells` is updated. Returns the top layer's output (B, H)."""
        cells[0] = self.layers[0].step(known, late.to(known.dtype), cells[0], weights[0])
        top = cells[0][0]
        for number, layer in enumerate(self.layers[1:], 1):
            known = layer.bias().expand(top.size(0), -1)
            cells[number] = layer.step(known, self.dropout(top), cells[number], weights[number])
            top = cells[number][0] + top if self.residual else cells[number][0]
        return top


def recurrent_decoder(
    embedding: Embedding,
    attention: Attention,
    final_size: int,
    output_size: int,
    embedding_dropout: float,
    *,
    cell: Cell = "lstm",
    layers: int = 1,
    width: int = 256,
    style: Style = "luong",
    input_feed: bool = True,
    deep_output: bool = True,
    dropout: float = 0.0,
    residual: bool = False,
) -> RecurrentDecoder:
    """A recurrent decoder around a built attention. final_size: width of the encoder's summary.

    cell: lstm or gru. layers: depth, 1 to 64. width: of its state, which is what asks the attention. style: luong or
    bahdanau. input_feed: luong only; off runs the whole target at once. deep_output: the embedding of the last token
    enters the output too (Pascanu et al. 2014). dropout: between layers and on the state before the readout. residual:
    each layer above the first adds its input. Raises ConfigError.
    """
    check_sizes("decoder", layers, width, dropout)
    if style not in ("luong", "bahdanau"):
        raise ConfigError("unknown style", where="decoder.style", expected="luong or bahdanau", found=repr(style))
    if style == "bahdanau" and not input_feed:
        raise ConfigError(
            "bahdanau feeds the context into its cell and is always step by step",
            where="decoder.input_feed",
            expected="true",
            found="false",
            hint="Take decoder.style=luong to run without input feeding",
        )
    return RecurrentDecoder(
        embedding,
        attention,
        final_size=final_size,
        output_size=output_size,
        cell=cell,
        layers=layers,
        width=width,
        style=style,
        input_feed=input_feed,
        deep_output=deep_output,
        dropout=dropout,
        embedding_dropout=embedding_dropout,
        residual=residual,
    )
