"""What the text verbs have in common: arguments, reading records, writing results."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from s2s.errors import DataError, UsageError
from s2s.files import parse_json, write_atomic

if TYPE_CHECKING:
    from s2s.task.request import Request
    from s2s.text.lines import Errors
    from s2s.types import Result


def add_device_arguments(parser: argparse.ArgumentParser) -> None:
    """Where and how a model runs."""
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--batch-size", type=int, default=64, metavar="N", help="sentences decoded together (64)")
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads of a process (all cores)")
    parser.add_argument(
        "--plugin", action="append", default=[], metavar="MODULE", help="that the model was trained with"
    )


def add_engine_arguments(parser: argparse.ArgumentParser) -> None:
    """What runs a model."""
    parser.add_argument(
        "--engine",
        default="torch",
        choices=("torch", "ctranslate2"),
        help="what runs the model (torch); ctranslate2: a Transformer only, faster on a CPU",
    )
    parser.add_argument(
        "--precision",
        default="float32",
        choices=("float32", "int8", "bf16"),
        help="of the products (float32); rounded, and faster the wider a model is: int8 on a CPU, bf16 on a GPU",
    )
    parser.add_argument(
        "--graphs",
        default="auto",
        choices=("auto", "off"),
        help="on a GPU: steps as CUDA graphs, where the model allows it (auto)",
    )


_OVERLONG = {
    "split": "decode its parts and join the outputs",
    "merge": "go on with what was joined until it fits",
    "truncate": "cut it off",
    "turns": "leave out the oldest turns",
    "refuse": "leave it out",
}


def add_text_arguments(
    parser: argparse.ArgumentParser, overlong: Sequence[str] = ("split", "merge", "truncate", "refuse")
) -> None:
    """Arguments of every text verb. overlong: what it can do with long texts."""
    parser.add_argument("-i", "--input", default="-", metavar="FILE", help="lines to read (standard input)")
    parser.add_argument("-o", "--output", default="-", metavar="FILE", help="where to write (standard output)")
    parser.add_argument("--format", default="text", choices=("text", "jsonl"), help="one record a line (text)")
    parser.add_argument("--errors", default="strict", choices=("strict", "replace"), help="at invalid UTF-8 (strict)")
    parser.add_argument(
        "--overlong",
        choices=overlong,
        help="at a text above the model's length limit: "
        + ", ".join(f"{_OVERLONG[name]} ({name})" for name in overlong)
        + "; if not given, as in training",
    )
    parser.add_argument(
        "--workers", type=int, default=1, metavar="N", help="processes; several have one thread each (1)"
    )
    add_device_arguments(parser)


def add_search_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments that change the search a model was saved with."""
    group = parser.add_argument_group("search (what isn't given is as the model was saved with)")
    for name, kind, text in (
        ("beam", int, "hypotheses kept; 1 is greedy"),
        ("beam-groups", int, "beams that these are dealt out to: diverse beam search"),
        ("diversity", float, "with --beam-groups: what a token costs that an earlier beam takes too"),
        ("length-penalty", float, "above 0 favours longer outputs"),
        ("coverage-penalty", float, "for source words not attended to"),
        ("max-length", int, "most tokens of an output"),
        ("min-length", int, "fewest tokens"),
        ("words", int, "words an output shall have, of a model with model.features=[length]"),
        ("no-repeat-ngram", int, "no n-gram of this order twice"),
        ("shortlist", int, "candidates of each source token alone, of a model with trainer.lexicon; 0: all tokens"),
        ("top-k", int, "sample among the likeliest k"),
        ("top-p", float, "sample among the likeliest with this probability together"),
        ("temperature", float, "of sampling"),
        ("seed", int, "of sampling"),
        ("forward-threshold", float, "with --forward threshold: weights of past steps that use a token up"),
        ("forward-back", int, "with --forward window: tokens before the last one"),
        ("forward-ahead", int, "with --forward window: tokens from the last one on"),
        ("eager", float, "how much earlier (above 0) a monotonic attention stops"),
    ):
        group.add_argument(f"--{name}", type=kind, metavar=name.upper()[0], help=text)
    group.add_argument(
        "--forward",
        choices=("off", "soft", "threshold", "strict", "window"),
        help="keep the attention from going back: used source tokens lose weight (soft) or are out of reach "
        "(threshold), only those after the last one are left (strict), or those around it (window)",
    )
    group.add_argument(
        "--forward-exhausted",
        choices=("last", "zero"),
        help="when no source token is left: the last one again, or nothing",
    )
    group.add_argument("--sample", action="store_true", help="draw from the model instead of searching")


