"""report.html: one page for each run that needs no network and no other file.

All text in it comes from corpora, models and users, so none of it is trusted. It travels as JSON in which nothing can
end the script element, and the page's own script puts it on the screen as text, never as markup. A content security
policy that lists the page's own style and script by hash forbids all else, outside requests included.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

from s2s.errors import DataError
from s2s.files import write_atomic
from s2s.score.metrics import TITLES
from s2s.types import SPECIALS, Score

# Bounds that keep the page small; the page says where one was met.
MAX_SAMPLES = 50
MAX_WEIGHTS = 20_000  # cells of one sample's matrix
MAX_POINTS = 400  # of one curve
MAX_TEXT = 5_000  # characters of one text of a sample
MAX_CONFIG = 200_000  # characters

_SAMPLES_TITLES = {
    "translation": "Sample translations",
    "summarisation": "Sample summaries",
    "dialogue": "Sample replies",
}
# Keys of a "valid" event that are no metric.
_NOT_METRICS = {
    "step",
    "epoch",
    "loss",
    "nll",
    "ppl",
    "seconds",
    "minutes",
    "time",
    "tokens",
    "tokens_per_second",
    "lr",
}


@dataclass(frozen=True)
class Sample:
    """One example to show.

    reference: None where there is none. score: of this example alone, or None.
    source_pieces (S), pieces (T): what the model read and wrote, special pieces included.
    alignment: T rows of S weights in [0, 1], or None where no attention was recorded.
    generated: of each piece the probability that it was generated, not copied; empty where nothing can be copied.
    """

    source: str
    output: str
    reference: str | None = None
    source_pieces: Sequence[str] = ()
    pieces: Sequence[str] = ()
    alignment: Sequence[Sequence[float]] | None = None
    flags: Sequence[str] = ()
    score: float | None = None
    generated: Sequence[float] = ()


@dataclass(frozen=True)
class ReportData:
    """All that a report shows. Every part may be empty: a sentence then stands in its place.

    name: of the run. task: "translation", "summarisation", "dialogue". created: date and time as text.
    scores: split -> its scores; the first score of the first split is the headline.
    events: the objects of log.jsonl. samples: see `Sample`; sample_score names their score.
    data_text: where the data comes from, its licence; splits: split -> pairs; drops: reason -> how many were dropped.
    machine: name -> value, in the order to show (`machine_facts`, wall time, peak memory, tokens/s).
    languages: language codes of source and target, or empty; they pick the right shapes for Han characters.
    notes: what a reader must know, such as a run that was cut off.
    profile: where the time of an update goes: `parts` of [name, seconds, fewest seconds], and a `text`.
    """

    name: str
    task: str = ""
    created: str = ""
    languages: tuple[str, str] = ("", "")
    scores: Mapping[str, Sequence[Score]] = field(default_factory=dict)
    events: Sequence[Mapping[str, Any]] = ()
    samples: Sequence[Sample] = ()
    sample_score: str = "score"
    data_text: str = ""
    splits: Mapping[str, int] = field(default_factory=dict)
    drops: Mapping[str, int] = field(default_factory=dict)
    config_text: str = ""
    machine: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()
    profile: Mapping[str, Any] | None = None


def write_report(path: str | Path, data: ReportData) -> None:
    """Write the page to `path` as UTF-8.

    Raises DataError where an alignment doesn't fit its pieces, RunError where the file can't be written.
    """
    css, js, page = (asset(f"report.{kind}") for kind in ("css", "js", "html"))
    # One pass over the template: what is put in is not searched again.
    text = Template(page).substitute(
        title=html.escape(f"{data.name} · s2s report"),
        css=css,
        css_hash=content_hash(css),
        js=js,
        js_hash=content_hash(js),
        json=_embed(_content(data)),
    )
    write_atomic(path, text.encode("utf-8", "replace"))


def asset(name: str) -> str:
    """A page, style or script of this package."""
    # Bytes, so that line ends stay as the hash counts them.
    return resources.files("s2s.show").joinpath(name).read_bytes().decode("utf-8")


def content_hash(text: str) -> str:
    """SHA-256 as a content security policy names it."""
    return base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")


def _embed(content: dict[str, Any]) -> str:
    """JSON that can stand inside a script element: no markup character, no line separator, no lone surrogate."""
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return re.sub("[<>&\u2028\u2029\ud800-\udfff]", lambda m: f"\\u{ord(m[0]):04x}", text)


def _content(data: ReportData) -> dict[str, Any]:
    return {
        "name": data.name,
        "task": data.task,
        "created": data.created,
        "languages": list(data.languages),
        "scores": _scores(data.scores),
        "samples_title": _SAMPLES_TITLES.get(data.task, "Samples"),
        "samples": [_sample(sample, f"sample {i}") for i, sample in enumerate(data.samples[:MAX_SAMPLES], 1)],
        "samples_left_out": max(0, len(data.samples) - MAX_SAMPLES),
        "sample_score": data.sample_score,
        "curves": _curves(data.events),
        "data": {"text": data.data_text, "splits": list(data.splits.items()), "drops": list(data.drops.items())},
        "machine": list(data.machine.items()),
        "profile": None if data.profile is None else dict(data.profile),
        "config": _cut(data.config_text, MAX_CONFIG),
        "notes": list(data.notes),
    }


def _scores(scores: Mapping[str, Sequence[Score]]) -> dict[str, Any]:
    """One row a metric, one cell a split."""
    names = list(dict.fromkeys(score.name for of_split in scores.values() for score in of_split))
    rows = []
    for name in names:
        found = [next((s for s in of_split if s.name == name), None) for of_split in scores.values()]
        there = [s for s in found if s is not None]
        rows.append(
            {
                "name": name,
                "higher_is_better": there[0].higher_is_better,
                "signatures": list(dict.fromkeys(s.signature for s in there)),
                "cells": [None if s is None else _cell(s) for s in found],
            }
        )
    return {"splits": list(scores), "rows": rows}


def _cell(score: Score) -> dict[str, Any]:
    return {
        "value": _finite(score.value),
        "low": _finite(score.low),
        "high": _finite(score.high),
        "details": {name: _finite(value) for name, value in score.details.items()},
    }


def _sample(sample: Sample, where: str) -> dict[str, Any]:
    content: dict[str, Any] = {
        "source": _cut(sample.source, MAX_TEXT),
        "output": _cut(sample.output, MAX_TEXT),
        "reference": None if sample.reference is None else _cut(sample.reference, MAX_TEXT),
        "flags": list(sample.flags),
        "score": _finite(sample.score),
        "attention": None,
        "remark": "",
    }
    if sample.alignment is None or not sample.alignment:
        return content
    rows, columns = len(sample.pieces), len(sample.source_pieces)
    shapes = {len(row) for row in sample.alignment}
    if len(sample.alignment) != rows or shapes != {columns} or not columns:
        raise DataError(
            "an alignment doesn't fit its pieces",
            where=where,
            expected=f"(pieces, source pieces) = ({rows}, {columns})",
            found=f"({len(sample.alignment)}, {' or '.join(map(str, sorted(shapes)))})",
        )
    if rows * columns > MAX_WEIGHTS:
        content["remark"] = f"The attention of this sample ({rows} x {columns} weights) is too large for this page."
        return content
    broken = sum(_finite(w) is None for row in sample.alignment for w in row)
    if broken:
        content["remark"] = (
            f"{broken} of {rows * columns} weights of this sample are not finite numbers; they are shown as 0."
        )
    content["attention"] = {
        "source": words(sample.source_pieces),
        "output": words(sample.pieces),
        # Three decimals, as whole thousandths: half the size of "0.123".
        "rows": [[_thousandths(weight) for weight in row] for row in sample.alignment],
        "copied": [1000 - _thousandths(share) for share in sample.generated] if len(sample.generated) == rows else None,
    }
    return content


def _thousandths(share: float) -> int:
    return round(1000 * min(1.0, max(0.0, _finite(share) or 0.0)))


def words(pieces: Sequence[str]) -> list[dict[str, Any]]:
    """Pieces as a reader sees them: text, whether a space precedes it, whether it is a special piece.

    With sentencepiece's mark of a word start (U+2581), the mark tells; single characters stand side by side; whole
    words have spaces between them.
    """
    marked = any("▁" in piece for piece in pieces)
    characters = not marked and all(len(piece) == 1 or piece in SPECIALS for piece in pieces)
    found = []
    for piece in pieces:
        text = piece.removeprefix("▁").replace("▁", " ") if marked else piece
        gap = piece.startswith("▁") if marked else not characters
        found.append(
            {"text": text if text.strip() else "␣", "gap": gap, "special": piece in SPECIALS or not text.strip()}
        )
    return found


def _curves(events: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Charts over step and minute. A point is [step, minute or null, value or null]; null where it isn't finite."""
    timed = _with_minutes(events)
    metrics = dict.fromkeys(
        key
        for event, _ in timed
        if event["event"] == "valid"
        for key, value in event.items()
        if key not in _NOT_METRICS and isinstance(value, float | int) and not isinstance(value, bool)
    )
    wanted: list[tuple[str, bool, list[tuple[str, str, str]]]] = [
        (
            "Loss (nats a token)",
            False,
            [("train", "loss", "train"), ("valid", "loss", "dev"), ("train", "nll", "train nll")],
        ),
        ("Dev scores", True, [("valid", key, TITLES.get(key, key)) for key in metrics][:4]),
        ("Dev perplexity", False, [("valid", "ppl", "perplexity")]),
        ("Learning rate", True, [("train", "lr", "learning rate")]),
        ("Speed (target tokens/s)", True, [("train", "tokens_per_second", "tokens/s")]),
    ]
    charts, thinned = [], False
    for name, from_zero, lines in wanted:
        series = []
        for kind, key, label in lines:
            points = [[e["step"], minute, _finite(e[key])] for e, minute in timed if e["event"] == kind and key in e]
            thinned |= len(points) > MAX_POINTS
            if points:
                series.append({"label": label, "points": _thin(points)})
        if series:
            charts.append({"name": name, "from_zero": from_zero, "series": series})
    return {"charts": charts, "minutes": any(m is not None for _, m in timed), "thinned": MAX_POINTS if thinned else 0}


def _with_minutes(events: Sequence[Mapping[str, Any]]) -> list[tuple[Mapping[str, Any], float | None]]:
    """Train and valid events with the minutes of training so far; a resumed run's clock goes on from the old one."""
    timed: list[tuple[Mapping[str, Any], float | None]] = []
    before, last = 0.0, None
    for event in events:
        if event.get("event") not in ("train", "valid") or not isinstance(event.get("step"), int):
            continue
        seconds = _finite(event.get("seconds"))
        if seconds is not None:
            if last is not None and before + seconds < last:
                before = last
            last = before + seconds
        timed.append((event, None if last is None else round(last / 60, 3)))
    return timed


def _thin(points: list[list[Any]]) -> list[list[Any]]:
    """At most MAX_POINTS points: each the mean of neighbours, at the place of the last one."""
    size = math.ceil(len(points) / MAX_POINTS)
    thin = []
    for start in range(0, len(points), size):
        group = points[start : start + size]
        values = [p[2] for p in group if p[2] is not None]
        thin.append([*group[-1][:2], float(f"{sum(values) / len(values):.5g}") if values else None])
    return thin


def _finite(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[:most]}… [{len(text) - most:,} more characters are not shown]"
