"""A lexical shortlist: each source is searched among the few tokens that it may be translated by.

The output layer then has some hundred rows for a batch in place of the whole vocabulary (Jean et al. 2015, arXiv
1412.2007, section 4.3; L'Hostis et al. 2016, arXiv 1610.00072). All sources of a batch share the rows of all their
tokens, but each gives probability to its own alone, so its output doesn't depend on its neighbours.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from s2s.search.constraints import Constraints, Ids
from s2s.types import SPECIALS, Hypothesis


class Shortlist(NamedTuple):
    """Tokens of a batch of B sources. A search numbers them anew, by their place in `ids`; specials keep theirs."""

    ids: Tensor  # (U,) int64, ascending
    allowed: Tensor  # (B, U) bool: whose tokens they are

    def constraints(self, wanted: Constraints | None) -> Constraints | None:
        """The same in the new numbers. What is banned and not in the list is banned already."""
        if wanted is None:
            return None
        places = {token: place for place, token in enumerate(self.ids.tolist())}

        def found(ids: Ids) -> Ids:
            return tuple(places[token] for token in ids)

        banned = tuple(found(ids) for ids in wanted.banned if all(token in places for token in ids))
        phrases = tuple(tuple(found(ids) for ids in phrase) for phrase in wanted.phrases)
        return Constraints(found(wanted.prefix), phrases, banned)

    def tokens(self, places: Iterable[int]) -> list[int]:
        """The ids that a search's numbers stand for."""
        return self.ids[torch.tensor([*places], dtype=torch.int64)].tolist()

    def hypothesis(self, found: Hypothesis) -> Hypothesis:
        """A search's output with ids."""
        return replace(found, tokens=tuple(self.tokens(found.tokens)))


def make_shortlist(candidates: Sequence[Iterable[int]], constraints: Sequence[Constraints | None]) -> Shortlist:
    """The shortlist of a batch. candidates: ids of each source; what its constraints ask for joins them."""
    own = []
    for ids, wanted in zip(candidates, constraints, strict=True):
        asked = [] if wanted is None else [wanted.prefix, *(part for phrase in wanted.phrases for part in phrase)]
        own.append({*range(len(SPECIALS)), *ids, *(token for part in asked for token in part)})
    ids = torch.tensor(sorted(set().union(*own)), dtype=torch.int64)
    allowed = torch.zeros(len(own), len(ids), dtype=torch.bool)
    for row, tokens in enumerate(own):
        allowed[row, torch.searchsorted(ids, torch.tensor(sorted(tokens), dtype=torch.int64))] = True
    return Shortlist(ids, allowed)
