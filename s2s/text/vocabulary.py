"""What every tokenizer promises, and the plain ones: whitespace words and characters, kept as JSON.

The ids PAD, UNK, BOS, EOS = 0, 1, 2, 3 are never found in text: `</s>` typed by a user is a word like any other.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Literal, Protocol

from s2s.errors import BundleError, ConfigError, DataError
from s2s.files import parse_json, printable, to_json
from s2s.text.lazy import Chained
from s2s.types import SPECIALS, UNK

Kind = Literal["words", "characters"]

FORMAT = 1
MAX_SIZE = 1 << 22  # entries of a vocabulary
MAX_TOKEN = 1000  # characters of a word that may stand in a vocabulary; longer ones are unknown words

_SURROGATE = re.compile("[\ud800-\udfff]")
_WHITESPACE = re.compile(r"\s")


class Tokenizer(Protocol):
    """Text to ids and back. Deterministic, free of state, safe to share between threads and to copy to processes."""

    @property
    def size(self) -> int:
        """Number of ids, the special ones included."""

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of what is kept in a bundle; tokenizers with equal digests are equal."""

    def encode(self, text: str) -> list[int]:
        """Ids of a text, no BOS or EOS added. Raises DataError on lone surrogates."""

    def sample(self, text: str, alpha: float, seed: int) -> list[int]:
        """Ids of one random segmentation, a function of (text, alpha, seed) alone; `alpha` 0 gives `encode(text)`."""

    def decode(self, ids: Sequence[int], extra: Sequence[str] = ()) -> str:
        """Text of ids, always one line. PAD, BOS and EOS are skipped, UNK is shown as `<unk>`.

        extra: what the ids from `size` on stand for.
        """

    def pieces(self, ids: Sequence[int], extra: Sequence[str] = ()) -> list[str]:
        """One readable piece for each id, the special ones included."""

    def spelled(self, text: str) -> list[str] | None:
        """What each id of `encode(text)` stands for, also where it is UNK; None where it can't be told."""

    def words(self, ids: Sequence[int]) -> list[int]:
        """For each id, which space-separated word of `decode(ids)` it belongs to.

        A space belongs to the word after it. -1: PAD, BOS, EOS, and spaces that no word follows.
        """

    def unknown(self, text: str) -> int:
        """How many units of `text` (words of a word vocabulary, else characters) have no id of their own."""

    def files(self, prefix: str) -> dict[str, bytes]:
        """What a bundle keeps, by file name: `<prefix>.spm` or `<prefix>.json`."""

    def __hash__(self) -> int:
        """By the digest."""


@dataclass(frozen=True)
class Recipe:
    """How the tokenizers of a model are made from its training texts: what the builders of this room return."""

    fit: Callable[[Sequence[str]], Tokenizer]
    joint: bool

    def train(self, source: Sequence[str], target: Sequence[str]) -> tuple[Tokenizer, Tokenizer]:
        """The tokenizers of source and target; the same object twice where they are joint.

        Raises DataError where there is no text, ConfigError where the options don't fit the texts.
        """
        if self.joint:
            shared = self.fit(Chained(source, target))
            return shared, shared
        return self.fit(source), self.fit(target)


def composed(text: str) -> str:
    """`text` in Unicode normal form C: canonically equal texts become the same. Raises DataError on lone surrogates."""
    if text.isascii():
        return text
    found = _SURROGATE.search(text)
    if found:
        raise DataError(
            "the text holds half a surrogate pair, which is no character",
            where=f"character {found.start() + 1}",
            found=f"U+{ord(found.group()):04X}",
            hint="Repair the program that wrote it; in JSON an escape like \\ud83d needs its second half.",
        )
    return unicodedata.normalize("NFC", text)


def word_indices(marks: Iterable[tuple[bool, bool] | None]) -> list[int]:
    """The index of the word that each piece belongs to, or -1; see `Tokenizer.words`.

    marks: for each piece whether a space begins it and whether it shows anything else; None for one that belongs
    to no text.
    """
    indices: list[int] = []
    spaces: list[int] = []  # pieces of nothing but space that wait for a word
    word, inside = -1, False
    for position, mark in enumerate(marks):
        indices.append(-1)
        if mark is None:
            continue
        begins, visible = mark
        inside = inside and not begins
        if not visible:
            spaces.append(position)
            continue
        if not inside:
            word, inside = word + 1, True
        for space in spaces:
            indices[space] = word
        spaces.clear()
        indices[position] = word
    return indices


