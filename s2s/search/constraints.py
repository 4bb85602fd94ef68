"""What an output may or must contain. Small objects in a list: each one rules out candidates of the next token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from s2s.search.options import SearchConfig
from s2s.types import BOS, EOS, PAD, UNK

Ids = tuple[int, ...]


@dataclass(frozen=True)
class Constraints:
    """What one source's output must and must not contain, in token ids.

    prefix: ids that the output starts with. phrases: every phrase must appear in the output; each is given as one or
    more alternative id sequences, one of which is enough. banned: id sequences that must not appear.
    One occurrence satisfies all phrases that it spells, also where they overlap.
    """

    prefix: Ids = ()
    phrases: tuple[tuple[Ids, ...], ...] = ()
    banned: tuple[Ids, ...] = ()

    def problems(self, limit: int, vocabulary_size: int | None = None) -> list[str]:
        """One message for each reason why these can't be met, so that a caller can refuse this line alone.

        limit: most tokens of the output, EOS included. vocabulary_size: without it ids are not checked against it.
        """
        found: list[str] = []
        groups = [("prefix", [self.prefix] if self.prefix else [])]
        groups += [(f"phrase {number}", list(phrase)) for number, phrase in enumerate(self.phrases, 1)]
        for name, sequences in groups:
            if name != "prefix" and (not sequences or any(not ids for ids in sequences)):
                found.append(f"{name} is empty")
                continue
            usable = [ids for ids in sequences if not _unusable(ids, vocabulary_size)]
            if sequences and not usable:
                found.append(f"{name} has a token that is no ordinary token of the vocabulary: {list(sequences[0])}")
            elif sequences and min(map(len, usable)) >= limit:
                shortest = min(map(len, usable))
                found.append(f"{name} has {shortest} tokens, but the output only {limit} with the end token")
            elif sequences and all(self._has_banned(ids) for ids in usable):
                found.append(f"{name} contains a banned phrase: {list(usable[0])}")
        for ids in self.banned:
            if not ids or _unusable(ids, vocabulary_size):
                found.append(f"banned phrase is empty or has a token outside the vocabulary: {list(ids)}")
        return found

    def met(self, tokens: Sequence[int]) -> bool:
        """Whether an output (ids, with or without EOS) keeps all of them."""
        ids = tuple(tokens)
        if ids[: len(self.prefix)] != self.prefix or self._has_banned(ids):
            return False
        return all(any(contains(ids, part) for part in phrase) for phrase in self.phrases)

    def usable_phrases(self, vocabulary_size: int) -> list[list[Ids]]:
        """The phrases without the alternatives that can't be generated."""
        return [[ids for ids in phrase if not _unusable(ids, vocabulary_size)] for phrase in self.phrases]

    def _has_banned(self, ids: Ids) -> bool:
        return any(contains(ids, part) for part in self.banned if part)


def _unusable(ids: Ids, vocabulary_size: int | None) -> bool:
    too_large = vocabulary_size is not None and any(token >= vocabulary_size for token in ids)
    return too_large or any(token < 0 or token in (PAD, UNK, BOS, EOS) for token in ids)


def contains(ids: Sequence[int], part: Sequence[int]) -> bool:
    """Whether `part` stands in `ids` as a contiguous run."""
    whole, run = tuple(ids), tuple(part)
    return any(whole[start : start + len(run)] == run for start in range(len(whole) - len(run) + 1))


class Block(Protocol):
    """Rules out next tokens."""

    def __call__(self, allowed: Tensor, log_probs: Tensor, history: Tensor, groups: Tensor) -> None:
        """Sets what may not follow to -inf, in place.

        allowed: (N, V) what earlier blocks left. log_probs: (N, V) the model's own, to be read only.
        history: (N, t) ids so far, without BOS. groups: (N,) which source (or sample) each row belongs to.
        """


class MinLength:
    """No EOS before the output has `length` tokens, EOS included."""

    def __init__(self, length: int) -> None:
        self._length = length

    def __call__(self, allowed: Tensor, log_probs: Tensor, history: Tensor, groups: Tensor) -> None:
        """See `Block`."""
        if history.shape[1] + 1 < self._length:
            allowed[:, EOS] = -torch.inf


class NoRepeatNgram:
    """No n-gram occurs twice in an output (Paulus et al. 2017, arXiv 1705.04304, section 2.5)."""

    def __init__(self, order: int) -> None:
        self._order = order

    def __call__(self, allowed: Tensor, log_probs: Tensor, history: Tensor, groups: Tensor) -> None:
        """See `Block`."""
        order, length = self._order, history.shape[1]
        if length < order:
            return
        grams = history.unfold(1, order, 1)  # (N, t - n + 1, n)
        recent = history[:, length - order + 1 :]  # (N, n - 1)
        repeats = (grams[:, :, :-1] == recent[:, None]).all(2)
        # PAD is never generated, so it takes the writes of windows that don't match.
        allowed.scatter_(1, grams[:, :, -1].masked_fill(~repeats, PAD), -torch.inf)


