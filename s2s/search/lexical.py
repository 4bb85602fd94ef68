"""Phrases that an output must contain: beam slots are shared out among hypotheses that have met more or fewer of them.

After dynamic beam allocation (Post and Vilar 2018, arXiv 1804.06609): beside the likeliest tokens, every hypothesis is
also continued with the next token of each phrase that it still lacks. Candidates are put into banks by the number of
phrase tokens that they have met, and the slots are dealt out to the banks in turn, the fullest bank first, so the
hypothesis nearest to meeting all is never lost. (The paper gives each bank a fixed number of slots and hands on
those that it can't fill; dealing in turn does both at once, also where there are more banks than slots.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import NamedTuple

import torch
from torch import Tensor

from s2s.search.constraints import Ids
from s2s.search.trace import Choice
from s2s.types import EOS, PAD


class Progress(NamedTuple):
    """What a hypothesis has met. tail: its last ids, as many as the longest phrase has."""

    met: frozenset[int] = frozenset()
    tail: Ids = ()


class Phrases:
    """The phrases of one source, each a list of alternatives, all non-empty."""

    def __init__(self, phrases: Sequence[Sequence[Ids]]) -> None:
        self._phrases = [list(phrase) for phrase in phrases]
        self._longest = max(len(ids) for phrase in self._phrases for ids in phrase)

    def advance(self, progress: Progress, token: int) -> Progress:
        """Progress after one more token."""
        tail = (*progress.tail, token)[-self._longest :]
        met = {
            number
            for number in self._missing(progress)
            if any(tail[-len(ids) :] == ids for ids in self._phrases[number])
        }
        return Progress(progress.met | met, tail)

    def complete(self, progress: Progress) -> bool:
        """Whether every phrase has appeared."""
        return len(progress.met) == len(self._phrases)

    def next_tokens(self, progress: Progress) -> set[int]:
        """Tokens that continue or begin a phrase that is still missing."""
        return {
            ids[_overlap(progress.tail, ids)] for number in self._missing(progress) for ids in self._phrases[number]
        }

    def bank(self, progress: Progress) -> int:
        """Number of phrase tokens met, those of a phrase under way included."""
        whole = sum(max(map(len, self._phrases[number])) for number in progress.met)
        under_way = (
            _overlap(progress.tail, ids) for number in self._missing(progress) for ids in self._phrases[number]
        )
        return whole + max(under_way, default=0)

    def _missing(self, progress: Progress) -> list[int]:
        return [number for number in range(len(self._phrases)) if number not in progress.met]


def _overlap(tail: Ids, ids: Ids) -> int:
    """Length of the longest proper beginning of `ids` that `tail` ends with."""
    for length in range(min(len(tail), len(ids) - 1), 0, -1):
        if tail[-length:] == ids[:length]:
            return length
    return 0


@dataclass(frozen=True)
class Candidate:
    """A hypothesis continued by one token. total: log-probability of the whole, log_prob: of the token."""

    slot: int
    token: int
    log_prob: float
    total: float
    progress: Progress


def allocate(phrases: Phrases, candidates: Sequence[Candidate], slots: int) -> list[Candidate]:
    """Deals `slots` out to the banks in turn, the fullest bank first; the result is sorted by total."""
    ordered = sorted(candidates, key=lambda one: (-one.total, one.slot, one.token))
    banks: dict[int, list[Candidate]] = {}
    for candidate in ordered:
        banks.setdefault(phrases.bank(candidate.progress), []).append(candidate)
    turns = zip_longest(*(banks[bank] for bank in sorted(banks, reverse=True)))
    chosen = [candidate for turn in turns for candidate in turn if candidate is not None][:slots]
    return sorted(chosen, key=lambda one: (-one.total, one.slot, one.token))


class LexicalSearch:
    """Overrides the choice of the groups that have phrases, and follows the progress of their slots.

    This runs in Python for each hypothesis of such a group; groups without phrases are untouched.
    """

    def __init__(self, phrases: dict[int, Phrases]) -> None:
        self._phrases = phrases
        self._progress = {(group, 0): Progress() for group in phrases}

    def choose(
        self,
        choice: Choice,
        log_probs: Tensor,
        ranked: tuple[Tensor, Tensor],
        slots: Tensor,
        live: Tensor,
        capacity: Tensor,
        skip: Tensor | None,
    ) -> Choice:
        """The choice with the groups that have phrases chosen anew.

        log_probs: (N, V) after blocks. ranked: (N, M) values and ids of the best candidates of each row. slots: (N,)
        index of each row into the flat (G, K) grid. live: (G, K) totals. capacity: (G,) slots that may be filled.
        skip: (G,) bool, groups whose constraints were lifted.
        """
        width = live.shape[1]
        left_out = set() if skip is None else set(skip.nonzero().flatten().tolist())
        mine = [
            (row, *divmod(slot, width))
            for row, slot in enumerate(slots.tolist())
            if slot // width in self._phrases and slot // width not in left_out
        ]
        if not mine:
            return choice
        rows = torch.tensor([row for row, _, _ in mine], device=slots.device)
        values, ids = ranked[0][rows].tolist(), ranked[1][rows].tolist()
        totals = live.flatten()[slots[rows]].tolist()
        wanted = [sorted(self._phrases[g].next_tokens(self._progress[g, slot])) for _, g, slot in mine]
        where = [(row, token) for (row, _, _), tokens in zip(mine, wanted, strict=True) for token in tokens]
        at = torch.tensor(where, dtype=torch.int64, device=slots.device).view(-1, 2)
        extra = iter(log_probs[at[:, 0], at[:, 1]].tolist())

        candidates: dict[int, list[Candidate]] = {group: [] for _, group, _ in mine}
        for index, (_, group, slot) in enumerate(mine):
            phrases, progress = self._phrases[group], self._progress[group, slot]
            options = {token: value for value, token in zip(values[index], ids[index], strict=True)}
            options.update((token, next(extra)) for token in wanted[index])
            for token, value in options.items():
                if value == -torch.inf or (token == EOS and not phrases.complete(progress)):
                    continue
                after = progress if token == EOS else phrases.advance(progress, token)
                candidates[group].append(Candidate(slot, token, value, totals[index] + value, after))
        room = capacity.tolist()
        chosen = {group: allocate(self._phrases[group], found, room[group]) for group, found in candidates.items()}
        for group, picked in chosen.items():
            self._progress.update({(group, slot): one.progress for slot, one in enumerate(picked)})
        return _overwrite(choice, chosen)


def _overwrite(choice: Choice, chosen: dict[int, list[Candidate]]) -> Choice:
    """The choice with the rows of some groups replaced."""
    width, device = choice.tokens.shape[1], choice.tokens.device
    groups = torch.tensor(list(chosen), device=device)
    empty = Candidate(0, PAD, 0.0, -torch.inf, Progress())
    padded = [picked + [empty] * (width - len(picked)) for picked in chosen.values()]

    def put(old: Tensor, values: list[list[float]] | list[list[int]]) -> Tensor:
        return old.index_copy(0, groups, torch.tensor(values, dtype=old.dtype, device=device))

    return Choice(
        put(choice.tokens, [[one.token for one in picked] for picked in padded]),
        put(choice.parents, [[one.slot for one in picked] for picked in padded]),
        put(choice.log_probs, [[one.log_prob for one in picked] for picked in padded]),
        put(choice.totals, [[one.total for one in picked] for picked in padded]),
    )
