"""`s2s compare RUN RUN ...`: runs beside each other: scores with paired tests against the first, speed, size."""

from __future__ import annotations

import argparse
import itertools
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from s2s.command import text
from s2s.errors import DataError, UsageError

MAX_SCORES = 1 << 22  # bytes of scores.json
MAX_CONFIG = 1 << 20  # bytes of config.yaml
SWAPS = 10  # random swaps of approximate randomisation for each bootstrap sample


@dataclass
class Run:
    """What a run folder says of itself; None where it doesn't say it.

    outputs, references: lines of the split. scores: of `scores.json`, by metric; those of the paired tests take their
    place where outputs are there. p_values: against the first run, by metric and test. attention_statistics: entropy
    and monotonicity of the outputs' alignments. alignment: error rate of forced references against known links.
    """

    name: str
    attention: str | None = None
    parameters: int | None = None
    training_tokens_per_second: float | None = None
    decoding_sentences_per_second: float | None = None
    minutes: float | None = None
    steps: int | None = None
    scores: dict[str, dict[str, Any]] = field(default_factory=dict)
    p_values: dict[str, dict[str, float]] = field(default_factory=dict)
    attention_statistics: dict[str, float | None] = field(default_factory=dict)
    alignment: dict[str, float] = field(default_factory=dict)
    outputs: list[str] | None = None
    references: list[list[str]] | None = None
    scoring: dict[str, Any] = field(default_factory=dict)  # fields of `s2s.score.metrics.Scoring`


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `s2s compare`."""
    parser.add_argument("runs", nargs="+", metavar="RUN", help="run folders; the others are tested against the first")
    parser.add_argument("--split", default="test", metavar="NAME", help="whose outputs are compared (test)")
    parser.add_argument("--ref", metavar="FILE", help="references of runs that were kept without theirs")
    shape = parser.add_mutually_exclusive_group()
    shape.add_argument("--json", action="store_true", help="print one JSON list, numbers in full")
    shape.add_argument("--format", default="text", choices=("text", "markdown"), help="of the table (text)")
    parser.add_argument(
        "--samples", type=int, default=1000, metavar="N", help=f"bootstrap samples, and random swaps / {SWAPS} (1000)"
    )


def run(args: argparse.Namespace) -> int:
    """Print the table. Raises UsageError for what is no run folder, DataError where the references differ."""
    if len(args.runs) < 2:
        raise UsageError("one run can't be compared", expected="at least 2 run folders", found=str(len(args.runs)))
    runs = [read_run(name, args.split, args.ref) for name in args.runs]
    if all(not one.scores and one.outputs is None for one in runs):
        text.note(f"no run has scores of the split {args.split}")
    _test(runs, args.split, args.samples)
    if args.json:
        rows = [{key: value for key, value in vars(one).items() if key not in _HIDDEN} for one in runs]
        print(json.dumps(rows, ensure_ascii=False, indent=1))
    else:
        table, below = _table(runs, args.split)
        shown = _markdown(table, below) if args.format == "markdown" else [*_aligned(table), *below]
        print("\n".join(shown))
    return 0


_HIDDEN = ("outputs", "references", "scoring")


def read_run(name: str, split: str, ref: str | None = None) -> Run:
    """The facts of a run folder. ref: file of references for a folder that has none.

    Raises UsageError for another folder, DataError where its outputs are not whole.
    """
    from s2s.bundle import MANIFEST
    from s2s.errors import BundleError
    from s2s.files import present, read_json
    from s2s.train.log import read_log

    folder = Path(name)
    if not (folder / "config.yaml").is_file() and not (folder / "log.jsonl").is_file():
        raise UsageError("is no run folder: it has neither config.yaml nor log.jsonl", where=name)
    run = Run(name)
    if (present(folder / "model") / MANIFEST).is_file():
        _read_model(run, present(folder / "model"))
    elif (folder / "config.yaml").is_file():  # a result that was kept without its model
        _read_config(run, _yaml(folder / "config.yaml"))
    _read_events(run, read_log(folder / "log.jsonl"), split)
    if (folder / "scores.json").is_file():
        scores = read_json(folder / "scores.json", MAX_SCORES, error=BundleError)
        own = scores.get(split) if isinstance(scores, dict) else None
        run.scores = {score["name"]: score for score in own or [] if isinstance(score, dict) and "name" in score}
    outputs, references = folder / f"{split}.hyp", folder / f"{split}.ref"
    if ref is not None and not references.is_file():
        references = Path(ref)
        if not references.is_file():
            raise DataError("there is no such file", where=ref, expected="the references of the runs that have none")
    if outputs.is_file() and references.is_file():
        run.outputs = text.read_all(str(outputs), "strict")
        more = itertools.takewhile(Path.is_file, (folder / f"{split}.ref.{number}" for number in itertools.count(2)))
        files = [references, *(more if references.parent == folder else ())]
        run.references = [text.read_all(str(file), "strict") for file in files]
        for file, lines in zip(files, run.references, strict=True):
            if len(run.outputs) != len(lines):
                raise DataError(
                    "not as many outputs as references",
                    where=str(outputs),
                    expected=f"{len(lines)} lines as in {file.name}",
                    found=f"{len(run.outputs)}",
                    hint=f"Finish the run again with: s2s train --resume {name}",
                )
    return run


def _read_model(run: Run, folder: Path) -> None:
    from s2s.bundle import WEIGHTS, headers, read_config

    run.parameters = sum(math.prod(header.shape) for header in headers(folder / WEIGHTS).values())
    _read_config(run, read_config(folder))


def _yaml(path: Path) -> Mapping[str, Any]:
    """A run's config.yaml as plain values. Raises DataError."""
    with open(path, "rb") as file:
        content = file.read(MAX_CONFIG + 1)
    if len(content) > MAX_CONFIG:
        raise DataError("is too big", where=str(path), expected=f"at most {MAX_CONFIG:,} bytes")
    try:
        config = yaml.safe_load(content)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise DataError("is no YAML", where=str(path), hint="Compare without this run") from error
    return config if isinstance(config, dict) else {}


