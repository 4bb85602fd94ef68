"""`s2s align MODEL --src F --tgt F`: which target word comes from which source word, by the model's attention."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from s2s.command import text
from s2s.errors import DataError, UsageError

if TYPE_CHECKING:
    from s2s.score.alignment import GoldAlignment, Links
    from s2s.task.align import Alignment


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `s2s align`."""
    parser.add_argument("model", metavar="MODEL", help="a run folder or a bundle folder")
    parser.add_argument("--src", required=True, metavar="FILE", help="source texts, one a line")
    parser.add_argument("--tgt", required=True, metavar="FILE", help="their translations, one a line")
    parser.add_argument("--gold", metavar="FILE", help="true links to compare with: `i-j` sure, `ipj` possible")
    parser.add_argument("-o", "--output", default="-", metavar="FILE", help="where to write links (standard output)")
    parser.add_argument("--plot", metavar="DIR", help="draw the attention of every pair: DIR/1.png is that of line 1")
    parser.add_argument(
        "--method",
        default="argmax",
        choices=("argmax", "threshold"),
        help="a link to the largest weight, or to every weight of at least --threshold (argmax)",
    )
    parser.add_argument("--threshold", type=float, default=0.2, metavar="X", help="with --method threshold (0.2)")
    parser.add_argument(
        "--json", action="store_true", help="the comparison as one JSON object; on standard output if -o is given"
    )
    parser.add_argument("--errors", default="strict", choices=("strict", "replace"), help="at invalid UTF-8 (strict)")
    text.add_device_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Write a line of links for each pair: `i-j`, counted in words from 0; a blank side gives a blank line.

    Against gold links the alignment error rate, precision and recall are told. Raises S2SError for a wrong model or
    option, or where the files differ in number of lines.
    """
    from s2s.score.alignment import alignment_error_rate, format_links
    from s2s.task.align import align
    from s2s.task.model import load

    if args.json and args.gold is None:
        raise UsageError("--json says how links compare with --gold", hint="Give the true links by --gold FILE")
    text.set_threads(args)
    inputs = [path for path in (args.src, args.tgt, args.gold) if path is not None]
    if inputs.count("-") > 1:
        raise UsageError("the standard input can be read only once", where="-", expected="at most one file named -")
    if args.output != "-":
        text.check_output(args.output, *inputs)
    pairs = _pairs(args)
    gold = None if args.gold is None else _gold(args, pairs)
    model = load(args.model, device=args.device, plugins=args.plugin)
    found: list[Links] = []
    aligned = align(model.trained[0], pairs, batch_size=args.batch_size, method=args.method, threshold=args.threshold)
    if args.plot is not None:
        title = f"{model.trained[0].config.attention.name}: {' to '.join(model.languages)}"
        aligned = _drawn(aligned, Path(args.plot), title)

    def lines() -> Iterator[str]:
        for one in aligned:
            found.append(frozenset(one.links if one else ()))
            yield format_links(found[-1])

    text.write_lines(lines(), args.output, *inputs)
    if gold is not None:
        score = alignment_error_rate(found, gold)
        told = (
            f"AER {score.error_rate:.4f}, precision {score.precision:.4f}, recall {score.recall:.4f} "
            f"({score.links:,} links, {score.sure_links:,} sure and {score.possible_links:,} possible ones in gold)"
        )
        shown = json.dumps(dataclasses.asdict(score)) if args.json else told
        print(shown, file=sys.stderr if args.output == "-" or not args.json else sys.stdout)
    return 0


def _pairs(args: argparse.Namespace) -> list[tuple[str, str]]:
    sources, targets = text.read_all(args.src, args.errors), text.read_all(args.tgt, args.errors)
    if len(sources) != len(targets):
        raise DataError(
            f"numbers of lines differ: {args.src} has {len(sources)}, {args.tgt} has {len(targets)}",
            hint="Line n of the one must be the translation of line n of the other",
        )
    if not sources:
        text.note(f"{args.src} is empty: nothing to do")
    return list(zip(sources, targets, strict=True))


def _gold(args: argparse.Namespace, pairs: Sequence[tuple[str, str]]) -> list[GoldAlignment]:
    from s2s.score.alignment import parse_alignment

    sizes = [(len(source.split()), len(target.split())) for source, target in pairs]
    return parse_alignment(text.read_all(args.gold, args.errors), name=args.gold, sizes=sizes)


def _drawn(aligned: Iterator[Alignment | None], folder: Path, title: str) -> Iterator[Alignment | None]:
    """The same alignments, each drawn as it passes."""
    from s2s.show.plots import attention_png

    warnings: set[str] = set()
    for number, one in enumerate(aligned, 1):
        if one is not None:
            warnings.update(
                attention_png(folder / f"{number}.png", one.source_pieces, one.target_pieces, one.weights, title=title)
            )
        yield one
    for warning in sorted(warnings):
        text.note(f"{folder}: {warning}")
