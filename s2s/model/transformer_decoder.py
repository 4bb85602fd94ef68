"""The Transformer decoder, with any attention to the source in each layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from s2s.attention.base import Attention, NoAttention, ScoredAttention
from s2s.attention.self_attention import SelfAttention
from s2s.dropout import Dropout
from s2s.errors import ConfigError
from s2s.model.base import Attended, AttentionBuilder, Decoder, SelfAttentionBuilder
from s2s.model.embedding import Embedding
from s2s.model.transformer import FeedForward, Positions, check_positions, layer_attentions, sizes, widened
from s2s.types import AttentionOutput, DecoderOutput, Encoded, Memory, State


class _LayerPast(NamedTuple):
    """A layer's share of the state."""

    cache: State  # keys and values of its self-attention, (B, H, t, d)
    attention: State


class _Past(NamedTuple):
    """The decoder's state: what `State` holds, by name. All batch first."""

    place: Tensor  # (B,) int64: tokens read so far
    layers: tuple[_LayerPast, ...]


class DecoderLayer(nn.Module):
    """Self-attention, attention to the source and feed-forward, each as x + dropout(f(norm(x))).

    The context goes through a matrix unless the attention mixes its heads by one already.
    """

    def __init__(
        self,
        self_attention: SelfAttention,
        attention: Attention,
        width: int,
        inner: int,
        dropout: float,
        relu_dropout: float,
    ) -> None:
        super().__init__()
        self.self_attention, self.attention = self_attention, attention
        self.self_attention_norm, self.attention_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        mixed = isinstance(attention, ScoredAttention) and attention.mix is not None
        self.mix = None
        if attention.memory_size != width or not mixed:
            self.mix = nn.Linear(attention.memory_size, width, bias=False)
            nn.init.xavier_uniform_(self.mix.weight)
        self.feed_forward_norm = nn.LayerNorm(width)
        self.feed_forward = FeedForward(width, inner, relu_dropout)
        self.dropout = Dropout(dropout)

    def forward(
        self, x: Tensor, memory: Memory, past: _LayerPast, need_weights: bool
    ) -> tuple[Tensor, AttentionOutput, _LayerPast]:
        """x (B, T, D) to (B, T, D), with what the attention to the source gave."""
        output, _, cache = self.self_attention(self.self_attention_norm(x), past.cache, causal=True)
        x = x + self.dropout(output)
        asked = self.attention(self.attention_norm(x), memory, past.attention, need_weights=need_weights)
        context = asked.context.to(x.dtype)
        x = x + self.dropout(context if self.mix is None else self.mix(context))
        x = x + self.dropout(self.feed_forward(self.feed_forward_norm(x)))
        return x, asked, _LayerPast(cache, asked.state)


