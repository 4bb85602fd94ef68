"""What corpora of dialogues have in common: turns to contexts and replies, and what is left out of them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import cache, lru_cache
from importlib import resources
from typing import Literal

from s2s.errors import ConfigError
from s2s.text.corpus.base import Drop, Pair
from s2s.text.lines import is_blank
from s2s.text.turns import join_turns

Direction = Literal["forward", "backward", "none"]

NO_SOURCE = "-"  # what stands for the source of a model of replies alone

# What may identify someone, and how it is called. A year range (2014-2016) or a long number is no telephone number.
_IDENTIFYING = {
    "e-mail address": re.compile(r"\S@\w[\w-]*\.\w"),
    "web address": re.compile(r"https?://|\bwww\.\w|\b[\w-]+\.(?:com|net|org|edu|gov|io|tv)\b", re.IGNORECASE),
    "telephone number": re.compile(
        r"(?<![\w.-])(?:\+?\d{1,3}[\s.-]*)?(?:\(\d{3}\)|\d{3})[\s.-]*\d{3}[\s.-]*\d{4}(?!\w)"
        r"|(?<![\w.-])\d{3}-\d{4}(?!\w)|\+\d(?:[\s().-]{0,2}\d){7,}"
    ),
    "handle": re.compile(
        r"(?<![\w.])@\w|\b(?:(?:my|on) (?:insta(?:gram)?|snap(?:chat)?|twitter|kik|discord) (?:is|name|handle)"
        r"|(?:follow|add) me)\b",
        re.IGNORECASE,
    ),
}
_WORD = re.compile(r"\w+")


def two_sided(messages: Sequence[tuple[str, str]], origin: str) -> tuple[list[tuple[str, str]], list[Drop]]:
    """The turns of a dialogue, and what is left out of it; no turns unless there are two speakers, who then alternate.

    A blank message is a `Drop` each; so is a dialogue of one turn or none, and one of more than two speakers.
    """
    drops = [Drop("blank message", origin) for _, text in messages if is_blank(text)]
    turns = join_turns(messages)
    speakers = {speaker for speaker, _ in turns}
    if len(speakers) == 2:
        return turns, drops
    return [], [*drops, Drop("more than two speakers" if len(speakers) > 2 else "one turn, or none", origin)]


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
    for reason, pattern in _IDENTIFYING.items():
        if pattern.search(turn):
            return reason
    return "crude word" if not _crude().isdisjoint(_WORD.findall(turn.casefold())) else None


@cache
def _crude() -> frozenset[str]:
    text = (resources.files(__package__) / "crude.txt").read_text(encoding="utf-8")
    return frozenset(line for line in text.split("\n") if line and not line.startswith("#"))
