"""Corpora in the user's own files: parallel text, TSV and JSON lines; each plain or .gz."""

from __future__ import annotations

import os
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from s2s.errors import DataError
from s2s.files import parse_json
from s2s.text.corpus.base import (
    Corpus,
    Drop,
    Pair,
    empty_splits,
    fingerprint_file,
    make_corpus,
    split_of,
    warn,
)
from s2s.text.lines import Errors, read_lines

Parts = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]
P = TypeVar("P", bound=Parts)


def files(
    *,
    train: Parts,
    dev: Parts | float | None = None,
    test: Parts | float | None = None,
    source: str,
    target: str,
    max_words: int | None = None,
    lowercase: bool = False,
    allow_drop: bool = False,
    errors: Errors = "strict",
    seed: int = 1,
) -> Corpus:
    """Parallel text files: line n of the one is the translation of line n of the other.

    train, dev, test: a prefix ("data/train" stands for data/train.en and data/train.de, or the same with .gz) or the
    two paths, source first. dev and test may also be a share of train between 0 and 1, held out by source text.
    source, target: languages, which are the suffixes of the files. Raises DataError if numbers of lines differ.
    """
    used: list[Path] = []

    def read(parts: Parts) -> Iterator[Pair]:
        one, other = _two_paths(parts, source, target)
        used.extend((one, other))
        return parallel(one, other, errors)

    return _corpus("files", (source, target), train, dev, test, read, used, max_words, lowercase, allow_drop, seed)


def tsv(
    *,
    train: str | os.PathLike[str],
    dev: str | os.PathLike[str] | float | None = None,
    test: str | os.PathLike[str] | float | None = None,
    source: str,
    target: str,
    source_column: str | int = 0,
    target_column: str | int = 1,
    max_words: int | None = None,
    lowercase: bool = False,
    allow_drop: bool = False,
    errors: Errors = "strict",
    seed: int = 1,
) -> Corpus:
    """Tab-separated values without quoting: one pair a row.

    source_column, target_column: names, then the first row is the header; or numbers from 0, then there is no header.
    All else as in `files`. Raises DataError for a row that is wider or narrower than the first, naming its line.
    """
    columns = (source_column, target_column)
    used: list[Path] = []

    def read(parts: Parts) -> Iterator[Pair]:
        path = _one_path(parts)
        used.append(path)
        return _rows(path, columns, errors)

    return _corpus("tsv", (source, target), train, dev, test, read, used, max_words, lowercase, allow_drop, seed)


def jsonl(
    *,
    train: str | os.PathLike[str],
    dev: str | os.PathLike[str] | float | None = None,
    test: str | os.PathLike[str] | float | None = None,
    source: str,
    target: str,
    source_field: str = "source",
    target_field: str = "target",
    references_field: str | None = None,
    max_words: int | None = None,
    lowercase: bool = False,
    allow_drop: bool = False,
    errors: Errors = "strict",
    seed: int = 1,
) -> Corpus:
    """JSON lines: one object a line. Blank lines are dropped and counted.

    source_field, target_field: names of the fields; "translation.en" looks into an object inside. references_field: a
    list of all texts that an output is scored against, the target among them or not; a record may lack it, and then
    the target is the only one. All else as in `files`. Raises DataError for a missing, null or non-text field, naming
    line and field.
    """
    fields = (source_field, target_field, references_field)
    used: list[Path] = []

    def read(parts: Parts) -> Iterator[Pair]:
        path = _one_path(parts)
        used.append(path)
        return json_objects(path, fields, errors)

    return _corpus("jsonl", (source, target), train, dev, test, read, used, max_words, lowercase, allow_drop, seed)


