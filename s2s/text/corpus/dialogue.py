"""What corpora of dialogues have in common: turns to contexts and replies, and what is left out of them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from importlib import resources
from typing import Literal

from s2s.errors import ConfigError
from s2s.text.corpus.base import Pair

Direction = Literal["forward", "backward", "none"]

NO_SOURCE = "-"  # what stands for the source of a model of replies alone

_ADDRESS = re.compile(r"\S@\w[\w-]*\.\w|https?://|\bwww\.\w|(?<![\w.])@\w", re.IGNORECASE)
_HANDLE = re.compile(
    r"\b(?:(?:my|on) (?:insta(?:gram)?|snap(?:chat)?|twitter|kik|discord) (?:is|name|handle)|(?:follow|add) me)\b",
    re.IGNORECASE,
)
_WORD = re.compile(r"\w+")
_NUMBER = re.compile(r"(?<!\d)(?:\d[\s().-]?){7,}\d")


def join_turns(messages: Iterator[tuple[str, str]] | Sequence[tuple[str, str]]) -> list[str]:
    """(speaker, text) of each message, in order, to turns: what one speaker says in a row is one, joined by a space.

    White space inside is one space; messages of nothing else are no messages.
    """
    turns: list[tuple[str, str]] = []
    for speaker, text in messages:
        text = " ".join(text.split())
        if not text:
            continue
        if turns and turns[-1][0] == speaker:
            turns[-1] = speaker, f"{turns[-1][1]} {text}"
        else:
            turns.append((speaker, text))
    return [text for _, text in turns]


def examples(turns: Sequence[str], most: int, direction: Direction, origin: str) -> Iterator[Pair]:
    """A pair for each turn but the first: the turns before it, at most `most` of them, and itself.

    direction: backward, from the reply to the turn that it answers; none, from nothing (`NO_SOURCE`) to the reply.
    """
    for place in range(1, len(turns)):
        where = f"{origin}:{place + 1}"
        if direction == "backward":
            yield Pair(turns[place], turns[place - 1], where)
        elif direction == "none":
            yield Pair(NO_SOURCE, turns[place], where)
        else:
            yield Pair("\n".join(turns[max(0, place - most) : place]), turns[place], where)


def check_options(turns: int, direction: str) -> None:
    """Raises ConfigError for impossible options of a corpus of dialogues."""
    if turns < 1:
        raise ConfigError("out of range", where="corpus.turns", expected="at least 1", found=str(turns))
    if direction not in ("forward", "backward", "none"):
        raise ConfigError(
            "unknown direction", where="corpus.direction", expected="forward, backward or none", found=direction
        )


@lru_cache(maxsize=64)  # a turn stands in the contexts of those that follow
def unfit(turn: str) -> str | None:
    """Why nobody should learn from a turn: it may identify someone, or is crude (crude.txt); or None."""
    if _ADDRESS.search(turn) or _HANDLE.search(turn):
        return "address or handle"
    if _NUMBER.search(turn):
        return "long number"
    return "crude word" if not _CRUDE.isdisjoint(_WORD.findall(turn.casefold())) else None


def _read_crude() -> frozenset[str]:
    text = (resources.files(__package__) / "crude.txt").read_text(encoding="utf-8")
    return frozenset(line for line in text.split("\n") if line and not line.startswith("#"))


_CRUDE = _read_crude()
