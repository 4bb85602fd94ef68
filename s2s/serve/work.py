"""One thread that owns the models. What is asked for waits in a bounded queue, and what fits together runs together.

Nothing is delayed to fill a batch: whoever waits when the thread becomes free is taken along. Large jobs run in turns
with others. Streams run one after the other; between two of their pieces other jobs have their turn. It knows nothing
of HTTP or of models.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Hashable, Sequence
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
    results: list[Any] = field(default_factory=list)  # of the first items
    future: Future[list[Any]] = field(default_factory=Future)

    def next(self, most: int) -> list[Any]:
        """The items that run next: all of what is left, or of a job that can be joined at most so many."""
        done = len(self.results)
        return self.items[done:] if self.key is None else self.items[done : done + most]

    def end(self, error: Exception | None = None) -> None:
        """Tell who asked, if that is still wanted."""
        if self.future.set_running_or_notify_cancel():
            if error is None:
                self.future.set_result(self.results)
            else:
                self.future.set_exception(error)


class _LeftError(Exception):
    """Nobody wants the rest of a stream."""


@dataclass(eq=False)
class Stream:
    """Something that tells pieces while it runs. `future` has what it gives at its end."""

    run: Callable[[Callable[[str], None]], Any]
    put: Callable[[str], None]
    future: Future[Any] = field(default_factory=Future)
    left: bool = False

    def cancel(self) -> None:
        """No more pieces are wanted: it ends at its next piece, or never runs. In any thread, and again if you like."""
        self.left = True
        self.future.cancel()


class Worker:
    """A thread and its queue. `batches` is told the size of every batch that ran."""

    def __init__(
        self, *, waiting: int = 64, together: int = 32, batches: Callable[[int], None] = lambda size: None
    ) -> None:
        """waiting: most jobs and streams that wait at a time. together: most items that are joined."""
        self._most, self._together, self._batches = waiting, together, batches
        self._change = threading.Condition()
        self._jobs: deque[_Job] = deque()
        self._streams: deque[Stream] = deque()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="s2s-worker", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Jobs and streams that haven't begun."""
        with self._change:
            return len(self._jobs) + len(self._streams)

    def submit(
        self, run: Callable[[list[Any]], Sequence[Any]], items: Sequence[Any], key: Hashable | None = None
    ) -> Future[list[Any]]:
        """`run(items)` in the worker's thread: as many results as items. A job that is cancelled in time never runs.

        key: jobs of equal keys have the same `run`, which may be called for items of several of them, or for a part of
        those of one; None: this job runs alone and at once. Raises OverloadedError and StoppingError.
        """
        job = _Job(run, list(items), key)
        with self._change:
            self._admit()
            self._jobs.append(job)
            self._change.notify()
        return job.future

    def stream(self, run: Callable[[Callable[[str], None]], Any], put: Callable[[str], None]) -> Stream:
        """`run(hear)` in the worker's thread; what `hear` is given goes to `put`, in that thread too.

        When the stream is cancelled `hear` raises what ends `run`. Raises OverloadedError and StoppingError.
        """
        made = Stream(run, put)
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
            raise _stopping()
        if len(self._jobs) + len(self._streams) >= self._most:  # those who left make room
            self._jobs = deque(job for job in self._jobs if not job.future.cancelled())
            self._streams = deque(stream for stream in self._streams if not stream.future.cancelled())
        if len(self._jobs) + len(self._streams) >= self._most:
            raise OverloadedError("too many requests wait", expected=f"at most {self._most} at a time")

    def _work(self) -> None:
        while True:
            with self._change:
                self._change.wait_for(lambda: self._jobs or self._streams or self._closed)
                if self._closed:
                    break
                stream = self._streams.popleft() if self._streams else None
            self._run_next()
            if stream is not None:
                self._tell(stream)
            del stream  # else what was answered stays in memory until the next request
        for job in self._jobs:
            job.end(_stopping())
        for stream in self._streams:
            if stream.future.set_running_or_notify_cancel():
                stream.future.set_exception(_stopping())

    def _run_next(self) -> None:
        """Run what waits and fits together, if anything waits. Jobs that aren't done wait again, behind the others."""
        with self._change:
            batch = self._take()
        self._run(batch)
        with self._change:
            self._jobs.extend(job for job in batch if not job.future.done())

    def _take(self) -> list[_Job]:
        """The first job that is still wanted, and those that wait and fit to it; they leave the queue."""
        batch: list[_Job] = []
        kept: deque[_Job] = deque()
        room = self._together
        for job in self._jobs:
            size = len(job.next(self._together))
            if job.future.cancelled():
                continue
            if not batch or (job.key is not None and job.key == batch[0].key and size <= room):
                batch.append(job)
                room -= size
            else:
                kept.append(job)
        self._jobs = kept
        return batch

    def _run(self, batch: list[_Job]) -> None:
        """Run the next items of jobs that fit together."""
        if not batch:
            return
        parts = [job.next(self._together) for job in batch]
        items = [item for part in parts for item in part]
        try:
            found = list(batch[0].run(items))
            if len(found) != len(items):
                raise RunError("results are missing", expected=f"{len(items)}", found=f"{len(found)}")
        except Exception as error:
            if len(batch) == 1:
                batch[0].end(error)
            else:  # only who asked for what fails is to know of it
                for job in batch:
                    self._run([job])
            return
        self._batches(len(items))
        results = iter(found)
        for job, part in zip(batch, parts, strict=True):
            job.results += [next(results) for _ in part]
            if len(job.results) == len(job.items):
                job.end()

    def _tell(self, stream: Stream) -> None:
        def hear(piece: str) -> None:
            if stream.left or self._closed:
                raise _LeftError
            stream.put(piece)
            self._run_next()

        if not stream.future.set_running_or_notify_cancel():
            return
        try:
            stream.future.set_result(stream.run(hear))
        except _LeftError:
            stream.future.set_exception(CancelledError() if stream.left else _stopping())
        except Exception as error:
            stream.future.set_exception(error)


def _stopping() -> StoppingError:
    return StoppingError("the server is shutting down")
