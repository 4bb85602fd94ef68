"""Self-attention: a sequence that attends to itself. Its state is its cache of keys and values.

The builders that `conf/self_attention` names. Each takes the width of the states that attend and, where a recurrent
decoder asks, the width of its layer's input (None in a Transformer layer). It returns what attends, None for nothing.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from s2s.attention.functional import masked_softmax, merge_heads, split_heads
from s2s.attention.fused import dot_attention
from s2s.attention.normalise import Normaliser, NormaliserName
from s2s.attention.options import probability, whole
from s2s.attention.score import ScoreName, make_score
from s2s.dropout import Dropout
from s2s.errors import ConfigError
from s2s.gather import contexts
from s2s.types import State

_GROUP = "self_attention"
_ROOM = 32  # places that a cache with room is widened by
PastKind = Literal["shared", "split", "predict"]


class SelfAttentionOutput(NamedTuple):
    """What one call of a self-attention gives."""

    output: Tensor  # (B, T, output_size)
    weights: Tensor | None  # (B, H, T, t + T), or None where they weren't asked for
    state: State


class RoomyCache(NamedTuple):
    """A cache whose shapes stay the same while it fills, so that steps by it can be recorded (`s2s.recording`)."""

    keys: Tensor  # (B, H, C, ...)
    values: Tensor  # (B, H, C, d)
    used: Tensor  # (B,) int64: how many of the C places are


class SelfAttention(nn.Module):
    """What every self-attention promises: chunk invariance, and zeros for a position that may see nothing.

    With causal=True, one call with T positions equals any split of it into smaller calls that thread `state`.
    """

    output_size: int  # width of the output
    part_size: int  # width of `output_part`

    def initial_state(self, like: Tensor) -> State:
        """An empty cache for as many rows as `like` (B, ...) has."""
        raise NotImplementedError

    def with_room(self, state: State, length: int) -> RoomyCache:
        """The cache with room for `length` tokens in all, so that its shapes stay: 32 places at a time."""
        cache = state if isinstance(state, RoomyCache) else _roomy(*state)
        missing = -(-length // _ROOM) * _ROOM - cache.keys.size(2)
        if missing <= 0:
            return cache
        keys, values = (F.pad(kept, (0, 0, 0, missing)) for kept in (cache.keys, cache.values))
        return RoomyCache(keys, values, cache.used)

    def forward(
        self, x: Tensor, state: State, *, mask: Tensor | None = None, causal: bool, need_weights: bool = False
    ) -> SelfAttentionOutput:
        """x (B, T, D) attends to what the cache holds and to itself; causal: never to what comes later.

        mask: (B, T) bool of the real positions of x, only for a whole sequence (an empty cache).
        """
        raise NotImplementedError

    def output_part(self, x: Tensor) -> Tensor:
        """Which part of a recurrent decoder's state x (..., D) is read beside the output: all, unless it is split."""
        return x


