"""Let several processes run one at a time, a few seconds each, so that a machine whose speed changes is fair to all."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable

from bench.measure import send


class Turns:
    """A round of processes of which one runs and the others, with all below them, are stopped.

    Use as a context. `join` a process when it has started and `leave` when it has ended.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._waiting: list[int] = []  # in the order of their turns, the one that runs last
        self._running: int | None = None
        self._ran: dict[int, list[tuple[float, float]]] = {}
        self._change, self._over = threading.Condition(), False
        self._conductor = threading.Thread(target=self._conduct)

    def __enter__(self) -> Turns:
        self._conductor.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._change:
            self._over = True
            self._change.notify_all()
        self._conductor.join()
        for pid in list(self._waiting):  # after an error
            send(pid, signal.SIGKILL)

    def join(self, pid: int) -> None:
        """The process waits for its turn from here on."""
        with self._change:
            send(pid, signal.SIGKILL if self._over else signal.SIGSTOP)
            self._ran[pid] = []
            self._waiting.append(pid)
            self._change.notify_all()

    def leave(self, pid: int) -> None:
        """It has no further turn."""
        with self._change:
            self._waiting.remove(pid)
            self._change.notify_all()
            while self._running == pid:
                self._change.wait()

    def running(self, pid: int) -> Callable[[float], float]:
        """From `time.monotonic()` to how long the process has run until then. Of one that has left."""
        turns = self._ran[pid]
        return lambda now: sum(max(0.0, min(now, end) - start) for start, end in turns)

    def _conduct(self) -> None:
        with self._change:
            while not self._over:
                if not self._waiting:
                    self._change.wait()
                    continue
                pid = self._running = self._waiting.pop(0)
                self._waiting.append(pid)
                send(pid, signal.SIGCONT)
                start = time.monotonic()
                while pid in self._waiting and (left := start + self.seconds - time.monotonic()) > 0:
                    self._change.wait(left)
                if pid in self._waiting:
                    send(pid, signal.SIGSTOP)
                self._ran[pid].append((start, time.monotonic()))
                self._running = None
                self._change.notify_all()
