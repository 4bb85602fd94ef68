"""What every encoder and decoder promises."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from torch import Tensor, nn

from s2s.attention.base import Attention
from s2s.attention.self_attention import SelfAttention, TapeAttention
from s2s.errors import ConfigError
from s2s.types import DecoderOutput, Encoded, Memory, State

# Width of what asks -> an attention over the encoder's states: a decoder makes as many as it has layers that ask.
AttentionBuilder = Callable[[int], Attention]
# (width, input width of a recurrent layer or None in a Transformer layer) -> what attends to its own sequence, or None.
SelfAttentionBuilder = Callable[[int, int | None], SelfAttention | TapeAttention | None]


class Attended(NamedTuple):
    """An attention to the source with what it reads and where it stands."""

    attention: Attention
    memory: Memory
    state: State


class Encoder(nn.Module):
    """Embedded source to what attention reads. Padding changes nothing, and padded positions are zero."""

    width: int  # of the states and of `final`
    online: bool  # whether a source can be encoded while it grows, by `extend`

    def forward(self, embedded: Tensor, lengths: Tensor) -> Encoded:
        """embedded (B, S, E), lengths (B,) to states (B, S, width), final (B, width) and mask (B, S)."""
        raise NotImplementedError

    def extend(self, embedded: Tensor, state: State, *, last: bool) -> tuple[Encoded, State]:
        """Encode what a source has grown by: the positions that are known now, maybe none, and the state to go on with.

        embedded: (B, N, E), without padding. state: () for the beginning of a source. last: whether the source ends
        here. All positions joined are those of `forward`; `final` sums up what is encoded so far. Only where `online`.
        """
        raise NotImplementedError


class Decoder(nn.Module):
    """Target tokens, memory and state to features.

    The memory is a nested tuple of tensors, batch first, read-only and made once a source; the state is one too. One
    call with T tokens equals any split of it into smaller calls that thread the state.
    """

    output_size: int  # width of the features
    context_size: int  # width of the context
    starts_from_source = False  # whether the initial state knows the whole source

    def remember(self, encoded: Encoded) -> Any:
        """The memory of a source."""
        raise NotImplementedError

    def extend(self, memory: Any, more: Encoded) -> Any:
        """The memory after the source grew by `more` (online decoding)."""
        raise NotImplementedError

    def initial_state(self, encoded: Encoded, memory: Any) -> State:
        """State before the first token."""
        raise NotImplementedError

    def attended(self, memory: Any, state: State) -> list[Attended]:
        """Each attention to the source with its share of memory and state, in the order in which they ask."""
        raise NotImplementedError

    def with_attended(self, memory: Any, state: State, parts: Sequence[Attended]) -> tuple[Any, State]:
        """Memory and state with other shares for the attentions: the reverse of `attended`."""
        raise NotImplementedError

    def with_room(self, state: State, length: int) -> State:
        """The state with room for `length` tokens in all, in shapes that stay; as it is where it has to grow."""
        raise NotImplementedError

    def forward(self, tokens: Tensor, memory: Any, state: State, *, need_weights: bool = True) -> DecoderOutput:
        """tokens (B, T): features (B, T, output_size), context (B, T, V), weights (B, T, S) if asked for."""
        raise NotImplementedError

    def loss(self, aux: dict[str, Tensor], log_prob: Tensor) -> Tensor | None:
        """What its attentions add to the training loss, summed over N target tokens; None for nothing.

        aux: the decoder's own, at these tokens (N, ...). log_prob: (N,) of the right token at each, no gradient.
        """
        raise NotImplementedError


def check_sizes(where: str, layers: int, width: int, **probabilities: float) -> None:
    """Refuse sizes that no machine here can hold, before anything is allocated. Raises ConfigError."""
    for key, value, low, high in (("layers", layers, 1, 64), ("width", width, 1, 1 << 16)):
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise ConfigError(
                "value out of range", where=f"{where}.{key}", expected=f"{low} to {high}", found=repr(value)
            )
    for key, number in probabilities.items():
        if not 0 <= number < 1:
            raise ConfigError("value out of range", where=f"{where}.{key}", expected="0 <= p < 1", found=repr(number))