def add_request_arguments(parser: argparse.ArgumentParser) -> None:
    """What is asked of the output of every record."""
    group = parser.add_argument_group("output")
    group.add_argument("--nbest", type=int, default=1, metavar="N", help="outputs a record (text: that many lines)")
    group.add_argument("--prefix", default="", metavar="TEXT", help="text that every output starts with")
    group.add_argument("--constraint", action="append", default=[], metavar="TEXT", help="must appear (repeatable)")
    group.add_argument("--ban", action="append", default=[], metavar="TEXT", help="must not appear (repeatable)")


def add_rerank_arguments(parser: argparse.ArgumentParser) -> None:
    """Which of the outputs that a search has found is given."""
    group = parser.add_argument_group("which of the outputs found is given")
    group.add_argument("--mmi-lm", metavar="MODEL", help="the less so, the likelier this model of replies finds it")
    group.add_argument("--mmi-reverse", metavar="MODEL", help="the more so, the likelier this model can tell the input")
    group.add_argument("--mmi-weight", type=float, metavar="W", help="how much these two count, 0 to 1 (0.5)")
    group.add_argument("--mmi-first", type=int, metavar="N", help="tokens that --mmi-lm counts (5)")
    group.add_argument("--mmi-length", type=float, metavar="G", help="added for each token (0)")
    group.add_argument("--draws", type=int, metavar="N", help="samples to choose from, where it samples (1)")
    group.add_argument("--avoid", metavar="FILE", help="replies, one a line, that are given only for want of others")
    group.add_argument("--unwanted", metavar="FILE", help="words, one a line: avoided, and starred out at worst")
    group.add_argument(
        "--keyword-model", metavar="MODEL", help="each reply holds a keyword that this model, to it, begins it with"
    )
    group.add_argument("--fresh", action="store_true", help="avoid what was said before in the conversation")


