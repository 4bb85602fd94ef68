"""Reads Debian package descriptions and pairs them, part by part, with their translations."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from s2s.text.corpus.base import Drop, Pair
from s2s.text.lines import read_lines
from s2s.text.sentences import split_sentences

# Only an indented "o" or number is a bullet: "o" is a word of several languages.
_BULLET = re.compile(r"\s*[-*+•·]\s+(?=\S)|\s+(?:o|\d{1,2}[.)])\s+(?=\S)")
_SPACES = re.compile(r"[ \t]{2,}")
_SOURCES = re.compile(rb"^(Package|Source): ([^\s]+)", re.MULTILINE)
_WORD = re.compile(r"[^\W_](?:[\w+.-]*[\w+])?")


class Description(NamedTuple):
    """One stanza of a Translation file; `body` holds the lines of the long description, their first space cut off."""

    package: str
    md5: str  # of the English description that this one translates
    synopsis: str
    body: tuple[str, ...]


class Package(NamedTuple):
    """A package with its descriptions in one language; paragraphs of `description` are separated by blank lines."""

    package: str
    source: str
    synopsis: str
    description: str


def read_translation(path: Path) -> Iterator[Description]:
    """The stanzas of a Translation file, in its order; what lacks a package, a hash or a synopsis is left out."""
    package = md5 = synopsis = ""
    body: list[str] = []
    with read_lines(path, errors="replace") as lines:
        for line in lines:
            if line.startswith(" "):
                body.append(line[1:])
            elif line.startswith("Package: "):
                package = line[9:].strip()
            elif line.startswith("Description-md5: "):
                md5 = line[17:].strip()
            elif line.startswith("Description-"):
                synopsis = line.partition(":")[2].strip()
            elif not line:
                if package and md5 and synopsis:
                    yield Description(package, md5, synopsis, tuple(body))
                package = md5 = synopsis = ""
                body = []
    if package and md5 and synopsis:
        yield Description(package, md5, synopsis, tuple(body))


def read_sources(path: Path) -> dict[str, str]:
    """The source of each package of a Packages file (a package without a Source field is its own source)."""
    sources: dict[str, str] = {}
    package = ""
    for match in _SOURCES.finditer(path.read_bytes()):
        name = match.group(2).decode("ascii", "replace")
        if match.group(1) == b"Package":
            package = name
            sources[package] = name
        else:
            sources[package] = name
    return sources


def read_packages(path: Path, sources: Mapping[str, str]) -> list[Package]:
    """The packages of a Translation file, ordered by name; the last of several descriptions of one counts.

    sources: of each package, as `read_sources` gives them; who isn't there is its own source.
    """
    packages = {}
    for stanza in read_translation(path):
        text = "\n\n".join("\n".join(paragraph) for paragraph in blocks(stanza.body))
        source = sources.get(stanza.package, stanza.package)
        packages[stanza.package] = Package(stanza.package, source, stanza.synopsis, text)
    return [packages[name] for name in sorted(packages)]


def blocks(body: Iterable[str]) -> list[list[str]]:
    """The paragraphs of a long description, each as its blocks of running text.

    A line "." ends a paragraph. A bullet starts a block of its own (the bullet is cut off) that goes on with the lines
    indented below it; a line that is indented without a bullet above it is verbatim text and a block of its own.
    """
    paragraphs: list[list[str]] = []
    current: list[str] = []
    bullet_indent: int | None = None  # of the bullet whose block is open
    running = False  # whether a block of unindented text is open
    for line in [*body, "."]:
        if line.strip() in (".", ""):
            if current:
                paragraphs.append([_SPACES.sub(" ", block) for block in current])
            current, bullet_indent, running = [], None, False
            continue
        indent = len(line) - len(line.lstrip())
        bullet = _BULLET.match(line)
        if bullet:
            current.append(line[bullet.end() :].strip())
            bullet_indent, running = indent, indent == 0  # an unindented bullet goes on without indentation
        elif (running and indent == 0) or (bullet_indent is not None and indent > bullet_indent):
            current[-1] += " " + line.strip()
        else:
            current.append(line.strip())
            bullet_indent, running = None, indent == 0
    return paragraphs


def pair_descriptions(source: Description, target: Description) -> Iterator[Pair | Drop]:
    """Synopsis with synopsis, block with block, and, where their numbers agree, sentence with sentence.

    So a block of several sentences comes whole and, if they can be paired, once more in sentences. A description whose
    numbers of paragraphs differ, and a paragraph whose numbers of blocks differ, is one Drop.
    """
    name = source.package
    yield Pair(source.synopsis, target.synopsis, f"{name}:synopsis")
    ours, theirs = blocks(source.body), blocks(target.body)
    if len(ours) != len(theirs):
        yield Drop("numbers of paragraphs differ", f"{name}:1")
        return
    for number, (one, other) in enumerate(zip(ours, theirs, strict=True), start=1):
        if len(one) != len(other):
            yield Drop("numbers of list items differ", f"{name}:{number}")
            continue
        for part, (block, translated) in enumerate(zip(one, other, strict=True), start=1):
            yield Pair(block, translated, f"{name}:{number}.{part}")
            sentences, translations = _sentences(block), _sentences(translated)
            if len(sentences) == len(translations) > 1:
                for place, (text, translation) in enumerate(zip(sentences, translations, strict=True), start=1):
                    yield Pair(text, translation, f"{name}:{number}.{part}.{place}")


def _sentences(block: str) -> list[str]:
    return [stripped for sentence in split_sentences(block) if (stripped := sentence.strip())]


def mask(text: str, own: str, names: frozenset[str]) -> str:
    """`text` in small letters with package names and all that holds a digit replaced by "@", to recognise boilerplate.

    own: the package and its source; a word of three letters or more that is part of them counts as a name too.
    names: all packages and sources.
    """

    def masked(match: re.Match[str]) -> str:
        word = match.group()
        is_name = word in names or (len(word) > 2 and word in own) or any(c.isdigit() for c in word)
        return "@" if is_name else word

    return _WORD.sub(masked, text.lower())
