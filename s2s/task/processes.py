"""Processes that work side by side and end with the one that started them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from typing import Any


@contextmanager
def process_pool(workers: int, start: Callable[..., None], given: tuple[Any, ...]) -> Iterator[ProcessPoolExecutor]:
    """A pool of single-threaded processes, each of which has called `start(*given)`; see `interrupts_stay_here`.

    On an exception, such as Ctrl-C or a reader that went away, nobody waits for what is under way.
    """
    context = multiprocessing.get_context("spawn")  # a forked torch can hang
    with ProcessPoolExecutor(workers, context, _start, (start, given)) as pool:
        try:
            yield pool
        except BaseException:
            for process in multiprocessing.active_children():
                process.terminate()
            raise


@contextmanager
def interrupts_stay_here() -> Iterator[None]:
    """Processes that are started inside, by giving them work, leave Ctrl-C to this one from their first moment on."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _start(start: Callable[..., None], given: tuple[Any, ...]) -> None:
    import torch

    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    start(*given)


def _end_with_parent() -> None:
    """A parent that is killed tells nobody, and its workers would wait for work for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
