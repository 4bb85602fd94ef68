"""Examples as numbers in a file that is mapped into memory: a training split of any size takes next to none.

They lie by length, those of equal lengths together, as a plan wants them. So it takes no index to find one: the file
holds the sizes of the groups, and group after group the ids, for each example those of the source, then the target.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from s2s.errors import DataError
from s2s.tensors import headers, write_tensors
from s2s.text.batching import Example
from s2s.text.lazy import Lazy
from s2s.text.plan import Ints, Lengths
from s2s.types import BOS, EOS, PAD, Batch

IDS, LENGTHS, SIZES, NUMBERS, LINES = "ids", "lengths", "sizes", "numbers", "lines"
SMALL = 1 << 16  # ids below it take two bytes


class Part(NamedTuple):
    """Examples as arrays. numbers: (N,) of the examples in the corpus; lengths: (N, 2); ids: of all, flat."""

    numbers: Ints
    lengths: Ints
    ids: NDArray[Any]


def write_part(path: Path, numbers: Sequence[int], examples: Sequence[Example]) -> None:
    """Write some examples, each source and target side by side. Raises OSError."""
    lengths = np.array([(len(e.source), len(e.target)) for e in examples], dtype=np.int32).reshape(-1, 2)
    ids = np.fromiter((i for e in examples for side in (e.source, e.target) for i in side), np.int32, lengths.sum())
    places = np.array(numbers, dtype=np.int64)
    write_tensors(path, {name: torch.from_numpy(a) for name, a in ((NUMBERS, places), (LENGTHS, lengths), (IDS, ids))})


def read_part(path: Path) -> Part:
    """What `write_part` wrote."""
    return Part(mapped(path, NUMBERS), mapped(path, LENGTHS).astype(np.int64), mapped(path, IDS))


def assemble(parts: Sequence[Path], path: Path, lines: Ints, vocabulary: int, scratch: Path) -> None:
    """Put parts, in the order of the corpus, into one file. lines: kept beside them, see `s2s.text.corpus.spool`.

    vocabulary: more than any id. scratch: a folder for files of the same size. Nothing of the size of the corpus is
    held in memory. Raises OSError.
    """
    counts: dict[tuple[int, int], int] = {}  # (target, source) length
    for part in parts:
        found, own = np.unique(read_part(part).lengths[:, ::-1], axis=0, return_counts=True)
        for (target, source), count in zip(found.tolist(), own.tolist(), strict=True):
            counts[target, source] = counts.get((target, source), 0) + count
    sizes = np.array([(source, target) for target, source in sorted(counts)], dtype=np.int64).reshape(-1, 2)
    layout = _Layout(sizes, np.array([counts[target, source] for source, target in sizes.tolist()], dtype=np.int64))
    kind = np.dtype(np.uint16 if vocabulary <= SMALL else np.int32)
    ids = np.memmap(scratch / IDS, kind, "w+", shape=(max(1, layout.tokens),))
    numbers = np.memmap(scratch / NUMBERS, np.int64, "w+", shape=(max(1, layout.examples),))
    filled = np.zeros(len(sizes), dtype=np.int64)  # examples of each group that have their place
    keys = layout.keys(sizes)
    for part in parts:
        one = read_part(part)
        group = np.searchsorted(keys, layout.keys(one.lengths))
        order = np.argsort(group, kind="stable")
        group = group[order]
        ranks = np.arange(len(group)) - np.searchsorted(group, group)  # among those of this part with the same lengths
        within = filled[group] + ranks
        np.add.at(filled, group, 1)
        long = one.lengths.sum(1)
        begins = (np.cumsum(long) - long)[order]
        long = long[order]
        ids[_ranges(layout.tokens_before[group] + within * long, long)] = one.ids[_ranges(begins, long)]
        numbers[layout.before[group] + within] = one.numbers[order]
    write_tensors(
        path,
        {
            IDS: torch.from_numpy(ids[: layout.tokens]),
            NUMBERS: torch.from_numpy(numbers[: layout.examples]),
            SIZES: torch.from_numpy(np.column_stack([sizes, layout.counts])),
            LINES: torch.from_numpy(lines),
        },
    )


class _Layout:
    """Where groups of examples lie. sizes: (C, 2) source and target tokens of one, without EOS; counts: (C,)."""

    def __init__(self, sizes: Ints, counts: Ints) -> None:
        self.counts, long = counts, sizes.sum(1)
        self.before: Ints = np.cumsum(counts) - counts
        self.tokens_before: Ints = np.cumsum(counts * long) - counts * long
        self.examples, self.tokens = int(counts.sum()), int((counts * long).sum())

    @staticmethod
    def keys(sizes: Ints) -> Ints:
        """A number for each pair of sizes, in the order of groups."""
        return (sizes[:, 1] << 32) + sizes[:, 0]


def _ranges(starts: Ints, lengths: Ints) -> Ints:
    """The numbers from each start on, as many as its length, one range after the other."""
    return np.repeat(starts - (np.cumsum(lengths) - lengths), lengths) + np.arange(lengths.sum())


class Stored(Lazy[Example]):
    """Examples in a file, by length."""

    def __init__(self, path: Path, vocabularies: tuple[int, int]) -> None:
        """vocabularies: sizes of source and target. Raises DataError or BundleError for what isn't such a file."""
        self.path, self._vocabularies = path, vocabularies
        self._ids, self.numbers = mapped(path, IDS), mapped(path, NUMBERS)
        table = np.array(mapped(path, SIZES), dtype=np.int64)
        if table.ndim != 2 or table.shape[1] != 3 or (table < (0, 0, 1)).any():
            raise self._damaged("sizes of groups")
        self._sizes, counts = table[:, :2], table[:, 2]
        self._layout = _Layout(self._sizes, counts)
        ordered = (np.diff(_Layout.keys(self._sizes)) > 0).all()
        if not ordered or (self._layout.tokens, self._layout.examples) != (len(self._ids), len(self.numbers)):
            raise self._damaged("groups that fit")
        self.lengths = Lengths(self._sizes + 1, counts)

    def __len__(self) -> int:
        return len(self.lengths)

    def at(self, place: int) -> Example:
        """The example at a place, by length."""
        starts, sizes = self._find(np.array([place]))
        start, (source, target) = int(starts[0]), sizes[0].tolist()
        ids = self._ids[start : start + source + target].tolist()
        return Example(ids[:source], ids[source:])

    def batch(self, rows: Sequence[int], pad_multiple: int = 1) -> Batch:
        """As `collate` of the examples `rows`, without an object for each; its rows are numbers in the corpus."""
        places = np.array(rows, dtype=np.int64)
        starts, sizes = self._find(places)
        source = self._padded(starts, sizes[:, 0], pad_multiple, self._vocabularies[0])
        target = self._padded(starts + sizes[:, 0], sizes[:, 1], pad_multiple, self._vocabularies[1])
        begun = np.empty_like(target)
        begun[:, 0], begun[:, 1:] = BOS, target[:, :-1]
        short = np.flatnonzero(sizes[:, 1] + 1 < target.shape[1])
        begun[short, sizes[short, 1] + 1] = PAD  # where their EOS came to stand
        return Batch(
            torch.from_numpy(source),
            torch.from_numpy(sizes[:, 0] + 1),
            torch.from_numpy(begun),
            torch.from_numpy(target),
            torch.from_numpy(sizes[:, 1] + 1),
            tuple(self.numbers[places].tolist()),
        )

    def _find(self, places: Ints) -> tuple[Ints, Ints]:
        """Where the ids of examples begin, (N,), and how many source and target have, (N, 2)."""
        group = self.lengths.group(places)
        sizes = self._sizes[group]
        return self._layout.tokens_before[group] + (places - self._layout.before[group]) * sizes.sum(1), sizes

    def _padded(self, starts: Ints, lengths: Ints, multiple: int, vocabulary: int) -> Ints:
        """Ids from each start on, EOS behind them, as (N, L) padded at the right."""
        width = -(-(int(lengths.max(initial=0)) + 1) // multiple) * multiple
        at = np.arange(width)
        inside = at < lengths[:, None]
        found = np.full(inside.shape, PAD, dtype=np.int64)
        found[inside] = self._ids[(starts[:, None] + at)[inside]]
        if found.min(initial=0) < 0 or found.max(initial=0) >= vocabulary:
            raise self._damaged(f"ids below {vocabulary}")
        found[np.arange(len(lengths)), lengths] = EOS
        return found

    def _damaged(self, expected: str) -> DataError:
        hint = f"Type: s2s verify {self.path.parent}"
        return DataError("is damaged", where=str(self.path), expected=expected, hint=hint)


def mapped(path: Path, name: str) -> NDArray[Any]:
    """A tensor of a safetensors file as a read-only array that stays on disk. Raises BundleError, DataError."""
    header = headers(path).get(name)
    kinds = {torch.int64: np.int64, torch.int32: np.int32, torch.uint16: np.uint16}
    if header is None or header.dtype not in kinds:
        raise DataError(f"has no integers {name}", where=str(path), expected="a file of s2s prepare")
    with open(path, "rb") as file:
        start = 8 + int.from_bytes(file.read(8), "little")
    if not header.end - header.begin:
        return np.zeros(header.shape, dtype=kinds[header.dtype])
    return np.memmap(path, kinds[header.dtype], "r", start + header.begin, header.shape)
