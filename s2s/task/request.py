"""What is asked of a model, and how much of it is read at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

# Characters that are read before the first result is written: bounds memory where lines are long.
_WINDOW_CHARACTERS = 1 << 21


@dataclass(frozen=True)
class Request:
    """One input record. prefix: text that the output starts with. constraints: phrases that must stand in the output.

    banned: phrases that must not. flags: what is known of the record, for its result to say too.
    """

    text: str
    prefix: str = ""
    constraints: tuple[str, ...] = ()
    banned: tuple[str, ...] = ()
    flags: frozenset[str] = frozenset()


def read_window(source: Iterator[Request | str], most: int) -> list[Request | str]:
    """The next records: at most so many, and no more once they have many characters."""
    window: list[Request | str] = []
    characters = 0
    for record in source:
        window.append(record)
        characters += len(text_of(record))
        if len(window) == most or characters >= _WINDOW_CHARACTERS:
            break
    return window


def text_of(record: Request | str) -> str:
    """What is to be read."""
    return record if isinstance(record, str) else record.text
