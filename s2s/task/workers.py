"""Decoding in one process or in several single-threaded ones; the results and their order are the same."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from itertools import islice
from typing import Any

from s2s.errors import UsageError
from s2s.task.generate import Generator, Request
from s2s.task.model import load
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
    context = multiprocessing.get_context("spawn")  # a forked torch can hang
    with ProcessPoolExecutor(workers, context, _start, (list(models), settings, device, plugins)) as pool:
        try:
            while True:
                while len(pending) < 2 * workers and (share := list(islice(source, SHARE))):
                    with _interrupts_stay_here():
                        pending.append(pool.submit(_work, share, done))
                    done += len(share)
                if not pending:
                    return
                yield from pending.popleft().result()
        except BaseException:  # Ctrl-C, a reader that went away: nobody waits for what is under way
            for process in multiprocessing.active_children():
                process.terminate()
            raise


@contextmanager
def _interrupts_stay_here() -> Iterator[None]:
    """Processes that are started inside leave Ctrl-C to this one, from their first moment on."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _start(models: list[str], settings: dict[str, Any], device: str, plugins: tuple[str, ...]) -> None:
    global _generator
    import torch

    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    _generator = load(models[0], *models[1:], device=device, plugins=plugins).generator(**settings)


def _end_with_parent() -> None:
    """A parent that is killed tells nobody, and its workers would wait for work for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _work(share: list[Request], offset: int) -> list[Result]:
    assert _generator is not None
    return list(_generator.stream(share, offset))
