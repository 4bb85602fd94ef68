"""AESLC: mails of the Enron corpus with their subjects, as summaries of one line."""

from __future__ import annotations

import io
import logging
import os
import re
import urllib.request
import zipfile
from http.client import HTTPException
from pathlib import Path

from s2s.errors import DataError
from s2s.files import write_atomic
from s2s.paths import cache_folder
from s2s.text.corpus.base import Corpus, FileFingerprint, Pair, fingerprint_file, make_corpus, share, warn
from s2s.text.corpus.local import json_objects

_log = logging.getLogger(__name__)

_URL = "https://github.com/ryanzhumich/AESLC/archive/refs/heads/master.zip"
_TIMEOUT = 60  # seconds without an answer
_MAX_BYTES = 128 * 2**20
_MAX_MAIL = 4 * 2**20
_SPLITS = ("train", "dev", "test")
_MEMBER = re.compile(r"(?:^|/)enron_subject_line/(train|dev|test)/([^/]+\.subject)$")
_SECTION = re.compile(r"^@(subject|ann\d+)[ \t]*$", re.MULTILINE)
_FIELDS = ("src", "tgt", "refs")  # of the same in JSON lines
_SPACES = re.compile(r"\s+")


def aeslc(
    *,
    path: str | os.PathLike[str] | None = None,
    hold_out: int = 0,
    max_words: int | None = None,
    seed: int = 1,
    lowercase: bool = False,
) -> Corpus:
    """AESLC (Zhang & Tetreault 2019, arXiv 1906.03497): mails to subjects; dev and test have subjects by others too.

    path: the zip file of its repository or a folder with it unpacked; or a folder with train.jsonl, dev.jsonl,
    test.jsonl (plain or .gz, those that there are; fields src, tgt, refs); None downloads the zip file once into the
    cache. A mail is put on one line. hold_out: that many mails of train, or a few more, become dev, drawn by text and
    seed, so that equal mails stay together; the published dev is then the split "published_dev", and nothing needs to
    be chosen on it. Raises DataError without network, and for what isn't AESLC.
    """
    place = _fetched() if path is None else Path(path).expanduser()
    found, used = _read(place)
    if "train" not in found:
        raise DataError(
            "is no AESLC: there is no train split",
            where=str(place),
            expected="the repository's zip file, a folder with enron_subject_line, or one with train.jsonl",
        )
    splits: dict[str, list[Pair]] = {split: found[split] for split in _SPLITS if split in found}
    if hold_out:
        if not 0 < hold_out < len(splits["train"]):
            raise DataError(
                "can't hold out so many mails",
                where="corpus.hold_out",
                expected=f"0 to {len(splits['train']) - 1}",
                found=str(hold_out),
            )
        if "dev" in splits:
            splits["published_dev"] = splits.pop("dev")
        last = sorted(share(pair.source, seed) for pair in splits["train"])[hold_out - 1]
        held = [share(pair.source, seed) <= last for pair in splits["train"]]
        splits["dev"] = [pair for pair, out in zip(splits["train"], held, strict=True) if out]
        splits["train"] = [pair for pair, out in zip(splits["train"], held, strict=True) if not out]
    corpus = make_corpus(
        "aeslc",
        ("en", "en"),
        splits,
        max_words=max_words,
        lowercase=lowercase,
        allow_drop=True,
        facts={
            "licence": "CC BY-NC-SA 4.0 as its repository says; fetched on the user's machine, not redistributed",
            "obtained": _URL if path is None else "a local copy",
            "citation": "Zhang and Tetreault 2019, This Email Could Save Your Life: Introducing the Task of Email "
            "Subject Line Generation (arXiv 1906.03497)",
        },
        files=used,
    )
    warn(corpus)
    return corpus


def _read(place: Path) -> tuple[dict[str, list[Pair]], dict[str, FileFingerprint]]:
    """The pairs of each split that is there, ordered by name or line, and the files they come from."""
    if place.is_file():
        return _archive(place), {str(place): fingerprint_file(place)}
    if not place.is_dir():
        raise DataError("no such file or folder", where=f"corpus.path={place}")
    found: dict[str, list[Pair]] = {}
    used: dict[str, FileFingerprint] = {}
    for split in _SPLITS:
        for name in (f"{split}.jsonl", f"{split}.jsonl.gz"):
            if (place / name).is_file():
                found[split] = list(json_objects(place / name, _FIELDS))
                used[str(place / name)] = fingerprint_file(place / name)
                break
    if found:
        return found, used
    for file in sorted(place.rglob("*.subject")):
        if (match := _MEMBER.search(file.as_posix())) is None:
            continue
        where = "/".join(match.groups())
        found.setdefault(match[1], []).append(_mail(file.read_bytes()[: _MAX_MAIL + 1], where))
    return found, used


def _archive(path: Path) -> dict[str, list[Pair]]:
    found: dict[str, list[Pair]] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for name in sorted(archive.namelist()):
                if (match := _MEMBER.search(name)) is None:
                    continue
                with archive.open(name) as file:  # whatever its header says, no more than this is unpacked
                    where = "/".join(match.groups())
                    found.setdefault(match[1], []).append(_mail(file.read(_MAX_MAIL + 1), where))
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError) as error:
        raise DataError("is no zip file, or a damaged one", where=str(path), found=str(error)) from error
    return found


def _mail(data: bytes, where: str) -> Pair:
    """A mail's body, its subject, and the subjects that others gave it: sections `@subject`, `@ann0`, ..."""
    if len(data) > _MAX_MAIL:
        raise DataError("the mail is too big", where=where, expected=f"at most {_MAX_MAIL} bytes")
    body, *sections = _SECTION.split(data.decode("utf-8", "replace"))
    texts = [_SPACES.sub(" ", text).strip() for text in (body, *sections[1::2])]
    if not sections or sections[0] != "subject":
        raise DataError("the mail has no subject", where=where, expected="a line @subject after the body")
    source, target, *others = texts
    return Pair(source, target, where, (target, *others) if others else ())


def _fetched() -> Path:
    """The repository's zip file in the cache, downloaded if it isn't there."""
    file = cache_folder() / "aeslc" / "aeslc.zip"
    if file.is_file():
        return file
    _log.info("downloading %s", _URL)
    try:
        with urllib.request.urlopen(_URL, timeout=_TIMEOUT) as answer:
            data: bytes = answer.read(_MAX_BYTES + 1)
    except (OSError, HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise DataError(
            f"can't download {_URL}",
            found=str(reason),
            hint="Without network, name the zip file or a folder that holds it: corpus.path=PATH.",
        ) from None
    if len(data) > _MAX_BYTES or not zipfile.is_zipfile(io.BytesIO(data)):
        raise DataError("what was downloaded is no zip file", where=_URL, found=f"{len(data)} bytes")
    write_atomic(file, data)
    return file
