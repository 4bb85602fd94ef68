"""Conversations: messages to a context, and replies that are told word by word as they come."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from s2s.errors import UsageError
from s2s.task.generate import Generator
from s2s.task.request import Request
from s2s.text.lines import clean, is_blank
from s2s.text.turns import join_turns
from s2s.types import Result

ROLES = ("user", "assistant", "system")


def context(messages: Sequence[Mapping[str, Any]], **wanted: Any) -> Request:
    """A request for the reply to messages, oldest first: their turns, joined by line feeds.

    Messages of one role in a row are one turn, joined by a space; line breaks in a message become spaces. What a model
    can't be told is left out and flagged: the system's messages (`system_ignored`) and those that show nothing
    (`blank_ignored`). wanted: what else a `Request` asks of the reply. Raises UsageError that names the message unless
    each has a role and a content, and the last that isn't the system's is the user's.
    """
    read = [_read(message, f"message {number}") for number, message in enumerate(messages, 1)]
    said = [(role, content) for role, content in read if role != "system"]
    flags = {"system_ignored"} if len(said) < len(read) else set()
    if any(is_blank(content) for _, content in said):
        flags.add("blank_ignored")
    last = said[-1][0] if said else ""
    if last != "user":
        raise UsageError(
            "there is nothing to reply to",
            where="messages",
            expected="a last message whose role is user",
            found=f"role {last}" if last else "none by the user",
        )
    turns = join_turns(said)
    if turns and turns[-1][0] != "user":  # the user said nothing that shows
        turns = []
    return Request("\n".join(text for _, text in turns), flags=frozenset(flags), **wanted)


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
    return role, clean(content)[0]


def tell(generator: Generator, request: Request, hear: Callable[[str], None]) -> Result:
    """The answer to a request; meanwhile `hear` gets it in pieces, which joined are its text.

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

    (result,) = generator.overheard(heard)([request])
    if len(result.text) > told:
        hear(result.text[told:])
    return result


class _NobodyListensError(Exception):
    """Ends the search of a reply whose reader has stopped."""


def stream_reply(generator: Generator, request: Request) -> Iterator[str]:
    """The pieces that `tell` gives. The search stops where its reader does."""
    pieces: queue.SimpleQueue[str | BaseException | None] = queue.SimpleQueue()
    left = threading.Event()

    def hear(piece: str) -> None:
        if left.is_set():
            raise _NobodyListensError
        pieces.put(piece)

    def run() -> None:
        try:
            tell(generator, request, hear)
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
