"""Key-value attention: the encoder's states, and for `predict` the decoder's too, are split instead of projected."""

from __future__ import annotations

from torch import Tensor

from s2s.attention.base import Attention, ScoredAttention, scored
from s2s.attention.options import Options
from s2s.attention.score import ScoreName, make_score
from s2s.errors import ConfigError
from s2s.types import AttentionOutput, Encoded, Memory, State

SPLIT = Options(kv="split")


def key_value(
    query_size: int, memory_size: int, *, score: ScoreName = "additive", options: Options = SPLIT
) -> Attention:
    """Daniluk et al. 2017 (arXiv 1702.04521, section 2.2) over a source: h = [k; v], keys and values not projected."""
    return scored(query_size, memory_size, options, lambda q, k: make_score(score, q, k, heads=options.heads))


class PredictingQuery(Attention):
    """Attention that asks with the first half of the decoder's state and leaves the second to the output layer."""

    def __init__(self, inner: ScoredAttention) -> None:
        super().__init__()
        self.inner = inner
        self.memory_size, self.sums_to_one = inner.memory_size, inner.sums_to_one

    def make_memory(self, encoded: Encoded) -> Memory:
        """That of the attention which is asked."""
        return self.inner.make_memory(encoded)

    def initial_state(self, memory: Memory) -> State:
        """That of the attention which is asked."""
        return self.inner.initial_state(memory)

    def attend(self, query: Tensor, memory: Memory, state: State, need_weights: bool) -> AttentionOutput:
        """Ask with the first half of query (B, T, Q)."""
        return self.inner.attend(query[..., : query.size(-1) // 2], memory, state, need_weights)

    def output_size(self, query_size: int) -> int:
        """Half of the query."""
        return query_size // 2

    def output_part(self, state: Tensor) -> Tensor:
        """The predicting half (..., Q / 2) of the decoder's state (..., Q)."""
        return state[..., state.size(-1) // 2 :]


def key_value_predict(
    query_size: int, memory_size: int, *, score: ScoreName = "additive", options: Options = SPLIT
) -> Attention:
    """Daniluk et al. 2017 (section 2.3): key and value from the source; the decoder's state is [query; predict].

    The second half of the state feeds the output layer and never the attention. Raises ConfigError for an odd width.
    """
    if query_size % 2:
        raise ConfigError(
            "key_value_predict splits the decoder's state into two halves",
            where="decoder.width",
            expected="an even number",
            found=str(query_size),
        )
    inner = scored(query_size // 2, memory_size, options, lambda q, k: make_score(score, q, k, heads=options.heads))
    return PredictingQuery(inner)