def _read_config(run: Run, config: Mapping[str, Any]) -> None:
    attention, task = config.get("attention"), config.get("task")
    if isinstance(attention, dict):
        run.attention = attention.get("name")
    if isinstance(task, dict):
        kinds = {"lowercase": bool, "tokenize": str, "rouge_tokenize": str, "stem": bool}
        run.scoring = {key: task[key] for key, kind in kinds.items() if isinstance(task.get(key), kind)}


def _read_events(run: Run, events: Sequence[Mapping[str, Any]], split: str) -> None:
    """Take in what the log tells. Of a run with several sessions the last word counts."""
    from s2s.train.log import training_speed

    for event in events:
        if event["event"] == "start" and run.parameters is None:
            run.parameters = event.get("parameters")
        if "step" in event and "seconds" in event and event["event"] in ("train", "valid", "end"):
            run.steps, run.minutes = event["step"], event["seconds"] / 60
        if event["event"] == "test" and event.get("split") == split:
            run.decoding_sentences_per_second = event.get("sentences_per_second")
            run.attention_statistics, run.alignment = event.get("attention") or {}, event.get("alignment") or {}
    run.training_tokens_per_second = training_speed(events)


def _test(runs: Sequence[Run], split: str, samples: int) -> None:
    """Put scores with intervals and p-values into the runs that kept their outputs; all by the first one's settings.

    Raises DataError where their references differ.
    """
    from s2s.score.metrics import Scoring
    from s2s.score.significance import paired_tests

    kept = [run for run in runs if run.outputs is not None and run.references is not None]
    for run in kept[1:]:
        _same_references(kept[0], run, split)
        if run.scoring != kept[0].scoring:
            text.note(f"{run.name} was scored otherwise; here it is scored as {kept[0].name} was")
    for run in runs:
        if run not in kept:
            text.note(f"{run.name} has no {split}.hyp and {split}.ref: it takes no part in the tests")
    if len(kept) < 2:
        return
    names = list(dict.fromkeys(name for run in kept for name in run.scores)) or ["bleu", "chrf"]
    systems = [(run.name, run.outputs or []) for run in kept]
    for result in paired_tests(
        systems,
        kept[0].references or [],
        names,
        Scoring(**kept[0].scoring),
        samples=samples,
        trials=SWAPS * samples,
    ):
        run = next(run for run in kept if run.name == result.system)
        if result.test == "bootstrap":
            run.scores[result.metric] = {
                "name": result.metric,
                "value": result.score,
                "low": result.low,
                "high": result.high,
                "signature": result.signature,
                "higher_is_better": result.higher_is_better,
            }
        if result.p_value is not None and kept[0] is runs[0]:
            run.p_values.setdefault(result.metric, {})[result.test] = result.p_value


