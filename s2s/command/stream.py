"""`s2s stream MODEL`: a source that grows, an output that is written as it is known."""

from __future__ import annotations

import argparse
import codecs
import dataclasses
import json
import math
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from io import BufferedReader
from typing import TYPE_CHECKING, cast

from s2s.command import text
from s2s.errors import DataError, UsageError
from s2s.files import parse_json

if TYPE_CHECKING:
    from s2s.config import TaskConfig
    from s2s.score.simuleval_log import Instance
    from s2s.search import SearchConfig
    from s2s.task.trained import Trained

_FFFD = "\ufffd".encode()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `s2s stream`."""
    parser.add_argument("model", metavar="MODEL", help="a run folder or a bundle folder")
    parser.add_argument(
        "-i", "--input", default="-", metavar="FILE", help="lines to read (standard input, as it comes)"
    )
    parser.add_argument("-o", "--output", default="-", metavar="FILE", help="where to write (standard output)")
    parser.add_argument("--format", default="text", choices=("text", "jsonl"), help="one sentence a line (text)")
    parser.add_argument("--errors", default="strict", choices=("strict", "replace"), help="at invalid UTF-8 (strict)")
    parser.add_argument(
        "--wait-k",
        type=_wait_k,
        metavar="K",
        help="read K words, then write one for each that is read; inf: wait for the end (the model decides)",
    )
    parser.add_argument(
        "--beam", type=int, metavar="N", help="hypotheses kept once the source is over, for the rest of the output (1)"
    )
    parser.add_argument("--max-length", type=int, metavar="M", help="most tokens of an output (as the model was saved)")
    parser.add_argument("--no-repeat-ngram", type=int, metavar="N", help="no n-gram of this order twice in an output")
    parser.add_argument(
        "--eager", type=float, metavar="E", help="how much earlier (above 0) or later (below) the model writes (0)"
    )
    parser.add_argument("--ref", metavar="FILE", help="references: scores and latency are told on standard error")
    parser.add_argument("--json", action="store_true", help="with --ref: tell them as one JSON list")
    parser.add_argument("--log", metavar="FILE", help="write the delays in SimulEval's format, one instance a line")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads (all cores)")
    parser.add_argument(
        "--plugin", action="append", default=[], metavar="MODULE", help="that the model was trained with"
    )


def run(args: argparse.Namespace) -> int:
    """Translate the input as it comes. Raises S2SError for a wrong model, option or input."""
    from s2s.score.simuleval_log import write_log
    from s2s.task.model import search_config
    from s2s.task.stream import check, greedy
    from s2s.task.trained import load_trained

    if args.json and args.ref is None:
        raise UsageError("--json is for the scores, and there are none", hint="Add --ref FILE")
    references = None if args.ref is None else text.read_all(args.ref, args.errors)
    if args.log is not None:
        text.check_output(args.log, *(path for path in (args.input, args.ref) if path is not None))
    text.set_threads(args)
    trained = load_trained(args.model, device=args.device, plugins=args.plugin)
    given = ("beam", "max_length", "eager", "no_repeat_ngram")
    changes = {key: getattr(args, key) for key in given if getattr(args, key) is not None}
    search = search_config(greedy(trained.config.search), changes)
    check(trained, args.wait_k, search)
    done: list[Instance] = []
    keep = references is not None or args.log is not None
    flags: Counter[str] = Counter()
    chunks = _translate(trained, search, args, references, done if keep else None, flags)
    if args.output == "-":
        sys.stdout.reconfigure(encoding="utf-8", newline="\n", errors="replace")  # type: ignore[union-attr]
        for chunk in chunks:
            sys.stdout.write(chunk)
            sys.stdout.flush()
    else:
        text.write_lines(_lines(chunks), args.output, *(path for path in (args.input, args.ref) if path is not None))
    text.note_flags(flags, " (--format jsonl says which lines)" if args.format == "text" else "")
    if references is not None and len(references) != len(done):
        raise DataError(
            "references and sentences differ in number",
            where=args.ref,
            expected=f"{len(done)} lines",
            found=f"{len(references)}",
        )
    if args.log is not None:
        write_log(args.log, done)
    if references:
        _tell_scores(done, references, trained.config.task, as_json=args.json)
    return 0


def _wait_k(given: str) -> float:
    return math.inf if given == "inf" else int(given)


def _translate(
    trained: Trained,
    search: SearchConfig,
    args: argparse.Namespace,
    references: list[str] | None,
    done: list[Instance] | None,
    flags: Counter[str],
) -> Iterator[str]:
    """The output in pieces: words of text as they are known, or whole lines of JSON."""
    from s2s.score.simuleval_log import Instance
    from s2s.task.stream import Stream

    made, read, count = Stream(trained, wait_k=args.wait_k, search=search), list[str](), 0
    for word in _typed(args) if args.input == "-" and args.format == "text" else _by_line(args):
        new = made.finish() if word is None else made.read(word)
        if args.format == "text" and new:
            yield " " * (len(made.words) > len(new)) + " ".join(new)
        if word is not None:
            read.append(word)
            continue
        found = ["unfinished"] if made.unfinished else []
        flags.update(found)
        source, output = " ".join(read), " ".join(made.words)
        if args.format == "text":
            yield "\n"
        else:
            record = {"input": source, "output": output, "delays": made.delays, "tokens": made.tokens, "flags": found}
            yield json.dumps(record, ensure_ascii=False) + "\n"
        if done is not None:
            reference = references[count] if references is not None and count < len(references) else None
            # SimulEval gives 0 as the time of text
            done.append(Instance(count, source, output, tuple(made.delays), (0.0,) * len(made.delays), reference))
        made, read, count = Stream(trained, wait_k=args.wait_k, search=search), [], count + 1


def _typed(args: argparse.Namespace) -> Iterator[str | None]:
    """The words of the standard input, each as soon as a blank or the end of the line follows; None ends a sentence."""
    from s2s.text.lines import clean

    if sys.stdin is None:
        raise UsageError("the standard input is closed", where="-i -", hint="Name a file by -i")
    stdin = cast(BufferedReader, sys.stdin.buffer)
    decoder = codecs.getincrementaldecoder("utf-8-sig")(args.errors)
    open_word, begun, number, replaced, tail = "", False, 1, 0, b""
    while True:
        data = stdin.read1(1 << 16)  # what there is, as soon as there is something
        try:
            new = decoder.decode(data, not data)
        except UnicodeDecodeError as error:
            raise DataError(
                f"invalid UTF-8 byte 0x{error.object[error.start]:02x}",
                where=f"<stdin>:{number + error.object[: error.start].count(10)}",
                expected="UTF-8 text",
                hint="Pass --errors replace to put U+FFFD in its place, or convert the input with iconv.",
            ) from None
        replaced += new.count("\ufffd") - (tail + data).count(_FFFD)
        tail = data[-2:]
        *ended, rest = new.split("\n")
        for line in ended:
            yield from clean(f"{open_word}{line}")[0].split()
            yield None
            open_word, begun, number = "", False, number + 1
        begun = begun or bool(rest)
        *words, open_word = _split(open_word + rest)
        yield from words
        if data:
            continue
        if begun:  # a missing line end makes no difference
            yield from open_word.split()
            yield None
        if replaced:
            text.note(f"<stdin>: {replaced} invalid bytes were replaced by U+FFFD")
        return


def _split(line: str) -> list[str]:
    """The words of the beginning of a line that a blank follows, and what may still grow, "" if there is nothing."""
    from s2s.text.lines import clean

    shown = clean(f"{line}.")[0][:-1]  # so that no control at its end is taken for the line's end
    words = shown.split()
    return words if words and not shown[-1].isspace() else [*words, ""]


def _by_line(args: argparse.Namespace) -> Iterator[str | None]:
    """The words of each line of a text, or of the texts in JSON lines; None ends a sentence."""
    from s2s.text.lines import clean

    for line, where in text.each_line(args.input, args.errors):
        record = line
        if args.format == "jsonl":
            value = parse_json(line.encode("utf-8", "replace"), where) if line.strip() else {"text": ""}
            if not isinstance(value, dict) or set(value) != {"text"} or not isinstance(value["text"], str):
                raise DataError("is no source", where=where, expected='an object like {"text": "..."}')
            record = value["text"]
        yield from clean(record)[0].split()
        yield None


def _lines(chunks: Iterable[str]) -> Iterator[str]:
    """Pieces put together to lines, without their ends."""
    line = ""
    for chunk in chunks:
        line += chunk
        if line.endswith("\n"):
            yield line[:-1]
            line = ""


def _tell_scores(done: list[Instance], references: list[str], task: TaskConfig, *, as_json: bool) -> None:
    """The scores of the task and the latency, on standard error."""
    from s2s.score import latency
    from s2s.score.metrics import compute
    from s2s.task.evaluate import scoring

    scores = compute(
        list(task.metrics),
        [one.prediction for one in done],
        [references],
        scoring(task),
    )
    if any(one.delays for one in done):
        scores += latency.compute([one.sentence for one in done])
    else:
        text.note("no output has words, so there is no latency")
    if as_json:
        print(json.dumps([dataclasses.asdict(score) for score in scores], ensure_ascii=False), file=sys.stderr)
        return
    for score in scores:
        print(score, file=sys.stderr)
