"""What a user sees while a model trains: a live line on a terminal, plain lines elsewhere. All of it on stderr."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, TextIO

from s2s.score.metrics import TITLES
from s2s.train.display import Display

if TYPE_CHECKING:
    from rich.text import Text


def progress(
    plain: bool | None = None,
    *,
    stream: TextIO | None = None,
    every: float = 10.0,
    clock: Callable[[], float] = time.monotonic,
) -> Display:
    """A display on `stream` (stderr). plain: True for lines, False for a live line, None to look at the terminal.

    every: seconds between plain lines. clock: seconds, for tests.
    """
    stream = sys.stderr if stream is None else stream
    if plain is None:
        plain = not stream.isatty() or os.environ.get("TERM", "") in ("", "dumb")
    return _Plain(stream, every, clock) if plain else _Live(stream, clock)


class _State:
    """What both displays know: where training is and how long it still takes."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.began = clock()
        self.total: int | None = None
        self.minutes: float | None = None
        self.done = self.at = 0
        self.loss = self.speed = float("nan")
        self.lr: float | None = None
        self.last = ""  # dev scores

    def start(self, total: int | None, minutes: float | None, done: int) -> None:
        self.began = self.clock()
        self.total, self.minutes, self.done, self.at = total, minutes, done, done

    def step(self, step: int, loss: float, speed: float, lr: float | None) -> None:
        self.at, self.loss, self.speed, self.lr = step, loss, speed, lr

    def remaining(self) -> float | None:
        """Seconds to the nearer of both limits; None where nothing tells."""
        elapsed = self.clock() - self.began
        guesses = []
        if self.total is not None and self.at > self.done:
            guesses.append((self.total - self.at) * elapsed / (self.at - self.done))
        if self.minutes is not None:
            guesses.append(self.minutes * 60 - elapsed)
        return max(0.0, min(guesses)) if guesses else None

    def fraction(self) -> float | None:
        """Part of the run that is done, 0 to 1; None where nothing tells."""
        parts = []
        if self.total:
            parts.append(self.at / self.total)
        if self.minutes:
            parts.append((self.clock() - self.began) / (self.minutes * 60))
        return min(1.0, max(parts)) if parts else None

    def fields(self) -> list[tuple[str, str]]:
        """Name and value of what a line shows; empty before the first step."""
        if self.loss != self.loss and self.speed != self.speed:
            return []
        left = self.remaining()
        of = f"/{self.total:,}" if self.total is not None else ""
        shown = [("step", f"{self.at:,}{of}"), ("loss", f"{self.loss:.3f}"), ("tokens/s", f"{self.speed:,.0f}")]
        if left is not None:
            shown.append(("left", duration(left)))
        if self.last:
            shown.append(("dev", self.last))
        if self.lr is not None:  # what matters least stands last: a narrow terminal cuts it off
            shown.append(("lr", f"{self.lr:.2g}"))
        return [*shown, ("elapsed", duration(self.clock() - self.began))]


class _Plain:
    def __init__(self, stream: TextIO, every: float, clock: Callable[[], float]) -> None:
        self._stream, self._every, self._state = stream, every, _State(clock)
        self._written: float | None = None  # when a step was last written
        self._closed = False

    def start(self, title: str, *, total: int | None = None, minutes: float | None = None, done: int = 0) -> None:
        self._state.start(total, minutes, done)
        self._line(_opening(title, total, minutes, done))

    def step(self, step: int, *, loss: float, tokens_per_second: float, lr: float | None = None) -> None:
        self._state.step(step, loss, tokens_per_second, lr)
        now = self._state.clock()
        if self._written is None or now - self._written >= self._every:
            self._written = now
            self._line("  ".join(f"{name} {value}" for name, value in self._state.fields()))

    def valid(self, step: int, metrics: Mapping[str, float], *, best: bool = False) -> None:
        self._state.last = scores_line(metrics)
        self._line(f"dev at step {step:,}: {self._state.last}{' (best so far)' if best else ''}")

    def note(self, text: str) -> None:
        self._line(one_line(text))

    def close(self) -> None:
        if not self._closed and self._state.fields():
            self._line(_ending(self._state))
        self._closed = True

    def _line(self, text: str) -> None:
        if self._closed:
            return
        try:
            self._stream.write(text + "\n")
            self._stream.flush()
        except (OSError, ValueError):  # nobody reads stderr any more; log.jsonl has it all
            self._closed = True


