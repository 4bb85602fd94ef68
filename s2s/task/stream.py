"""Online translation: the source grows word by word, and the output is written while it does.

Each source word is encoded once. What decides when to write is the model itself, where its attention is monotonic
(monotonic, mocha, milk, mma), or the wait-k policy.

The model's own policy gives the tokens that greedy search gives for the whole source. A decoder step is tried on what
was read: it counts once every head has stopped at a position by itself, for what comes later can't change that. Else
more is read, and the heads that didn't stop go on from where they are. So each step looks only at positions from its
last stop on (and the few that a chunk looks back at): for a recurrent decoder the cost is linear in the lengths of
source and target, but for `milk` and `mma` with kind=infinite, which look back at everything.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from s2s.attention.base import Attention, ScoredAttention
from s2s.attention.chunk import LookingBack
from s2s.attention.monotonic import MonotonicAlignment
from s2s.errors import UsageError
from s2s.model.base import Attended
from s2s.search import SearchConfig
from s2s.search.constraints import blocks_for
from s2s.search.loop import ranked
from s2s.task.trained import Trained
from s2s.text.lines import clean, is_blank
from s2s.text.vocabulary import Tokenizer
from s2s.types import BOS, EOS, PAD, UNK, DecoderOutput, Encoded, Memory, State

RECIPE = "translate/multi30k-online"  # of a model that streams


class Stream:
    """The translation of one sentence. Its words, joined by one space, are the text.

    A word is given once the next one begins or the sentence is over. `delays` says of each word of `words` how many
    source words had been read then; `tokens` are the ids of the output, EOS included. `unfinished`: the output was cut
    off at its length limit (that of the search, for the whole source).
    """

    def __init__(self, trained: Trained, *, wait_k: float | None = None, search: SearchConfig | None = None) -> None:
        """wait_k: None for the model's own policy, or K for the wait-k policy (Ma et al. 2019, arXiv 1810.08398): read
        K words, then write one for each that is read; `math.inf` waits until the end and is plain greedy search.
        search: limits and blocks of the output, by default the model's; beam search can't write as it goes, so it is
        greedy. Raises UsageError on a policy that the model can't follow.
        """
        check(trained, wait_k)
        self.words: list[str] = []
        self.delays: list[int] = []
        self.tokens: list[int] = []
        self.words_read = 0
        self.unfinished = False
        self._wait_k, self._trained = wait_k, trained
        self._source = _Source(trained)
        self._decoder = trained.model.decoder
        self._choose = _Chooser(search or trained.config.search, trained.target)
        self._state: State | None = None
        self._open: list[int] = []  # tokens of the word that isn't given yet
        self._at_boundary = False  # wait-k: the last word was given before the next one began
        self._over = self._ended = False

    @torch.no_grad()
    def read(self, word: str) -> list[str]:
        """Take one more source word; the target words that can be written now.

        The words joined by one space are what a batch would be given. Raises UsageError for a word with blanks inside
        and after `finish`.
        """
        if self._over:
            raise UsageError("the source is over", hint="Open a new Stream for each sentence")
        text, _ = clean(word)
        if len(text.split()) > 1:
            raise UsageError("a word has no blanks inside", found=repr(word)[:80])
        self.words_read += 1
        self._source.add(text)
        if self._wait_k == math.inf:
            return []
        self._source.encode()
        return self._write()

    @torch.no_grad()
    def finish(self) -> list[str]:
        """The source is over; the rest of the target words. A source that shows nothing has no translation."""
        if self._over:
            return []
        self._over = True
        if not self._source.ids:
            return []
        self._source.end(whole=self._wait_k == math.inf)
        return self._write()

    def _write(self) -> list[str]:
        before = len(self.words)
        while not self._ended and self._source.memory is not None:
            if len(self.tokens) >= self._choose.config.limit(len(self._source.ids) + (not self._over)):
                if self._over:
                    self.unfinished = True
                    self._end()
                break  # the limit grows with the source
            if not (self._own_step() if self._wait_k is None else self._wait_k_step(self._wait_k)):
                break
        return self.words[before:]

    def _own_step(self) -> bool:
        """Write a token if every head has stopped; else go on waiting, and False."""
        output = self._step()
        if not self._over and not self._stopped(output):
            return False
        self._state = output.state
        self._settle(self._decoder.attended(self._source.memory, self._state))
        self._take(self._choose(self._log_probs(output), self.tokens))
        return True

    def _wait_k_step(self, k: float) -> bool:
        """Write a token, unless a word more has to be read first.

        A word is whole once the next token would begin another one. That token is chosen anew after the next source
        word, among those that begin a word. The sentence doesn't end before its source.
        """
        allowed = math.inf if self._over else self.words_read - k + 1
        if len(self.words) >= allowed:
            return False
        output = self._step()
        token = self._choose(self._log_probs(output), self.tokens, begin=self._at_boundary)
        if not self._over and (token == EOS or self._choose.begins(token)) and self._open:
            self._close()
            self._at_boundary = True
            return token != EOS
        if token == EOS and not self._over:
            return False
        self._state, self._at_boundary = output.state, False
        self._take(token)
        return True

    def _step(self) -> DecoderOutput:
        source = self._source
        if self._state is None:
            assert source.encoded is not None
            self._state = self._decoder.initial_state(source.encoded, source.memory)
        last = torch.tensor([[self.tokens[-1] if self.tokens else BOS]], device=self._trained.device)
        output: DecoderOutput = self._decoder(last, source.memory, self._state, need_weights=False)
        return output

    def _log_probs(self, output: DecoderOutput) -> Tensor:
        return self._trained.model.log_probs(output.features.squeeze(1))

    def _stopped(self, output: DecoderOutput) -> bool:
        """Whether every head of every layer has stopped by itself. If not, those that did stay where they stopped, and
        the others wait at the last position: the next try goes on from there.
        """
        assert self._state is not None
        parts = self._decoder.attended(self._source.memory, self._state)
        for number, after in enumerate(self._decoder.attended(self._source.memory, output.state)):
            stopped = output.aux["stopped" if "stopped" in output.aux else f"{number + 1}.stopped"][:, 0].bool()
            assert isinstance(after.state, Tensor)
            last = torch.zeros_like(after.state)
            last[..., -1] = 1.0
            parts[number] = after._replace(state=torch.where(stopped.unsqueeze(-1), after.state, last))
            if not stopped.all():  # what the layers above this one asked will change, so they start anew
                self._settle(parts)
                return False
        return True

    def _settle(self, parts: Sequence[Attended]) -> None:
        """Go on from `parts`, without what no later step can look at."""
        assert self._state is not None
        kept = [_cut(part) for part in parts]
        self._source.memory, self._state = self._decoder.with_attended(self._source.memory, self._state, kept)

    def _take(self, token: int) -> None:
        self.tokens.append(token)
        if token == EOS:
            self._end()
            return
        if self._open and self._choose.begins(token):
            self._close()
        self._open.append(token)

    def _close(self) -> None:
        """Give the open word. It is none if it shows nothing, and more than one if its characters hold blanks."""
        shown = self._trained.target.decode(self._open).split()
        self.words += shown
        self.delays += [self.words_read] * len(shown)
        self._open = []

    def _end(self) -> None:
        self._close()
        self._ended = True


class _Source:
    """A source that grows: what was read, as ids, and the decoder's memory of what is encoded."""

    def __init__(self, trained: Trained) -> None:
        self.ids: list[int] = []  # EOS included at the end
        self.memory: Any = None  # None until the first position is known
        self.encoded: Encoded | None = None  # what came last
        self._model, self._tokenizer, self._device = trained.model, trained.source, trained.device
        self._text: list[str] = []  # words that aren't segmented yet
        self._encoded_ids = 0
        self._state: State = ()

    def add(self, word: str) -> None:
        """One more word. Pieces never cross a space, so each word is segmented by itself.

        Words that show nothing wait for the first that does, as a text of such words alone is no text.
        """
        self._text.append(word)
        if self.ids or not is_blank(self._text[-1]):
            self.ids += self._tokenizer.encode("".join(f" {text}" for text in self._text)[not self.ids :])
            self._text = []

    def encode(self, *, last: bool = False) -> None:
        """Encode what is new, and remember what is known then."""
        new, self._encoded_ids = self.ids[self._encoded_ids :], len(self.ids)
        if not new:
            return
        ids = torch.tensor([new], device=self._device)
        encoded, self._state = self._model.encoder.extend(self._model.source_embedding(ids), self._state, last=last)
        if not encoded.states.size(1):
            return
        decoder, self.encoded = self._model.decoder, encoded
        self.memory = decoder.remember(encoded) if self.memory is None else decoder.extend(self.memory, encoded)

    def end(self, *, whole: bool) -> None:
        """The end of the sentence. whole: nothing is encoded yet, so everything is, by any encoder."""
        self.ids.append(EOS)
        if not whole:
            self.encode(last=True)
            return
        lengths = torch.tensor([len(self.ids)], device=self._device)
        self.encoded = self._model.encode(torch.tensor([self.ids], device=self._device), lengths)
        self.memory = self._model.decoder.remember(self.encoded)