class MultiHead(SelfAttention):
    """Multi-head self-attention (Vaswani et al. 2017, arXiv 1706.03762, section 3.2.2) with any score.

    For the dot scores x is projected to queries, keys and values in one product; the others bring their own matrices
    for query and key. softmax(q k / sqrt(d)) runs through a kernel of ours for short sequences on a CPU, else through
    torch's where weights aren't asked for. There are no biases, so that a position that may see nothing gets zeros.
    """

    def __init__(self, width: int, *, score: ScoreName, heads: int, normaliser: NormaliserName, dropout: float) -> None:
        super().__init__()
        self.heads, self.output_size, self.part_size = heads, width, width
        self.projects = score in ("dot", "scaled_dot")
        self.fused = score == "scaled_dot" and normaliser == "softmax"
        self.score = make_score(score, width, width, heads=heads)
        self.normaliser = Normaliser(normaliser)
        self.dropout = Dropout(dropout)
        self.inner = nn.Linear(width, 3 * width if self.projects else width, bias=False)
        self.mix = nn.Linear(width, width, bias=False)
        for matrix in (*self.inner.weight.view(-1, width, width), self.mix.weight):
            nn.init.xavier_uniform_(matrix)

    def initial_state(self, like: Tensor) -> State:
        """Keys and values (B, H, 0, d)."""
        empty = like.new_zeros(like.size(0), self.heads, 0, self.output_size // self.heads)
        return empty, empty

    def forward(
        self, x: Tensor, state: State, *, mask: Tensor | None = None, causal: bool, need_weights: bool = False
    ) -> SelfAttentionOutput:
        """Output (B, T, D), weights (B, H, T, t + T), or (B, H, T, C) of a cache with room."""
        query, material, values = self.inner(x).chunk(3, -1) if self.projects else (x, x, self.inner(x))
        keys, values = self.score.keys(material), split_heads(values, self.heads)
        if self.fused and query.dtype == torch.bfloat16 and torch.is_autocast_enabled("cpu"):  # no kernel is fast in it
            query, keys, values = query.float(), keys.float(), values.float()
        seen: Tensor | None = None
        if isinstance(state, RoomyCache):
            state, columns, places = _filled(state, keys, values)
            (keys, values, _), seen = state, columns <= places
        else:
            state = keys, values = _appended(state, keys, values)
            if self.fused and query.numel() and not (self.training and self.dropout.p):
                queries = split_heads(query, self.heads)
                one_kernel = dot_attention(queries, keys, values, mask, queries.size(-1) ** -0.5, causal)
                if one_kernel is not None:
                    context, weights = one_kernel
                    return SelfAttentionOutput(self.mix(context), weights if need_weights else None, state)
            if causal and x.size(1) > 1:
                seen = _causal(x.size(1), keys.size(2), x.device)
        if self.fused and not need_weights:
            found = self._kernel(query, keys, values, seen, mask)
            return SelfAttentionOutput(self.mix(merge_heads(found)), None, state)
        allowed = x.new_ones(1, 1, 1, keys.size(2), dtype=torch.bool) if seen is None else seen
        if mask is not None:
            allowed = allowed & mask[:, None, None]
        weights = self.normaliser(self.score(query, keys), allowed)
        found = contexts(self.dropout(weights).to(values.dtype), values)
        return SelfAttentionOutput(self.mix(merge_heads(found)), weights if need_weights else None, state)

    def _kernel(self, query: Tensor, keys: Tensor, values: Tensor, seen: Tensor | None, mask: Tensor | None) -> Tensor:
        """Contexts (B, H, T, d) by torch's kernel, whose masks are True = may attend too."""
        if query.device.type == "cpu" and torch.is_autocast_enabled("cpu"):  # it would take them in bf16 again
            with torch.autocast("cpu", enabled=False):
                return self._kernel(query, keys, values, seen, mask)
        queries, dropped = split_heads(query, self.heads), self.dropout.p if self.training else 0.0
        if mask is None:
            whole_pass = seen is not None and seen.dim() == 2 and queries.size(2) == keys.size(2)
            return F.scaled_dot_product_attention(
                queries, keys, values, None if whole_pass else seen, dropped, is_causal=whole_pass
            )
        allowed = mask[:, None, None] if seen is None else seen & mask[:, None, None]
        alive = allowed.any(-1, keepdim=True)  # a position that may see nothing looks at everything, and gets zeros
        found = F.scaled_dot_product_attention(queries, keys, values, allowed | ~alive, dropped)
        return found.masked_fill(~alive, 0.0)


class PastAttention(SelfAttention):
    """Attention of a recurrent decoder to its last outputs, never to the present one.

    Daniluk et al. 2017 (arXiv 1702.04521): additive attention over the last `window` outputs; h = [k; v] (kv=split) or
    [k; v; p] (kv=predict): k is compared, v is summed, the last part goes on, and takes what an uneven width leaves
    over. kv=shared with the general score over the
    whole past is the intra-decoder attention of Paulus et al. 2017 (arXiv 1705.04304, section 2.2). The first position
    has no past and gets zeros.
    """

    def __init__(self, width: int, *, score: ScoreName, kv: PastKind, window: int | None) -> None:
        super().__init__()
        parts = {"shared": 1, "split": 2, "predict": 3}[kv]
        self.kv, self.window = kv, window
        self.key_size = width // parts
        self.part_size = width - (parts - 1) * self.key_size
        self.output_size = self.key_size if kv == "predict" else self.part_size
        self.score = make_score(score, self.key_size, self.key_size)

    def initial_state(self, like: Tensor) -> State:
        """Keys and values (B, 1, 0, K)."""
        keys = self.score.keys(like.new_zeros(like.size(0), 0, self.key_size))
        return keys, like.new_zeros(like.size(0), 1, 0, self.output_size)

    def output_part(self, x: Tensor) -> Tensor:
        """The part that goes on to the output: h, v or p."""
        return x[..., -self.part_size :]

    def forward(
        self, x: Tensor, state: State, *, mask: Tensor | None = None, causal: bool, need_weights: bool = False
    ) -> SelfAttentionOutput:
        """Output (B, T, part of D), weights (B, 1, T, t + T) with t at most `window`. Always causal.

        Weights are (B, 1, T, C) of a cache with room.
        """
        query, rest = x[..., : self.key_size], x[..., self.key_size :]
        content = {"shared": x, "split": rest, "predict": rest[..., : self.output_size]}[self.kv]
        keys, values = self.score.keys(query), content.unsqueeze(1)
        if isinstance(state, RoomyCache):
            kept, columns, places = _filled(state, keys, values)
            keys, values, _ = kept
            seen = columns < places
            if self.window is not None:
                seen = seen & (columns >= places - self.window)
            state = kept
        else:
            keys, values = _appended(state, keys, values)
            new, total = x.size(1), keys.size(2)
            seen = _causal(new, total, x.device, -1)
            first = 0
            if self.window is not None:
                seen, first = seen & ~_causal(new, total, x.device, -1 - self.window), max(0, total - self.window)
            state = keys[:, :, first:], values[:, :, first:]
        if mask is not None:
            seen = seen & mask[:, None, None]
        weights = masked_softmax(self.score(query, keys), seen)
        output = merge_heads(contexts(weights.to(values.dtype), values))
        return SelfAttentionOutput(output, weights if need_weights else None, state)


class TapeState(NamedTuple):
    """What an LSTM layer with tapes has written: batch first, growing along t."""

    keys: Tensor  # (B, 1, t, A)
    tape: Tensor  # (B, 1, t, 2 H): hidden and memory tape side by side
    summary: Tensor  # (B, H): the last adaptive hidden state


class TapeAttention(nn.Module):
    """The attention of a long short-term memory-network (Cheng et al. 2016, arXiv 1601.06733, eq. 4 to 6).

    a_i = softmax_i(v . tanh(W_h h_i + W_x x_t + W_s s_{t-1})); (s_t, m_t) = sum_i a_i (h_i, c_i): the attended hidden
    state s_t and memory m_t take the place of h_{t-1} and c_{t-1} in the cell. The first state is on the tapes too.
    """

    def __init__(self, width: int, input_size: int, *, size: int) -> None:
        super().__init__()
        self.score = make_score("concat", input_size + width, width, size=size)

    def initial_state(self, hidden: Tensor, cell: Tensor) -> TapeState:
        """Tapes that hold the state before the first step, hidden and cell (B, H)."""
        tape = torch.cat([hidden, cell], 1)[:, None, None]
        return TapeState(self.score.keys(hidden.unsqueeze(1)), tape, hidden)

    def read(self, x: Tensor, state: TapeState) -> tuple[Tensor, Tensor]:
        """Attended hidden state and memory (B, H) for the layer's input x (B, I)."""
        query = torch.cat([x, state.summary.to(x.dtype)], 1).unsqueeze(1)
        energies = self.score(query, state.keys)
        weights = masked_softmax(energies, torch.ones_like(energies, dtype=torch.bool))
        hidden, cell = contexts(weights.to(state.tape.dtype), state.tape).flatten(1).chunk(2, 1)
        return hidden, cell

    def write(self, state: TapeState, summary: Tensor, hidden: Tensor, cell: Tensor) -> TapeState:
        """The state after a step that read `summary` and made hidden and cell (B, H)."""
        keys = torch.cat([state.keys, self.score.keys(hidden.unsqueeze(1))], 2)
        tape = torch.cat([state.tape, torch.cat([hidden, cell], 1)[:, None, None]], 2)
        return TapeState(keys, tape, summary)


def _appended(state: State, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """The cache with new keys and values (B, H, T, ...) at its end; an empty one costs no copy."""
    old_keys, old_values = state
    assert isinstance(old_keys, Tensor)
    assert isinstance(old_values, Tensor)
    if old_keys.size(2) == 0:
        return keys, values
    return torch.cat([old_keys, keys], 2), torch.cat([old_values, values], 2)


def _roomy(keys: Tensor, values: Tensor) -> RoomyCache:
    """A cache that grows, all places used."""
    return RoomyCache(keys, values, torch.full((keys.size(0),), keys.size(2), device=keys.device))


def _filled(cache: RoomyCache, keys: Tensor, values: Tensor) -> tuple[RoomyCache, Tensor, Tensor]:
    """The cache with new keys and values (B, H, T, ...) in the next places; all C columns, and these places.

    Columns are (C,) and places (B, 1, T, 1), so that comparing them gives what each new position may see.
    """
    places = (cache.used.unsqueeze(1) + torch.arange(keys.size(2), device=keys.device))[:, None, :, None]
    columns = torch.arange(cache.keys.size(2), device=keys.device)
    used = cache.used + keys.size(2)
    keys, values = (
        kept.scatter(2, places.expand_as(one), one.to(kept.dtype))
        for kept, one in ((cache.keys, keys), (cache.values, values))
    )
    return RoomyCache(keys, values, used), columns, places


def _causal(new: int, total: int, device: torch.device, offset: int = 0) -> Tensor:
    """(new, total): True where the column is at most `offset` after the row's own; the last `new` columns are new."""
    return torch.ones(new, total, dtype=torch.bool, device=device).tril(total - new + offset)


# ---- builders


def none(width: int, input_size: int | None) -> None:
    """No self-attention: a recurrent decoder as it is. A Transformer refuses it."""


def multihead(
    width: int,
    input_size: int | None,
    *,
    score: ScoreName = "scaled_dot",
    heads: int = 4,
    normaliser: NormaliserName = "softmax",
    dropout: float = 0.0,
) -> SelfAttention:
    """Vaswani et al. 2017 (arXiv 1706.03762). score: how positions are compared. heads: share the width.

    normaliser: energies to weights. dropout: probability of dropping a weight in training. Raises ConfigError.
    """
    if width % whole("heads", heads):
        raise ConfigError(
            f"self-attention shares its width between {heads} heads",
            where="self_attention.heads",
            expected=f"a divisor of {width}",
            found=str(heads),
        )
    return MultiHead(width, score=score, heads=heads, normaliser=normaliser, dropout=probability("dropout", dropout))


def auto(
    width: int,
    input_size: int | None,
    *,
    score: ScoreName = "scaled_dot",
    heads: int = 4,
    normaliser: NormaliserName = "softmax",
    dropout: float = 0.0,
) -> SelfAttention | None:
    """What the part needs: `multihead` in a Transformer layer, nothing in a recurrent decoder."""
    if input_size is not None:
        return None
    return multihead(width, None, score=score, heads=heads, normaliser=normaliser, dropout=dropout)


def key_value(
    width: int, input_size: int | None, *, score: ScoreName = "additive", window: int | None = 5
) -> SelfAttention:
    """Daniluk et al. 2017 (arXiv 1702.04521): key-value attention. window: outputs that are seen, null = all."""
    return _past("key_value", width, input_size, score, "split", window)


def key_value_predict(
    width: int, input_size: int | None, *, score: ScoreName = "additive", window: int | None = 5
) -> SelfAttention:
    """Daniluk et al. 2017 (arXiv 1702.04521): key-value-predict. window: outputs that are seen, null = all."""
    return _past("key_value_predict", width, input_size, score, "predict", window)


def intra_decoder(
    width: int, input_size: int | None, *, score: ScoreName = "general", window: int | None = None
) -> SelfAttention:
    """Paulus et al. 2017 (arXiv 1705.04304, eq. 6 to 8). window: outputs that are seen, null = all."""
    return _past("intra_decoder", width, input_size, score, "shared", window)


def lstmn(width: int, input_size: int | None, *, size: int | None = None) -> TapeAttention:
    """Cheng et al. 2016 (arXiv 1601.06733). size: of the score's inner layer, null = the width."""
    if input_size is None:
        raise _recurrent_only("lstmn")
    return TapeAttention(width, input_size, size=width if size is None else whole("size", size))


def _past(
    name: str, width: int, input_size: int | None, score: ScoreName, kv: PastKind, window: int | None
) -> SelfAttention:
    if input_size is None:
        raise _recurrent_only(name)
    if window is not None:
        whole("window", window)
    return PastAttention(width, score=score, kv=kv, window=window)


def _recurrent_only(name: str) -> ConfigError:
    return ConfigError(
        f"self_attention={name} attends to the past of a recurrent decoder and is no layer of a Transformer",
        where=_GROUP,
        expected="self_attention=multihead for a Transformer",
        found=name,
    )
