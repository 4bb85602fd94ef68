"""One thread that owns the models. What is asked for waits in a bounded queue, and what fits together runs together.

Nothing is delayed to fill a batch: whoever waits when the thread becomes free is taken along. Streams advance by a
piece each in turn, between the batches, so that none waits for another to end. It knows nothing of HTTP or of models.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, field
from typing import Any

from s2s.errors import RunError


class OverloadedError(RunError):
    """The queue is full. Who asks again later may have more luck."""


class StoppingError(RunError):
    """The worker is closed, or closes before this could run."""


@dataclass(eq=False)
class _Job:
    run: Callable[[list[Any]], Sequence[Any]]
    items: list[Any]
    key: Hashable | None
    future: Future[list[Any]] = field(default_factory=Future)


@dataclass(eq=False)
class Stream:
    """Pieces that are made one after the other. `future` is done when there are no more: cancelled, failed, or well."""

    start: Callable[[], Iterator[str]]
    put: Callable[[str], None]
    future: Future[None] = field(default_factory=Future)
    left: bool = False
    pieces: Iterator[str] | None = None

    def cancel(self) -> None:
        """No more pieces are wanted: the worker stops making them. May be called in any thread, and again."""
        self.left = True


class Worker:
    """A thread and its queue. `batches` is told the size of every batch that ran."""

    def __init__(
        self, *, waiting: int = 64, together: int = 64, batches: Callable[[int], None] = lambda size: None
    ) -> None:
        """waiting: most jobs and streams that wait or stream at a time. together: most items of joined jobs."""
        self._most, self._together, self._batches = waiting, together, batches
        self._change = threading.Condition()
        self._jobs: deque[_Job] = deque()
        self._streams: deque[Stream] = deque()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="s2s-worker", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Jobs and streams that are not done, but for the batch that runs."""
        with self._change:
            return len(self._jobs) + len(self._streams)

    def submit(
        self, run: Callable[[list[Any]], Sequence[Any]], items: Sequence[Any], key: Hashable | None = None
    ) -> Future[list[Any]]:
        """`run(items)` in the worker's thread: as many results as items. A job that is cancelled in time never runs.

        key: jobs of equal keys have the same `run`, which may be called once for the items of all of them; None: this
        job runs alone. Raises OverloadedError and StoppingError.
        """
        job = _Job(run, list(items), key)
        with self._change:
            self._admit()
            self._jobs.append(job)
            self._change.notify()
        return job.future

    def stream(self, start: Callable[[], Iterator[str]], put: Callable[[str], None]) -> Stream:
        """Call `put` with every piece of `start()`, both in the worker's thread.

        Raises OverloadedError and StoppingError.
        """
        made = Stream(start, put)
        with self._change:
            self._admit()
            self._streams.append(made)
            self._change.notify()
        return made

    def close(self) -> None:
        """Refuse what waits and what comes, end streams, and return when what runs is done."""
        with self._change:
            self._closed = True
            self._change.notify()
        self._thread.join()

    def _admit(self) -> None:
        if self._closed:
            raise StoppingError("the server is shutting down")
        if len(self._jobs) + len(self._streams) >= self._most:  # those who left make room
            self._jobs = deque(job for job in self._jobs if not job.future.cancelled())
        if len(self._jobs) + len(self._streams) >= self._most:
            raise OverloadedError("too many requests wait", expected=f"at most {self._most} at a time")

    def _work(self) -> None:
        while True:
            with self._change:
                self._change.wait_for(lambda: self._jobs or self._streams or self._closed)
                if self._closed:
                    break
                batch, streams = self._take(), list(self._streams)
            self._run(batch)
            del batch  # else what was answered stays in memory until the next request
            for stream in streams:
                if self._advance(stream):
                    with self._change:
                        self._streams.remove(stream)
            del streams
        for job in self._jobs:
            if job.future.set_running_or_notify_cancel():
                job.future.set_exception(StoppingError("the server is shutting down"))
        for stream in self._streams:
            self._end(stream, StoppingError("the server is shutting down"))

    def _take(self) -> list[_Job]:
        """The first job that is still wanted, and those that wait and fit to it; they leave the queue."""
        batch: list[_Job] = []
        kept: deque[_Job] = deque()
        size = 0
        for job in self._jobs:
            fits = not batch or (
                job.key is not None and job.key == batch[0].key and size + len(job.items) <= self._together
            )
            if not fits:
                kept.append(job)
            elif job.future.set_running_or_notify_cancel():
                batch.append(job)
                size += len(job.items)
        self._jobs = kept
        return batch

    def _run(self, batch: list[_Job]) -> None:
        if not batch:
            return
        items = [item for job in batch for item in job.items]
        try:
            found = list(batch[0].run(items))
            if len(found) != len(items):
                raise RunError("results are missing", expected=f"{len(items)}", found=f"{len(found)}")
        except Exception as error:
            if len(batch) == 1:
                batch[0].future.set_exception(error)
            else:  # only who asked for what fails is to know of it
                for job in batch:
                    self._run([job])
            return
        self._batches(len(items))
        done = 0
        for job in batch:
            job.future.set_result(found[done : done + len(job.items)])
            done += len(job.items)

    def _advance(self, stream: Stream) -> bool:
        """Make the next piece; whether the stream is over."""
        if stream.left:
            self._end(stream, CancelledError())
            return True
        try:
            if stream.pieces is None:
                stream.pieces = stream.start()
            piece = next(stream.pieces, None)
            if piece is not None:
                stream.put(piece)
        except Exception as error:
            self._end(stream, error)
            return True
        if piece is None:
            self._end(stream, None)
        return piece is None

    def _end(self, stream: Stream, error: BaseException | None) -> None:
        close = getattr(stream.pieces, "close", None)  # of a generator: what it holds is given back now
        if close is not None:
            close()
        stream.pieces = None
        if error is None:
            stream.future.set_result(None)
        else:
            stream.future.set_exception(error)
