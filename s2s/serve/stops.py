"""Stop sequences: an output ends before the first of them, also where it comes in pieces."""

from __future__ import annotations

from collections.abc import Sequence


class Stops:
    """Cuts an output that comes in pieces. `found`: a sequence was met, and nothing more is let through."""

    def __init__(self, sequences: Sequence[str]) -> None:
        """sequences: none of them empty."""
        self.found = False
        self._sequences, self._held = sequences, ""

    def __call__(self, piece: str) -> str:
        """What may be written now: all that can't be the beginning of a stop sequence."""
        if self.found:
            return ""
        text = self._held + piece
        starts = [at for at in (text.find(one) for one in self._sequences) if at >= 0]
        if starts:
            self.found, self._held = True, ""
            return text[: min(starts)]
        held = max((_overlap(text, one) for one in self._sequences), default=0)
        self._held = text[len(text) - held :]
        return text[: len(text) - held]

    def rest(self) -> str:
        """What was held back, at the end of the output."""
        held, self._held = self._held, ""
        return held


def cut(text: str, sequences: Sequence[str]) -> tuple[str, bool]:
    """A whole output, cut; and whether it was."""
    stops = Stops(sequences)
    return stops(text) + stops.rest(), stops.found


def _overlap(text: str, sequence: str) -> int:
    """Characters at the end of the text that the sequence begins with."""
    most = min(len(text), len(sequence) - 1)
    return next((size for size in range(most, 0, -1) if text.endswith(sequence[:size])), 0)
