"""Multi30k: descriptions of photographs in English, with German and French translations."""

from __future__ import annotations

import hashlib
import logging
import os
import urllib.request
from http.client import HTTPException
from pathlib import Path

from s2s.errors import DataError
from s2s.files import write_atomic
from s2s.paths import cache_folder
from s2s.text.corpus.base import Corpus, fingerprint_file, make_corpus, warn
from s2s.text.corpus.local import existing, parallel

_log = logging.getLogger(__name__)

_URL = "https://raw.githubusercontent.com/multi30k/dataset/master/data/task1/raw/"
_TIMEOUT = 30  # seconds without an answer
_MAX_BYTES = 16 * 2**20
_STEMS = {"train": "train", "dev": "val", "test": "test_2016_flickr"}
# sha256 of the files as the repository has them.
_SHA256 = {
    "train.en.gz": "d79cfa999dd4c51d2cb42499b6796d5a882c3a8a961923c25a898c90f8bbd56f",
    "train.de.gz": "726e39b2fa9eb9ffb6dc763fb35a179f80fae06ffc5d28b6ace5faa883de28a6",
    "train.fr.gz": "622e75069e9f4c577425c4f277116ce66e63a2401c0a2312d90073cb12379a3c",
    "val.en.gz": "14f7d25ddd868909a9213e361768460edcacdd6ab9d1e77b92560dc10c10dc28",
    "val.de.gz": "f0cba2f995189cf5770f29a8a9a537a3ad3f51657ad873405082ff6863a5e75a",
    "val.fr.gz": "ca3106f1a72390591d25f6c45cb4cd39dec4cd3f123e099748a3ce5256c160e9",
    "test_2016_flickr.en.gz": "611d361c6334bc7246101d48097c13cf5c4413c5befc793cc629934359d532d9",
    "test_2016_flickr.de.gz": "9204244e408ccb38d2a55cfcd344df15005fc42a07a6e55ca6c52b6ababb8cc8",
    "test_2016_flickr.fr.gz": "6d326e188d259fb1d04ac19eae3af956559b3a0b93d7635e56c90987c40c8b90",
}


def multi30k(
    *,
    source: str = "en",
    target: str = "de",
    path: str | os.PathLike[str] | None = None,
    max_words: int | None = None,
    lowercase: bool = False,
) -> Corpus:
    """Multi30k, task 1: 29,000 training pairs, dev (val) and test (test_2016_flickr).

    path: a folder with train.en, val.en, test_2016_flickr.en (or test_2016.en) and the same for the other language,
    plain or .gz; None downloads them once into the cache and checks their sha256. A local .gz file that differs from
    the published one gives a warning. Raises DataError without network, for a wrong checksum, or for a language that
    is not there.
    """
    if source == target:
        raise DataError("source and target are the same language", where="corpus.target", found=target)
    changed: list[str] = []
    splits, used = {}, []
    for split, stem in _STEMS.items():
        both = []
        for language in (source, target):
            file = _fetched(f"{stem}.{language}.gz") if path is None else _local(Path(path), stem, language)
            expected = _SHA256.get(f"{stem}.{language}.gz")
            if file.suffix == ".gz" and fingerprint_file(file).sha256 != expected:
                changed.append(str(file))
            both.append(file)
        splits[split] = list(parallel(both[0], both[1]))
        used.extend(both)
    corpus = make_corpus(
        "multi30k",
        (source, target),
        splits,
        max_words=max_words,
        lowercase=lowercase,
        allow_drop=True,
        facts={
            "release": "task 1, test_2016_flickr",
            "licence": "not stated in its repository; fetched on the user's machine, not redistributed",
            "obtained": _URL if path is None else "a local folder",
            "citation": "Elliott, Frank, Sima'an and Specia 2016, Multi30K: Multilingual English-German Image "
            "Descriptions (https://aclanthology.org/W16-3210)",
        },
        files={str(file): fingerprint_file(file) for file in used},
    )
    corpus.report.warnings.extend(f"{file} is not the published file (another sha256)" for file in changed)
    warn(corpus)
    return corpus


def _local(folder: Path, stem: str, language: str) -> Path:
    folder = folder.expanduser()
    if not folder.is_dir():
        raise DataError("no such folder", where=f"corpus.path={folder}")
    short = stem.removesuffix("_flickr")
    if short != stem and any((folder / f"{short}.{language}{end}").is_file() for end in ("", ".gz")):
        return existing(folder / short, language)
    return existing(folder / stem, language)


def _fetched(name: str) -> Path:
    """The file `name` in the cache, downloaded if it isn't there."""
    expected = _SHA256.get(name)
    if expected is None:
        languages = sorted({known.split(".")[1] for known in _SHA256})
        raise DataError(
            f"multi30k has no {name}",
            where="corpus.source, corpus.target",
            expected=", ".join(languages),
            found=name.split(".")[1],
        )
    file = cache_folder() / "multi30k" / name
    if file.is_file() and fingerprint_file(file).sha256 == expected:
        return file
    _log.info("downloading %s%s", _URL, name)
    try:
        with urllib.request.urlopen(_URL + name, timeout=_TIMEOUT) as answer:
            data: bytes = answer.read(_MAX_BYTES)
    except (OSError, HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise DataError(
            f"can't download {_URL}{name}",
            found=str(reason),
            hint="Without network, give a folder that holds the files: corpus.path=FOLDER.",
        ) from None
    found = hashlib.sha256(data).hexdigest()
    if found != expected:
        raise DataError("wrong checksum", where=_URL + name, expected=f"sha256 {expected}", found=found)
    write_atomic(file, data)
    return file