def _corpus(
    name: str,
    languages: tuple[str, str],
    train: Parts,
    dev: Parts | float | None,
    test: Parts | float | None,
    read: Callable[[Parts], Iterator[Pair]],
    used: list[Path],
    max_words: int | None,
    lowercase: bool,
    allow_drop: bool,
    seed: int,
) -> Corpus:
    def keyed(parts: Parts) -> Iterator[tuple[str, Pair]]:
        return ((pair.source, pair) for pair in read(parts))

    corpus = make_corpus(
        name,
        languages,
        splits_of_files(train, dev, test, keyed, seed),
        max_words=max_words,
        lowercase=lowercase,
        allow_drop=allow_drop,
        facts={"obtained": "the user's own files: " + ", ".join(path.name for path in used), "licence": "not stated"},
        files={},
    )
    corpus.files.update({str(path): fingerprint_file(path) for path in used})
    warn(corpus)
    return corpus


def splits_of_files(
    train: P,
    dev: P | float | None,
    test: P | float | None,
    read: Callable[[P], Iterator[tuple[str, Pair | Drop]]],
    seed: int,
) -> dict[str, Iterable[Pair | Drop]]:
    """What files hold, by split. dev, test: files too, or the share of train that is held out.

    read: all of a file, each with the text that says whether it is held out: what has one text stays together.
    train is read as its pairs are asked for, and only then is known what of it is held out.
    """
    if isinstance(train, (int, float)):
        raise DataError("train can't be a share", where="corpus.train", expected="files", found=str(train))
    held = {split: float(part) for split, part in (("dev", dev), ("test", test)) if isinstance(part, (int, float))}
    shares = {"dev": 0.0, "test": 0.0, **held}
    held_out = empty_splits(**shares)
    for split, part in (("dev", dev), ("test", test)):
        if part is not None and not isinstance(part, (int, float)):
            held_out[split] = [pair for _, pair in read(part)]
    found = read(train)

    def rest() -> Iterator[Pair | Drop]:
        for key, pair in found:
            split = split_of(key, **shares, seed=seed)
            if split == "train":
                yield pair
            else:
                held_out[split].append(pair)

    return {**held_out, "train": rest()}


def _one_path(parts: Parts) -> Path:
    if not isinstance(parts, (str, os.PathLike)):
        raise DataError("expected one path", where="corpus", found=str(parts))
    return Path(parts).expanduser()


def _two_paths(parts: Parts, source: str, target: str) -> tuple[Path, Path]:
    if isinstance(parts, (str, os.PathLike)):
        return existing(Path(parts), source), existing(Path(parts), target)
    if len(parts) != 2:
        raise DataError("expected a prefix or two paths", where="corpus", found=str(list(parts)))
    return Path(parts[0]).expanduser(), Path(parts[1]).expanduser()


def existing(prefix: Path, language: str) -> Path:
    """The file `prefix.language`, or the same with .gz. Raises DataError if there is neither."""
    plain = Path(f"{prefix.expanduser()}.{language}")
    packed = Path(f"{plain}.gz")
    if plain.is_file():
        return plain
    if not packed.is_file():
        raise DataError("no such file", where=str(plain), hint=f"Looked for {packed.name} beside it too.")
    return packed


def parallel(source: Path, target: Path, errors: Errors = "strict") -> Iterator[Pair]:
    """The pairs of two parallel files, in order. Raises DataError if one is empty or their numbers of lines differ."""
    with read_lines(source, errors=errors) as ours, read_lines(target, errors=errors) as theirs:
        while True:
            one, other = next(ours, None), next(theirs, None)
            if one is None or other is None:
                break
            yield Pair(one, other, f"{source}:{ours.count}")
        if one is None and other is None:
            if ours.count:
                return
            raise DataError("empty file", where=str(source))
    lengths = _line_lengths(source, errors), _line_lengths(target, errors)
    if 0 in (len(lengths[0]), len(lengths[1])):
        raise DataError("empty file", where=str(target if lengths[0] else source))
    line = _first_suspicious(*lengths)
    raise DataError(
        f"numbers of lines differ: {source} has {len(lengths[0])}, {target} has {len(lengths[1])}",
        where=f"{source}:{line}",
        hint=f"By their lengths, line {line} is where the files part; look there first.",
    )


def _line_lengths(path: Path, errors: Errors) -> Sequence[int]:
    """The characters of each line."""
    with read_lines(path, errors=errors) as lines:
        return array("L", (len(line) for line in lines))