class Vocabulary:
    """Whitespace words or characters with an id each, `<unk>` for the rest.

    tokens: those with ids 4, 5, ...; plain text each, so one spelled `</s>` is a word and not the end of a sentence.
    lowercase: texts are lower-cased before look-up.
    """

    def __init__(self, kind: Kind, tokens: Sequence[str], *, lowercase: bool = False) -> None:
        self.kind, self.tokens, self.lowercase = kind, tuple(tokens), lowercase
        self._ids = {token: number for number, token in enumerate(self.tokens, len(SPECIALS))}
        self._names = (*SPECIALS, *self.tokens)
        self._content = to_json(
            {"format": FORMAT, "kind": kind, "lowercase": lowercase, "tokens": list(self.tokens)},
        )
        self._digest = hashlib.sha256(self._content).hexdigest()

    @property
    def size(self) -> int:
        """Number of ids, the special ones included."""
        return len(self._names)

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of what is kept in a bundle."""
        return self._digest

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Vocabulary) and self._digest == other._digest

    def __hash__(self) -> int:
        return hash(self._digest)

    def __repr__(self) -> str:
        return f"Vocabulary({self.kind}, size={self.size})"

    def encode(self, text: str) -> list[int]:
        """Ids of the words or characters of a text; UNK for those that have none."""
        return [self._ids.get(unit, UNK) for unit in units(self.kind, text, self.lowercase)]

    def sample(self, text: str, alpha: float, seed: int) -> list[int]:
        """The same as `encode`: words and characters have one segmentation only."""
        return self.encode(text)

    def decode(self, ids: Sequence[int], extra: Sequence[str] = ()) -> str:
        """Words joined by one space, or characters joined. PAD, BOS and EOS are skipped, UNK is shown as `<unk>`."""
        shown = [self._token(number, extra) for number in ids if number == UNK or number >= len(SPECIALS)]
        return (" " if self.kind == "words" else "").join(shown)

    def pieces(self, ids: Sequence[int], extra: Sequence[str] = ()) -> list[str]:
        """One readable piece for each id; a space is shown as `▁`."""
        return ["▁" if token == " " else token for token in (self._token(number, extra) for number in ids)]

    def spelled(self, text: str) -> list[str]:
        """The words or characters of a text, one an id."""
        return units(self.kind, text, self.lowercase)

    def words(self, ids: Sequence[int]) -> list[int]:
        """The index of the word that each id belongs to, or -1; see `Tokenizer.words`."""
        return word_indices(self._mark(number) for number in ids)

    def unknown(self, text: str) -> int:
        """How many words or characters of `text` have no id of their own."""
        return self.encode(text).count(UNK)

    def files(self, prefix: str) -> dict[str, bytes]:
        """`<prefix>.json`: format, kind, lowercase, tokens."""
        return {f"{prefix}.json": self._content}

    def _token(self, number: int, extra: Sequence[str] = ()) -> str:
        if 0 <= number < len(self._names):
            return self._names[number]
        if not 0 <= number < self.size + len(extra):
            raise IndexError(f"id {number} is outside a vocabulary of {self.size + len(extra)}")
        return extra[number - self.size]

    def _mark(self, number: int) -> tuple[bool, bool] | None:
        token = self._token(number)
        if number < len(SPECIALS) and number != UNK:
            return None
        return (token == " ", token != " ") if self.kind == "characters" else (True, True)


def units(kind: str, text: str, lowercase: bool) -> list[str]:
    """The words or characters (code points; tab counts as space) of a text in Unicode normal form C."""
    text = composed(text)
    if lowercase:
        text = composed(text.lower())
    return text.split() if kind == "words" else list(text.replace("\t", " "))


def parse_vocabulary(data: bytes, where: str) -> Vocabulary:
    """A vocabulary from untrusted JSON. Raises BundleError that names `where` and what is wrong."""
    value = parse_json(data, where, error=BundleError)
    keys = {"format", "kind", "lowercase", "tokens"}
    if not isinstance(value, dict) or set(value) != keys:
        raise BundleError("is no vocabulary", where=where, expected=f"an object with {', '.join(sorted(keys))}")
    if type(value["format"]) is not int or value["format"] != FORMAT:
        found = printable(value["format"])
        raise BundleError("unknown format of a vocabulary", where=where, expected=str(FORMAT), found=found)
    kind, tokens = value["kind"], value["tokens"]
    if kind not in ("words", "characters"):
        raise BundleError("unknown kind", where=where, expected="words or characters", found=printable(kind))
    if type(value["lowercase"]) is not bool:
        raise BundleError("lowercase is neither true nor false", where=where, found=printable(value["lowercase"]))
    if not isinstance(tokens, list) or len(tokens) > MAX_SIZE - len(SPECIALS):
        raise BundleError("tokens are no list, or too many", where=where, expected=f"at most {MAX_SIZE} tokens")
    for token in tokens:
        if not _is_token(kind, token):
            raise BundleError(f"{printable(token)!r} is no token of {kind}", where=where)
    if len(set(tokens)) < len(tokens):
        twice = Counter(tokens).most_common(1)[0][0]
        raise BundleError(f"the token {printable(twice)!r} stands twice", where=where)
    return Vocabulary(kind, tokens, lowercase=value["lowercase"])


def words(*, size: int | None = None, min_count: int = 1, lowercase: bool = False, joint: bool = False) -> Recipe:
    """Builder of `text=words`: a text is its whitespace-separated words, as given.

    size: most entries, the four special ones included; None = all words. min_count: how often a word must stand in the
    training texts. lowercase: fold case. joint: one vocabulary for source and target. Raises ConfigError.
    """
    return _recipe("words", size, min_count, lowercase, joint)


def characters(*, size: int | None = None, min_count: int = 1, lowercase: bool = False, joint: bool = False) -> Recipe:
    """Builder of `text=characters`: a text is its code points, the spaces included. Options: see `words`."""
    return _recipe("characters", size, min_count, lowercase, joint)


def _recipe(kind: Kind, size: int | None, min_count: int, lowercase: bool, joint: bool) -> Recipe:
    if size is not None and not len(SPECIALS) < size <= MAX_SIZE:
        raise ConfigError("wrong size", where="text.size", expected=f"5 to {MAX_SIZE}, or null", found=str(size))
    if min_count < 1:
        raise ConfigError("wrong count", where="text.min_count", expected="at least 1", found=str(min_count))
    return Recipe(partial(_fit, kind=kind, size=size, min_count=min_count, lowercase=lowercase), joint)


def _fit(texts: Sequence[str], *, kind: Kind, size: int | None, min_count: int, lowercase: bool) -> Vocabulary:
    counts = Counter(unit for text in texts for unit in units(kind, text, lowercase))
    # The order is by count, then by spelling, so it does not depend on the order of the texts.
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    tokens = [unit for unit, count in ranked if count >= min_count and _is_token(kind, unit)]
    if not tokens:
        raise DataError(
            f"no {kind} to make a vocabulary of",
            expected=f"at least one that stands {min_count} times in the training texts",
            found=f"{len(texts)} texts with {len(counts)} different {kind}",
            hint="See what was dropped with `s2s doctor`.",
        )
    most = MAX_SIZE if size is None else size
    return Vocabulary(kind, tokens[: most - len(SPECIALS)], lowercase=lowercase)


def _is_token(kind: str, token: object) -> bool:
    """Whether a token can come out of a text of that kind, and can't break an output line in two."""
    if not isinstance(token, str) or not 0 < len(token) <= MAX_TOKEN or _SURROGATE.search(token):
        return False
    return len(token) == 1 and token not in "\n\t" if kind == "characters" else not _WHITESPACE.search(token)


@lru_cache(maxsize=8)
def beginnings(tokenizer: Tokenizer) -> tuple[bool, ...]:
    """Which ids begin a word, or end the sentence."""
    after = [number for pair in ((UNK, number) for number in range(tokenizer.size)) for number in pair]
    indices = tokenizer.words(after)  # of each id behind an unknown one, which is never a space
    return tuple(indices[2 * number + 1] != indices[2 * number] for number in range(tokenizer.size))
