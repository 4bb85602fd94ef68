"""SIGTERM and Ctrl-C end a run at the next step, with a checkpoint; a second one ends it at once."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from s2s.errors import S2SError


class InterruptedRunError(S2SError):
    """The run was asked to stop and has saved a checkpoint. Exit code 130 (Ctrl-C) or 143 (SIGTERM)."""

    def __init__(self, what: str, number: int, hint: str) -> None:
        super().__init__(what, hint=hint)
        self.exit_code = 128 + number


class StopRequest:
    """`number` is the signal that asked for a stop, 0 while none did."""

    def __init__(self) -> None:
        self.number = 0

    def __call__(self, number: int, _: FrameType | None) -> None:
        """The signal handler."""
        if self.number:
            os._exit(128 + number)
        self.number = number


@contextmanager
def stop_request() -> Iterator[StopRequest]:
    """Inside, SIGTERM and SIGINT are noted instead of killing. Outside the main thread nothing is caught."""
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {number: signal.signal(number, request) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
