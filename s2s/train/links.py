"""Word links of a parallel corpus, learned from nothing but the corpus: what guided alignment is guided by.

IBM model 2 with a prior that favours the diagonal, in both directions (Dyer, Chahuneau & Smith 2013, "A simple, fast,
and effective reparameterization of IBM model 2", NAACL 2013). No chance is involved: equal corpora give equal links.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

Link = tuple[int, int]
Floats = NDArray[np.float64]
Ids = NDArray[np.int32]
Shape = tuple[int, int]  # (S, T), lengths of source and target

ITERATIONS = 5
NULL = 0.08  # p0: prior probability that a word is linked to none
ALPHA = 0.01  # of the symmetric Dirichlet prior on translation probabilities
TENSION = 4.0  # lambda at first: how strongly the diagonal is favoured
MAX_TENSION = 20.0
_CHUNK = 1 << 20  # cells (source position, target position) that are worked on at once


def align_corpus(pairs: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[list[Link]]:
    """Links (source position, target position) of each pair of ids, from 0, in target order.

    Those that both directions find, grown by neighbours that one of them finds (Koehn et al. 2003, "grow-diag"; all
    candidates of a round are added together). A pair with an empty side has none.
    """
    chunks, entries = _cells(pairs)
    if not chunks:
        return [[] for _ in pairs]
    forward, backward = _Direction(entries[:, 0], entries[:, 1], 2), _Direction(entries[:, 1], entries[:, 0], 1)
    for _ in range(ITERATIONS):
        forward.improve(chunks)
        backward.improve(chunks)
    found: list[list[Link]] = [[] for _ in pairs]
    for chunk in chunks:
        for (rows, one), (_, other) in zip(forward.choose(chunk), backward.choose(chunk), strict=True):
            for row, target, source in np.argwhere(_grown(one, other)).tolist():
                found[rows[row]].append((source, target))
    return found


def translations(pairs: Sequence[tuple[Sequence[int], Sequence[int]]], most: int) -> list[list[int]]:
    """The `most` likeliest target words of each source word, by id, the lower id first among equals."""
    chunks, entries = _cells(pairs)
    if not chunks:
        return []
    forward = _Direction(entries[:, 0], entries[:, 1], 2)
    for _ in range(ITERATIONS):
        forward.improve(chunks)
    found: list[list[int]] = [[] for _ in range(int(entries[:, 0].max()) + 1)]
    for entry in np.lexsort((entries[:, 1], -forward.table, entries[:, 0])).tolist():
        own = found[entries[entry, 0]]
        if len(own) < most:
            own.append(int(entries[entry, 1]))
    return found


@dataclass(frozen=True)
class _Group:
    """Pairs of one shape. rows: their numbers; place: of their cells (B, T, S) in the chunk."""

    shape: Shape
    rows: list[int]
    place: slice


@dataclass(frozen=True)
class _Chunk:
    """Groups whose cells are worked on at once. entries: of each cell its entry in the table of word pairs."""

    groups: list[_Group]
    entries: Ids


def _cells(pairs: Sequence[tuple[Sequence[int], Sequence[int]]]) -> tuple[list[_Chunk], NDArray[np.int64]]:
    """The cells of all pairs, and the (source word, target word) of each entry of the table, (K, 2)."""
    by_shape: dict[Shape, list[int]] = {}
    for number, (source, target) in enumerate(pairs):
        if len(source) and len(target):
            by_shape.setdefault((len(source), len(target)), []).append(number)
    raw: list[tuple[list[_Group], list[NDArray[np.int64]]]] = []
    size = _CHUNK
    for shape, numbers in sorted(by_shape.items()):
        most = max(1, _CHUNK // (shape[0] * shape[1]))
        for start in range(0, len(numbers), most):
            rows = numbers[start : start + most]
            sources, targets = (np.array([pairs[row][side] for row in rows], dtype=np.int64) for side in (0, 1))
            keys = ((sources[:, None, :] << 32) + targets[:, :, None]).ravel()
            if size + keys.size > _CHUNK:
                raw.append(([], []))
                size = 0
            raw[-1][0].append(_Group(shape, rows, slice(size, size + keys.size)))
            raw[-1][1].append(keys)
            size += keys.size
    known = [np.unique(np.concatenate(keys), return_inverse=True) for _, keys in raw]
    table = np.unique(np.concatenate([keys for keys, _ in known])) if known else np.zeros(0, np.int64)
    chunks = [
        _Chunk(groups, np.searchsorted(table, keys).astype(np.int32)[inverse.ravel()])
        for (groups, _), (keys, inverse) in zip(raw, known, strict=True)
    ]
    return chunks, np.stack([table >> 32, table & 0xFFFFFFFF], 1)


class _Direction:
    """One direction: each word of one side is made by a word of the other, or by none.

    given, made: (K,) words of each table entry: what makes, and what is made. axis: of the cells (B, T, S) along which
    a made word chooses: 2 where the target is made, 1 where the source is.
    """

    def __init__(self, given: NDArray[np.int64], made: NDArray[np.int64], axis: int) -> None:
        self.given, self.made, self.axis = given, made, axis
        self.words = int(made.max()) + 1
        self.table: Floats = np.full(given.size, 1.0 / self.words)
        self.null: Floats = np.full(self.words, 1.0 / self.words)
        self.tension = TENSION

    def improve(self, chunks: Sequence[_Chunk]) -> None:
        """One iteration of EM: translation probabilities by variational Bayes, tension by likelihood."""
        counts, nulls = np.zeros(self.table.size), np.zeros(self.words)
        closeness = 0.0
        mass: dict[Shape, Floats] = {}
        for chunk in chunks:
            shares = self.table[chunk.entries]
            for group in chunk.groups:
                cells = shares[group.place].reshape(len(group.rows), *reversed(group.shape))
                words, none = self._share(cells, chunk.entries[group.place], group.shape)
                np.add.at(nulls, words.ravel(), none.ravel())
                together = cells.sum(0)
                closeness += float((together * _closeness(group.shape)).sum())
                mass[group.shape] = mass.get(group.shape, 0.0) + together.sum(self.axis - 1)
            counts += np.bincount(chunk.entries, shares, self.table.size)
        totals, kinds = (np.bincount(self.given, weights) for weights in (counts, None))
        self.table = np.exp(_digamma(counts + ALPHA) - _digamma(totals + ALPHA * kinds)[self.given])
        self.null = np.exp(_digamma(nulls + ALPHA) - _digamma(nulls.sum(keepdims=True) + ALPHA * self.words))
        self.tension = self._best_tension(mass, closeness)

    def choose(self, chunk: _Chunk) -> Iterator[tuple[list[int], NDArray[np.bool_]]]:
        """The rows of each group, and for each cell (B, T, S) whether the made word chooses it before all others."""
        shares = self.table[chunk.entries]
        for group in chunk.groups:
            cells = shares[group.place].reshape(len(group.rows), *reversed(group.shape))
            _, none = self._share(cells, chunk.entries[group.place], group.shape)
            best = np.expand_dims(cells.argmax(self.axis), self.axis)
            chosen = np.zeros(cells.shape, dtype=np.bool_)
            np.put_along_axis(chosen, best, True, self.axis)
            yield group.rows, chosen & (cells > np.expand_dims(none, self.axis))

    def _share(self, cells: Floats, entries: Ids, shape: Shape) -> tuple[NDArray[np.int64], Floats]:
        """Turn translation probabilities (B, T, S) into posteriors in place; the made words and their share of none."""
        cells *= (1 - NULL) * self._prior(shape, self.tension)
        words = self.made[entries.reshape(cells.shape).take(0, self.axis)]
        none = NULL * self.null[words]
        total = cells.sum(self.axis) + none
        cells /= np.expand_dims(total, self.axis)
        return words, none / total

    def _prior(self, shape: Shape, tension: float) -> Floats:
        """p(place of the maker | place of the made, it has one), (T, S): equations 1 and 2."""
        prior: Floats = np.exp(tension * _closeness(shape))
        prior /= prior.sum(self.axis - 1, keepdims=True)
        return prior

    def _best_tension(self, mass: dict[Shape, Floats], closeness: float) -> float:
        """The tension of the greatest likelihood: where the prior expects the closeness that the posterior has.

        mass: of each shape, how many words made at each place have a maker. Newton's steps, kept within bounds.
        """
        low, high, tension = 0.0, MAX_TENSION, self.tension
        for _ in range(8):
            slope, curve = closeness, 1e-9
            for shape, counts in mass.items():
                near, prior = _closeness(shape), self._prior(shape, tension)
                expected = (prior * near).sum(self.axis - 1)
                slope -= float(counts @ expected)
                curve += float(counts @ ((prior * near**2).sum(self.axis - 1) - expected**2))
            low, high = (tension, high) if slope > 0 else (low, tension)
            step = tension + slope / curve
            if abs(step - tension) < 1e-6:
                break
            tension = step if low < step < high else (low + high) / 2
        return tension


def _closeness(shape: Shape) -> Floats:
    """How near to the diagonal each cell is, (T, S): h of equation 1, with the middles of words as their places."""
    source, target = ((np.arange(length) + 0.5) / length for length in shape)
    return -np.abs(source[None, :] - target[:, None])


def _digamma(values: Floats) -> Floats:
    found: Floats = torch.digamma(torch.from_numpy(values)).numpy()
    return found


def _grown(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Cells (B, T, S) chosen in both directions, and what joins them: see `align_corpus`."""
    union, links = one | other, one & other
    while True:
        padded = np.pad(links, ((0, 0), (1, 1), (1, 1)))
        near = np.zeros_like(links)
        for down in range(3):
            for right in range(3):
                near |= padded[:, down : down + links.shape[1], right : right + links.shape[2]]
        free = ~links.any(1, keepdims=True) | ~links.any(2, keepdims=True)
        new = union & ~links & near & free
        if not new.any():
            return links
        links |= new
