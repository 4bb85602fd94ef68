"""Debian's long package descriptions with their one-line synopsis: real summaries that need no download site."""

from __future__ import annotations

import os
import re

from s2s.text.corpus.base import (
    Corpus,
    Drop,
    Pair,
    empty_splits,
    fingerprint_file,
    make_corpus,
    remove_leaks,
    split_of,
    warn,
)
from s2s.text.corpus.debian_apt import obtain
from s2s.text.corpus.debian_pairs import release_facts
from s2s.text.corpus.debian_text import Package, mask, read_packages, read_sources

# What says that a package is empty and only leads to another one.
_EMPTY = re.compile(r"\b(transitional|dummy)\b", re.IGNORECASE)
_SPACES = re.compile(r"\s+")


def debian_synopsis(
    *,
    language: str = "en",
    path: str | os.PathLike[str] | None = None,
    suite: str | None = None,
    max_words: int | None = None,
    per_source: int = 3,
    dev: float = 0.03,
    test: float = 0.06,
    seed: int = 1,
    lowercase: bool = False,
) -> Corpus:
    """Long description to synopsis, a pair a package; needs apt-get, but not root.

    A description is one line, paragraphs and list items joined by a space. Its synopsis is cut out of it, where it
    stands there word for word. language: of both. path, suite, max_words, dev, test, seed: as in
    `s2s.text.corpus.debian`. per_source: most packages of one source package. Splits: train, dev, test (no description
    of it stands in train, package names and numbers aside) and test_raw (the whole test). Raises DataError, see
    `s2s.text.corpus.debian_apt.obtain`.
    """
    splits = empty_splits(dev, test)
    release = obtain((language,), path, suite)
    sources = read_sources(release.packages)
    taken: dict[str, int] = {}
    seen: set[tuple[str, str]] = set()
    for package in read_packages(release.translation(language), sources):
        pair = Pair(without(package.description, package.synopsis), package.synopsis, package.package)
        reason = _reason(package, pair)
        if not reason and pair[:2] in seen:
            reason = "duplicate"
        if not reason:
            taken[package.source] = taken.get(package.source, 0) + 1
            if taken[package.source] > per_source:
                reason = f"more than {per_source} packages of one source"
        seen.add(pair[:2])
        place = splits[split_of(package.source, dev=dev, test=test, seed=seed)]
        place.append(Drop(reason, pair.origin) if reason else pair)
    corpus = make_corpus(
        "debian_synopsis",
        (language, language),
        splits,
        max_words=max_words,
        lowercase=lowercase,
        allow_drop=True,
        facts=release_facts(release),
        files={str(file): fingerprint_file(file) for file in (release.packages, release.translation(language))},
    )
    names = frozenset(sources) | frozenset(sources.values())
    remove_leaks(corpus, lambda pair: mask(pair.source, f"{pair.origin} {sources.get(pair.origin, '')}", names))
    warn(corpus)
    return corpus


def without(description: str, synopsis: str) -> str:
    """The description on one line, the synopsis cut out wherever it stands as whole words, in any case."""
    text, title = (_SPACES.sub(" ", part).strip() for part in (description, synopsis))
    if not title:
        return text
    found = re.compile(rf"(?<!\w){re.escape(title)}(?!\w)[.:]?", re.IGNORECASE)
    return _SPACES.sub(" ", found.sub("", text)).strip()


def _reason(package: Package, pair: Pair) -> str | None:
    """Why a package is no example of a summary, or None."""
    if _EMPTY.search(package.synopsis) or re.search(r"\b(transitional|dummy) package\b", package.description):
        return "transitional or dummy package"
    if "\ufffd" in pair.source + pair.target:
        return "invalid UTF-8"
    if not any(c.isalpha() for c in pair.target):
        return "no letters"
    if len(pair.source.split()) < len(pair.target.split()):
        return "description shorter than its synopsis"
    return None