def rerank_changes(args: argparse.Namespace) -> dict[str, Any]:
    """What the arguments of `add_rerank_arguments` ask of `Model.generator`. Raises UsageError, DataError for files."""
    from s2s.task.rerank import Rerank

    given = {"weight": args.mmi_weight, "first": args.mmi_first, "length": args.mmi_length, "draws": args.draws}
    if (args.mmi_weight is not None or args.mmi_first is not None) and not (args.mmi_lm or args.mmi_reverse):
        raise UsageError("there is nothing to weigh", where="--mmi-weight, --mmi-first", hint="Give --mmi-lm MODEL too")
    made = Rerank(
        args.mmi_lm,
        args.mmi_reverse,
        **{key: value for key, value in given.items() if value is not None},
        avoid=tuple(read_all(args.avoid, "strict")) if args.avoid else (),
        unwanted=tuple(read_all(args.unwanted, "strict")) if args.unwanted else (),
        fresh=args.fresh,
    )
    return {"rerank": made if made else None, "keyword_model": args.keyword_model}


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Which models a text verb runs."""
    parser.add_argument("model", metavar="MODEL", help="a run folder or a bundle folder")
    parser.add_argument("--ensemble", nargs="+", default=[], metavar="MODEL", help="further models to decode with")
    parser.add_argument("--alignment", action="store_true", help="with --format jsonl: attention weights too")


def run_models(args: argparse.Namespace, requests: Iterable[Request], task: str | None = None) -> Iterator[Result]:
    """The results of requests, in their order, by the models that the arguments name. Raises S2SError.

    task: that these must have been trained for.
    """
    from s2s.task.workers import generate

    if args.alignment and args.format != "jsonl":
        raise UsageError("--alignment has no place in lines of text", hint="Add --format jsonl")
    settings = {
        "task": task,
        **(rerank_changes(args) if hasattr(args, "mmi_lm") else {}),
        "alignment": args.alignment,
        "title": getattr(args, "title", False),
        "batch_size": args.batch_size,
        "overlong": args.overlong,
        "engine": getattr(args, "engine", "torch"),
        "precision": getattr(args, "precision", "float32"),
        "graphs": getattr(args, "graphs", "auto"),
        **search_changes(args),
    }
    set_threads(args)
    models = [args.model, *args.ensemble]
    return generate(models, requests, settings, device=args.device, workers=args.workers, plugins=args.plugin)


def search_changes(args: argparse.Namespace) -> dict[str, Any]:
    """The fields of SearchConfig that the command line gives; one output a record unless it asks for more."""
    names = (
        *("beam", "beam_groups", "diversity", "length_penalty", "coverage_penalty"),
        *("max_length", "min_length", "words", "no_repeat_ngram", "shortlist"),
        *("top_k", "top_p", "temperature", "seed"),
        *("forward", "forward_threshold", "forward_back", "forward_ahead", "forward_exhausted", "eager"),
    )
    changes = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    if args.sample or {"top_k", "top_p", "temperature"} & set(changes):
        changes["sample"] = True
    return {**changes, "nbest": getattr(args, "nbest", 1)}


def set_threads(args: argparse.Namespace) -> None:
    """Use as many CPU threads as asked for."""
    import torch

    if args.threads is not None:
        if args.threads < 1:
            raise UsageError("--threads is out of range", expected="at least 1", found=str(args.threads))
        torch.set_num_threads(args.threads)


def each_line(path: str, errors: Errors) -> Iterator[tuple[str, str]]:
    """Each line of a file (`-`: of the standard input), blank ones too, and where it stands.

    At the end a note says so where bytes were replaced. Raises UsageError where the standard input is closed.
    """
    from s2s.text.lines import read_lines

    if path == "-" and sys.stdin is None:
        raise UsageError("the standard input is closed", where="-i -", hint="Name a file by -i")
    with read_lines(path, errors=errors) as lines:
        for line in lines:
            yield line, f"{lines.name}:{lines.count}"
        if lines.replaced:
            note(f"{lines.name}: {lines.replaced} invalid bytes were replaced by U+FFFD")


def input_lines(args: argparse.Namespace) -> Iterator[tuple[str, str]]:
    """`each_line` of the input; a note says so where there is none."""
    empty = True
    for line in each_line(args.input, args.errors):
        empty = False
        yield line
    if empty:
        note(f"{'<stdin>' if args.input == '-' else args.input} is empty: nothing to do")


def read_all(path: str, errors: Errors) -> list[str]:
    """All lines of a file (`-`: of the standard input), blank ones too."""
    return [line for line, _ in each_line(path, errors)]


def read_requests(
    args: argparse.Namespace, read: Callable[[Any, str, argparse.Namespace], Request] | None = None
) -> Iterator[Request]:
    """Requests of the input, in order. read: what takes a record of JSONL and where it stands; None: `request`."""
    from s2s.task.request import Request

    for line, where in input_lines(args):
        if args.format == "text":
            yield Request(line, args.prefix, tuple(args.constraint), tuple(args.ban))
        elif line.strip():
            yield (read or request)(parse_json(line.encode("utf-8", "replace"), where), where, args)
        else:
            yield Request("")


def request(record: object, where: str, args: argparse.Namespace) -> Request:
    """What an object with text, prefix, constraints and banned asks for. Raises DataError that names `where`."""
    from s2s.task.request import Request

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
    flags: Counter[str] = Counter()

    def lines() -> Iterator[str]:
        for result in results:
            flags.update(result.flags)
            if args.format == "jsonl":
                yield json.dumps(to_json(result), ensure_ascii=False)
            else:  # always as many lines a record
                texts = [one.text for one in result.nbest] or [result.text]
                yield from texts + [""] * (args.nbest - len(texts))

    write_lines(lines(), args.output, args.input)
    note_flags(flags, " (--format jsonl says which lines)" if args.format == "text" else "")


def note_flags(counts: Mapping[str, int], hint: str = "") -> None:
    """Say on stderr how many outputs carry each flag; blank ones are as they should be."""
    told = ", ".join(f"{count} {flag}" for flag, count in sorted(counts.items()) if flag != "blank")
    if told:
        note(f"flags: {told}{hint}")


def write_lines(lines: Iterable[str], output: str, *inputs: str) -> None:
    """Write lines as they come, to standard output (`-`) or a file, after `check_output`.

    A file is written beside its place and renamed when it is whole. Raises UsageError and RunError.
    """
    if output == "-":
        sys.stdout.reconfigure(encoding="utf-8", newline="\n", errors="replace")  # type: ignore[union-attr]
        for line in lines:
            sys.stdout.write(f"{line}\n")
        return
    check_output(output, *inputs)
    data = (f"{line}\n".encode("utf-8", "replace") for line in lines)
    if os.path.exists(output) and not os.path.isfile(output):  # a device or a pipe, which nothing must replace
        with open(output, "wb") as file:
            file.writelines(data)
    else:
        write_atomic(output, lambda file: file.writelines(data))


def check_output(output: str, *inputs: str) -> None:
    """Make the folder of an output file. Raises UsageError where it can't be written or is one of the input files."""
    where, path = f"-o {output}", Path(output)
    if path.is_dir():
        raise UsageError("the output is a folder", where=where, hint="Name a file in it")
    for source in inputs:
        if source != "-" and path.exists() and os.path.exists(source) and os.path.samefile(path, source):
            raise UsageError("the output is the input file", where=where, hint="Name another file")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"can't make the folder {path.parent} ({error.strerror})", where=where) from error
    if not os.access(path.parent, os.W_OK):
        raise UsageError(f"the folder {path.parent} can't be written to", where=where)


def note(text: str) -> None:
    """Something to say that is no result: on stderr."""
    print(f"s2s: {text}", file=sys.stderr)
