"""Which target id copying a source token gives; ids beyond the vocabulary for words that it lacks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from s2s.text.vocabulary import Tokenizer
from s2s.types import UNK


@dataclass(frozen=True)
class CopyIds:
    """A pair as a model that copies sees it, without special tokens.

    source: what copying each source position gives. target: the target, where a word that is unknown but stands in
    the source has that id. extra: what the ids from the vocabulary's size on stand for, in the order of the source.
    """

    source: Sequence[int]
    target: Sequence[int]
    extra: Sequence[str] = ()


class Copier:
    """Source tokens to target ids (See et al. 2017, arXiv 1704.04368, section 2.2: the extended vocabulary).

    With words or characters every source token can be copied: one that the target's vocabulary lacks gets an id of its
    own, from the vocabulary's size on, the same wherever it stands in that source. Subwords must be joint: a piece is
    copied as itself, and the probability of a piece is summed over the positions where it stands.
    """

    def __init__(self, source: Tokenizer, target: Tokenizer) -> None:
        self._same, self._size = source.digest == target.digest, target.size
        self._source, self._target = source, target

    def __call__(self, text: str, ids: Sequence[int], target: str = "", target_ids: Sequence[int] = ()) -> CopyIds:
        """ids, target_ids: of the two texts; those of the source may be cut off at the end, or sampled subwords."""
        spelled, wanted = self._source.spelled(text), self._target.spelled(target)
        if spelled is None or wanted is None:
            return CopyIds(list(ids), list(target_ids))
        extra: dict[str, int] = {}
        source = []
        for unit, own in zip(spelled, ids, strict=False):  # ids may be fewer
            number = own if self._same else self._known(unit)
            source.append(number if number != UNK else self._size + extra.setdefault(unit, len(extra)))
        output = [
            self._size + extra[unit] if number == UNK and unit in extra else number
            for unit, number in zip(wanted, target_ids, strict=True)
        ]
        return CopyIds(source, output, tuple(extra))

    def _known(self, unit: str) -> int:
        """The target id of a word or character of the source."""
        found = self._target.encode(unit)
        return found[0] if len(found) == 1 else UNK
