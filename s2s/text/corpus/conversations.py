"""Dialogues in the user's own files: a dialogue a line, as JSON or as text with a mark behind each turn."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from s2s.errors import DataError
from s2s.files import parse_json
from s2s.text.corpus.base import Corpus, Drop, Pair, fingerprint_file, make_corpus, warn
from s2s.text.corpus.dialogue import Direction, check_options, examples, two_sided
from s2s.text.corpus.local import splits_of_files
from s2s.text.lines import Errors, read_lines

_MARK = "__eou__"  # behind each turn in the files of DailyDialog (Li et al. 2017, arXiv 1710.03957)
_LISTS = ("messages", "turns", "dialog", "dialogue", "conversation")
_SIDES = ("one", "other")  # who speaks where it isn't said: they alternate


def dialogues(
    *,
    train: str | os.PathLike[str],
    dev: str | os.PathLike[str] | float | None = None,
    test: str | os.PathLike[str] | float | None = None,
    language: str = "en",
    replies: str = "all",
    turns: int = 4,
    direction: Direction = "forward",
    max_words: int | None = None,
    lowercase: bool = False,
    allow_drop: bool = False,
    errors: Errors = "strict",
    seed: int = 1,
) -> Corpus:
    """A file of dialogues, plain or .gz, one a line. Every turn but the first is the reply to those before it.

    A line is a list of turns: texts, or objects with `role` (or `speaker`) and `content` (or `text`); an object that
    holds such a list as messages, turns, dialog, dialogue or conversation; an object with a `context` (a text or a list
    of turns) and a `response`; or text whose turns each end in `__eou__`. Turns of one speaker in a row are one.
    Left out and counted: messages of the system, blank ones, dialogues of more than two speakers. dev, test: files, or
    shares of the dialogues of train. replies: all, or the role whose turns are learned. turns, direction: as in
    `chitchat`. Raises DataError that names the line.
    """
    check_options(turns, direction)
    used: list[Path] = []

    def read(part: str | os.PathLike[str]) -> Iterator[tuple[str, Pair | Drop]]:
        path = Path(part).expanduser()
        used.append(path)
        with read_lines(path, errors=errors) as lines:
            for line in lines:
                for pair in _pairs(line, f"{path}:{lines.count}", replies, turns, direction):
                    yield line, pair
            if not lines.count:
                raise DataError("empty file", where=str(path))

    splits = splits_of_files(train, dev, test, read, seed)
    corpus = make_corpus(
        "dialogues",
        (language, language),
        splits,
        max_words=max_words,
        lowercase=lowercase,
        allow_drop=allow_drop or replies != "all",  # most turns may be by others, and nothing is wrong with that
        dialogues=True,
        facts={"obtained": "the user's own files: " + ", ".join(path.name for path in used), "licence": "not stated"},
        files={str(path): fingerprint_file(path) for path in used},
    )
    if direction != "none":
        warn(corpus)
    return corpus


def _pairs(line: str, where: str, replies: str, most: int, direction: Direction) -> Iterator[Pair | Drop]:
    if not line.strip():
        yield Drop("blank line", where)
        return
    messages = _messages(line, where)
    spoken = [(role, text) for role, text in messages if role != "system"]
    for _ in range(len(messages) - len(spoken)):
        yield Drop("message of the system", where)
    said, drops = two_sided(spoken, where)
    yield from drops
    pairs = examples([text for _, text in said], most, direction, where)
    for (role, _), pair in zip(said[1:], pairs, strict=True):
        yield pair if replies in ("all", role) else Drop(f"not by {replies}", pair.origin)


def _messages(line: str, where: str) -> list[tuple[str, str]]:
    """(role, text) of each message of a line."""
    if line.rstrip().endswith(_MARK) or line.lstrip()[0] not in "[{":
        if _MARK not in line:
            raise DataError(
                "is no dialogue", where=where, expected=f"JSON, or turns that end in {_MARK}", found=line[:60]
            )
        return _alternating(line.rstrip().removesuffix(_MARK).split(_MARK))
    value = parse_json(line.encode("utf-8"), where)
    if isinstance(value, dict):
        if "response" in value:
            context = value.get("context")
            before = [context] if isinstance(context, str) else context
            if not isinstance(before, list) or not isinstance(value["response"], str):
                expected = "a `context` (a text or a list of turns) and a `response` (a text)"
                raise DataError("is no context with its response", where=where, expected=expected)
            return _replied(before, value["response"], where)
        value = next((value[name] for name in _LISTS if name in value), None)
    if not isinstance(value, list):
        expected = f"a list of turns, or an object that holds one as {', '.join(_LISTS)}"
        raise DataError("is no dialogue", where=where, expected=expected)
    return _turns(value, where)


def _replied(before: list[Any], response: str, where: str) -> list[tuple[str, str]]:
    """A response is by another than the last turn before it."""
    said = _turns(before, where)
    last = said[-1][0] if said else ""
    other = next((role for role, _ in reversed(said) if role not in (last, "system")), f"not {last}")
    return [*said, (other, response)]


def _turns(value: list[Any], where: str) -> list[tuple[str, str]]:
    if all(isinstance(turn, str) for turn in value):
        return _alternating(value)
    made = []
    for number, turn in enumerate(value, 1):
        role, text = (
            next((turn[key] for key in keys if key in turn), None) if isinstance(turn, dict) else None
            for keys in (("role", "speaker"), ("content", "text"))
        )
        if not isinstance(role, str) or not isinstance(text, str):
            raise DataError(
                f"turn {number} is none",
                where=where,
                expected='{"role": "...", "content": "..."}',
                found=str(turn)[:60],
            )
        made.append((role, text))
    return made


def _alternating(texts: list[str]) -> list[tuple[str, str]]:
    return [(_SIDES[number % 2], text) for number, text in enumerate(texts)]