class _Live:
    """One line that stays at the bottom, redrawn at most five times a second from `step` itself: no thread."""

    def __init__(self, stream: TextIO, clock: Callable[[], float]) -> None:
        from rich.console import Console
        from rich.live import Live

        self._console = Console(file=stream, highlight=False, force_terminal=True)
        self._state, self._drawn, self._closed = _State(clock), float("-inf"), False
        # stdout is left alone: it may carry results.
        self._live = Live(console=self._console, auto_refresh=False, redirect_stdout=False)

    def start(self, title: str, *, total: int | None = None, minutes: float | None = None, done: int = 0) -> None:
        self._state.start(total, minutes, done)
        self._say(_opening(title, total, minutes, done), "bold")
        if not self._closed:
            self._live.start()

    def step(self, step: int, *, loss: float, tokens_per_second: float, lr: float | None = None) -> None:
        self._state.step(step, loss, tokens_per_second, lr)
        now = self._state.clock()
        if now - self._drawn >= 0.2:
            self._drawn = now
            self._draw()

    def valid(self, step: int, metrics: Mapping[str, float], *, best: bool = False) -> None:
        self._state.last = scores_line(metrics)
        self._say(
            f"dev at step {step:,}: {self._state.last}{' (best so far)' if best else ''}", "green" if best else ""
        )
        self._draw()

    def note(self, text: str) -> None:
        self._say(one_line(text), "yellow")

    def close(self) -> None:
        if self._closed:
            return
        try:
            from rich.text import Text

            self._live.update(Text(""))
            self._live.transient = True
            self._live.stop()
        except (OSError, ValueError):
            pass
        if self._state.fields():
            self._say(_ending(self._state), "bold")
        self._closed = True

    def _say(self, text: str, style: str) -> None:
        from rich.text import Text

        self._guard(lambda: self._console.print(Text(text, style=style), soft_wrap=True))

    def _draw(self) -> None:
        self._guard(lambda: self._live.update(self._text(), refresh=True))

    def _guard(self, draw: Callable[[], None]) -> None:
        if not self._closed:
            try:
                draw()
            except (OSError, ValueError):  # the terminal went away; training doesn't
                self._closed = True

    def _text(self) -> Text:
        from rich.text import Text

        line = Text(no_wrap=True, overflow="ellipsis")
        fraction = self._state.fraction()
        if fraction is not None:
            filled = round(fraction * 10)
            bar = ("━", "─") if self._console.encoding.startswith("utf") else ("#", "-")
            line.append(bar[0] * filled, "cyan")
            line.append(bar[1] * (10 - filled), "dim")
            line.append(f" {100 * fraction:3.0f} %  ")
        for name, value in self._state.fields():
            line.append(f"{name} ", "dim")
            line.append(f"{value}  ", "bold" if name == "loss" else "")
        return line


def duration(seconds: float) -> str:
    """3:05 for minutes and seconds, 2:03:05 with hours, 4 d 02:03 with days."""
    whole = max(0, round(seconds))
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    days, hours_of_day = divmod(hours, 24)
    if days:
        return f"{days} d {hours_of_day:02d}:{minutes:02d}"
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def scores_line(metrics: Mapping[str, float]) -> str:
    """Dev scores on one line, names as the field writes them."""
    shown = []
    for name, value in metrics.items():
        digits = 3 if name in ("loss", "nll") else 2
        shown.append(f"{TITLES.get(name, one_line(name))} {value:.{digits}f}")
    return ", ".join(shown)


def one_line(text: str) -> str:
    """`text` without line ends and terminal control sequences: text of a corpus may stand in a note."""
    text = " ".join(part for part in text.replace("\r", "\n").split("\n") if part)
    return "".join(c if c.isprintable() else " " if c.isspace() else "\ufffd" for c in text)


def _opening(title: str, total: int | None, minutes: float | None, done: int) -> str:
    limits = [f"{total:,} steps"] if total is not None else []
    limits += [f"{minutes:g} minutes"] if minutes is not None else []
    until = f", until {' or '.join(limits)}" if limits else ""
    return f"{one_line(title)}{until}{f', from step {done:,}' if done else ''}"


def _ending(state: _State) -> str:
    dev = f", dev {state.last}" if state.last else ""
    return f"stopped at step {state.at:,} after {duration(state.clock() - state.began)}: loss {state.loss:.3f}{dev}"
