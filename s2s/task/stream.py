"""Online translation: the source grows word by word, and the output is written while it does.

Each source word is encoded once. What decides when to write is the model itself, where its attention is monotonic
(monotonic, mocha, milk, mma), or the wait-k policy.

The model's own policy gives the tokens that greedy search gives for the whole source: a token counts once every head
has stopped at a position by itself, for what comes later can't change that. Each step looks only at positions from its
last stop on (and the few that a chunk looks back at), so for a recurrent decoder the cost is linear in the lengths of
source and target; several heads look from the slowest one on, and `milk` and `mma` with kind=infinite at everything.

What is written while the source grows can't be taken back, so it is greedy. Once the source is over nothing is in a
hurry, and the rest can be searched with a beam (the tail, as in Ma et al. 2019, arXiv 1810.08398).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import cast

import torch
from torch import Tensor

from s2s.attention.base import Attention
from s2s.attention.monotonic import hasten
from s2s.errors import UsageError
from s2s.model.seq2seq import Seq2Seq, start_search
from s2s.search import Constraints, SearchConfig
from s2s.search import search as run_search
from s2s.search.constraints import blocks_for
from s2s.search.loop import ranked
from s2s.task.growing import GrowingSource, is_monotonic, scan_step
from s2s.task.trained import Trained
from s2s.text.lines import clean
from s2s.text.vocabulary import Tokenizer, beginnings
from s2s.types import BOS, EOS, PAD, UNK, DecoderOutput, State

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
        search: limits and blocks of the output, and with `beam` above 1 how the rest is searched once the source is
        over; by default the model's with one beam. Raises UsageError on a policy that the model can't follow.
        """
        check(trained, wait_k, search)
        search = search or greedy(trained.config.search)
        model = trained.ready()
        self._model = cast(Seq2Seq, hasten(model, search.eager)) if search.eager else model
        self.words: list[str] = []
        self.delays: list[int] = []
        self.tokens: list[int] = []
        self.words_read = 0
        self.unfinished = False
        self._trained, self._wait_k = trained, wait_k
        self._source = GrowingSource(self._model, trained.source)
        self._choose = _Chooser(search, trained.target)
        self._state: State | None = None
        self._open: list[int] = []  # tokens of the word that isn't given yet
        self._waits = True  # own policy: all of the memory is looked at, and more is needed
        self._at_boundary = False  # wait-k: the last word was given before the next one began
        self._closed = self._ended = False

    @torch.no_grad()
    def read(self, word: str) -> list[str]:
        """Take one more source word; the target words that can be written now.

        The words joined by one space are what a batch would be given. Raises UsageError for a word with blanks inside
        and after `finish`.
        """
        if self._closed:
            raise UsageError("the source is over", hint="Open a new Stream for each sentence")
        text = self._trained.recased(clean(word)[0])
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
        if self._closed or not self._source.ids:
            self._closed = True
            return []
        self._closed = True
        self._source.end()
        if self._wait_k == math.inf:
            self._source.encode_whole()
        else:
            self._source.encode()
        return self._search_rest() if self._choose.config.beam > 1 else self._write()

    def _write(self) -> list[str]:
        before = len(self.words)
        source = self._source
        while not self._ended:
            if len(self.tokens) >= self._choose.config.limit(len(source.ids) + (not source.over)):
                if source.over:
                    self.unfinished = True
                    self._end()
                break  # the limit grows with the source
            if not (self._own_step() if self._wait_k is None else self._wait_k_step(self._wait_k)):
                break
        return self.words[before:]

    def _begin(self) -> State | None:
        """The state before the next token; None where the source hasn't begun."""
        if self._state is None and self._source.summary is not None:
            self._state = self._model.decoder.initial_state(self._source.summary, self._source.memory)
        return self._state

    def _last(self) -> Tensor:
        return torch.tensor([[self.tokens[-1] if self.tokens else BOS]], device=self._trained.device)

    def _log_probs(self, output: DecoderOutput) -> Tensor:
        return self._model.log_probs(output.features.squeeze(1))

    def _own_step(self) -> bool:
        """Write a token if every head stops; else more has to be read, and False."""
        if self._waits:
            self._source.remember()
        state = self._begin()
        if state is None:
            return False
        output, self._state = scan_step(self._model.decoder, self._last(), self._source, state)
        self._waits = output is None
        if output is None:
            return False
        self._take(self._choose(self._log_probs(output), self.tokens))
        return True

    def _wait_k_step(self, k: float) -> bool:
        """Write a token, unless a word more has to be read first.

        A word is whole once the next token would begin another one. That token is chosen anew after the next source
        word, among those that begin a word. The sentence doesn't end before its source.
        """
        over = self._source.over
        if not over and len(self.words) > self.words_read - k:
            return False
        self._source.remember()
        state = self._begin()
        if state is None:
            return False
        output = self._model.decoder(self._last(), self._source.memory, state, need_weights=False)
        token = self._choose(self._log_probs(output), self.tokens, begin=self._at_boundary)
        if not over and self._open and self._choose.begins(token):
            self._close()
            self._at_boundary = True
            return token != EOS
        if token == EOS and not over:
            return False
        self._state, self._at_boundary = output.state, False
        self._take(token)
        return True

    def _search_rest(self) -> list[str]:
        """Write all that isn't given yet as a beam search of the whole source finds it; an open word may change."""
        before = len(self.words)
        source, config = self._source, self._choose.config
        limit = config.limit(len(source.ids))
        if self._at_boundary and len(self.tokens) < limit:
            self._wait_k_step(1)  # what is given isn't made longer: the next token begins a word
        if self._ended or len(self.tokens) >= limit or UNK in self.tokens:  # an unknown word can't be asked for
            self._write()
            return self.words[before:]
        kept = self.tokens[: len(self.tokens) - len(self._open[1:])]
        ids, lengths = torch.tensor([source.ids], device=self._trained.device), [len(source.ids)]
        (found,) = run_search(
            *start_search(
                self._model,
                ids,
                torch.tensor(lengths, device=ids.device),
                need_weights=config.coverage_penalty > 0,
            ),
            dataclasses.replace(config, nbest=1),
            lengths,
            constraints=[Constraints(prefix=tuple(kept))] if kept else None,
        )
        self.tokens, self._open = kept, self._open[:1]
        for token in found[0].tokens[len(kept) :]:
            self._take(token)
        if not self._ended:
            self.unfinished = True
            self._end()
        return self.words[before:]

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


