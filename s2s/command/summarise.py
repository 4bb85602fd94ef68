"""`s2s summarise MODEL`: lines in, lines out; or whole files, and all files of a folder, a line each."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from s2s.command import text
from s2s.errors import UsageError

if TYPE_CHECKING:
    from s2s.task.request import Request


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `s2s summarise`."""
    text.add_model_arguments(parser)
    parser.add_argument(
        "--document",
        nargs="+",
        default=[],
        metavar="PATH",
        help="text files, or folders of such, each of them one text; a line of the output for each, in this order, "
        "those of a folder by name",
    )
    parser.add_argument("--title", action="store_true", help="a capital at the front, no full stop at the end")
    text.add_text_arguments(parser)
    text.add_engine_arguments(parser)
    text.add_request_arguments(parser)
    text.add_search_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Summarise the input. Raises S2SError for a wrong model, option or input."""
    if args.document and args.input != "-":
        raise UsageError("--document takes the place of -i", where=f"-i {args.input}", hint="Give one of them")
    requests = _documents(args) if args.document else text.read_requests(args)
    text.write_results(text.run_models(args, requests), args)
    return 0


def _documents(args: argparse.Namespace) -> Iterator[Request]:
    """A request for each file, its lines joined by a space. Raises UsageError for a path that isn't there."""
    from s2s.task.request import Request

    for path in _files([Path(name) for name in args.document]):
        lines = text.read_all(str(path), args.errors)
        joined = " ".join(line.strip() for line in lines if line.strip())
        yield Request(joined, args.prefix, tuple(args.constraint), tuple(args.ban))


def _files(paths: list[Path]) -> Iterator[Path]:
    for path in paths:
        if not path.exists():
            raise UsageError("there is no such file or folder", where=f"--document {path}")
        if not path.is_dir():
            yield path
            continue
        inside = sorted(one for one in path.iterdir() if one.is_file() and not one.name.startswith("."))
        if not inside:
            raise UsageError("the folder has no files", where=f"--document {path}")
        for one in inside:
            text.note(str(one))
            yield one
