"""The attention contract, and the class of most mechanisms: a score, an alignment, keys and values, heads.

Chunk invariance is the heart of the contract: in eval mode, one call with T queries equals any split of it into smaller
calls that thread `state`. So teacher forcing, greedy, beam and streaming are one code path.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from s2s.attention.align import Alignment, SoftAlignment
from s2s.attention.functional import merge_heads, split_heads
from s2s.attention.keyvalue import KeyValue
from s2s.attention.normalise import Normaliser
from s2s.attention.options import Options
from s2s.attention.score import Score, check_heads
from s2s.attention.sharing import SharedMemory, apart, together
from s2s.dropout import Dropout
from s2s.errors import NonFiniteError, UsageError
from s2s.gather import contexts
from s2s.types import AttentionOutput, Encoded, Memory, State


def check_finite(query: Tensor) -> None:
    """Raises NonFiniteError for a query with NaN or infinity."""
    # a sum is quicker, and finite only where all is; that of finite numbers may be infinite
    if not math.isfinite(query.sum().item()) and not bool(query.isfinite().all()):
        raise NonFiniteError(
            "the query is not finite", where="attention", expected="finite numbers", found="NaN or infinity"
        )


class Attention(nn.Module):
    """What every mechanism promises. `memory_size` is the width of the context that it returns.

    Weights are non-negative, exactly zero on masked positions and sum to at most one; a fully masked row gives a zero
    context and zero gradients. Tensors in `aux` have T as their second axis. A mechanism defines `make_memory` and
    `attend`, and what else differs from here.
    """

    memory_size: int
    sums_to_one = True  # whether the weights of an unmasked row sum to one: copying and alignment losses need it
    has_weights = True  # whether there is an alignment to show at all

    def remember(self, encoded: Encoded) -> Memory:
        """Project a source once. Encoded.states (B, S, D) becomes keys (B, S, K) and values (B, S, V).

        With several heads keys and values are (B, H, S, K) and (B, H, S, V). Raises UsageError for a mask that isn't a
        bool tensor (B, S).
        """
        states, mask = encoded.states, encoded.mask
        if mask.dtype != torch.bool or mask.shape != states.shape[:2]:
            raise UsageError(
                "the mask doesn't fit the source",
                where="attention",
                expected=f"a bool tensor {tuple(states.shape[:2])}, True = may attend",
                found=f"{mask.dtype} {tuple(mask.shape)}".replace("torch.", ""),
            )
        return self.make_memory(encoded)

    def extend(self, memory: Memory, more: Encoded) -> Memory:
        """The memory after the source grew by `more` (online decoding): keys, values and mask joined along S."""
        new = self.remember(more)
        keys, values = (torch.cat(pair, -2) for pair in zip(memory[:2], new[:2], strict=True))
        extra = tuple(torch.cat(pair, -2) for pair in zip(memory.extra, new.extra, strict=True))
        return Memory(keys, values, torch.cat([memory.mask, new.mask], 1), extra)

    def initial_state(self, memory: Memory) -> State:
        """State before the first query; `()` for a mechanism that remembers nothing of its past."""
        return ()

    def forward(
        self, query: Tensor, memory: Memory | SharedMemory, state: State, *, need_weights: bool = True
    ) -> AttentionOutput:
        """Attend with query (B, T, Q). Weights are returned only when asked for.

        For rows of a search that share their memory, `s2s.attention.sharing`, the query is (N, 1, Q).

        Raises NonFiniteError for a query with NaN or infinity on a CPU; on a GPU it would stop the device at every
        step, and the loss shows it.
        """
        if query.device.type == "cpu":
            check_finite(query)
        if isinstance(memory, SharedMemory):
            own, grid = memory
            return apart(self.attend(together(query, grid), own, state, need_weights), grid)
        return self.attend(query, memory, state, need_weights)

    def make_memory(self, encoded: Encoded) -> Memory:
        """`remember`, for a mask that fits."""
        raise NotImplementedError

    def attend(self, query: Tensor, memory: Memory, state: State, need_weights: bool) -> AttentionOutput:
        """`forward`, for a finite query."""
        raise NotImplementedError

    def output_size(self, query_size: int) -> int:
        """Width of what `output_part` gives."""
        return query_size

    def output_part(self, state: Tensor) -> Tensor:
        """Which part of the decoder's state (..., Q) feeds the output layer: all of it, unless the query is split."""
        return state

    def loss(self, aux: dict[str, Tensor], log_prob: Tensor) -> Tensor | None:
        """What the mechanism adds to the training loss, summed over N target tokens; None for nothing.

        aux: its own, at these tokens (N, ...). log_prob: (N,) of the right token at each, without a gradient.
        """
        return aux["loss"].sum() if "loss" in aux else None


