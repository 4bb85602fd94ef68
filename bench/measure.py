"""Run a command and look on: when it wrote what, the most memory it held, and what else the machine did (Linux)."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bench.turns import Turns

_PAGE = os.sysconf("SC_PAGE_SIZE")
_TICK = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Measured:
    """lines: seconds since the start and text of each line written. peak: bytes resident, children included.

    running: seconds since the start to how long it ran, if it ran in turns.
    """

    code: int
    seconds: float
    peak: int
    lines: list[tuple[float, str]]
    running: Callable[[float], float] = float


def measure(
    command: Sequence[str],
    *,
    timeout: float,
    folder: Path | None = None,
    environment: Mapping[str, str] | None = None,
    turns: Turns | None = None,
) -> Measured:
    """Run to the end, or until `timeout` seconds are over. folder: where it runs. turns: that it takes with others."""
    began = time.monotonic()
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        cwd=folder,
        env={**os.environ, "PYTHONUNBUFFERED": "1", **(environment or {})},
        start_new_session=True,
    )
    if turns is not None:
        turns.join(process.pid)
    peak, ended = 0, threading.Event()

    def look_on() -> None:
        nonlocal peak
        while not ended.wait(0.2):
            peak = max(peak, sum(map(_resident, family(process.pid))))
            if time.monotonic() - began > timeout:
                send(process.pid, signal.SIGKILL)

    watcher = threading.Thread(target=look_on)
    watcher.start()
    assert process.stdout is not None
    try:
        lines = [(time.monotonic() - began, line.rstrip("\n")) for line in process.stdout]
        code = process.wait()
    except BaseException:
        send(process.pid, signal.SIGKILL)  # it has a session of its own, so Ctrl-C doesn't reach it
        raise
    finally:
        ended.set()
        watcher.join()
    seconds = time.monotonic() - began
    if turns is None:
        return Measured(code, seconds, peak, lines)
    turns.leave(process.pid)
    running = turns.running(process.pid)
    return Measured(code, running(began + seconds), peak, lines, lambda since: running(began + since))


def send(pid: int, what: signal.Signals) -> None:
    """A signal to a process that `measure` has started and to all that it started, even if it has ended itself."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, what)


def others() -> Callable[[], float]:
    """Tells the processor seconds that all but this process and those that it started and saw end used from now on.

    Above a few, what is measured meanwhile says little.
    """
    busy, own = _busy(), _children()
    return lambda: max(0.0, _busy() - busy - (_children() - own))


def family(pid: int) -> list[int]:
    """A process and all below it."""
    found = [pid]
    for one in found:
        with contextlib.suppress(OSError):
            for thread in Path(f"/proc/{one}/task").iterdir():
                found += map(int, (thread / "children").read_text().split())
    return found


def _resident(pid: int) -> int:
    with contextlib.suppress(OSError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE
    return 0


def _busy() -> float:
    """Processor seconds that the machine has spent on anything so far."""
    user, nice, system, _idle, _wait, irq, soft, *_ = map(
        int, Path("/proc/stat").read_text().split("\n")[0].split()[1:]
    )
    return (user + nice + system + irq + soft) / _TICK


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
