"""What every corpus is: pairs in splits, a report of what was dropped and why, and facts for its card."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from s2s.errors import DataError
from s2s.files import sha256
from s2s.text.lines import clean, is_blank
from s2s.text.turns import clean_turns


class Pair(NamedTuple):
    """A source text, its target text, and where they come from (file:line, or package and place in it).

    references: what an output is scored against, where that is more than the target.
    """

    source: str
    target: str
    origin: str
    references: tuple[str, ...] = ()


class Drop(NamedTuple):
    """A pair that a reader leaves out: why, and where it stood."""

    reason: str
    origin: str


class FileFingerprint(NamedTuple):
    """What a file was when it was read, so that a later run can notice a change."""

    sha256: str
    size: int  # bytes


@dataclass
class SplitReport:
    """What became of one split: `read` equals `kept` plus all of `dropped`.

    examples: one origin for each reason. removed_characters: see `s2s.text.lines.clean`.
    """

    read: int = 0
    kept: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    examples: dict[str, str] = field(default_factory=dict)
    removed_characters: int = 0

    def drop(self, reason: str, origin: str) -> None:
        """Counts one dropped pair."""
        self.dropped[reason] = self.dropped.get(reason, 0) + 1
        self.examples.setdefault(reason, origin)

    def table(self) -> str:
        """The reasons in one line, most frequent first."""
        ranked = sorted(self.dropped.items(), key=lambda item: -item[1])
        return ", ".join(f"{reason} {count} (for example {self.examples[reason]})" for reason, count in ranked)


@dataclass
class DataReport:
    """What was read, kept and dropped in each split, and what looks wrong."""

    splits: dict[str, SplitReport] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Corpus:
    """Parallel texts in named splits.

    splits: "train" always, "dev" and "test" where there are any; "test" is the headline test. "test_raw" is the test
    before pairs that also stand in train were removed. facts: for the card (licence, citation, release, ...).
    files: fingerprints of the files that it was read from.
    """

    name: str
    source_language: str
    target_language: str
    splits: dict[str, Sequence[Pair]]
    report: DataReport
    facts: dict[str, str] = field(default_factory=dict)
    files: dict[str, FileFingerprint] = field(default_factory=dict)
    digest: str | None = None  # the fingerprint, where it is known already

    def fingerprint(self) -> str:
        """One sha256 (hex) over the kept texts of all splits, in order."""
        if self.digest is not None:
            return self.digest
        digest = hashlib.sha256()
        for name in sorted(self.splits):
            for pair in self.splits[name]:
                digest.update(json.dumps([name, pair.source, pair.target, *pair.references]).encode() + b"\n")
        return digest.hexdigest()


_keep_train: ContextVar[Callable[[Iterable[Pair]], Sequence[Pair]]] = ContextVar("keep_train", default=list)


@contextmanager
def train_kept_by(keep: Callable[[Iterable[Pair]], Sequence[Pair]]) -> Iterator[None]:
    """Corpora made inside hold the pairs of train as `keep` gives them back, such as in a file instead of a list."""
    before = _keep_train.set(keep)
    try:
        yield
    finally:
        _keep_train.reset(before)


def make_corpus(
    name: str,
    languages: tuple[str, str],
    splits: Mapping[str, Iterable[Pair | Drop]],
    *,
    max_words: int | None,
    lowercase: bool,
    allow_drop: bool,
    facts: Mapping[str, str],
    files: Mapping[str, FileFingerprint],
    dialogues: bool = False,
) -> Corpus:
    """Applies what all corpora have in common to what a reader found, and counts it.

    max_words: pairs with more whitespace-separated words on either side are dropped. lowercase: both sides. dialogues:
    sources are contexts (see `s2s.text.turns`), of which the last turn counts for max_words. splits: read in their
    order, train first.
    Raises DataError if a split is empty, if nothing of it is left, or, unless allow_drop, if more than half of it is
    dropped.
    """
    report = DataReport()
    kept: dict[str, Sequence[Pair]] = {}
    for split, found in splits.items():
        counts = report.splits[split] = SplitReport()
        pairs = _keep(found, counts, max_words, lowercase, clean_turns if dialogues else clean)
        kept[split] = _keep_train.get()(pairs) if split == "train" else list(pairs)
        _check_drops(f"{name} {split}", counts, allow_drop)
    return Corpus(name, *languages, kept, report, dict(facts), dict(files))


def _keep(
    found: Iterable[Pair | Drop],
    counts: SplitReport,
    max_words: int | None,
    lowercase: bool,
    clean_source: Callable[[str], tuple[str, int]],
) -> Iterator[Pair]:
    for item in found:
        counts.read += 1
        if isinstance(item, Drop):
            counts.drop(*item)
            continue
        (source, removed), (target, removed_too) = clean_source(item.source), clean(item.target)
        counts.removed_characters += removed + removed_too
        if is_blank(source) or is_blank(target):
            counts.drop("blank side", item.origin)
        elif max_words is not None and max(len(source.split("\n")[-1].split()), len(target.split())) > max_words:
            counts.drop(f"more than {max_words} words", item.origin)
        else:
            counts.kept += 1
            texts = (source, target, *(clean(text)[0] for text in item.references))
            source, target, *references = (text.lower() for text in texts) if lowercase else texts
            yield Pair(source, target, item.origin, tuple(text for text in references if not is_blank(text)))


def _check_drops(where: str, counts: SplitReport, allow_drop: bool) -> None:
    if counts.read == 0:
        raise DataError(
            "there are no pairs", where=where, hint="If it is a share of train, name a larger one, or 0 for none."
        )
    if counts.kept == 0:
        raise DataError(f"all {counts.read} pairs were dropped", where=where, found=counts.table())
    if not allow_drop and counts.kept * 2 < counts.read:
        raise DataError(
            f"{counts.read - counts.kept} of {counts.read} pairs were dropped",
            where=where,
            expected="at most half",
            found=counts.table(),
            hint="Mend the data, or set corpus.allow_drop=true.",
        )


def reference_streams(pairs: Sequence[Pair]) -> list[list[str]]:
    """The references of pairs as scores take them: streams with a line a pair, as many as a pair has at most.

    Where a pair has fewer its first one stands again, which changes no score that takes the best or all of them.
    """
    own = [pair.references or (pair.target,) for pair in pairs]
    most = max((len(texts) for texts in own), default=1)
    return [[texts[number] if number < len(texts) else texts[0] for texts in own] for number in range(most)]


def remove_leaks(corpus: Corpus, key: Callable[[Pair], str], *, sources: bool = True) -> None:
    """Removes pairs of dev and test whose source, or its `key`, stands in train, in place.

    sources: False if the key alone decides.

    The whole test stays as "test_raw". Raises DataError if nothing is left of a split.
    """
    if "test" in corpus.splits:
        corpus.splits["test_raw"] = corpus.splits["test"]
        corpus.report.splits["test_raw"] = corpus.report.splits["test"]
        size = len(corpus.splits["test"])
        corpus.report.splits["test"] = SplitReport(read=size, kept=size)
    train = corpus.splits["train"]
    known = {key(pair) for pair in train} | ({pair.source for pair in train} if sources else set())
    for split in ("dev", "test"):
        if split not in corpus.splits:
            continue
        counts = corpus.report.splits[split]
        unseen = []
        for pair in corpus.splits[split]:
            if key(pair) in known or (sources and pair.source in known):
                counts.kept -= 1
                counts.drop("same source in train" if sources else "same pair in train", pair.origin)
            else:
                unseen.append(pair)
        corpus.splits[split] = unseen
        _check_drops(f"{corpus.name} {split}", counts, allow_drop=True)


def warn(corpus: Corpus) -> None:
    """Adds warnings to the report: sources of dev or test that stand in train, identical sides, removed characters."""
    warnings = corpus.report.warnings
    held = {pair.source for split in ("dev", "test") for pair in corpus.splits.get(split, ())}
    known = set()  # of them, those that stand in train: of all of train's there may be too many to hold
    for split, pairs in corpus.splits.items():
        same = 0
        for pair in pairs:
            same += pair.source == pair.target
            if split == "train" and pair.source in held:
                known.add(pair.source)
        overlap = sum(pair.source in known for pair in pairs) if split in ("dev", "test") else 0
        if overlap:
            warnings.append(f"{overlap} of {len(pairs)} sources of {split} also stand in train")
        if same * 2 > len(pairs):
            warnings.append(f"{split}: source and target are identical in {same} of {len(pairs)} pairs; a wrong file?")
        removed = corpus.report.splits[split].removed_characters
        if removed and split != "test_raw":
            warnings.append(f"{split}: {removed} control characters or lone surrogates were removed")


def share(name: str, seed: int) -> float:
    """A number in [0, 1) that depends on nothing but `name` and `seed`: who is held out, on any machine."""
    digest = hashlib.sha256(f"{seed}:{name}".encode("utf-8", "surrogatepass")).digest()
    return float(int.from_bytes(digest[:6], "big")) / 2**48


def split_of(name: str, *, dev: float, test: float, seed: int) -> str:
    """The split of a group of pairs: shares `test` and `dev` are held out, the rest is train."""
    place = share(name, seed)
    return "test" if place < test else "dev" if place < test + dev else "train"


def empty_splits(dev: float, test: float) -> dict[str, list[Pair | Drop]]:
    """Lists to fill with train and what is held out of it: a share of 0 leaves dev or test out.

    Raises DataError unless both shares are at least 0 and leave something to train on.
    """
    if not (0 <= dev < 1 and 0 <= test < 1 and dev + test < 1):
        raise DataError(
            "impossible shares held out",
            where="corpus.dev, corpus.test",
            expected="dev + test < 1",
            found=f"{dev} + {test}",
        )
    return {"train": [], **({"dev": []} if dev else {}), **({"test": []} if test else {})}


def fingerprint_file(path: Path) -> FileFingerprint:
    """Size and sha256 of a file."""
    return FileFingerprint(sha256(path), path.stat().st_size)