class _Chooser:
    """The next token of greedy search, with the limits and blocks of a search."""

    def __init__(self, search: SearchConfig, target: Tokenizer) -> None:
        search.check()
        self.config, self._begins = search, beginnings(target)
        self._never = torch.tensor([PAD, BOS] if search.allow_unk else [PAD, BOS, UNK])
        self._blocks = blocks_for(search, [None], self._never, 1)

    def __call__(self, log_probs: Tensor, tokens: Sequence[int], *, begin: bool = False) -> int:
        """log_probs: (1, V). tokens: those before. begin: only what begins a word or ends the sentence."""
        log_probs = log_probs.cpu().index_fill(1, self._never, -torch.inf)
        if self._blocks is not None:
            history = torch.tensor([tokens], dtype=torch.int64)
            log_probs = self._blocks(log_probs, history, torch.zeros(1, dtype=torch.int64), torch.zeros(1).bool())
        if begin:
            log_probs = log_probs.masked_fill(~self._begins, -torch.inf)
        return int(ranked(log_probs, 1, None)[1][0, 0])

    def begins(self, token: int) -> bool:
        """Whether a token begins a word; EOS counts as if."""
        return bool(self._begins[token])


@lru_cache(maxsize=8)
def beginnings(tokenizer: Tokenizer) -> Tensor:
    """Which ids begin a word, or end the sentence: (V,) bool."""
    after = [number for pair in ((UNK, number) for number in range(tokenizer.size)) for number in pair]
    indices = tokenizer.words(after)  # of each id behind an unknown one, which is never a space
    return torch.tensor([indices[2 * number + 1] != indices[2 * number] for number in range(tokenizer.size)])


