"""Pairs in a file instead of in memory: those of a large training split, as `s2s prepare` keeps them."""

from __future__ import annotations

import json
import mmap
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from s2s.errors import DataError
from s2s.text.corpus.base import Pair
from s2s.text.lazy import Lazy

_AT_ONCE = 1 << 16  # entries of an index that are written together


class Spool(Lazy[Pair]):
    """Pairs that are read from a file when they are asked for: one JSON list a line, [source, target, origin, ...]."""

    def __init__(self, path: Path, starts: NDArray[np.int64]) -> None:
        """starts: (pairs + 1,) where each line begins, and where the file ends. Raises DataError if it doesn't."""
        self.path, self.starts = path, starts
        size = path.stat().st_size
        if len(starts) == 0 or starts[0] != 0 or starts[-1] != size:
            raise DataError("doesn't end where its index says", where=str(path), found=f"{size:,} bytes")
        with open(path, "rb") as file:
            self._bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if size else b""

    def __len__(self) -> int:
        return len(self.starts) - 1

    def at(self, place: int) -> Pair:
        """The pair of a line, from 0."""
        return parse_line(self._bytes[self.starts[place] : self.starts[place + 1]], self.path, place)

    def __iter__(self) -> Iterator[Pair]:
        with open(self.path, "rb") as file:
            for place, line in enumerate(file):
                yield parse_line(line, self.path, place)


def to_line(pair: Pair) -> bytes:
    """A pair as a line of a file."""
    return json.dumps([*pair[:3], *pair.references], ensure_ascii=False).encode() + b"\n"


def parse_line(line: bytes, path: Path, place: int) -> Pair:
    """The pair of line `place` (from 0). Raises DataError."""
    try:
        source, target, origin, *references = texts = json.loads(line)
        if not all(isinstance(text, str) for text in texts):
            raise ValueError
    except (ValueError, TypeError):
        raise DataError("is damaged", where=f"{path}:{place + 1}", expected="[source, target, origin, ...]") from None
    return Pair(source, target, origin, tuple(references))


def spool(pairs: Iterable[Pair], path: Path, index: Path) -> Spool:
    """Write pairs to a file, and where each line begins to another (int64), one pair at a time. Raises OSError."""
    with open(path, "wb") as file, open(index, "wb") as places:
        end, waiting = 0, array("q", [0])
        for pair in pairs:
            line = to_line(pair)
            end += len(line)
            file.write(line)
            waiting.append(end)
            if len(waiting) == _AT_ONCE:
                waiting.tofile(places)
                del waiting[:]
        waiting.tofile(places)
    return open_spool(path, index)


def open_spool(path: Path, index: Path) -> Spool:
    """The pairs that `spool` wrote."""
    return Spool(path, np.memmap(index, dtype=np.int64, mode="c"))  # c: torch warns of arrays that are read-only
