"""`s2s translate MODEL`: lines in, lines out."""

from __future__ import annotations

import argparse

from s2s.command import text
from s2s.errors import UsageError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `s2s translate`."""
    parser.add_argument("model", metavar="MODEL", help="a run folder or a bundle folder")
    parser.add_argument("--ensemble", nargs="+", default=[], metavar="MODEL", help="further models to decode with")
    parser.add_argument("--alignment", action="store_true", help="with --format jsonl: attention weights too")
    text.add_text_arguments(parser)
    text.add_request_arguments(parser)
    text.add_search_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Translate the input. Raises S2SError for a wrong model, option or input."""
    from s2s.task.workers import generate

    if args.alignment and args.format != "jsonl":
        raise UsageError("--alignment has no place in lines of text", hint="Add --format jsonl")
    models = [args.model, *args.ensemble]
    settings = {
        "alignment": args.alignment,
        "batch_size": args.batch_size,
        "overlong": args.overlong,
        **text.search_changes(args),
    }
    text.set_threads(args)
    results = generate(
        models, text.read_requests(args), settings, device=args.device, workers=args.workers, plugins=args.plugin
    )
    text.write_results(results, args)
    return 0
