"""Decoding in one process or in several single-threaded ones; the results and their order are the same."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from itertools import islice
from typing import Any

from s2s.errors import UsageError
from s2s.task.generate import Generator, Request
from s2s.task.model import load
from s2s.task.processes import interrupts_stay_here, process_pool
from s2s.types import Result

# Records that a worker takes at a time.
SHARE = 256

_generator: Generator | None = None  # of a worker process, made once by `_start`


def generate(
    models: Sequence[str],
    requests: Iterable[Request],
    settings: Mapping[str, Any],
    *,
    device: str = "auto",
    workers: int = 1,
    plugins: Sequence[str] = (),
) -> Iterator[Result]:
    """Results in the order of the requests. settings: of `Model.generator`. Raises what loading and decoding raise."""
    if workers < 1:
        raise UsageError("--workers is out of range", expected="at least 1", found=str(workers))
    # errors show before a process is started
    made = load(models[0], *models[1:], device=device, plugins=plugins).generator(**settings)
    if workers == 1:
        return made.stream(requests)
    return _parallel(models, requests, dict(settings), device, workers, tuple(plugins))


def _parallel(
    models: Sequence[str],
    requests: Iterable[Request],
    settings: dict[str, Any],
    device: str,
    workers: int,
    plugins: tuple[str, ...],
) -> Iterator[Result]:
    source, done = iter(requests), 0
    pending: deque[Future[list[Result]]] = deque()
    with process_pool(workers, _start, (list(models), settings, device, plugins)) as pool:
        while True:
            while len(pending) < 2 * workers and (share := list(islice(source, SHARE))):
                with interrupts_stay_here():
                    pending.append(pool.submit(_work, share, done))
                done += len(share)
            if not pending:
                return
            yield from pending.popleft().result()


def _start(models: list[str], settings: dict[str, Any], device: str, plugins: tuple[str, ...]) -> None:
    global _generator
    _generator = load(models[0], *models[1:], device=device, plugins=plugins).generator(**settings)


def _work(share: list[Request], offset: int) -> list[Result]:
    assert _generator is not None
    return list(_generator.stream(share, offset))
