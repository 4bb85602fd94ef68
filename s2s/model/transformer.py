"""The Transformer encoder, and the parts that it shares with the decoder.

Pre-norm (Xiong et al. 2020, arXiv 2002.04745): x + f(norm(x)) around every part, and a norm at the end, so that a stack
of layers trains without a long warm-up.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from s2s.attention.self_attention import SelfAttention
from s2s.dropout import Dropout
from s2s.errors import ConfigError
from s2s.model.base import Encoder, SelfAttentionBuilder, check_sizes
from s2s.types import Encoded, State


class Positions(nn.Module):
    """Vectors that say where a token stands.

    Sinusoids (Vaswani et al. 2017, arXiv 1706.03762, section 3.5), or learned vectors for the first `learned` positions
    (section 6.2 there, table 3 row E); all positions beyond share the last one.
    """

    def __init__(self, width: int, learned: int | None) -> None:
        super().__init__()
        self.width = width
        self._known = torch.empty(0, width)  # sinusoids of the first places
        self.vectors = None if learned is None else nn.Embedding(learned, width)
        if self.vectors is not None:
            nn.init.normal_(self.vectors.weight, std=math.sqrt(0.5))  # as large as sinusoids

    def forward(self, places: Tensor, dtype: torch.dtype) -> Tensor:
        """places (...,) int64, counted from 0, to vectors (..., width)."""
        if self.vectors is not None:
            return cast(Tensor, self.vectors(places.clamp(max=self.vectors.num_embeddings - 1)).to(dtype))
        found = self._kept(places) if places.device.type == "cpu" else self._sinusoids(places)
        return found.to(dtype)

    def _kept(self, places: Tensor) -> Tensor:
        """Sinusoids of a table that grows; to look for the last place, a GPU would have to wait."""
        needed = int(places.max()) + 1 if places.numel() else 0
        if needed > len(self._known):
            with torch.inference_mode(False):
                self._known = self._sinusoids(torch.arange(max(needed, 2 * len(self._known))))
        return nn.functional.embedding(places, self._known)

    def _sinusoids(self, places: Tensor) -> Tensor:
        steps = torch.arange(0, self.width, 2, device=places.device)
        angles = places.unsqueeze(-1) * torch.exp(steps * (-math.log(10000.0) / self.width))
        return torch.cat([angles.sin(), angles.cos()], -1)[..., : self.width]


class _ReLU(nn.Module):
    """In a search in place, which spares it fresh memory; in training that is slower."""

    def forward(self, x: Tensor) -> Tensor:
        """x of any shape, which nobody else reads."""
        return x.relu() if torch.is_grad_enabled() else x.relu_()


class FeedForward(nn.Sequential):
    """W2 relu(W1 x + b1) + b2 at each position (Vaswani et al. 2017, eq. 2), with dropout after the relu."""

    def __init__(self, width: int, inner: int, dropout: float) -> None:
        super().__init__(nn.Linear(width, inner), _ReLU(), Dropout(dropout), nn.Linear(inner, width))
        for layer in (self[0], self[3]):
            nn.init.xavier_uniform_(cast(nn.Linear, layer).weight)
            nn.init.zeros_(cast(nn.Linear, layer).bias)


class EncoderLayer(nn.Module):
    """Self-attention and feed-forward, each as x + dropout(f(norm(x)))."""

    def __init__(self, attention: SelfAttention, width: int, inner: int, dropout: float, relu_dropout: float) -> None:
        super().__init__()
        self.attention = attention
        self.attention_norm, self.feed_forward_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.feed_forward = FeedForward(width, inner, relu_dropout)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor | None, cache: State, *, causal: bool) -> tuple[Tensor, State]:
        """x (B, S, D), mask (B, S) to (B, S, D), and the cache of the self-attention."""
        attended, _, cache = self.attention(self.attention_norm(x), cache, mask=mask, causal=causal)
        x = x + self.dropout(attended)
        return x + self.dropout(self.feed_forward(self.feed_forward_norm(x))), cache


class _Online(NamedTuple):
    """Where a source that grows stands."""

    tokens: Tensor  # (1,) int64: encoded so far
    total: Tensor  # (B, D): the sum of their states
    caches: tuple[State, ...]  # of each layer's self-attention


class TransformerEncoder(Encoder):
    """A stack of pre-norm layers. `final` is the mean of the states, which a recurrent decoder can start from."""

    def __init__(
        self,
        input_size: int,
        attentions: Sequence[SelfAttention],
        *,
        width: int,
        feed_forward: int,
        bidirectional: bool,
        dropout: float,
        relu_dropout: float,
        learned_positions: int | None,
    ) -> None:
        super().__init__()
        self.width, self.bidirectional, self.online = width, bidirectional, not bidirectional
        self.project = widened(input_size, width)
        self.positions = Positions(width, learned_positions)
        layers = nn.ModuleList(
            EncoderLayer(attention, width, feed_forward, dropout, relu_dropout) for attention in attentions
        )
        self.layers = cast(Sequence[EncoderLayer], layers)
        self.norm = nn.LayerNorm(width)

    def forward(self, embedded: Tensor, lengths: Tensor) -> Encoded:
        """embedded (B, S, E), lengths (B,) to states (B, S, width), final (B, width) and mask (B, S)."""
        places = torch.arange(embedded.size(1), device=embedded.device)
        mask = places < lengths.unsqueeze(1)
        x = self._placed(embedded, places)
        for layer in self.layers:
            x, _ = layer(x, mask, layer.attention.initial_state(x), causal=not self.bidirectional)
        states = self.norm(x).masked_fill(~mask.unsqueeze(-1), 0.0)
        return Encoded(states, states.sum(1) / lengths.clamp(min=1).unsqueeze(1).to(states.dtype), mask)

    def extend(self, embedded: Tensor, state: State, *, last: bool) -> tuple[Encoded, State]:
        """As the contract says: every token is encoded once."""
        before = embedded.new_zeros(embedded.size(0), self.width)
        past = _Online(*state) if state else _Online(before.new_zeros(1, dtype=torch.int64), before, ())
        count = past.tokens + embedded.size(1)
        x = self._placed(embedded, past.tokens + torch.arange(embedded.size(1), device=embedded.device))
        caches = []
        for number, layer in enumerate(self.layers):
            cache = past.caches[number] if past.caches else layer.attention.initial_state(x)
            x, cache = layer(x, None, cache, causal=True)
            caches.append(cache)
        states = self.norm(x)
        total = past.total + states.sum(1)
        encoded = Encoded(states, total / count.clamp(min=1).to(total.dtype), x.new_ones(x.shape[:2], dtype=torch.bool))
        return encoded, _Online(count, total, tuple(caches))

    def _placed(self, embedded: Tensor, places: Tensor) -> Tensor:
        x = embedded if self.project is None else self.project(embedded)
        return cast(Tensor, x + self.positions(places, x.dtype))


def widened(input_size: int, width: int) -> nn.Linear | None:
    """A projection of the embeddings to the width of the layers, where they differ."""
    if input_size == width:
        return None
    made = nn.Linear(input_size, width, bias=False)
    nn.init.normal_(made.weight, std=input_size**-0.5)  # unit entries stay unit entries
    return made


def layer_attentions(where: str, builder: SelfAttentionBuilder, width: int, layers: int) -> list[SelfAttention]:
    """A self-attention for each Transformer layer. Raises ConfigError where there is none."""
    made = [builder(width, None) for _ in range(layers)]
    found = [one for one in made if isinstance(one, SelfAttention)]
    if len(found) < layers:
        raise ConfigError(
            f"{where}=transformer is made of self-attention",
            where="self_attention",
            expected="self_attention=multihead",
            found="none",
        )
    return found


def sizes(
    where: str, input_size: int, layers: int, width: int | None, feed_forward: int | None, **dropouts: float
) -> tuple[int, int]:
    """Width of the layers (that of the embeddings if None) and of their inner layer (four times that)."""
    width = input_size if width is None else width
    check_sizes(where, layers, width, **dropouts)
    inner = 4 * width if feed_forward is None else feed_forward
    if isinstance(inner, bool) or not isinstance(inner, int) or not 1 <= inner <= 1 << 18:
        raise ConfigError(
            "value out of range", where=f"{where}.feed_forward", expected=f"1 to {1 << 18}", found=repr(inner)
        )
    return width, inner


def check_positions(where: str, learned: int | None) -> None:
    """Refuse a number of learned positions that makes no sense. Raises ConfigError."""
    if learned is not None and (isinstance(learned, bool) or not 1 <= learned <= 1 << 20):
        raise ConfigError(
            "value out of range", where=f"{where}.learned_positions", expected=f"1 to {1 << 20}", found=repr(learned)
        )


def transformer_encoder(
    input_size: int,
    self_attention: SelfAttentionBuilder,
    *,
    layers: int = 2,
    width: int | None = None,
    feed_forward: int | None = None,
    bidirectional: bool = True,
    dropout: float = 0.0,
    relu_dropout: float = 0.0,
    learned_positions: int | None = None,
) -> TransformerEncoder:
    """A pre-norm Transformer encoder. input_size: width of the embeddings. self_attention: makes that of a layer.

    layers: depth, 1 to 64. width: of the states, by default that of the embeddings; another one is reached by a
    projection. feed_forward: inner width, by default 4 times that. bidirectional: off = no position sees a later one.
    dropout: on what each part adds. relu_dropout: inside the feed-forward. learned_positions: None for sinusoids, or
    how many positions have a learned vector. Raises ConfigError.
    """
    width, inner = sizes("encoder", input_size, layers, width, feed_forward, dropout=dropout, relu_dropout=relu_dropout)
    check_positions("encoder", learned_positions)
    return TransformerEncoder(
        input_size,
        layer_attentions("encoder", self_attention, width, layers),
        width=width,
        feed_forward=inner,
        bidirectional=bidirectional,
        dropout=dropout,
        relu_dropout=relu_dropout,
        learned_positions=learned_positions,
    )
