"""Catalogs of user-interface texts: the localisations that the wheel of Home Assistant ships."""

from __future__ import annotations

import os
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from s2s.errors import DataError
from s2s.files import parse_json
from s2s.paths import cache_folder
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
from s2s.text.corpus.wheel import obtain_wheel

_PACKAGE = "homeassistant"
_VERSION = "2024.3.3"
_MAX_BYTES = 8 * 2**20  # of one catalog, unpacked
_CATALOG = re.compile(r"homeassistant/components/([\w-]+)/translations/((?:\w+\.)?)([\w-]+)\.json")
_PLACEHOLDER = re.compile(r"\{[^{}]*\}|\d+")


def catalogs(
    *,
    source: str = "en",
    target: str = "de",
    path: str | os.PathLike[str] | None = None,
    max_words: int | None = None,
    dev: float = 0.05,
    test: float = 0.08,
    seed: int = 1,
    lowercase: bool = False,
) -> Corpus:
    """User-interface texts of Home Assistant, paired by key and line; needs pip and nothing else.

    path: the wheel, or a folder to keep it in (None: the user's cache). It is read as a zip file, never installed or
    imported. Placeholders ("{name}") are kept. dev, test: shares of components held out. Splits: train, dev, test
    (no source of it, numbers and placeholders masked, stands in train) and test_raw. Raises DataError without pip or
    network, or for a language that is not there.
    """
    splits = empty_splits(dev, test)
    if source == target:
        raise DataError("source and target are the same language", where="corpus.target", found=target)
    place = Path(path).expanduser() if path is not None else cache_folder() / "catalogs"
    # any other version has the same catalogs, a little older or newer
    wheel = obtain_wheel(place, _PACKAGE, _VERSION, 35, other_versions=True)
    seen: set[tuple[str, str]] = set()
    for component, pair in _pairs(wheel, source, target):
        reason = _reason(pair)
        if not reason and pair[:2] in seen:
            reason = "duplicate"
        if not reason:
            seen.add(pair[:2])
        split = split_of(component, dev=dev, test=test, seed=seed)
        splits[split].append(Drop(reason, pair.origin) if reason else pair)
    corpus = make_corpus(
        "catalogs",
        (source, target),
        splits,
        max_words=max_words,
        lowercase=lowercase,
        allow_drop=True,
        facts={
            "release": wheel.name,
            "licence": "Apache-2.0",
            "obtained": f"pip download --no-deps {_PACKAGE}=={_VERSION}, read as a zip file",
            "citation": "Home Assistant (https://www.home-assistant.io), localisation catalogs",
        },
        files={str(wheel): fingerprint_file(wheel)},
    )
    remove_leaks(corpus, lambda pair: _PLACEHOLDER.sub("@", pair.source.casefold()))
    warn(corpus)
    return corpus


def _pairs(wheel: Path, source: str, target: str) -> Iterator[tuple[str, Pair]]:
    """(component, pair) of every key that both languages have, ordered by component and key."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            found: dict[tuple[str, str], dict[str, zipfile.ZipInfo]] = {}
            languages = set()
            for info in archive.infolist():
                match = _CATALOG.fullmatch(info.filename)
                if match:
                    component, kind, language = match.groups()
                    found.setdefault((component, kind), {})[language] = info
                    languages.add(language)
            for language in (source, target):
                if language not in languages:
                    raise DataError(
                        f"no catalogs in {language!r}", where=str(wheel), expected=" ".join(sorted(languages))
                    )
            for (component, kind), catalog in sorted(found.items()):
                if source in catalog and target in catalog:
                    ours, theirs = _texts(archive, catalog[source]), _texts(archive, catalog[target])
                    for key in sorted(ours.keys() & theirs.keys()):
                        for pair in _lines(ours[key], theirs[key], f"{component}:{kind}{key}"):
                            yield component, pair
    except (zipfile.BadZipFile, NotImplementedError) as error:
        raise DataError("not a wheel", where=str(wheel), found=str(error), hint="Delete it and try again.") from None


def _lines(source: str, target: str, origin: str) -> Iterator[Pair]:
    """A text of several lines line by line where their numbers agree, else whole; white space is one space."""
    ours, theirs = ([" ".join(line.split()) for line in text.split("\n") if line.strip()] for text in (source, target))
    if len(ours) == len(theirs) > 1:
        for number, (one, other) in enumerate(zip(ours, theirs, strict=True), start=1):
            yield Pair(one, other, f"{origin}:{number}")
    else:
        yield Pair(" ".join(ours), " ".join(theirs), origin)


def _texts(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> dict[str, str]:
    """All texts of a catalog by their path of keys."""
    if info.file_size > _MAX_BYTES:
        raise DataError("catalog is too large", where=info.filename, found=f"{info.file_size} bytes")
    tree = parse_json(archive.read(info), info.filename)
    texts: dict[str, str] = {}
    stack: list[tuple[str, Any]] = [("", tree)]
    while stack:
        key, value = stack.pop()
        if isinstance(value, dict):
            stack.extend((f"{key}.{name}" if key else str(name), inner) for name, inner in value.items())
        elif isinstance(value, str):
            texts[key] = value
    return texts


def _reason(pair: Pair) -> str | None:
    """Why a pair is no translation, or None."""
    if pair.source == pair.target:
        return "not translated"
    if "[%key" in pair.source or "[%key" in pair.target:
        return "reference to another key"
    if not any(c.isalpha() for c in pair.source) or not any(c.isalpha() for c in pair.target):
        return "no letters"
    return None