class BannedPhrases:
    """No banned phrase of a source occurs in its output. phrases: for each group its id sequences, none empty."""

    def __init__(self, phrases: Sequence[Sequence[Ids]], device: torch.device) -> None:
        owned = [(group, ids) for group, several in enumerate(phrases) for ids in several]
        self._width = max(len(ids) for _, ids in owned) - 1
        heads = [(-1,) * (self._width + 1 - len(ids)) + ids[:-1] for _, ids in owned]  # -1: any token
        self._heads = torch.tensor(heads, dtype=torch.int64, device=device).view(len(owned), self._width)
        self._last = torch.tensor([ids[-1] for _, ids in owned], device=device)
        self._owner = torch.tensor([group for group, _ in owned], device=device)

    def __call__(self, allowed: Tensor, log_probs: Tensor, history: Tensor, groups: Tensor) -> None:
        """See `Block`."""
        padding = history.new_full((history.shape[0], max(0, self._width - history.shape[1])), PAD)
        recent = torch.cat([padding, history[:, max(0, history.shape[1] - self._width) :]], dim=1)
        same = (self._heads == recent[:, None]) | (self._heads == -1)  # (N, P, width)
        hit = same.all(2) & (self._owner == groups[:, None])
        allowed.scatter_(1, self._last.expand_as(hit).masked_fill(~hit, PAD), -torch.inf)


class ForcedPrefix:
    """The output starts with given ids, whatever other blocks say. prefixes: for each group its ids, or ()."""

    def __init__(self, prefixes: Sequence[Ids], device: torch.device) -> None:
        longest = max(map(len, prefixes))
        padded = [ids + (PAD,) * (longest - len(ids)) for ids in prefixes]
        self._ids = torch.tensor(padded, device=device)  # (G, P)
        self._lengths = torch.tensor([len(ids) for ids in prefixes], device=device)

    def __call__(self, allowed: Tensor, log_probs: Tensor, history: Tensor, groups: Tensor) -> None:
        """See `Block`."""
        at = history.shape[1]
        if at >= self._ids.shape[1]:
            return
        forced = at < self._lengths[groups]
        wanted = self._ids[groups, at][:, None]
        value = torch.where(forced[:, None], log_probs.gather(1, wanted), allowed.gather(1, wanted))
        allowed.masked_fill_(forced[:, None], -torch.inf).scatter_(1, wanted, value)


class Blocks:
    """All blocks of a search, and which groups have had them lifted because nothing was left to choose."""

    def __init__(self, blocks: Sequence[Block], never: Tensor, groups: int) -> None:
        self._blocks = blocks
        self._never = never  # ids that are never generated
        self.lifted = torch.zeros(groups, dtype=torch.bool, device=never.device)

    def __call__(self, log_probs: Tensor, history: Tensor, groups: Tensor, started: Tensor) -> Tensor:
        """(N, V) log-probabilities with what is ruled out at -inf; the arguments are not changed.

        A group whose rows have no candidate left goes on without blocks from here to its end (`lifted`), unless it has
        `started` (G,) to finish hypotheses: then its output is complete without these rows.
        """
        allowed = log_probs.index_fill(1, self._never, -torch.inf)
        for block in self._blocks:
            block(allowed, log_probs, history, groups)
        # The best over a group's rows: the group is stuck if even its best candidate is ruled out.
        of_group = torch.full(self.lifted.shape, -torch.inf, device=log_probs.device)
        of_group.scatter_reduce_(0, groups, allowed.amax(1), "amax")
        self.lifted[groups] |= ((of_group == -torch.inf) & ~started)[groups]
        if bool(self.lifted.any()):
            free = self.lifted[groups]
            allowed[free] = log_probs[free].index_fill(1, self._never, -torch.inf)
        return allowed


def blocks_for(
    config: SearchConfig, constraints: Sequence[Constraints | None], never: Tensor, groups: int
) -> Blocks | None:
    """The blocks that a configuration and the sources' constraints ask for; None if there are none."""
    blocks: list[Block] = []
    if config.min_length > 1:
        blocks.append(MinLength(config.min_length))
    if config.no_repeat_ngram:
        blocks.append(NoRepeatNgram(config.no_repeat_ngram))
    banned = [one.banned if one else () for one in constraints]
    if any(banned):
        blocks.append(BannedPhrases(banned, never.device))
    prefixes = [one.prefix if one else () for one in constraints]
    if any(prefixes):  # last, because it overrides the others
        blocks.append(ForcedPrefix(prefixes, never.device))
    return Blocks(blocks, never, groups) if blocks else None
