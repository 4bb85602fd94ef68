"""Sentence ends, and long texts cut into parts that a model can take; nothing is lost: the parts joined are the text.

Rules by punctuation alone, for scripts that mark sentence ends, and no lists of a language's words but a short one of
abbreviations. Where a rule misses an end, the parts are longer; where it sees one too many, a sentence is cut in two.
"""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Callable, Iterator

from s2s.errors import DataError
from s2s.text.vocabulary import Tokenizer, beginnings
from s2s.types import SPECIALS, UNK

# Abbreviations that often stand before a capital letter or a number, the last dot taken off.
_ABBREVIATIONS = frozenset(
    re.findall(
        r"\w+",
        "approx bd bzw ca cf dept dr fig figs gov hr hrsg inkl jr kap lt mme "
        "mr mrs ms nos nr pp prof rev sgt sog sr sra st vgl vol vs",
    )
)
_CLOSING = "\"'”’»›)\\]}」』】）》〉"
# A run is entered at its start only, and never given back: linear also where it does not end a sentence.
_SENTENCE_END = re.compile(
    rf"(?<![.!?…])[.!?…]++[{_CLOSING}]*+(?:\s++|$)"  # between words that are separated by space
    rf"|[。！？｡．؟۔।॥።៕។။։]++[{_CLOSING}]*+\s*+"  # CJK, Arabic, Urdu, Devanagari, Ethiopic, Khmer, Burmese, Armenian
    r"|\n\s*+"
)
_SOFT_END = re.compile(rf"[.!?…][{_CLOSING}]*$")
_SURE_END = re.compile(rf"[。！？｡．؟۔।॥።៕။។։][{_CLOSING}]*$")
_CLAUSE_END = re.compile(rf"(?<![,;:–—])[,;:–—]++[{_CLOSING}]*+\s++|[，、；：،؛]++[{_CLOSING}]*+\s*+")
_SPACES = re.compile(r"\s++")
_LAST_WORD = re.compile(r"[^\s\"'„“‘«‹(\[{]+$")
_INITIALS = re.compile(r"(?:\w\.)*\w")  # one letter, or letters with dots between: J, e.g, z.B, U.S
_OPENING = "\"'“„‘«‹([{¿¡"
_WINDOW = 24  # characters before a full stop that are looked at
_JOINER = "\u200d"


def split_sentences(text: str) -> list[str]:
    """The sentences of a text, each with the space after it: joined they are the text.

    An end is `. ! ? …` (and closing quotes or brackets) before a space, unless a small letter follows; or a mark of
    another script (`。！？`, `؟ ۔`, `। ॥` ...) or a line feed, whatever follows. A full stop after an abbreviation,
    initials, or a number of one or two digits (`am 3. Mai`) is no end, and marks alone are no sentence. Linear time.
    """
    ends = [match.end() for match in _SENTENCE_END.finditer(text) if _is_end(text, match)]
    cuts: list[int] = []
    checked = 0
    for end in [*ends, len(text)]:
        if not cuts or any(map(str.isalnum, text[checked:end])):
            cuts.append(end)
        else:
            cuts[-1] = end  # marks alone belong to the sentence before
        checked = end
    return [text[start:end] for start, end in itertools.pairwise([0, *cuts]) if start < end]


def sentence_marks(tokenizer: Tokenizer) -> list[int]:
    """What each id says about sentences, added up: 1, it begins a word; 2, it ends one if a word follows; 4, it does.

    For what sees ids only: as `split_sentences`, but knowing nothing of abbreviations and small letters.
    """
    marks, pieces = [], tokenizer.pieces(range(tokenizer.size))
    for number, (piece, begins) in enumerate(zip(pieces, beginnings(tokenizer), strict=True)):
        soft, sure = bool(_SOFT_END.search(piece)), bool(_SURE_END.search(piece))
        marks.append(0 if number < len(SPECIALS) and number != UNK else begins + 2 * soft + 4 * sure)
    return marks


