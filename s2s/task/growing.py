"""A source that grows, and decoder steps of monotonic attention that look at no more of it than they must."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from s2s.attention.base import Attention, ScoredAttention
from s2s.attention.chunk import LookingBack
from s2s.attention.monotonic import MonotonicAlignment
from s2s.model.base import Attended, Decoder
from s2s.model.seq2seq import Seq2Seq
from s2s.text.lines import is_blank
from s2s.text.vocabulary import Tokenizer
from s2s.types import EOS, DecoderOutput, Encoded, Memory, State

_BLOCK = 16  # positions that a try looks at beyond those where the heads stand


class GrowingSource:
    """A source that grows word by word, each encoded once. The decoder's memory of it follows where it is asked to."""

    def __init__(self, model: Seq2Seq, tokenizer: Tokenizer) -> None:
        self.ids: list[int] = []  # EOS included at the end
        self.over = False
        self.memory: Any = None  # of what was asked for; None where there is nothing yet
        self.summary: Encoded | None = None  # what was encoded last, whose `final` sums up the source so far
        self._model, self._tokenizer = model, tokenizer
        self._device = next(model.parameters()).device
        self._text: list[str] = []  # words that aren't segmented yet
        self._unencoded: list[int] = []
        self._encoder_state: State = ()
        self._pending: list[Encoded] = []  # known, but not in the memory

    @property
    def complete(self) -> bool:
        """Whether the memory holds the whole source."""
        return self.over and not self._pending

    def add(self, word: str) -> None:
        """One more word, without blanks. Pieces never cross a space, so each word is segmented by itself.

        Words that show nothing wait for the first that does, as a text of such words alone is no text.
        """
        self._text.append(word)
        if self.ids or not is_blank(word):
            new = self._tokenizer.encode("".join(f" {text}" for text in self._text)[not self.ids :])
            self.ids += new
            self._unencoded += new
            self._text = []

    def end(self) -> None:
        """The end of the sentence."""
        self.ids.append(EOS)
        self._unencoded.append(EOS)
        self.over = True

    def encode(self) -> None:
        """Encode what is new; an encoder with chunks keeps some of it for later."""
        if not self._unencoded:
            return
        embedded = self._model.source_embedding(torch.tensor([self._unencoded], device=self._device))
        self._unencoded = []
        encoded, self._encoder_state = self._model.encoder.extend(embedded, self._encoder_state, last=self.over)
        if encoded.states.size(1):
            self._pending.append(encoded)

    def encode_whole(self) -> None:
        """Encode the source at once, by any encoder, where nothing was encoded before."""
        lengths = torch.tensor([len(self.ids)], device=self._device)
        self._pending.append(self._model.encode(torch.tensor([self.ids], device=self._device), lengths))

    def remember(self) -> bool:
        """Take all that is encoded into the memory; whether there was anything."""
        if not self._pending:
            return False
        states, masks = [one.states for one in self._pending], [one.mask for one in self._pending]
        self.summary = Encoded(torch.cat(states, 1), self._pending[-1].final, torch.cat(masks, 1))
        self._pending = []
        decoder = self._model.decoder
        self.memory = (
            decoder.remember(self.summary) if self.memory is None else decoder.extend(self.memory, self.summary)
        )
        return True


def is_monotonic(attention: Attention) -> bool:
    """Whether the attention stops at positions by itself, so that it can decide when to read."""
    return isinstance(attention, ScoredAttention) and isinstance(attention.align, MonotonicAlignment)


def scan_step(
    decoder: Decoder, token: Tensor, source: GrowingSource, state: State
) -> tuple[DecoderOutput | None, State]:
    """A decoder step of one token (1, 1), and the state to go on with; no output where more source is needed first.

    It counts once every head of every layer has stopped at a position, or has passed the end of the source. It is tried
    on the positions from where the heads stand, `_BLOCK` of them: heads that stopped stay where they are, the others
    wait at the last position, and the next try goes on from there. What no later step can look at is forgotten.
    """
    while True:
        parts = decoder.attended(source.memory, state)
        seen = [_window(part) for part in parts]
        output: DecoderOutput = decoder(token, *decoder.with_attended(source.memory, state, seen), need_weights=False)
        found = decoder.attended(source.memory, output.state)
        waits, kept = _moved(parts, seen, found, output.aux, source.complete)
        after = output.state if waits is None else state
        source.memory, state = decoder.with_attended(source.memory, after, [_cut(part) for part in kept])
        if waits is None:
            return output, state
        if _length(seen[waits]) == _length(parts[waits]) and not source.remember():
            return None, state


def _moved(
    parts: Sequence[Attended],
    seen: Sequence[Attended],
    found: Sequence[Attended],
    aux: dict[str, Tensor],
    complete: bool,
) -> tuple[int | None, list[Attended]]:
    """The first layer that has a head that hasn't stopped, or None, and where all stand now.

    What the layers above that one asked will change, so they stand where they stood.
    """
    kept = list(parts)
    for number, (part, window, after) in enumerate(zip(parts, seen, found, strict=True)):
        assert isinstance(part.state, Tensor)
        assert isinstance(after.state, Tensor)
        stopped = aux["stopped" if "stopped" in aux else f"{number + 1}.stopped"][:, 0].bool()
        lost = ~part.state.any(-1)  # without mass preservation, a head that has passed the end is nowhere
        kept[number] = part._replace(state=after.state)
        if bool((stopped | lost).all()) or (complete and _length(window) == _length(part)):
            continue
        last = torch.zeros_like(after.state)
        last[..., -1] = 1.0
        waiting = torch.where(stopped.unsqueeze(-1), after.state, last.masked_fill(lost.unsqueeze(-1), 0.0))
        kept[number] = part._replace(state=waiting)
        return number, kept
    return None, kept


def _length(part: Attended) -> int:
    return part.memory.mask.size(1)


def _window(part: Attended) -> Attended:
    """The same with no more positions than a try looks at."""
    assert isinstance(part.state, Tensor)
    return _slice(part, 0, int(part.state.argmax(-1).max()) + _BLOCK)


def _cut(part: Attended) -> Attended:
    """The same without the positions that no later step can look at."""
    assert isinstance(part.state, Tensor)
    look_back = part.attention.window if isinstance(part.attention, LookingBack) else 1
    start = 0 if look_back is None else max(0, int(part.state.argmax(-1).min()) - look_back + 1)
    return _slice(part, start, _length(part))


def _slice(part: Attended, start: int, end: int) -> Attended:
    assert isinstance(part.state, Tensor)
    keys, values, mask, extra = part.memory
    inner = slice(start, end)
    memory = Memory(keys[..., inner, :], values[..., inner, :], mask[:, inner], tuple(e[..., inner, :] for e in extra))
    return part._replace(memory=memory, state=part.state[..., inner])
