r"""Dialogues as sources: turns joined by "\n", and the marks between them that no text can hold.

A context is such a text, oldest turn first. Two speakers alternate, and the last turn is the one that is answered: it
is the other's, the turn before is of the one who replies, and so on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from s2s.text.lines import clean, is_blank
from s2s.text.vocabulary import Tokenizer
from s2s.types import BOS, EOS, SPECIALS, Overlong

T = TypeVar("T")

ABOUT = "\x1f"


class Turns:
    """A tokenizer of contexts: EOS stands between two turns, and BOS before each turn of the one who replies.

    A turn may end in words that it is about, behind `ABOUT`, a character that `clean` lets through nowhere; BOS stands
    there. Both marks are ids that no text gives, so `</s>` or `assistant:` typed by a user is text like any other. All
    else is as in the tokenizer of single texts that it is made from, and so are its files in a bundle.
    """

    def __init__(self, inner: Tokenizer) -> None:
        self._inner = inner

    @property
    def size(self) -> int:
        """Number of ids, the special ones included."""
        return self._inner.size

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of what is kept in a bundle."""
        return self._inner.digest

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Turns) and other.digest == self.digest

    def __hash__(self) -> int:
        return hash((Turns, self.digest))

    def encode(self, text: str) -> list[int]:
        """Ids of a context; nothing marks its end. Raises DataError on lone surrogates."""
        return self._marked(text, self._inner.encode)

    def sample(self, text: str, alpha: float, seed: int) -> list[int]:
        """Ids of one random segmentation of each turn, see `Tokenizer.sample`."""
        return self._marked(text, lambda turn: self._inner.sample(turn, alpha, seed))

    def decode(self, ids: Sequence[int], extra: Sequence[str] = ()) -> str:
        """All turns on one line."""
        return " ".join(self._inner.decode(turn, extra) for turn in split_turns(ids))

    def pieces(self, ids: Sequence[int], extra: Sequence[str] = ()) -> list[str]:
        """One readable piece for each id, the marks included."""
        return self._inner.pieces(ids, extra)

    def spelled(self, text: str) -> list[str] | None:
        """What each id of `encode(text)` stands for; None where it can't be told."""
        parts = [[self._inner.spelled(part) for part in turn.split(ABOUT)] for turn in text.split("\n")]
        known = [[part for part in turn if part is not None] for turn in parts]
        return _joined(known, SPECIALS[BOS], SPECIALS[EOS]) if known == parts else None

    def words(self, ids: Sequence[int]) -> list[int]:
        """For each id, which word of `decode(ids)` it belongs to; -1 for marks."""
        found: list[int] = []
        before = 0
        for turn in split_turns(ids):
            own = self._inner.words(turn)
            found += [before + word if word >= 0 else -1 for word in own]
            found.append(-1)  # the mark behind it
            before += max(own, default=-1) + 1
        return found[:-1]

    def unknown(self, text: str) -> int:
        """How many units of the turns have no id of their own."""
        return sum(self._inner.unknown(part) for part in text.replace(ABOUT, "\n").split("\n"))

    def files(self, prefix: str) -> dict[str, bytes]:
        """Those of the tokenizer inside."""
        return self._inner.files(prefix)

    def _marked(self, text: str, encode: Callable[[str], list[int]]) -> list[int]:
        return _joined([[encode(part) for part in turn.split(ABOUT)] for turn in text.split("\n")], BOS, EOS)


def _joined(turns: Sequence[Sequence[Sequence[T]]], begin: T, end: T) -> list[T]:
    """The parts of all turns in one list. `end` stands between turns, `begin` between the parts of one, and before each
    that is an odd number from the last.
    """
    made: list[T] = []
    for number, parts in enumerate(turns):
        made += [end] if number else []
        made += [begin] if (len(turns) - 1 - number) % 2 else []
        for place, part in enumerate(parts):
            made += [begin] if place else []
            made += part
    return made


def split_turns(ids: Sequence[int]) -> list[Sequence[int]]:
    """The ids of each turn of a context, its mark of the speaker included."""
    ends = [place for place, number in enumerate(ids) if number == EOS]
    starts = [0, *(end + 1 for end in ends)]
    return [ids[start:end] for start, end in zip(starts, [*ends, len(ids)], strict=True)]


def turn_marks(tokenizer: Turns) -> list[int]:
    """What each id says about turns, as `s2s.text.sentences.sentence_marks` tells it of sentences: EOS ends one."""
    return [4 if number == EOS else 1 for number in range(tokenizer.size)]


def join_turns(messages: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """(speaker, text) of each message, in order, to those of turns: what one says in a row is one, joined by a space.

    White space inside is one space; messages of nothing else are no messages.
    """
    turns: list[tuple[str, str]] = []
    for speaker, text in messages:
        text = " ".join(text.split())
        if is_blank(text):
            continue
        if turns and turns[-1][0] == speaker:
            turns[-1] = speaker, f"{turns[-1][1]} {text}"
        else:
            turns.append((speaker, text))
    return turns


def clean_turns(text: str) -> tuple[str, int]:
    """A context whose turns are as a model may see them, and how many characters were changed; see `clean`."""
    cleaned = [clean(turn) for turn in text.split("\n")]
    return "\n".join(turn for turn, _ in cleaned), sum(count for _, count in cleaned)


def shorten(
    text: str, ids: Sequence[int], overlong: Overlong, limit: int, turns: int
) -> tuple[str, list[int], frozenset[str]]:
    """A source as training cuts it: text, ids, and flags that say what was left out.

    truncate: cut off at `limit` ids. turns: of a context, the newest whole turns with at most `limit` ids, and at most
    `turns` of them; where the last turn alone is longer, its beginning. Nothing changes by any other `overlong`.
    """
    if overlong not in ("truncate", "turns"):
        return text, list(ids), frozenset()
    flags = set()
    if overlong == "turns":
        parts = split_turns(ids)
        sizes = [len(part) + 1 for part in parts]  # with the mark behind it, but for the last one
        fitting = [n for n in range(1, min(turns, len(parts)) + 1) if sum(sizes[-n:]) - 1 <= limit]
        kept = max(fitting, default=1)
        if kept < len(parts):
            flags.add("turns_dropped")
            text = "\n".join(text.split("\n")[-kept:])
            ids = ids[len(ids) - (sum(sizes[-kept:]) - 1) :]
    if len(ids) > limit:
        flags.add("truncated")
        ids = ids[:limit]
    return text, list(ids), frozenset(flags)
