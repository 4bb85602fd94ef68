"""Which examples go together in a batch, and in which order: the plan of an epoch.

It is a function of (lengths, options, seed, epoch) alone, so that a position in it is all that a resumed run needs to
know; and any part of it is found without the rest, so that its memory doesn't grow with the examples.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from s2s.text.lazy import Lazy

Ints = NDArray[np.int64]
Bits = NDArray[np.uint64]

_AT_ONCE = 64  # batches that are found together
_ROUNDS = 4


class Lengths:
    """How long examples are, in groups of equal lengths: by target length, then by source length.

    sizes: (C, 2) source and target tokens of each group, EOS included. counts: (C,) examples of each. order: (N,)
    numbers of the examples, group after group; None where they are numbered in this order.
    """

    def __init__(self, sizes: Ints, counts: Ints, order: Ints | None = None) -> None:
        self.sizes, self.counts, self.order = sizes, counts, order
        self.ends: Ints = np.cumsum(counts)

    @classmethod
    def of(cls, lengths: Sequence[tuple[int, int]]) -> Lengths:
        """Of examples in any order. lengths: (source, target) tokens of each, EOS included."""
        pairs = np.array(lengths, dtype=np.int64).reshape(-1, 2)
        order = np.lexsort((pairs[:, 0], pairs[:, 1]))
        pairs = pairs[order]
        starts = _changes(pairs)
        return cls(pairs[starts], np.diff(np.r_[starts, len(pairs)]), order)

    def __len__(self) -> int:
        return int(self.ends[-1]) if len(self.ends) else 0

    def group(self, places: Ints) -> Ints:
        """The group of each place in the order."""
        return np.searchsorted(self.ends, places, side="right")


@dataclass(frozen=True)
class BatchPlan:
    """How examples are put into batches.

    budget: target tokens of a batch, padding counted, so that it bounds memory; a longer source counts as its target
    would. pad_multiple: lengths are padded up to a multiple, so that few distinct shapes occur (1 = to the longest).
    seed: of the shuffling.
    """

    lengths: Lengths
    budget: int
    seed: int = 1
    pad_multiple: int = 1

    def epoch(self, number: int, *, shuffle: bool = True) -> Epoch:
        """The batches of epoch `number`, each a tuple of example numbers; every example stands in exactly one.

        Examples are sorted by padded length (those of the same in random order, so that batches differ between
        epochs), cut into batches of the budget, and the batches shuffled. An example above the budget gets a batch of
        its own.
        """
        return Epoch(self, (self.seed * 1_000_003 + number) % (1 << 63) if shuffle else None)

    def largest(self) -> tuple[int, ...]:
        """The batch with the most padded source and target tokens: the one to try memory with."""
        starts, shape = self.bounds[:-1], self._padded(self.lengths.sizes)[self._sorted]
        group = np.searchsorted(self._ends, starts, side="right")
        last = np.searchsorted(self._ends, self.bounds[1:] - 1, side="right")
        sizes = [shape[i : j + 1].max(0).sum() for i, j in zip(group.tolist(), last.tolist(), strict=True)]
        return self.epoch(0, shuffle=False)[int(np.argmax(np.diff(self.bounds) * np.array(sizes)))]

    @cached_property
    def bounds(self) -> Ints:
        """Where batches begin and end among the sorted examples: (batches + 1,)."""
        bounds, place = array("q", [0]), 0
        rows = longest = 0  # of the batch under way
        padded = self._padded(self.lengths.sizes).max(1)[self._sorted]
        for width, count in zip(padded.tolist(), self.lengths.counts[self._sorted].tolist(), strict=True):
            left = count
            while left:
                wider = max(longest, width)
                more = min(left, self.budget // wider - rows) if rows else min(left, max(1, self.budget // wider))
                if more <= 0:
                    bounds.append(place)
                    rows = longest = 0
                    continue
                rows, longest, place, left = rows + more, wider, place + more, left - more
        if rows:
            bounds.append(place)
        return np.frombuffer(bounds, dtype=np.int64)

    @cached_property
    def _sorted(self) -> Ints:
        """The groups by padded length."""
        source, target = self._padded(self.lengths.sizes).T
        return np.lexsort((source, target))

    @cached_property
    def _ends(self) -> Ints:
        """Where each group ends among the sorted examples."""
        return np.cumsum(self.lengths.counts[self._sorted])

    @cached_property
    def _alike(self) -> tuple[Ints, Ints]:
        """Where the examples of the same padded length begin, and how many there are."""
        shape = self._padded(self.lengths.sizes)[self._sorted]
        starts = np.r_[0, self._ends][_changes(shape)]
        return starts, np.diff(np.r_[starts, len(self.lengths)])

    def at(self, places: Ints, key: int | None) -> Ints:
        """The examples at places among the sorted ones; key: of how those of the same padded length are shuffled."""
        if key is not None:
            starts, counts = self._alike
            own = np.searchsorted(starts, places, side="right") - 1
            places = starts[own] + shuffled(places - starts[own], counts[own], _keys(key, own))
        group = np.searchsorted(self._ends, places, side="right")
        groups = self._sorted[group]
        found = self.lengths.ends[groups] - (self._ends[group] - places)
        return found if self.lengths.order is None else self.lengths.order[found]

    def _padded(self, lengths: Ints) -> Ints:
        return -(-lengths // self.pad_multiple) * self.pad_multiple


class Epoch(Lazy[tuple[int, ...]]):
    """The batches of one epoch, found as they are asked for."""

    def __init__(self, plan: BatchPlan, key: int | None) -> None:
        """key: of the shuffling; None for the sorted order."""
        self._plan, self._key = plan, key
        self._known: tuple[int, list[tuple[int, ...]]] = (-1, [])

    def __len__(self) -> int:
        return len(self._plan.bounds) - 1

    def at(self, place: int) -> tuple[int, ...]:
        """The batch at a place of the epoch."""
        block, within = divmod(place, _AT_ONCE)
        if self._known[0] != block:
            self._known = block, self._block(np.arange(block * _AT_ONCE, min(len(self), (block + 1) * _AT_ONCE)))
        return self._known[1][within]

    def _block(self, batches: Ints) -> list[tuple[int, ...]]:
        """The batches at places of the epoch."""
        if self._key is not None:
            batches = shuffled(batches, np.full(len(batches), len(self)), _keys(self._key, np.full(len(batches), -1)))
        starts, ends = self._plan.bounds[batches], self._plan.bounds[batches + 1]
        places = np.concatenate([np.arange(one, other) for one, other in zip(starts, ends, strict=True)])
        found = iter(self._plan.at(places, self._key).tolist())
        return [tuple(next(found) for _ in range(size)) for size in (ends - starts).tolist()]


def _changes(rows: Ints) -> Ints:
    """The rows that differ from the one before, the first included."""
    return np.flatnonzero(np.r_[True, (rows[1:] != rows[:-1]).any(1)][: len(rows)])


def _keys(key: int, of: Ints) -> Bits:
    """Keys of several permutations, from one."""
    return mixed(np.uint64(key) ^ mixed(of))


def shuffled(places: Ints, counts: Ints, keys: Bits) -> Ints:
    """Where a random permutation of 0 ... counts - 1 puts each place; the permutation is a function of its key.

    A Feistel network over a square of at least `counts` places, entered again until the place is one of them (Black &
    Rogaway 2002, "Ciphers with arbitrary finite domains"), so nothing is kept for the others.
    """
    side = np.ceil(np.sqrt(counts)).astype(np.int64)
    found, outside = places.copy(), np.arange(len(places))
    while outside.size:
        high, low = np.divmod(found[outside], side[outside])
        for number in range(_ROUNDS):
            drawn = mixed(keys[outside] + np.uint64(number) ^ mixed(low)) >> np.uint64(2)  # so that no sum overflows
            high, low = low, (high + drawn.astype(np.int64)) % side[outside]
        found[outside] = high * side[outside] + low
        outside = outside[found[outside] >= counts[outside]]
    return found


def mixed(values: Ints | Bits) -> Bits:
    """64 bits that look random, a function of each value: the finaliser of SplitMix64 (Steele et al. 2014)."""
    bits = values.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))
