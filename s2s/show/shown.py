"""What a run showed, kept as a file beside the gallery, so that the page can grow by a run at a time."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from s2s.errors import DataError
from s2s.files import read_json, write_atomic

FILE = "shown.json"
MAX_FILE = 1 << 24  # bytes
DIGITS = 4  # of a weight

Sentence = tuple[str, str | None]


@dataclass(frozen=True)
class Picture:
    """An alignment to draw. weights: (T, S). caption: where it comes from."""

    source_pieces: Sequence[str]
    target_pieces: Sequence[str]
    weights: Sequence[Sequence[float]]
    caption: str


@dataclass(frozen=True)
class Shown:
    """What a run of a mechanism gave. measures: name -> value and a detail (or "") as text. run: which run it was.

    picture: None where the mechanism gives no weights. signatures: of the scores among the measures.
    """

    picture: Picture | None
    measures: Mapping[str, tuple[str, str]]
    run: str
    signatures: tuple[str, ...] = ()


def write_shown(folder: Path, sentence: Sentence | None, shown: Mapping[str, Shown]) -> None:
    """Keep what runs showed of `sentence`, mechanism -> what it showed, a line each."""
    rows = [f" {json.dumps(name)}: {json.dumps(_plain(one), ensure_ascii=False)}" for name, one in shown.items()]
    head = json.dumps(sentence, ensure_ascii=False)
    text = f'{{"sentence": {head}, "runs": {{\n' + ",\n".join(rows) + "\n}}\n"
    write_atomic(folder / FILE, text.encode("utf-8", "replace"))


def read_shown(folder: Path) -> tuple[Sentence | None, dict[str, Shown]]:
    """The sentence, and mechanism -> what it showed; nothing where no gallery was made. Raises DataError."""
    if not (folder / FILE).is_file():
        return None, {}
    content = read_json(folder / FILE, MAX_FILE)
    try:
        sentence = content["sentence"]
        if sentence is not None:
            source, reference = sentence
            sentence = str(source), None if reference is None else str(reference)
        return sentence, {str(name): _shown(row) for name, row in content["runs"].items()}
    except (TypeError, KeyError, AttributeError, ValueError) as error:
        raise DataError(
            f"is not what `s2s gallery` keeps ({type(error).__name__}: {error})",
            where=str(folder / FILE),
            hint="Make the gallery again from all runs, without --update",
        ) from None


def _plain(one: Shown) -> dict[str, Any]:
    picture = one.picture and {
        "source": list(one.picture.source_pieces),
        "target": list(one.picture.target_pieces),
        "weights": [[round(weight, DIGITS) for weight in row] for row in one.picture.weights],
        "caption": one.picture.caption,
    }
    measures = {name: list(value) for name, value in one.measures.items()}
    return {"run": one.run, "measures": measures, "signatures": list(one.signatures), "picture": picture}


def _shown(row: Mapping[str, Any]) -> Shown:
    picture = row["picture"]
    if picture is not None:
        pieces = [tuple(str(piece) for piece in picture[side]) for side in ("source", "target")]
        weights = tuple(tuple(float(weight) for weight in line) for line in picture["weights"])
        picture = Picture(pieces[0], pieces[1], weights, str(picture["caption"]))
    measures = {str(name): (str(value), str(detail)) for name, (value, detail) in row["measures"].items()}
    return Shown(picture, measures, str(row["run"]), tuple(str(one) for one in row["signatures"]))
