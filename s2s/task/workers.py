"""Decoding in one process or in several single-threaded ones; the results and their order are the same.

The records of a window go to the workers in shares of like length, the longest first: then batches hold little padding,
and all workers end at about the same time. The next window is dealt out before the results of one are given, so that
nobody waits.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from typing import Any

from s2s.errors import UsageError
from s2s.task.generate import Generator
from s2s.task.model import load
from s2s.task.processes import interrupts_stay_here, process_pool
from s2s.task.request import Request, read_window, text_of
from s2s.types import Result

_SHARE = 256  # records that a worker takes at a time, if their window is large
_SHARES = 4  # of each worker, at least, if there are so many batches

_Share = tuple[Sequence[int], Future[list[Result]]]  # places in the window, and their results

_generator: Generator | None = None  # of a worker process, made once by `_start`


def generate(
    models: Sequence[str],
    requests: Iterable[Request],
    settings: Mapping[str, Any],
    *,
    device: str = "auto",
    workers: int = 1,
    plugins: Sequence[str] = (),
    window: int | None = None,
) -> Iterator[Result]:
    """Results in the order of the requests. settings: of `Model.generator`. Raises what loading and decoding raise.

    window: records that several workers share at a time; None: as many as one reads.
    """
    if workers < 1:
        raise UsageError("--workers is out of range", expected="at least 1", found=str(workers))
    # errors show before a process is started
    made = load(models[0], *models[1:], device=device, plugins=plugins).generator(**settings)
    if workers == 1:
        return made.stream(requests)
    given = (list(models), dict(settings), device, tuple(plugins))
    source, options = made.models[0].source, made.options

    def dealt_out(records: Sequence[Request | str]) -> list[list[int]]:
        return shares([len(source.encode(text_of(record))) for record in records], workers, options.batch_size)

    return _parallel(requests, window or options.window, dealt_out, workers, given)


def shares(lengths: Sequence[int], workers: int, batch: int) -> list[list[int]]:
    """Places of records, the longest first, in shares of whole batches. lengths: of the records, in tokens."""
    places = sorted(range(len(lengths)), key=lambda place: (-lengths[place], place))
    size = batch * max(1, min(_SHARE // batch, len(places) // (_SHARES * workers * batch)))
    return [places[start : start + size] for start in range(0, len(places), size)]


def _parallel(
    requests: Iterable[Request],
    most: int,
    dealt_out: Callable[[Sequence[Request | str]], list[list[int]]],
    workers: int,
    given: tuple[Any, ...],
) -> Iterator[Result]:
    """most: records of a window. dealt_out: its places to shares. given: to `_start`."""
    source, done = iter(requests), 0
    pending: deque[list[_Share]] = deque()  # windows
    with process_pool(workers, _start, given) as pool:
        while True:
            while len(pending) < 2 and (records := read_window(source, most)):
                window: list[_Share] = []
                parts = dealt_out(records)
                with interrupts_stay_here():
                    for places in parts:
                        own, numbers = [records[place] for place in places], [done + place for place in places]
                        window.append((places, pool.submit(_work, own, numbers)))
                pending.append(window)
                done += len(records)
            if not pending:
                return
            yield from _in_order(pending.popleft())


def _in_order(window: Sequence[_Share]) -> list[Result]:
    found = [(place, result) for places, own in window for place, result in zip(places, own.result(), strict=True)]
    return [result for _, result in sorted(found, key=lambda one: one[0])]


def _start(models: list[str], settings: dict[str, Any], device: str, plugins: tuple[str, ...]) -> None:
    global _generator
    _generator = load(models[0], *models[1:], device=device, plugins=plugins).generator(**settings)


def _work(records: Sequence[Request | str], numbers: Sequence[int]) -> list[Result]:
    assert _generator is not None
    return _generator.window(records, numbers)
