"""A corpus of pieces as ids, for training loops of our own; runs in any toolkit's environment that has torch."""

from __future__ import annotations

from pathlib import Path

import torch


class Ids:
    """first: the id of the vocabulary's first piece; those below it are special."""

    def __init__(self, corpus: Path, *, first: int, unknown: int, padding: int, end: int) -> None:
        pieces = (corpus / "vocabulary").read_text(encoding="utf-8").split("\n")[:-1]
        self._corpus, self._ids = corpus, {piece: place for place, piece in enumerate(pieces, first)}
        self._unknown, self._padding, self._end = unknown, padding, end
        self.size = len(pieces) + first

    def read(self, name: str) -> list[list[int]]:
        """The lines of a file, each with its end."""
        lines = (self._corpus / name).read_text(encoding="utf-8").splitlines()
        return [[*(self._ids.get(piece, self._unknown) for piece in line.split()), self._end] for line in lines]

    def pad(self, rows: list[list[int]]) -> torch.Tensor:
        """Rows as one tensor (B, L)."""
        longest = max(map(len, rows))
        return torch.tensor([row + [self._padding] * (longest - len(row)) for row in rows])