def split_text(text: str, limit: int, count: Callable[[str], int]) -> list[str]:
    """A text in parts of at most `limit` tokens by `count`; joined they are the text.

    A text within the limit stays whole. Else each sentence is a part; a sentence beyond the limit is cut at the ends of
    clauses, then between words, each part as long as the limit allows, and a word beyond it between characters, where
    possible not before a combining mark. Each stretch of text is counted a few times, so time is linear if `count` is.

    Raises DataError if a single character has more tokens than the limit.
    """
    if count(text) <= limit:
        return [text]
    parts: list[str] = []
    for sentence in split_sentences(text):
        parts += _fit(sentence, limit, count, (_CLAUSE_END, _SPACES))
    return parts


def _fit(text: str, limit: int, count: Callable[[str], int], marks: tuple[re.Pattern[str], ...]) -> Iterator[str]:
    """Parts within the limit, cut at the first kind of mark where that is enough, else at the next."""
    tokens = count(text)
    if tokens <= limit:
        yield text
    elif not marks:
        yield from _cut(text, tokens, limit, count)
    else:
        group: list[str] = []
        total = 0
        for piece in _pieces(text, marks[0]):
            size = count(piece)
            if group and total + size > limit:
                yield from _join(group, limit, count, marks)
                group, total = [], 0
            group.append(piece)
            total += size
        yield from _join(group, limit, count, marks)


def _join(
    group: list[str], limit: int, count: Callable[[str], int], marks: tuple[re.Pattern[str], ...]
) -> Iterator[str]:
    """Pieces as one part. Together they may have more tokens than each by itself, so then they are halved."""
    if len(group) == 1:
        yield from _fit(group[0], limit, count, marks[1:])
    elif count(whole := "".join(group)) <= limit:
        yield whole
    else:
        middle = len(group) // 2
        yield from _join(group[:middle], limit, count, marks)
        yield from _join(group[middle:], limit, count, marks)


def _cut(text: str, tokens: int, limit: int, count: Callable[[str], int]) -> Iterator[str]:
    """Parts of about equal length of a text with no mark to cut at."""
    if len(text) == 1:
        raise DataError(
            f"one character (U+{ord(text):04X}) has more tokens than a text may have",
            expected=f"at most {limit}",
            found=str(tokens),
            hint="Allow longer texts.",
        )
    number = min(len(text), -(-tokens // max(limit, 1)))
    start = 0
    for k in range(1, number + 1):
        end = len(text) if k == number else _boundary(text, start + 1, k * len(text) // number)
        part = text[start:end]
        if part:
            size = count(part)
            if size <= limit:
                yield part
            else:
                yield from _cut(part, size, limit, count)
        start = end


def _boundary(text: str, lowest: int, wanted: int) -> int:
    """The last place up to `wanted`, and not far from it, that does not part a character from its marks."""
    for place in range(wanted, max(lowest, wanted - _WINDOW) - 1, -1):
        before, after = text[place - 1], text[place]
        attached = unicodedata.category(after)[0] == "M" or after == _JOINER or "\U0001f3fb" <= after <= "\U0001f3ff"
        if not attached and before != _JOINER:
            return place
    return max(lowest, wanted)


def _pieces(text: str, mark: re.Pattern[str]) -> Iterator[str]:
    start = 0
    for match in mark.finditer(text):
        yield text[start : match.end()]
        start = match.end()
    if start < len(text):
        yield text[start:]


def _is_end(text: str, match: re.Match[str]) -> bool:
    """Whether the punctuation matched ends a sentence; see `split_sentences`."""
    mark = match.group()[0]
    if mark not in ".!?…":
        return True
    following = text[match.end() : match.end() + 3].lstrip(_OPENING)[:1]
    if following.islower():
        return False
    if mark != "." or text.startswith("..", match.start()):
        return True
    before = _LAST_WORD.search(text[max(0, match.start() - _WINDOW) : match.start()])
    if before is None:
        return True
    word = before.group()
    ordinal = word.isdigit() and len(word) <= 2
    return not (ordinal or word.lower() in _ABBREVIATIONS or (_INITIALS.fullmatch(word) and not word[-1].isdigit()))
