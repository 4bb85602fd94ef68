"""Conversations: messages to a context, and replies that are told word by word as they come."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from s2s.errors import UsageError
from s2s.task.generate import Generator, Request
from s2s.text.lines import clean, is_blank
from s2s.types import Result

ROLES = ("user", "assistant", "system")


@dataclass(frozen=True)
class Context:
    """What a model is asked to answer.

    text: turns joined by line feeds. flags: what of the messages it doesn't hold.
    """

    text: str
    flags: frozenset[str] = frozenset()


def context(messages: Sequence[Mapping[str, Any]]) -> Context:
    """Messages, oldest first, as the turns of a context.

    Messages of one role in a row are one turn, joined by a space; line breaks in a message become spaces. What a model
    can't be told is left out and flagged: the system's messages (`system_ignored`) and those that show nothing
    (`blank_ignored`). Raises UsageError that names the message unless each has a role and a content, and the last that
    isn't the system's is the user's.
    """
    turns: list[tuple[str, str]] = []
    flags = set()
    last = ""
    for number, message in enumerate(messages, 1):
        role, content = _read(message, f"message {number}")
        if role == "system":
            flags.add("system_ignored")
            continue
        last = role
        if is_blank(content):
            flags.add("blank_ignored")
        elif turns and turns[-1][0] == role:
            turns[-1] = role, f"{turns[-1][1]} {content}"
        else:
            turns.append((role, content))
    if last != "user":
        raise UsageError(
            "there is nothing to reply to",
            where="messages",
            expected="a last message whose role is user",
            found=f"role {last}" if last else "none by the user",
        )
    if turns and turns[-1][0] != "user":  # the user said nothing that shows
        return Context("", frozenset(flags))
    return Context("\n".join(text for _, text in turns), frozenset(flags))


def _read(message: object, where: str) -> tuple[str, str]:
    if not isinstance(message, Mapping) or not {"role", "content"} <= set(message):
        raise UsageError(
            "is no message", where=where, expected='{"role": ..., "content": ...}', found=repr(message)[:80]
        )
    role, content = message["role"], message["content"]
    if role not in ROLES:
        raise UsageError("unknown role", where=where, expected=", ".join(ROLES), found=repr(role)[:80])
    if not isinstance(content, str):
        raise UsageError("the content is no text", where=where, expected="a str", found=type(content).__name__)
    return role, " ".join(clean(content)[0].split())


def reply(generator: Generator, asked: Context, **wanted: Any) -> Result:
    """The answer to a context, with the flags of both. wanted: what else a `Request` asks of the output."""
    (result,) = generator([Request(asked.text, **wanted)])
    return replace(result, flags=tuple(sorted({*result.flags, *asked.flags})))


def tell(generator: Generator, asked: Context, hear: Callable[[str], None], **wanted: Any) -> Result:
    """As `reply`; meanwhile `hear` gets the reply in pieces, which joined are its text.

    Greedy search and sampling give each word when the next one begins, all else the whole reply at its end. What `hear`
    raises ends the search.
    """
    told = 0

    def heard(known: str) -> None:
        nonlocal told
        end = known.rfind(" ")
        if end > told:  # what is before the last space doesn't change any more
            hear(known[told:end])
            told = end

    result = reply(generator.overheard(heard), asked, **wanted)
    if len(result.text) > told:
        hear(result.text[told:])
    return result


def stream_reply(generator: Generator, asked: Context, **wanted: Any) -> Iterator[str]:
    """The pieces that `tell` gives. The search stops where its reader does."""
    pieces: queue.SimpleQueue[str | BaseException | None] = queue.SimpleQueue()
    left = threading.Event()

    def hear(piece: str) -> None:
        if left.is_set():
            raise _NobodyListensError
        pieces.put(piece)

    def run() -> None:
        try:
            tell(generator, asked, hear, **wanted)
            pieces.put(None)
        except _NobodyListensError:
            pass
        except BaseException as error:
            pieces.put(error)

    worker = threading.Thread(target=run, daemon=True)
    worker.start()
    try:
        while (piece := pieces.get()) is not None:
            if isinstance(piece, BaseException):
                raise piece
            yield piece
    finally:
        left.set()
        worker.join()


class _NobodyListensError(Exception):
    pass
