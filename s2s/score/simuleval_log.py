"""SimulEval's instance log of text-to-text translation: one JSON object a line, usually named `instances.log`.

Its keys: index, prediction, delays, elapsed, prediction_length, reference, source, source_length and metric. Lengths
and delays are in words, what blanks separate. SimulEval can score what is written here (`simuleval --score-only`), and
what it writes can be read here. Only word-level logs of text are known; logs of speech, characters or pieces are
refused.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from s2s.errors import DataError
from s2s.files import parse_json, printable, write_atomic
from s2s.score.latency import NAMES, Sentence, check_delays, latency
from s2s.text.lines import read_lines

NAME = "instances.log"


@dataclass(frozen=True)
class Instance:
    """One sentence as it was translated.

    index: its number in the corpus, from 0. delays: of each word of the prediction, how many source words had been
    read when it was written. elapsed: of each, the time in milliseconds; SimulEval gives 0 for text.
    reference: None where there is none.
    """

    index: int
    source: str
    prediction: str
    delays: tuple[int, ...]
    elapsed: tuple[float, ...]
    reference: str | None = None

    @property
    def sentence(self) -> Sentence:
        """What latency is computed from."""
        reference_length = None if self.reference is None else len(self.reference.split())
        return Sentence(self.delays, len(self.source.split()), reference_length)


def write_log(path: str | os.PathLike[str], instances: Iterable[Instance]) -> None:
    """Write a log in one step; a file that was there is replaced.

    `metric` holds the sentence's AL, LAAL (where there is a reference), DAL and AP by the papers' definitions, and
    nothing for a sentence without words. Raises DataError on an instance that `read_log` would refuse, RunError where
    the file can't be written.
    """
    lines = []
    indexes: set[int] = set()
    for number, instance in enumerate(instances, start=1):
        where = f"instance {number}"
        _check(instance, where)
        _check_index(instance.index, indexes, where)
        sentence = instance.sentence
        fields = {
            "index": instance.index,
            "prediction": instance.prediction,
            "delays": list(instance.delays),
            "elapsed": list(instance.elapsed),
            "prediction_length": len(instance.delays),
            "reference": instance.reference,
            "source": instance.source,
            "source_length": sentence.source_length,
            "metric": _metric(sentence),
        }
        # Escaped to ASCII as SimulEval does, which reads the file in the encoding of the locale.
        lines.append(json.dumps(fields, ensure_ascii=True, allow_nan=False) + "\n")
    write_atomic(os.fspath(path), "".join(lines).encode("ascii"))


def read_log(path: str | os.PathLike[str]) -> list[Instance]:
    """The instances of a log, in the order of the file.

    The line end that SimulEval leaves at the end of a reference is taken off. `metric` and keys that are not named in
    the module are not read: what they say can be computed again. Raises DataError with file:line on a line that is no
    such object, on lengths that contradict the text, on delays that can't be, and on an index that stands twice
    (SimulEval appends to a log that it finds).
    """
    instances = []
    indexes: set[int] = set()
    with read_lines(path) as lines:
        for number, line in enumerate(lines, start=1):
            where = f"{os.fspath(path)}:{number}"
            instance = _parse(parse_json(line.encode("utf-8"), where), where)
            _check_index(instance.index, indexes, where)
            instances.append(instance)
    return instances


def _parse(fields: object, where: str) -> Instance:
    """The instance in one JSON value of a log."""
    if not isinstance(fields, dict):
        raise DataError("is no instance", where=where, expected="a JSON object", found=printable(fields))
    reference = _field(fields, "reference", where)
    if reference is not None:
        reference = _text(reference, "reference", where).removesuffix("\n")
    instance = Instance(
        _integer(_field(fields, "index", where), "index", where),
        _text(_field(fields, "source", where), "source", where),
        _text(_field(fields, "prediction", where), "prediction", where),
        tuple(_integer(delay, "delays", where) for delay in _list(fields, "delays", where)),
        tuple(_number(time, "elapsed", where) for time in _list(fields, "elapsed", where)),
        reference,
    )
    _check(instance, where)
    for name, text in (("source_length", instance.source), ("prediction_length", instance.prediction)):
        length = _integer(_field(fields, name, where), name, where)
        if length != len(text.split()):
            raise DataError(
                f"{name} is not the number of words",
                where=where,
                expected=str(len(text.split())),
                found=str(length),
                hint="Write the log with --eval-latency-unit word",
            )
    return instance


def _check(instance: Instance, where: str) -> None:
    """Refuse what contradicts itself."""
    words = len(instance.prediction.split())
    for name, values in (("delays", instance.delays), ("elapsed", instance.elapsed)):
        if len(values) != words:
            raise DataError(
                f"{name} and prediction differ in length",
                where=where,
                expected=f"{words} {name}",
                found=str(len(values)),
            )
    check_delays(instance.delays, instance.sentence.source_length, where=where)


def _check_index(index: int, seen: set[int], where: str) -> None:
    if index < 0:
        raise DataError("an index is not negative", where=where, expected="an integer >= 0", found=str(index))
    if index in seen:
        raise DataError(
            f"index {index} stands a second time",
            where=where,
            hint="SimulEval appends to a log that it finds: give each run a folder of its own",
        )
    seen.add(index)


def _metric(sentence: Sentence) -> dict[str, float]:
    if not (sentence.delays and sentence.source_length):
        return {}
    known = [name for name in NAMES if name != "laal" or sentence.reference_length is not None]
    return {name.upper(): latency(name, sentence) for name in known}


def _field(fields: Mapping[str, Any], name: str, where: str) -> Any:
    if name not in fields:
        raise DataError(f"the key {name!r} is missing", where=where)
    return fields[name]


def _list(fields: Mapping[str, Any], name: str, where: str) -> list[Any]:
    values = _field(fields, name, where)
    if not isinstance(values, list):
        raise _wrong(values, name, where, "a list")
    return values


def _text(value: Any, name: str, where: str) -> str:
    if not isinstance(value, str):
        raise _wrong(value, name, where, "text")
    return value


def _integer(value: Any, name: str, where: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise _wrong(value, name, where, "a whole number")
    return value


def _number(value: Any, name: str, where: str) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise _wrong(value, name, where, "a number")
    return value


def _wrong(value: Any, name: str, where: str, expected: str) -> DataError:
    hint = "Only logs of text-to-text translation in words can be read"
    return DataError(f"{name} is of another kind", where=where, expected=expected, found=printable(value), hint=hint)
