"""Recurrent decoders: target tokens, memory and state to features, in both classic styles.

When a query is made is the decoder's business, not the attention's:

- `luong` (Luong et al. 2015, arXiv 1508.04025): the cell runs, its new state asks. With input feeding the last
  attentional vector enters the cell, so it goes step by step; without, the whole target runs through one fused call and
  one batched attention.
- `bahdanau` (Bahdanau et al. 2014, arXiv 1409.0473): the previous state asks, the context enters the cell.

With self-attention the decoder attends to its own past too: r sums up its past outputs, and
h* = tanh(W_r r + W_h h + b) (Daniluk et al. 2017, arXiv 1702.04521) is read by the output layer in place of its state
h, and asks in place of it in style luong. Tapes (Cheng et al. 2016) replace what enters the cell instead, step by step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, cast

import torch
from torch import Tensor, nn

from s2s.activations import tanh
from s2s.attention.base import Attention
from s2s.attention.self_attention import SelfAttention, TapeAttention, TapeState
from s2s.dropout import Dropout
from s2s.errors import ConfigError
from s2s.gather import gathered, linear
from s2s.model.base import Attended, AttentionBuilder, Decoder, SelfAttentionBuilder, check_sizes
from s2s.model.embedding import Embedding
from s2s.model.recurrent import Cell, CellState, RecurrentLayer, StepWeights
from s2s.types import AttentionOutput, DecoderOutput, Encoded, Memory, State

Style = Literal["luong", "bahdanau"]
Bridge = Literal["final", "zero"]


class _Past(NamedTuple):
    """The decoder's state: what `State` holds, by name. All batch first."""

    cells: tuple[CellState, ...]  # a layer: (h, c) or (h,), each (B, H)
    feed: Tensor  # (B, O): the last attentional vector; O = 0 without input feeding
    attention: State
    own: State  # of the self-attention: its cache, or the tapes of each layer; () without