class TransformerDecoder(Decoder):
    """A stack of pre-norm layers; each layer has its own memory of the source and its own cache.

    Context and weights are those of one layer, `alignment_layer`. Tensors in `aux` are named by their layer ("2.loss").
    """

    def __init__(
        self,
        embedding: Embedding,
        layers: Sequence[DecoderLayer],
        *,
        width: int,
        output_size: int | None,
        dropout: float,
        learned_positions: int | None,
        alignment_layer: int,
    ) -> None:
        super().__init__()
        self.embedding, self.alignment_layer = embedding, alignment_layer
        self.output_size = width if output_size is None else output_size
        self.context_size = layers[alignment_layer - 1].attention.memory_size
        self.project = widened(embedding.embedding_dim, width)
        self.positions = Positions(width, learned_positions)
        self.layers = cast(Sequence[DecoderLayer], nn.ModuleList(layers))
        self.norm = nn.LayerNorm(width)
        self.readout = None if self.output_size == width else nn.Linear(width, self.output_size, bias=False)
        self.dropout = Dropout(dropout)

    def remember(self, encoded: Encoded) -> tuple[Memory, ...]:
        """The memory of each layer."""
        return tuple(layer.attention.remember(encoded) for layer in self.layers)

    def extend(self, memory: tuple[Memory, ...], more: Encoded) -> tuple[Memory, ...]:
        """Each layer's memory after the source grew by `more`."""
        return tuple(layer.attention.extend(one, more) for layer, one in zip(self.layers, memory, strict=True))

    def attended(self, memory: tuple[Memory, ...], state: State) -> list[Attended]:
        """That of each layer."""
        layers = zip(self.layers, memory, _Past(*state).layers, strict=True)
        return [Attended(layer.attention, one, _LayerPast(*past).attention) for layer, one, past in layers]

    def with_attended(
        self, memory: tuple[Memory, ...], state: State, parts: Sequence[Attended]
    ) -> tuple[tuple[Memory, ...], State]:
        """Memory and state with other shares for the attention of each layer."""
        past = _Past(*state)
        layers = tuple(
            _LayerPast(*one)._replace(attention=part.state) for one, part in zip(past.layers, parts, strict=True)
        )
        return tuple(part.memory for part in parts), past._replace(layers=layers)

    def initial_state(self, encoded: Encoded, memory: tuple[Memory, ...]) -> State:
        """Empty caches; of the source a Transformer knows only what it attends to."""
        layers = tuple(
            _LayerPast(layer.self_attention.initial_state(encoded.final), layer.attention.initial_state(one))
            for layer, one in zip(self.layers, memory, strict=True)
        )
        return _Past(torch.zeros(encoded.final.size(0), dtype=torch.int64, device=encoded.final.device), layers)

    def with_room(self, state: State, length: int) -> State:
        """Each layer's cache with room."""
        past = _Past(*state)
        layers = [_LayerPast(*one) for one in past.layers]
        return past._replace(
            layers=tuple(
                one._replace(cache=layer.self_attention.with_room(one.cache, length))
                for layer, one in zip(self.layers, layers, strict=True)
            )
        )

    def forward(
        self, tokens: Tensor, memory: tuple[Memory, ...], state: State, *, need_weights: bool = True
    ) -> DecoderOutput:
        """tokens (B, T): features (B, T, output_size); context (B, T, V) and weights (B, T, S) of the chosen layer."""
        past = _Past(*state)
        x = self.embedding(tokens)
        if self.project is not None:
            x = self.project(x)
        places = past.place.unsqueeze(1) + torch.arange(tokens.size(1), device=tokens.device)
        x = self.dropout(x + self.positions(places, x.dtype))
        asked: list[AttentionOutput] = []
        layers = []
        for number, (layer, one, before) in enumerate(zip(self.layers, memory, past.layers, strict=True), 1):
            wanted = need_weights and number == self.alignment_layer
            x, output, after = layer(x, one, _LayerPast(*before), wanted)
            asked.append(output)
            layers.append(after)
        features = self.norm(x)
        if self.readout is not None:
            features = self.readout(features)
        aux = {f"{number}.{key}": value for number, one in enumerate(asked, 1) for key, value in one.aux.items()}
        shown = asked[self.alignment_layer - 1]
        new = _Past(past.place + tokens.size(1), tuple(layers))
        return DecoderOutput(features, shown.context, shown.weights, new, aux)

    def loss(self, aux: dict[str, Tensor], log_prob: Tensor) -> Tensor | None:
        """The sum of what the attention of each layer adds."""
        found = []
        for number, layer in enumerate(self.layers, 1):
            own = {key.removeprefix(f"{number}."): value for key, value in aux.items() if key.startswith(f"{number}.")}
            found.append(layer.attention.loss(own, log_prob))
        kept = [loss for loss in found if loss is not None]
        return torch.stack(kept).sum() if kept else None


def transformer_decoder(
    embedding: Embedding,
    attention: AttentionBuilder,
    self_attention: SelfAttentionBuilder,
    final_size: int,
    output_size: int | None,
    embedding_dropout: float,
    *,
    layers: int = 2,
    width: int | None = None,
    feed_forward: int | None = None,
    dropout: float = 0.0,
    relu_dropout: float = 0.0,
    learned_positions: int | None = None,
    alignment_layer: int | None = None,
) -> TransformerDecoder:
    """A pre-norm Transformer decoder. attention, self_attention: make those of a layer. output_size: None = the width.

    layers: depth, 1 to 64. width: by default that of the embeddings; another one is reached by a projection.
    feed_forward: inner width, by default 4 times that. dropout: on what each part adds. relu_dropout: inside the
    feed-forward. learned_positions: None for sinusoids, or how many positions have a learned vector. alignment_layer:
    the layer (from 1) whose weights are the alignment, by default the last but one, where they are nearest to word
    alignments (Garg et al. 2019, arXiv 1909.02074, section 4.1). Raises ConfigError.
    """
    size = embedding.embedding_dim
    width, inner = sizes("decoder", size, layers, width, feed_forward, dropout=dropout, relu_dropout=relu_dropout)
    check_positions("decoder", learned_positions)
    shown = max(1, layers - 1) if alignment_layer is None else alignment_layer
    if not 1 <= shown <= layers:
        raise ConfigError(
            "there is no such layer", where="decoder.alignment_layer", expected=f"1 to {layers}", found=str(shown)
        )
    made = []
    for own in layer_attentions("decoder", self_attention, width, layers):
        source = attention(width)
        if isinstance(source, NoAttention) or source.output_size(width) != width:
            raise ConfigError(
                "a Transformer decoder learns of the source through attention alone and has no state to split",
                where="attention",
                expected="another attention, for example multihead or key_value",
                found="none or key_value_predict",
                hint="Take decoder=lstm for these",
            )
        made.append(DecoderLayer(own, source, width, inner, dropout, relu_dropout))
    return TransformerDecoder(
        embedding,
        made,
        width=width,
        output_size=output_size,
        dropout=embedding_dropout,
        learned_positions=learned_positions,
        alignment_layer=shown,
    )
