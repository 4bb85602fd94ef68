"""Debian's package descriptions and their human translations."""

from __future__ import annotations

import os
import statistics
from collections.abc import Iterator

from s2s.errors import DataError
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
from s2s.text.corpus.debian_apt import Release, obtain
from s2s.text.corpus.debian_text import (
    Description,
    mask,
    pair_descriptions,
    read_sources,
    read_translation,
)


def debian(
    *,
    source: str = "en",
    target: str = "de",
    path: str | os.PathLike[str] | None = None,
    suite: str | None = None,
    max_words: int | None = None,
    max_ratio: float = 3.0,
    per_source: int = 3,
    dev: float = 0.03,
    test: float = 0.06,
    seed: int = 1,
    lowercase: bool = False,
) -> Corpus:
    """Package descriptions of Debian, paired by synopsis, paragraph and sentence; needs apt-get, but not root.

    path: cache folder (None: the user's). suite: release to take (None: the first in the user's apt sources).
    max_words: longest side in whitespace-separated words. max_ratio: how many times longer or shorter, in characters,
    a translation may be than the usual one of its length. per_source: most packages of one source package.
    dev, test: shares of source packages held out. Splits: train, dev, test (no masked source of it stands in train)
    and test_raw (the whole test). Raises DataError, see `obtain`.
    """
    splits = empty_splits(dev, test)
    if source == target:
        raise DataError("source and target are the same language", where="corpus.target", found=target)
    if max_ratio <= 1:
        raise DataError("impossible ratio", where="corpus.max_ratio", expected="above 1", found=str(max_ratio))
    release = obtain((source, target), path, suite)
    sources = read_sources(release.packages)
    found = _candidates(release, source, target, sources)
    typical = _typical_ratio(item for items in found.values() for item in items if isinstance(item, Pair))
    seen: set[tuple[str, str]] = set()
    taken: dict[str, int] = {}
    for package, items in found.items():
        origin = sources.get(package, package)
        taken[origin] = taken.get(origin, 0) + 1
        split = splits[split_of(origin, dev=dev, test=test, seed=seed)]
        for item in items:
            if isinstance(item, Pair):
                reason = _reason(item, typical, max_ratio)
                if taken[origin] > per_source:
                    reason = f"more than {per_source} packages of one source"
                elif not reason and item[:2] in seen:
                    reason = "duplicate"
                item = Drop(reason, item.origin) if reason else item
                if not reason:
                    seen.add(item[:2])
            split.append(item)
    files = [release.packages, release.translation(source), release.translation(target)]
    corpus = make_corpus(
        "debian",
        (source, target),
        splits,
        max_words=max_words,
        lowercase=lowercase,
        allow_drop=True,
        facts=release_facts(release),
        files={str(file): fingerprint_file(file) for file in files},
    )
    names = frozenset(sources) | frozenset(sources.values())
    remove_leaks(corpus, lambda pair: _masked(pair, sources, names))
    warn(corpus)
    return corpus


def _candidates(release: Release, source: str, target: str, sources: dict[str, str]) -> dict[str, list[Pair | Drop]]:
    """What each package gives, ordered by the package's name."""
    originals: dict[tuple[str, str], Description] = {}
    for stanza in read_translation(release.translation(source)):
        originals.setdefault((stanza.package, stanza.md5), stanza)
    found: dict[str, list[Pair | Drop]] = {}
    for stanza in read_translation(release.translation(target)):
        original = originals.get((stanza.package, stanza.md5))
        if original is not None and stanza.package in sources and stanza.package not in found:
            found[stanza.package] = list(pair_descriptions(original, stanza))
    return {package: found[package] for package in sorted(found)}


def _length(text: str) -> int:
    return len(text) + 10  # so that a few characters more or less are no matter in a short text


def _typical_ratio(pairs: Iterator[Pair]) -> float:
    ratios = [_length(pair.target) / _length(pair.source) for pair in pairs]
    return statistics.median(ratios) if ratios else 1.0


def _reason(pair: Pair, typical: float, max_ratio: float) -> str | None:
    """Why a pair is no translation, or None."""
    if pair.source == pair.target:
        return "not translated"
    if "\ufffd" in pair.source + pair.target:
        return "invalid UTF-8"
    if not any(c.isalpha() for c in pair.source) or not any(c.isalpha() for c in pair.target):
        return "no letters"
    ratio = _length(pair.target) / _length(pair.source) / typical
    return "absurd length ratio" if not 1 / max_ratio <= ratio <= max_ratio else None


def _masked(pair: Pair, sources: dict[str, str], names: frozenset[str]) -> str:
    package = pair.origin.partition(":")[0]
    return mask(pair.source, f"{package} {sources.get(package, '')}", names)


def release_facts(release: Release) -> dict[str, str]:
    """What the card of a corpus made of a release says."""
    return {
        "suite": f"Debian {release.version} {release.codename} ({release.suite}), main",
        "release date": release.date,
        "licence": "each package's own; fetched on the user's machine, not redistributed",
        "obtained": "apt-get update in private folders, Translation and Packages files",
        "citation": "Debian package descriptions, translated by the Debian Description Translation Project "
        "(https://www.debian.org/international/l10n/ddtp)",
    }