class RecurrentDecoder(Decoder):
    """A recurrent decoder with any attention, and with any that looks back at the decoder's own past, or none."""

    def __init__(
        self,
        embedding: Embedding,
        attention: Attention,
        self_attention: SelfAttention | None,
        tapes: Sequence[TapeAttention],
        *,
        final_size: int,
        output_size: int,
        cell: Cell,
        layers: int,
        width: int,
        style: Style,
        bridge: Bridge,
        input_feed: bool,
        deep_output: bool,
        dropout: float,
        embedding_dropout: float,
        residual: bool,
    ) -> None:
        super().__init__()
        self.embedding, self.attention, self.self_attention = embedding, attention, self_attention
        self.style, self.residual, self.width, self.output_size = style, residual, width, output_size
        self.context_size = attention.memory_size
        self.late_size = {"luong": output_size if input_feed else 0, "bahdanau": attention.memory_size}[style]
        embedding_size = embedding.embedding_dim
        sizes = [embedding_size + self.late_size] + [width] * (layers - 1)
        layers_made = nn.ModuleList(RecurrentLayer(cell, size, width) for size in sizes)
        self.layers = cast(Sequence[RecurrentLayer], layers_made)
        self.starts_from_source = bridge == "final"
        kinds = 2 if cell == "lstm" else 1
        self.bridge = nn.Linear(final_size, layers * width * kinds) if self.starts_from_source else None
        self.tapes = cast(Sequence[TapeAttention], nn.ModuleList(tapes))
        own = None if self_attention is None else self_attention.output_size + self_attention.part_size
        self.merge = None if own is None else nn.Linear(own, width)
        self.readout = nn.Linear(attention.output_size(width) + attention.memory_size, output_size)
        self.readout_embedding = nn.Linear(embedding_size, output_size, bias=False) if deep_output else None
        self.embedding_dropout, self.dropout = Dropout(embedding_dropout), nn.Dropout(dropout)

    def remember(self, encoded: Encoded) -> Memory:
        """The attention's memory of a source."""
        return self.attention.remember(encoded)

    def extend(self, memory: Memory, more: Encoded) -> Memory:
        """The memory after the source grew by `more`."""
        return self.attention.extend(memory, more)

    def loss(self, aux: dict[str, Tensor], log_prob: Tensor) -> Tensor | None:
        """What the attention adds to the training loss."""
        return self.attention.loss(aux, log_prob)

    def attended(self, memory: Memory, state: State) -> list[Attended]:
        """The one attention."""
        return [Attended(self.attention, memory, _Past(*state).attention)]

    def with_attended(self, memory: Memory, state: State, parts: Sequence[Attended]) -> tuple[Memory, State]:
        """Memory and state with other shares for the attention."""
        return parts[0].memory, _Past(*state)._replace(attention=parts[0].state)

    def initial_state(self, encoded: Encoded, memory: Memory) -> State:
        """State before the first token: in each layer h = tanh(W final), c = W' final, or zeros with bridge=zero.

        final sums up the source.
        """
        if self.bridge is None:
            cells = tuple(layer.zeros(encoded.final) for layer in self.layers)
        else:
            parts = self.bridge(encoded.final).chunk(2 if self.layers[0].cell == "lstm" else 1, 1)
            split = [part.chunk(len(self.layers), 1) for part in (parts[0].tanh(), *parts[1:])]
            cells = tuple(tuple(kind[number] for kind in split) for number in range(len(self.layers)))
        feed = encoded.final.new_zeros(encoded.final.size(0), self.late_size if self.style == "luong" else 0)
        own: State = () if self.self_attention is None else self.self_attention.initial_state(encoded.final)
        if self.tapes:
            own = tuple(tape.initial_state(*cell) for tape, cell in zip(self.tapes, cells, strict=True))
        return _Past(cells, feed, self.attention.initial_state(memory), own)

    def with_room(self, state: State, length: int) -> State:
        """The cache of a self-attention with room; tapes grow."""
        past = _Past(*state)
        if self.self_attention is None:
            return past
        return past._replace(own=self.self_attention.with_room(past.own, length))

    def forward(self, tokens: Tensor, memory: Memory, state: State, *, need_weights: bool = True) -> DecoderOutput:
        """tokens (B, T): features (B, T, output_size), context (B, T, V), weights (B, T, S) if asked for."""
        past = _Past(*state)
        embedded = self.embedding_dropout(self.embedding(tokens))
        searched = tokens.size(1) == 1 and self.layers[0].kind is not None  # by weights laid out for steps
        if self.late_size or self.tapes or searched:
            with gathered():
                return self._stepwise(embedded, memory, past, need_weights)
        return self._at_once(embedded, memory, past, need_weights)

    def _known(self, embedded: Tensor) -> Tensor | None:
        """The share of the readout that is known before the loop, (B, T, O), or None without deep output."""
        return None if self.readout_embedding is None else self.readout_embedding(embedded)

    def _merged(self, hidden: Tensor, own: State) -> tuple[Tensor, State]:
        """The states (B, T, H) with what they see of their past, and the cache; as they are without self-attention."""
        if self.self_attention is None or self.merge is None:
            return hidden, own
        past, _, own = self.self_attention(hidden, own, causal=True)
        joined = torch.cat([past.to(hidden.dtype), self.self_attention.output_part(hidden)], -1)
        return tanh(linear(joined, self.merge.weight, self.merge.bias)), own

    def _read(self, hidden: Tensor, context: Tensor, known: Tensor | None) -> Tensor:
        """Attentional vector tanh(W [h; c] (+ W' e)): Luong et al. eq. 5, with the embedding for deep output."""
        joined = torch.cat([self.dropout(self.attention.output_part(hidden)), context.to(hidden.dtype)], -1)
        inner = linear(joined, self.readout.weight, self.readout.bias)
        return tanh(inner if known is None else inner + known)

    def _at_once(self, embedded: Tensor, memory: Memory, past: _Past, need_weights: bool) -> DecoderOutput:
        states, cells = embedded, []
        for number, layer in enumerate(self.layers):
            inputs = self.dropout(states) if number else states
            outputs, cell = layer.sequence(inputs, past.cells[number])
            states = outputs + states if self.residual and number else outputs
            cells.append(cell)
        merged, own = self._merged(states, past.own)
        attended = self.attention(merged, memory, past.attention, need_weights=need_weights)
        features = self._read(merged, attended.context, self._known(embedded))
        new = _Past(tuple(cells), past.feed, attended.state, own)
        return DecoderOutput(features, attended.context, attended.weights, new, attended.aux)

    def _stepwise(self, embedded: Tensor, memory: Memory, past: _Past, need_weights: bool) -> DecoderOutput:
        known, readable = self.layers[0].inputs(embedded).unbind(1), self._known(embedded)
        weights = [
            layer.recurrence(self.late_size if not n else layer.input_size) for n, layer in enumerate(self.layers)
        ]
        cells, feed, attention_state, own = list(past.cells), past.feed, past.attention, past.own
        tapes = [TapeState(*one) for one in past.own] if self.tapes else []
        hiddens, features = [], []
        outputs: list[AttentionOutput] = []
        for position, first in enumerate(known):
            word = embedded[:, position]
            if self.style == "bahdanau":
                asked = self.attention(cells[-1][0].unsqueeze(1), memory, attention_state, need_weights=need_weights)
                hiddens.append(self._advance(word, first, asked.context.squeeze(1), cells, tapes, weights))
            else:
                top, own = self._merged(self._advance(word, first, feed, cells, tapes, weights).unsqueeze(1), own)
                asked = self.attention(top, memory, attention_state, need_weights=need_weights)
                read = readable if readable is None else readable[:, position : position + 1]
                features.append(self._read(top, asked.context, read))
                feed = features[-1].squeeze(1) if self.late_size else feed
            attention_state = asked.state
            outputs.append(asked)
        context = torch.cat([output.context for output in outputs], 1)
        if self.style == "bahdanau":  # what is merged is read by the output layer only, so all steps at once
            merged, own = self._merged(torch.stack(hiddens, 1), own)
            features.append(self._read(merged, context, readable))
        kept = [output.weights for output in outputs if output.weights is not None]
        aux = {key: torch.cat([output.aux[key] for output in outputs], 1) for key in outputs[0].aux}
        new = _Past(tuple(cells), feed, attention_state, tuple(tapes) if self.tapes else own)
        return DecoderOutput(torch.cat(features, 1), context, torch.cat(kept, 1) if kept else None, new, aux)

    def _advance(
        self,
        word: Tensor,
        known: Tensor,
        late: Tensor,
        cells: list[CellState],
        tapes: list[TapeState],
        weights: list[StepWeights],
    ) -> Tensor:
        """One step of every layer; `cells` and `tapes` are updated. Returns the top layer's output (B, H).

        word: (B, E); known: (B, G H), what it gives to the first layer's gates. late: (B, L), the rest of its input.
        """
        top = word
        for number, layer in enumerate(self.layers):
            inputs = self.dropout(top) if number else late.to(known.dtype)
            share = layer.bias().expand(top.size(0), -1) if number else known
            entering = cells[number]
            if tapes:
                x = inputs if number else torch.cat([word, inputs.to(word.dtype)], 1)
                entering = self.tapes[number].read(x, tapes[number])
            cells[number] = layer.step(share, inputs, entering, weights[number])
            if tapes:
                tapes[number] = self.tapes[number].write(tapes[number], entering[0], *cells[number])
            top = cells[number][0] + top if self.residual and number else cells[number][0]
        return top


