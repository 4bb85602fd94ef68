"""Which target tokens a source token may become: learned from training pairs, kept in a model for its shortlists."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from s2s.errors import BundleError
from s2s.files import parse_json, to_json
from s2s.tensors import is_count

FILE = "lexicon.json"
FORMAT = 1
FREQUENT = 100  # most frequent target tokens, which every shortlist has


class Lexicon:
    """Candidates of each source token, the likeliest first, and the most frequent target tokens."""

    def __init__(self, candidates: Sequence[Sequence[int]], frequent: Sequence[int]) -> None:
        """candidates: target ids by source id. frequent: target ids."""
        self.candidates, self.frequent = candidates, frequent

    def of(self, source: Iterable[int], most: int) -> set[int]:
        """The target tokens that a source may be translated by: `most` candidates of each token, and the frequent."""
        found = set(self.frequent)
        for token in set(source):
            if token < len(self.candidates):
                found.update(self.candidates[token][:most])
        return found

    def to_bytes(self) -> bytes:
        """What a bundle keeps."""
        return to_json({"format": FORMAT, "candidates": self.candidates, "frequent": self.frequent})


def frequent_tokens(targets: Iterable[Sequence[int]]) -> list[int]:
    """The `FREQUENT` most frequent tokens of some texts, the lower id first among equals."""
    counts = Counter(token for target in targets for token in target)
    return sorted(counts, key=lambda token: (-counts[token], token))[:FREQUENT]


def parse_lexicon(data: bytes, where: str, vocabulary: int) -> Lexicon:
    """A lexicon from untrusted JSON; vocabulary: of the target. Raises BundleError that says what is wrong."""
    value = parse_json(data, where, error=BundleError)
    if not isinstance(value, dict) or set(value) != {"format", "candidates", "frequent"} or value["format"] != FORMAT:
        raise BundleError("is no lexicon", where=where, expected=f"format {FORMAT}, candidates and frequent")
    candidates, frequent = value["candidates"], value["frequent"]
    if not isinstance(candidates, list) or not all(_are_ids(ids, vocabulary) for ids in (*candidates, frequent)):
        raise BundleError("has something else than target ids", where=where, expected=f"ids below {vocabulary}")
    return Lexicon(candidates, frequent)


def _are_ids(value: object, vocabulary: int) -> bool:
    return isinstance(value, list) and all(is_count(token) and token < vocabulary for token in value)