class _Chooser:
    """The next token of greedy search, with the limits and blocks of a search."""

    def __init__(self, search: SearchConfig, target: Tokenizer) -> None:
        search.check()
        self.config, self._begins = search, torch.tensor(beginnings(target))
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


def greedy(search: SearchConfig) -> SearchConfig:
    """The same search with one beam: what a stream does by default, so that it gives what greedy search gives."""
    return dataclasses.replace(search, beam=1, nbest=1, beam_groups=1, diversity=0.0)


def check(trained: Trained, wait_k: float | None, search: SearchConfig | None = None) -> None:
    """Refuse a policy that the model can't follow. Raises UsageError that says what to train instead."""
    hint = f"Train a model that can: s2s train {RECIPE}"
    if wait_k is not None and not (wait_k == math.inf or (isinstance(wait_k, int) and wait_k >= 1)):
        raise UsageError("wait-k is out of range", where="wait_k", expected="1 or more, or inf", found=repr(wait_k))
    if (search or trained.config.search).forward != "off":
        raise UsageError(
            "what keeps a search going forward needs the whole source",
            where="search.forward",
            expected="off",
            found=(search or trained.config.search).forward,
        )
    model = trained.model
    if model.copy is not None:
        raise UsageError("a model that copies can't stream", where="copy", expected="copy=none", hint=hint)
    if model.selective is not None:
        raise UsageError(
            "a gate that knows the whole source can't stream",
            where="model.selective",
            expected="model.selective=false",
            hint=hint,
        )
    if (search or trained.config.search).shortlist:
        raise UsageError("a stream has no shortlist", where="search.shortlist", expected="0")
    if (search or trained.config.search).words:
        raise UsageError("a stream can't be asked for a length", where="search.words", expected="0")
    if wait_k == math.inf:
        return
    for part, key, neutral in ((model.features, "features", "[]"), (model.sentences, "hierarchical", "false")):
        if part is not None:
            raise UsageError(
                "what the whole source says can't be known while it grows",
                where=f"model.{key}",
                expected=f"model.{key}={neutral}",
                hint=f"{hint}. Or wait for the end with --wait-k inf",
            )
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
    if not all(map(is_monotonic, attentions)):
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
