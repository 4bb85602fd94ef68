"""The attention contract, and the mechanisms that are a score, a softmax and a weighted sum.

Chunk invariance is the heart of the contract: in eval mode, one call with T queries equals any split of it into smaller
calls that thread `state`. So teacher forcing, greedy, beam and streaming are one code path.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from s2s.attention.functional import masked_softmax, weighted_sum
from s2s.attention.score import Score
from s2s.types import AttentionOutput, Encoded, Memory, State


class Attention(nn.Module):
    """What every mechanism promises. `memory_size` is the width of the context that it returns.

    Weights are non-negative, exactly zero on masked positions and sum to at most one; a fully masked row gives a zero
    context and zero gradients. Tensors in `aux` have T as their second axis.
    """

    memory_size: int
    sums_to_one = True  # whether the weights of an unmasked row sum to one: copying and alignment losses need it

    def remember(self, encoded: Encoded) -> Memory:
        """Project a source once. Encoded.states (B, S, D) becomes keys (B, S, K) and values (B, S, V)."""
        raise NotImplementedError

    def extend(self, memory: Memory, more: Encoded) -> Memory:
        """The memory after the source grew by `more` (online decoding): keys, values and mask joined along S."""
        new = self.remember(more)
        joined = [torch.cat(pair, 1) for pair in zip(memory[:3], new[:3], strict=True)]
        return Memory(joined[0], joined[1], joined[2])

    def initial_state(self, memory: Memory) -> State:
        """State before the first query; `()` for a mechanism that remembers nothing of its past."""
        return ()

    def forward(self, query: Tensor, memory: Memory, state: State, *, need_weights: bool = True) -> AttentionOutput:
        """Attend with query (B, T, Q). Weights are returned only when asked for."""
        raise NotImplementedError


class NoAttention(Attention):
    """The control: a context of zeros and no weights. All that the decoder knows of the source is its initial state."""

    sums_to_one = False

    def __init__(self, memory_size: int) -> None:
        super().__init__()
        self.memory_size = memory_size

    def remember(self, encoded: Encoded) -> Memory:
        """Nothing is kept but the mask: keys and values (B, S, 0)."""
        nothing = encoded.states[..., :0]
        return Memory(nothing, nothing, encoded.mask)

    def forward(self, query: Tensor, memory: Memory, state: State, *, need_weights: bool = True) -> AttentionOutput:
        """Zeros (B, T, V)."""
        return AttentionOutput(query.new_zeros(*query.shape[:2], self.memory_size), None, state, {})


class SoftAttention(Attention):
    """score, softmax over the whole source, weighted sum of the encoder's states ("global" or "soft" attention).

    dropout: probability of dropping a weight in training, after the softmax; the weights returned are those before it.
    """

    def __init__(self, score: Score, memory_size: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.score = score
        self.memory_size = memory_size
        self.dropout = nn.Dropout(dropout)

    def remember(self, encoded: Encoded) -> Memory:
        """Keys (B, S, K) by the score's projection; values are the states themselves."""
        return Memory(self.score.keys(encoded.states), encoded.states, self.score.reachable(encoded.mask))

    def extend(self, memory: Memory, more: Encoded) -> Memory:
        """As the contract says; what the score can reach is decided anew for the longer source."""
        joined = super().extend(memory, Encoded(more.states, more.final, more.mask))
        return joined._replace(mask=self.score.reachable(torch.cat([memory.mask, more.mask], 1)))

    def forward(self, query: Tensor, memory: Memory, state: State, *, need_weights: bool = True) -> AttentionOutput:
        """Attend with query (B, T, Q): context (B, T, V), weights (B, T, S)."""
        energies = self.score(query, memory.keys)
        weights = masked_softmax(energies, memory.mask.unsqueeze(1))
        context = weighted_sum(self.dropout(weights).to(memory.values.dtype), memory.values)
        return AttentionOutput(context, weights if need_weights else None, state, {})