def _first_suspicious(ours: Sequence[int], theirs: Sequence[int]) -> int:
    """The line (from 1) from which on the files fit best if shifted, by how well lengths in characters agree."""
    if len(ours) > len(theirs):
        ours, theirs = theirs, ours
    shift = len(theirs) - len(ours)

    def misfit(one: int, other: int) -> float:
        return abs(one - other) / (one + other + 1)

    # Before the cut, lines pair as they are; from the cut on, with those `shift` further down.
    cost = best = sum(misfit(ours[i], theirs[i + shift]) for i in range(len(ours)))
    line = 0
    for i in range(len(ours)):
        cost += misfit(ours[i], theirs[i]) - misfit(ours[i], theirs[i + shift])
        if cost < best:
            best, line = cost, i + 1
    return line + 1


def _rows(path: Path, columns: tuple[str | int, str | int], errors: Errors) -> Iterator[Pair]:
    with read_lines(path, errors=errors) as lines:
        header = next(lines, None)
        if header is None:
            raise DataError("empty file", where=str(path))
        first = header.split("\t")
        places = [_column(column, first, path) for column in columns]
        named = any(isinstance(column, str) for column in columns)
        for row in [] if named else [header]:
            yield _row(row, len(first), places, f"{path}:1")
        for row in lines:
            yield _row(row, len(first), places, f"{path}:{lines.count}")


def _column(column: str | int, header: list[str], path: Path) -> int:
    if isinstance(column, int):
        if not 0 <= column < len(header):
            raise DataError(
                f"no column {column}", where=f"{path}:1", expected=f"0 to {len(header) - 1}", found=str(column)
            )
        return column
    if header.count(column) != 1:
        what = f"no column {column!r}" if column not in header else f"column {column!r} stands there more than once"
        raise DataError(what, where=f"{path}:1", found="columns " + ", ".join(header))
    return header.index(column)


def _row(row: str, width: int, places: Sequence[int], where: str) -> Pair:
    values = row.split("\t")
    if len(values) != width and row:
        raise DataError(
            f"row has {len(values) - 1} tabs", where=where, expected=f"{width - 1} as in line 1", found=repr(row[:60])
        )
    source, target = (values[place] if row else "" for place in places)
    return Pair(source, target, where)


def json_objects(path: Path, fields: tuple[str, str, str | None], errors: Errors = "strict") -> Iterator[Pair]:
    """The pairs of a file of JSON lines, in order; a blank line is a blank pair. fields: of source, target, references.

    Raises DataError that names line and field.
    """
    with read_lines(path, errors=errors) as lines:
        for line in lines:
            where = f"{path}:{lines.count}"
            if not line.strip():
                yield Pair("", "", where)
                continue
            record = parse_json(line.encode("utf-8"), where)
            if not isinstance(record, dict):
                raise DataError("not an object", where=where, expected="{...}", found=line[:60])
            yield pair_of(record, fields, where)
        if not lines.count:
            raise DataError("empty file", where=str(path))


def pair_of(record: dict[str, Any], fields: tuple[str, str, str | None], where: str) -> Pair:
    """The pair of one record. fields: of source, target, references. Raises DataError that names the field."""
    texts = (_field(record, fields[0], where), _field(record, fields[1], where))
    return Pair(*texts, where, _references(record, fields[2], where))


def _references(record: dict[str, Any], field: str | None, where: str) -> tuple[str, ...]:
    found = record.get(field) if field is not None else None
    if found is None:
        return ()
    if not isinstance(found, list) or not all(isinstance(text, str) for text in found):
        raise DataError(
            f"field {field!r} is no list of texts", where=where, expected="a list of strings", found=str(found)[:60]
        )
    return tuple(found)


def _field(record: dict[str, Any], field: str, where: str) -> str:
    value: Any = record
    for key in [field] if field in record else field.split("."):
        if not isinstance(value, dict) or key not in value:
            raise DataError(f"no field {field!r}", where=where, found="fields " + ", ".join(record))
        value = value[key]
    if not isinstance(value, str):
        kind = "null" if value is None else type(value).__name__
        raise DataError(f"field {field!r} is no text", where=where, expected="a string", found=kind)
    return value