def _same_references(first: Run, other: Run, split: str) -> None:
    ours, theirs = (list(zip(*run.references or [[]], strict=True)) for run in (first, other))
    if ours == theirs:
        return
    both = zip(ours, theirs, strict=False)
    line = next((number for number, (one, two) in enumerate(both, 1) if one != two), min(len(ours), len(theirs)) + 1)
    raise DataError(
        f"the references of {split} differ: these runs can't be compared",
        where=f"{Path(other.name) / split}.ref:{line}",
        expected=f"the {len(ours)} lines of {Path(first.name) / split}.ref",
        found=f"{len(theirs)} lines, other ones from line {line} on",
        hint="Train them on the same corpus with the same options",
    )


def _table(runs: Sequence[Run], split: str) -> tuple[list[list[str]], list[str]]:
    """A head, a row a run, and what stands below them: what the numbers are and how they were tested."""
    names = list(dict.fromkeys(name for run in runs for name in run.scores))
    head = ["run", "attention", "parameters"]
    for name in names:
        head += [name, "95 % interval", "p boot", "p rand"]
    rows = [[*head, "entropy", "monotone", "AER", "tokens/s", "sentences/s", "minutes", "steps"]]
    for run in runs:
        cells = [run.name, run.attention or "-", _number(run.parameters)]
        for name in names:
            score, tests = run.scores.get(name, {}), run.p_values.get(name, {})
            bounded = score.get("low") is not None and score.get("high") is not None
            cells.append(_number(score.get("value"), 2))
            cells.append(f"{score['low']:.2f}-{score['high']:.2f}" if bounded else "-")
            cells += [_number(tests.get(test), 4) for test in ("bootstrap", "randomisation")]
        cells += [_number(run.attention_statistics.get(key), 2) for key in ("entropy", "monotonicity")]
        cells.append(_number(run.alignment.get("error_rate"), 3))
        speeds = _number(run.training_tokens_per_second, 0), _number(run.decoding_sentences_per_second, 0)
        rows.append([*cells, *speeds, _number(run.minutes, 1), _number(run.steps)])
    below = []
    if any(run.p_values for run in runs):
        below.append(f"p: of the difference to {runs[0].name}; paired bootstrap and approximate randomisation")
    if any(run.attention_statistics for run in runs):
        below.append("entropy: of the attention, nats a written token; 0 where it looks at one source token only")
        below.append("monotone: 1 where the attention never moves back in the source, -1 where it always does")
    if any(run.alignment for run in runs):
        below.append("AER: alignment error rate of the references against their true links, 0 to 1, lower is better")
    signed = {(name, score["signature"]) for run in runs for name, score in run.scores.items() if "signature" in score}
    return rows, [*below, *(f"{name} of {split}: {signature}" for name, signature in sorted(signed))]


def _number(value: float | None, digits: int = 0) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"


def _aligned(rows: Iterable[Sequence[str]]) -> list[str]:
    """Rows as lines with columns of equal width, the first two set to the left."""
    columns = list(zip(*rows, strict=True))
    widths = [max(map(len, column)) for column in columns]
    return [
        "  ".join(
            cell.ljust(width) if place < 2 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in zip(*columns, strict=True)
    ]


def _markdown(rows: Sequence[Sequence[str]], below: Sequence[str]) -> list[str]:
    """The table as Markdown, and the lines below it as a list."""
    ruler = ["---" if place < 2 else "---:" for place in range(len(rows[0]))]
    cells = ([cell.replace("|", "\\|") for cell in row] for row in (rows[0], ruler, *rows[1:]))
    return [*(f"| {' | '.join(row)} |" for row in cells), "", *(f"- {line}" for line in below)]