class NoAttention(Attention):
    """The control: a context of zeros and no weights. All that the decoder knows of the source is its initial state."""

    sums_to_one = has_weights = False

    def __init__(self, memory_size: int) -> None:
        super().__init__()
        self.memory_size = memory_size

    def make_memory(self, encoded: Encoded) -> Memory:
        """Nothing is kept but the mask: keys and values (B, S, 0)."""
        nothing = encoded.states[..., :0]
        return Memory(nothing, nothing, encoded.mask)

    def attend(self, query: Tensor, memory: Memory, state: State, need_weights: bool) -> AttentionOutput:
        """Zeros (B, T, V)."""
        return AttentionOutput(query.new_zeros(*query.shape[:2], self.memory_size), None, state, {})


class ScoredAttention(Attention):
    """Energies by a score, weights by an alignment, context as the weighted sum of the values; for each head.

    With several heads each takes its slice of keys and values; their contexts are joined and mixed by one matrix, and
    the weights returned are the mean over heads (each head's in aux["heads"], (B, T, H, S), where weights are needed).
    """

    def __init__(
        self, score: Score, align: Alignment, key_value: KeyValue, *, heads: int = 1, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.score, self.align, self.key_value = score, align, key_value
        self.memory_size = key_value.value_size
        self.heads = check_heads(heads, self.memory_size, "the values")
        self.sums_to_one = align.sums_to_one
        self.dropout = Dropout(dropout)
        self.mix = nn.Linear(self.memory_size, self.memory_size, bias=False) if heads > 1 else None
        if self.mix is not None:
            nn.init.xavier_uniform_(self.mix.weight)

    def make_memory(self, encoded: Encoded) -> Memory:
        """Keys by the score's projection, and values."""
        material, values = self.key_value(encoded.states)
        keys = self.score.keys(material)
        if self.heads == 1:
            return Memory(keys.squeeze(1), values, self.score.reachable(encoded.mask))
        return Memory(keys, split_heads(values, self.heads).contiguous(), self.score.reachable(encoded.mask))

    def extend(self, memory: Memory, more: Encoded) -> Memory:
        """As the contract says; what the score can reach is decided anew for the longer source."""
        mask = torch.cat([memory.mask, more.mask], 1)
        return super().extend(memory, more)._replace(mask=self.score.reachable(mask))

    def initial_state(self, memory: Memory) -> State:
        """That of the alignment."""
        return self.align.initial_state(memory.mask, self.heads)

    def attend(self, query: Tensor, memory: Memory, state: State, need_weights: bool) -> AttentionOutput:
        """Attend with query (B, T, Q): context (B, T, V), weights (B, T, S)."""
        if self._is_soft() and query.numel() and query.size(0) == memory.mask.size(0):
            fused = self.score.attend(query, self.by_head(memory.keys), self.by_head(memory.values), memory.mask)
            if fused is not None:
                return self._mixed(*fused, state, {}, need_weights)
        energies = self.score(query, self.by_head(memory.keys))
        weights, state, aux = self.align(energies, memory.mask, state, query)
        return self.read(weights, memory, state, aux, need_weights)

    def _is_soft(self) -> bool:
        """Whether weights are a plain softmax that nobody else has a say in, so that one kernel may do all of it."""
        if type(self) is not ScoredAttention or type(self.align) is not SoftAlignment:
            return False
        normaliser, dropped = self.align.normaliser, self.training and self.dropout.p > 0
        return normaliser.name == "softmax" and normaliser.temperature == 1.0 and not dropped

    def by_head(self, kept: Tensor) -> Tensor:
        """What the memory holds, with an axis for heads: (B, H, S, ...)."""
        return kept.unsqueeze(1) if self.heads == 1 else kept

    def read(
        self, weights: Tensor, memory: Memory, state: State, aux: dict[str, Tensor], need_weights: bool
    ) -> AttentionOutput:
        """Weights (B, H, T, S) to the output."""
        found = contexts(self.dropout(weights).to(memory.values.dtype), self.by_head(memory.values))
        return self._mixed(merge_heads(found), weights, state, aux, need_weights)

    def _mixed(
        self, context: Tensor, weights: Tensor, state: State, aux: dict[str, Tensor], need_weights: bool
    ) -> AttentionOutput:
        """Contexts of all heads side by side (B, T, V) and their weights (B, H, T, S) to the output."""
        if self.mix is not None:
            context = self.mix(context)
            if need_weights:
                aux = {**aux, "heads": weights.transpose(1, 2)}
        mean = None if not need_weights else weights.squeeze(1) if self.heads == 1 else weights.mean(1)
        return AttentionOutput(context, mean, state, aux)


def scored(
    query_size: int,
    memory_size: int,
    options: Options,
    score: Callable[[int, int], Score],
    align: Alignment | None = None,
    kind: type[ScoredAttention] = ScoredAttention,
) -> ScoredAttention:
    """Put a mechanism together. score: makes one from the query's width and that of the keys' material."""
    key_value = KeyValue(options.kv, memory_size, query_size)
    return kind(
        score(query_size, key_value.key_size),
        align or SoftAlignment(Normaliser(options.normaliser, options.temperature)),
        key_value,
        heads=options.heads,
        dropout=options.dropout,
    )
