"""Flags of one output line that a reader should be warned of: copied from the source, or caught in a loop.

Both look at units: a word (a run of letters, marks and digits, without case), or one character of a script that is
written without blanks (Chinese, Japanese, Thai, Lao, Khmer, Burmese). Punctuation and symbols are no units. The rules
are heuristics that rather miss a case than flag a good line; what they miss is said at each.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

COPY_UNITS = 4
COPY_LETTERS = 10
COPY_OVERLAP = 0.9

LOOP_REPEATS = 3
LOOP_UNITS = 8
LOOP_CHARACTERS = 16  # in scripts without blanks, where a unit is a character
LOOP_MAX_PERIOD = 50
WORD_LOOP_REPEATS = 4
WORD_LOOP_CHARACTERS = 30

_REMEMBERED = 0xFFFF  # last code point that is looked up once only
_ASCII_WORD = re.compile("[a-z0-9]+")

# First and last code points of scripts written without blanks.
_UNSPACED = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x1000, 0x109F),  # Burmese
    (0x1780, 0x17FF),  # Khmer
    (0x3040, 0x30FF),  # kana
    (0x3400, 0x9FFF),  # Han
    (0xF900, 0xFAFF),  # Han, compatibility forms
    (0x20000, 0x3FFFF),  # Han, further planes
)


class _Marks(dict[int, str]):
    """For `str.translate`: what counts as part of a word stays, all else is a blank, unspaced ones stand alone."""

    def __missing__(self, point: int) -> str:
        character = chr(point)
        if unicodedata.category(character)[0] not in "LMN":
            found = " "
        else:
            found = f" {character} " if _is_unspaced(character) else character
        if point <= _REMEMBERED:
            self[point] = found
        return found


_marks = _Marks()


def units(text: str) -> list[str]:
    """The words of a text, without case, and the single characters of unspaced scripts; see the module."""
    if text.isascii():  # the same, faster
        return _ASCII_WORD.findall(text.lower())
    return unicodedata.normalize("NFC", text).casefold().translate(_marks).split()


def copied(before: Sequence[str], after: Sequence[str]) -> bool:
    """Whether units of a source come back as they were, order aside, where they should have been translated.

    True if the source has at least 4 units and 10 letters, and at least 90 % of the units of the longer side are shared
    (as a multiset). So names, numbers and short technical terms may be copied, and an extract that is shorter than its
    source is no copy. Missed: an output that keeps less than nine words in ten.
    """
    shared = (Counter(before) & Counter(after)).total()
    if len(before) < COPY_UNITS or shared < COPY_OVERLAP * max(len(before), len(after)):
        return False
    return sum(map(str.isalpha, "".join(before))) >= COPY_LETTERS


def looping(found: Sequence[str]) -> bool:
    """Whether a text with these units says the same thing over and over.

    True if the same n-gram of units (n <= 50) stands at least 3 times in a row and these cover at least 8 words (16
    characters in unspaced scripts), or if inside one word the same string stands at least 4 times in a row and these
    cover at least 30 characters. So `no no no` and `very very very good` are no loops, nor is a sentence said twice.
    Missed: loops that change a word each time. Song choruses and tables of zeros are flagged: they do loop.
    """
    unspaced = sum(_is_unspaced(unit[0]) for unit in found)
    cover = LOOP_CHARACTERS if 2 * unspaced > len(found) else LOOP_UNITS
    if _repeats(found, LOOP_REPEATS, cover):
        return True
    return any(
        _repeats(unit, WORD_LOOP_REPEATS, WORD_LOOP_CHARACTERS) for unit in found if len(unit) >= WORD_LOOP_CHARACTERS
    )


def looping_tokens(tokens: Sequence[Hashable]) -> bool:
    """The same for tokens (ids or pieces): an n-gram at least 3 times in a row that covers at least 16 tokens.

    Pieces are shorter than words, hence the larger cover. Use `looping` where there is text.
    """
    return _repeats(tokens, LOOP_REPEATS, LOOP_CHARACTERS)


def length_ratio(source: str, output: str) -> float:
    """Units of the output over units of the source; 1 if both have none, infinity if only the source has none."""
    before, after = len(units(source)), len(units(output))
    if before == 0:
        return 1.0 if after == 0 else float("inf")
    return after / before


def line_flags(source: str, output: str) -> tuple[str, ...]:
    """The flags of one pair: any of `copied` and `looping`. A source that loops excuses an output that does."""
    flags, before, after = [], units(source), units(output)
    if copied(before, after):
        flags.append("copied")
    if looping(after) and not looping(before):
        flags.append("looping")
    return tuple(flags)


def _is_unspaced(character: str) -> bool:
    point = ord(character)
    return point >= _UNSPACED[0][0] and any(first <= point <= last for first, last in _UNSPACED)


def _repeats(items: Sequence[Hashable], repeats: int, cover: int) -> bool:
    """Whether an n-gram stands `repeats` times in a row or more, covering at least `cover` items.

    With period n, item k equals item k + n all along a run: a run of r such equalities is r + n items of the loop.
    """
    # a loop of l items has at most l / repeats different ones, and the rest of it is seen again
    if (len(items) - len(set(items))) * repeats < cover * (repeats - 1):
        return False
    numbers: dict[Hashable, int] = {}
    ids = np.array([numbers.setdefault(item, len(numbers)) for item in items])
    for period in range(1, min(LOOP_MAX_PERIOD, len(items) // repeats) + 1):
        if _longest_run(ids[period:] == ids[:-period]) + period >= max(cover, repeats * period):
            return True
    return False


def _longest_run(equal: NDArray[np.bool_]) -> int:
    """Length of the longest run of True."""
    breaks = np.flatnonzero(~equal)
    edges = np.concatenate(([-1], breaks, [len(equal)]))
    return int(np.diff(edges).max()) - 1
