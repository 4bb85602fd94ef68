"""Steps of a search at the speed of a GPU: recorded once for each shape, and replayed search after search.

The plain twin is `s2s.model.seq2seq.step_function`: the same numbers, up to rounding.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from s2s.model.seq2seq import Copies, Seq2Seq, step_function
from s2s.recording import CaptureError, Recorder, Work, recorded
from s2s.state import mapped, select, tensors
from s2s.types import State, StepFunction, StepOutput

MAX_BYTES = 1 << 30  # of fixed tensors, after which no more shapes are recorded: steps of these run plainly
_FEW = 64  # rows up to which their number is filled up to a power of two, and from which on to a multiple of it
_EXTRA = 64  # the number of ids that can only be copied is filled up to a multiple of it

_Key = tuple[Any, ...]


@dataclass
class _Recorded:
    """A step on fixed tensors, of as many rows as `tokens` has. Rows beyond those of a search are left as they are."""

    tokens: Tensor
    state: State
    memory: Any
    output: State  # log-probabilities, state, weights or ()
    work: Work
    holds: tuple[object, Tensor] | None = None  # the search, and the source rows, whose memory this is


class RecordedSteps:
    """The steps of one model whose state has fixed shapes, or room. Searches may take turns, also from several threads.

    A shape is recorded when it comes the second time. off: why nothing is recorded any more; empty while it is.
    """

    def __init__(self, model: Seq2Seq, recorder: Recorder) -> None:
        self.model, self.recorder = model, recorder
        self.off = ""
        self._works: dict[_Key, _Recorded] = {}
        self._met: Counter[_Key] = Counter()
        self._bytes = 0
        self._lock = threading.Lock()

    def step_function(self, memory: Any, *, need_weights: bool, copies: Copies | None = None) -> StepFunction:
        """As `s2s.model.seq2seq.step_function`, for the whole vocabulary.

        Each call is one token further in one search.
        """
        search, length, roomy = object(), 0, not self.off
        plain = step_function(self.model, memory, need_weights=need_weights, copies=copies)
        vocabulary, extra = self.model.output.out_features, 0
        if copies is not None:
            memory, extra = (memory, copies.ids), -(-copies.extra // _EXTRA) * _EXTRA
        shapes = [one.shape[1:] for one in tensors(memory)]

        def step(tokens: Tensor, state: State, rows: Tensor) -> StepOutput:
            nonlocal length
            length += 1
            if roomy:
                state = self.model.decoder.with_room(state, length)
            if self.off:
                return plain(tokens, state, rows)
            size = _filled(tokens.size(0))
            widths = [one.shape[1:] for one in tensors(state)]
            key = (size, need_weights, extra, *shapes, *widths)
            with self._lock:
                found = self._works.get(key)
                if found is None and self._is_due(key):
                    found = self._record(size, state, select(memory, rows), need_weights, extra)
                    if found is not None:
                        self._works[key] = found
                if found is not None:
                    if found.holds is None or found.holds[0] is not search or not torch.equal(found.holds[1], rows):
                        _fill(found.memory, select(memory, rows))
                        found.holds = search, rows.clone()  # a search may change its own in place
                    known = vocabulary + (0 if copies is None else copies.extra)
                    return _run(found, tokens, state, known)
            output = plain(tokens, state, rows)
            if widths != [one.shape[1:] for one in tensors(output.state)]:
                self._go_plain("the decoder's state grows with what is written")
            return output

        return step

    def _is_due(self, key: _Key) -> bool:
        self._met[key] += 1
        return self._met[key] > 1 and self._bytes < MAX_BYTES

    def _record(self, size: int, state: State, memory: Any, need_weights: bool, extra: int) -> _Recorded | None:
        """A step of `size` rows, whose further ones repeat the last; None if it can't be recorded."""
        first = tensors(state)[0]
        rows = torch.arange(size, device=first.device).clamp_(max=first.size(0) - 1)
        state, memory = select(state, rows), select(memory, rows)
        tokens = torch.zeros(size, dtype=torch.int64, device=first.device)
        read, copies = (memory, None) if self.model.copy is None else (memory[0], Copies(memory[1], extra))

        def compute() -> State:
            output = self.model.step(tokens, read, state, need_weights=need_weights, copies=copies)
            return output.log_probs, output.state, () if output.weights is None else output.weights

        kept = mapped(compute(), Tensor.clone)

        def work() -> None:
            _fill(kept, compute())

        try:
            found = _Recorded(tokens, state, memory, kept, recorded(self.recorder, work))
        except CaptureError as error:
            self._go_plain(str(error))
            return None
        self._bytes += sum(one.numel() * one.element_size() for one in tensors((state, memory, kept)))
        return found

    def _go_plain(self, reason: str) -> None:
        self.off = reason
        logging.getLogger("s2s").warning("steps run without CUDA graphs: %s", reason)


def _filled(rows: int) -> int:
    """The number of rows that so many are filled up to."""
    return 1 << (rows - 1).bit_length() if rows <= _FEW else -(-rows // _FEW) * _FEW


def _fill(there: State, here: State) -> None:
    """Put rows into the first ones of what is recorded."""
    for fixed, one in zip(tensors(there), tensors(here), strict=True):
        fixed[: one.size(0)].copy_(one)


def _run(found: _Recorded, tokens: Tensor, state: State, known: int) -> StepOutput:
    """Replay a step, in which `known` tokens may follow. What it gives is a copy: the next replay may be of another
    search.
    """
    count = tokens.size(0)
    _fill((found.tokens, found.state), (tokens, state))
    found.work()
    log_probs, following, weights = mapped(found.output, lambda one: one[:count].clone())
    assert isinstance(log_probs, Tensor)
    return StepOutput(log_probs[:, :known], following, weights if isinstance(weights, Tensor) else None)