def recurrent_decoder(
    embedding: Embedding,
    attention: AttentionBuilder,
    self_attention: SelfAttentionBuilder,
    final_size: int,
    output_size: int | None,
    embedding_dropout: float,
    *,
    cell: Cell = "lstm",
    layers: int = 1,
    width: int = 256,
    style: Style = "luong",
    bridge: Bridge = "final",
    input_feed: bool = True,
    deep_output: bool = True,
    dropout: float = 0.0,
    residual: bool = False,
) -> RecurrentDecoder:
    """A recurrent decoder. attention, self_attention: make what it attends with. final_size: width of the encoder's
    summary. output_size: of the features, None = the width.

    cell: lstm or gru. layers: depth, 1 to 64. width: of its state, which is what asks the attention. style: luong or
    bahdanau. bridge: what its first state is made of, the encoder's summary of the source (final) or zeros, which a
    source that is still growing needs. input_feed: luong only; off runs the whole target at once. deep_output: the
    embedding of the last token enters the output too (Pascanu et al. 2014). dropout: between layers and on the state
    before the readout. residual: each layer above the first adds its input. Raises ConfigError.
    """
    check_sizes("decoder", layers, width, dropout=dropout)
    if style not in ("luong", "bahdanau"):
        raise ConfigError("unknown style", where="decoder.style", expected="luong or bahdanau", found=repr(style))
    if bridge not in ("final", "zero"):
        raise ConfigError("unknown bridge", where="decoder.bridge", expected="final or zero", found=repr(bridge))
    if style == "bahdanau" and not input_feed:
        raise ConfigError(
            "bahdanau feeds the context into its cell and is always step by step",
            where="decoder.input_feed",
            expected="true",
            found="false",
            hint="Take decoder.style=luong to run without input feeding",
        )
    source = attention(width)
    late_size = source.memory_size if style == "bahdanau" else (output_size or width) if input_feed else 0
    own = self_attention(width, embedding.embedding_dim + late_size)
    tapes = [own] if isinstance(own, TapeAttention) else []
    for _ in range(layers - 1 if tapes else 0):
        tapes.append(cast(TapeAttention, self_attention(width, width)))
    if tapes and cell != "lstm":
        raise ConfigError(
            "self_attention=lstmn keeps a tape of an LSTM's memory",
            where="decoder",
            expected="decoder=lstm",
            found=f"cell {cell}",
            hint="Take decoder=lstm, or self_attention=key_value",
        )
    return RecurrentDecoder(
        embedding,
        source,
        own if isinstance(own, SelfAttention) else None,
        tapes,
        final_size=final_size,
        output_size=output_size or width,
        cell=cell,
        layers=layers,
        width=width,
        style=style,
        bridge=bridge,
        input_feed=input_feed,
        deep_output=deep_output,
        dropout=dropout,
        embedding_dropout=embedding_dropout,
        residual=residual,
    )
