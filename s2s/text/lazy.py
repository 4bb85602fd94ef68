"""Sequences whose items are made when they are asked for."""

from __future__ import annotations

import itertools
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Generic, TypeVar, overload

T = TypeVar("T")
S = TypeVar("S")


class Lazy(Sequence[T]):
    """A sequence by `at` and `__len__`."""

    @abstractmethod
    def at(self, place: int) -> T:
        """The item at a place from 0 to the last."""

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> list[T]: ...
    def __getitem__(self, index: int | slice) -> T | list[T]:
        if isinstance(index, slice):
            return [self.at(place) for place in range(*index.indices(len(self)))]
        return self.at(range(len(self))[index])


class Mapped(Lazy[T], Generic[S, T]):
    """A function of each item of another sequence."""

    def __init__(self, function: Callable[[S], T], items: Sequence[S]) -> None:
        self._function, self._items = function, items

    def __len__(self) -> int:
        return len(self._items)

    def at(self, place: int) -> T:
        """The function of the item at a place."""
        return self._function(self._items[place])

    def __iter__(self) -> Iterator[T]:
        return map(self._function, self._items)


class Chained(Lazy[T]):
    """The items of several sequences, one sequence after the other."""

    def __init__(self, *parts: Sequence[T]) -> None:
        self._parts = parts

    def __len__(self) -> int:
        return sum(map(len, self._parts))

    def at(self, place: int) -> T:
        """The item at a place among all."""
        for part in self._parts:
            if place < len(part):
                return part[place]
            place -= len(part)
        raise IndexError(place)

    def __iter__(self) -> Iterator[T]:
        return itertools.chain.from_iterable(self._parts)
