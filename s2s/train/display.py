"""What the loop tells while it runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol


class Display(Protocol):
    """Where progress is shown (`s2s.show.console`)."""

    def start(self, title: str, *, total: int | None = None, minutes: float | None = None, done: int = 0) -> None:
        """Training begins, or goes on after `done` steps."""

    def step(self, step: int, *, loss: float, tokens_per_second: float, lr: float | None = None) -> None:
        """Some steps are done."""

    def valid(self, step: int, metrics: Mapping[str, float], *, best: bool = False) -> None:
        """The model was validated."""

    def note(self, text: str) -> None:
        """Something to say."""

    def close(self) -> None:
        """Training is over."""