def _cut(part: Attended) -> Attended:
    """The same without the positions before the first that a later step can look at."""
    look_back = part.attention.window if isinstance(part.attention, LookingBack) else 1
    if look_back is None:
        return part
    assert isinstance(part.state, Tensor)
    start = max(0, int(part.state.argmax(-1).min()) - look_back + 1)
    keys, values, mask, extra = part.memory
    memory = Memory(
        keys[..., start:, :], values[..., start:, :], mask[:, start:], tuple(e[..., start:, :] for e in extra)
    )
    return part._replace(memory=memory, state=part.state[..., start:])


def check(trained: Trained, wait_k: float | None) -> None:
    """Refuse a policy that the model can't follow. Raises UsageError that says what to train instead."""
    hint = f"Train a model that can: s2s train {RECIPE}"
    if wait_k is not None and not (wait_k == math.inf or (isinstance(wait_k, int) and wait_k >= 1)):
        raise UsageError("wait-k is out of range", where="wait_k", expected="1 or more, or inf", found=repr(wait_k))
    if wait_k == math.inf:
        return
    model = trained.model
    if not model.encoder.online:
        raise UsageError(
            "the encoder reads the source from its end too, so it can't begin before all of it is there",
            where="encoder",
            expected="encoder.bidirectional=false, or a recurrent encoder with encoder.chunk=8",
            found="encoder.bidirectional=true",
            hint=f"{hint}. Or wait for the end with --wait-k inf",
        )
    if wait_k is not None:
        return
    attentions = [module for module in model.decoder.modules() if isinstance(module, Attention)]
    if not all(isinstance(one, ScoredAttention) and isinstance(one.align, MonotonicAlignment) for one in attentions):
        raise UsageError(
            "this attention can't decide when to write",
            where="attention",
            expected="monotonic, mocha, milk or mma",
            found=trained.config.attention.name,
            hint=f"Take --wait-k K. {hint}",
        )
    if model.decoder.starts_from_source:
        raise UsageError(
            "the decoder starts from a summary of the whole source",
            where="decoder.bridge",
            expected="zero",
            found="final",
            hint=f"Take --wait-k K, which starts from what was read. {hint}",
        )


def stream(
    trained: Trained, words: Iterable[str], *, wait_k: float | None = None, search: SearchConfig | None = None
) -> Iterator[str]:
    """The words of one sentence's translation, each as soon as it is known. Options and errors: see `Stream`."""
    made = Stream(trained, wait_k=wait_k, search=search)

    def written() -> Iterator[str]:
        for word in words:
            yield from made.read(word)
        yield from made.finish()

    return written()
