"""Human small talk: the conversations of the Chit Chat Challenge, which a wheel ships."""

from __future__ import annotations

import os
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
from s2s.text.corpus.dialogue import Direction, check_options, examples, two_sided, unfit
from s2s.text.corpus.wheel import obtain_wheel

_PACKAGE = "chitchat-dataset"
_VERSION = "0.9.0"
_FILE = "chitchat_dataset/dataset.json"
_MAX_BYTES = 256 * 2**20  # of the file, unpacked; it has 40 MB


def chitchat(
    *,
    path: str | os.PathLike[str] | None = None,
    turns: int = 4,
    direction: Direction = "forward",
    max_words: int | None = 50,
    dev: float = 0.02,
    test: float = 0.03,
    seed: int = 1,
    lowercase: bool = False,
) -> Corpus:
    """Turns of a conversation to the next one; needs pip and nothing else.

    path: the wheel, or a folder to keep it in (None: the user's cache). turns: most of a context. direction: see
    `s2s.text.corpus.dialogue.examples`. max_words: longest reply and last turn. dev, test: shares of conversations held
    out. What may identify someone or is crude is left out with what follows on it, see `unfit`, and so are replies
    without letters. Splits: train, dev, test and test_raw; pairs whose last turn and reply both stand in train are none
    of dev or test (a greeting that was heard before is a fair test, its answer known by heart isn't). Raises DataError
    without pip or network, and for a file that isn't the package's.
    """
    check_options(turns, direction)
    splits = empty_splits(dev, test)
    wheel = obtain_wheel(
        Path(path).expanduser() if path is not None else cache_folder() / "chitchat", _PACKAGE, _VERSION, 8
    )
    seen: set[tuple[str, str]] = set()
    for name, messages in _conversations(wheel):
        place = splits[split_of(name, dev=dev, test=test, seed=seed)]
        said, drops = two_sided(messages, name)
        place += drops
        for pair in examples([text for _, text in said], turns, direction, name):
            reason = _reason(pair)
            if not reason and direction != "none" and pair[:2] in seen:
                reason = "duplicate"
            if not reason:
                seen.add((pair.source, pair.target))
            place.append(Drop(reason, pair.origin) if reason else pair)
    corpus = make_corpus(
        "chitchat",
        ("en", "en"),
        splits,
        max_words=max_words,
        lowercase=lowercase,
        allow_drop=True,
        dialogues=True,
        facts={
            "release": wheel.name,
            "licence": "MIT",
            "obtained": f"pip download --no-deps {_PACKAGE}=={_VERSION}, read as a zip file",
            "citation": "Will Myers, Tyler Etchart, Nancy Fulda: Conversational Scaffolding (2020), Chit-Chat dataset",
        },
        files={str(wheel): fingerprint_file(wheel)},
    )
    if direction != "none":
        remove_leaks(corpus, lambda pair: f"{pair.source.split(chr(10))[-1]}\n{pair.target}", sources=False)
        warn(corpus)
    return corpus


def _reason(pair: Pair) -> str | None:
    """Why a pair is no example, or None."""
    if not any(c.isalpha() for c in pair.target):
        return "no letters"
    return next(filter(None, map(unfit, [*pair.source.split("\n"), pair.target])), None)


def _conversations(wheel: Path) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """(name, messages) of each conversation, ordered by name."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            info = archive.getinfo(_FILE)
            if info.file_size > _MAX_BYTES:
                raise DataError("is too large", where=f"{wheel}:{_FILE}", found=f"{info.file_size} bytes")
            found = parse_json(archive.read(info), f"{wheel}:{_FILE}")
    except (zipfile.BadZipFile, NotImplementedError, KeyError) as error:
        raise DataError(
            "not the wheel of the corpus", where=str(wheel), found=str(error), hint="Delete it and try again."
        ) from None
    if not isinstance(found, dict):
        raise DataError("has another form", where=f"{wheel}:{_FILE}", expected="an object of conversations")
    for name in sorted(found):
        yield name, _messages(found[name], f"{wheel}:{_FILE}:{name}")


def _messages(conversation: Any, where: str) -> list[tuple[str, str]]:
    try:
        made = [(one["sender"], one["text"]) for group in conversation["messages"] for one in group]
    except (TypeError, KeyError) as error:
        raise DataError("has another form", where=where, found=str(error)) from None
    if not all(isinstance(sender, str) and isinstance(text, str) for sender, text in made):
        raise DataError("has another form", where=where, expected="a sender and a text of each message")
    return made
