"""What the text verbs have in common: arguments, reading records, writing results."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from s2s.errors import DataError, UsageError

if TYPE_CHECKING:
    from s2s.task.generate import Request
    from s2s.types import Result


def add_device_arguments(parser: argparse.ArgumentParser) -> None:
    """Where and how a model runs."""
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--batch-size", type=int, default=64, metavar="N", help="sentences decoded together (64)")
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads of a process (all cores)")
    parser.add_argument("--seed", type=int, default=1, help="of sampling (1)")


def add_text_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of every text verb."""
    parser.add_argument("-i", "--input", default="-", metavar="FILE", help="lines to read (standard input)")
    parser.add_argument("-o", "--output", default="-", metavar="FILE", help="where to write (standard output)")
    parser.add_argument("--format", default="text", choices=("text", "jsonl"), help="one record a line (text)")
    parser.add_argument("--errors", default="strict", choices=("strict", "replace"), help="at invalid UTF-8 (strict)")
    parser.add_argument("--overlong", default="split", choices=("split", "truncate", "refuse"))
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="processes, each of one thread (1)")
    add_device_arguments(parser)


def add_search_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments that change the search a model was saved with."""
    group = parser.add_argument_group("search")
    for name, kind, text in (
        ("beam", int, "hypotheses kept; 1 is greedy"),
        ("nbest", int, "outputs a line (text: that many lines a record)"),
        ("length-penalty", float, "above 0 favours longer outputs"),
        ("coverage-penalty", float, "for source words not attended to"),
        ("max-length", int, "most tokens of an output"),
        ("min-length", int, "fewest tokens"),
        ("no-repeat-ngram", int, "no n-gram of this order twice"),
        ("top-k", int, "sample among the likeliest k"),
        ("top-p", float, "sample among the likeliest with this probability together"),
        ("temperature", float, "of sampling"),
    ):
        group.add_argument(f"--{name}", type=kind, metavar=name.upper()[0], help=text)
    group.add_argument("--sample", action="store_true", help="draw from the model instead of searching")
    group.add_argument("--prefix", default="", help="text that every output starts with")
    group.add_argument("--constraint", action="append", default=[], metavar="TEXT", help="must appear (repeatable)")
    group.add_argument("--ban", action="append", default=[], metavar="TEXT", help="must not appear (repeatable)")


def search_changes(args: argparse.Namespace) -> dict[str, Any]:
    """The fields of SearchConfig that the command line gives."""
    names = (
        *("beam", "nbest", "length_penalty", "coverage_penalty", "max_length", "min_length", "no_repeat_ngram"),
        *("top_k", "top_p", "temperature"),
    )
    changes = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    sampling = args.sample or bool({"top_k", "top_p", "temperature"} & set(changes))
    return {**changes, **({"sample": True, "seed": args.seed} if sampling else {})}


def set_threads(args: argparse.Namespace) -> None:
    """Use as many CPU threads as asked for."""
    import torch

    if args.threads is not None:
        if args.threads < 1:
            raise UsageError("--threads is out of range", expected="at least 1", found=str(args.threads))
        torch.set_num_threads(args.threads)


def read_requests(args: argparse.Namespace) -> Iterator[Request]:
    """Requests of the input, in order. JSONL objects may hold text, prefix, constraints and banned."""
    from s2s.task.generate import Request
    from s2s.text.lines import read_lines

    with read_lines(args.input, errors=args.errors) as lines:
        for line in lines:
            if args.format == "text":
                yield Request(line, args.prefix, tuple(args.constraint), tuple(args.ban))
            else:
                yield _request(line, f"{lines.name}:{lines.count}", args)
        if lines.count == 0:
            note(f"{lines.name} is empty: nothing to do")
        if lines.replaced:
            note(f"{lines.name}: {lines.replaced} invalid bytes were replaced by U+FFFD")


def _request(line: str, where: str, args: argparse.Namespace) -> Request:
    from s2s.files import parse_json
    from s2s.task.generate import Request

    record = parse_json(line.encode("utf-8", "replace"), where) if line.strip() else {"text": ""}
    known = ("text", "prefix", "constraints", "banned")
    if not isinstance(record, dict) or not isinstance(record.get("text"), str):
        raise DataError("needs the key `text` with a string", where=where, expected=f"an object of {', '.join(known)}")
    for key, value in record.items():
        fits = isinstance(value, str) if key in ("text", "prefix") else _is_texts(value)
        if key not in known or not fits:
            raise DataError(f"key {key!r} is unknown or of the wrong type", where=where, expected=", ".join(known))
    return Request(
        record["text"],
        record.get("prefix", args.prefix),
        (*args.constraint, *record.get("constraints", ())),
        (*args.ban, *record.get("banned", ())),
    )


def _is_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(entry, str) for entry in value)


def to_json(result: Result) -> dict[str, Any]:
    """A result as the object of one output line."""
    record: dict[str, Any] = {
        "input": result.input,
        "output": result.text,
        "score": result.score,
        "log_prob": result.log_prob,
        "tokens": list(result.tokens),
        "pieces": list(result.pieces),
        "flags": list(result.flags),
    }
    if result.alignment is not None:
        record["source_pieces"] = list(result.source_pieces)
        record["alignment"] = [[round(weight, 4) for weight in row] for row in result.alignment]
    if result.nbest:
        record["nbest"] = [
            {"output": one.text, "score": one.score, "log_prob": one.log_prob, "tokens": list(one.tokens)}
            for one in result.nbest
        ]
    if result.error is not None:
        record["error"] = result.error
    return record


def write_results(results: Iterable[Result], args: argparse.Namespace) -> None:
    """Write results as they come. In text, flags of trouble are counted and told at the end, on stderr."""
    counts: dict[str, int] = {}
    with open_output(args.output, args.input) as out:
        for result in results:
            if args.format == "jsonl":
                out.write(json.dumps(to_json(result), ensure_ascii=False) + "\n")
            else:
                texts = [one.text for one in result.nbest] or [result.text] * (getattr(args, "nbest", None) or 1)
                out.writelines(f"{text}\n" for text in texts)
            for flag in result.flags:
                counts[flag] = counts.get(flag, 0) + 1
    told = ", ".join(f"{count} {flag}" for flag, count in sorted(counts.items()) if flag != "blank")
    if told:
        note(f"flags: {told} (--format jsonl says which lines)")


def open_output(output: str, source: str) -> AbstractContextManager[TextIO]:
    """The output as text with `\\n` line ends; made before decoding starts, so that a wrong place fails at once.

    A file is written beside its place and renamed when it is whole. Raises UsageError if it is the input itself.
    """
    if output == "-":
        sys.stdout.reconfigure(encoding="utf-8", newline="\n", errors="replace")  # type: ignore[union-attr]
        return nullcontext(sys.stdout)
    path = Path(output)
    if source != "-" and path.exists() and os.path.exists(source) and os.path.samefile(path, source):
        raise UsageError("the output is the input file", where=f"-o {output}", hint="Name another file")
    return _whole_file(path)


@contextmanager
def _whole_file(path: Path) -> Iterator[TextIO]:
    partial = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open(partial, "w", encoding="utf-8", newline="\n", errors="replace")
    except OSError as error:
        raise UsageError(f"can't write ({error.strerror})", where=f"-o {path}") from error
    try:
        with file:
            yield file
        os.replace(partial, path)
    except BaseException as error:
        partial.unlink(missing_ok=True)
        if isinstance(error, OSError):
            from s2s.files import write_failure

            raise write_failure(error, path) from error
        raise


def note(text: str) -> None:
    """Something to say that is no result: on stderr."""
    print(f"s2s: {text}", file=sys.stderr)
