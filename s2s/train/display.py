"""What the loop tells while it runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol


class Display(Protocol):
    """What a training loop tells of itself: `start`, then any of `step`, `valid` and `note`, at last `close`."""

    def start(self, title: str, *, total: int | None = None, minutes: float | None = None, done: int = 0) -> None:
        """Training begins. total: step at which it ends; minutes: limit from now; done: steps of an earlier run."""

    def step(self, step: int, *, loss: float, tokens_per_second: float, lr: float | None = None) -> None:
        """An update is done. loss: nats a token; tokens_per_second: target tokens, padding not counted."""

    def valid(self, step: int, metrics: Mapping[str, float], *, best: bool = False) -> None:
        """The dev set was scored; `metrics` by name; best: the best so far."""

    def note(self, text: str) -> None:
        """Something worth a line of its own."""

    def close(self) -> None:
        """Training ended, however it did: leave the terminal as it was. Further calls do nothing."""
