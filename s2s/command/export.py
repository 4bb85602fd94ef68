"""`s2s export MODEL --to ctranslate2`: a model as another program reads it."""

from __future__ import annotations

import argparse
from pathlib import Path

from s2s.errors import UsageError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `s2s export`."""
    parser.add_argument("model", metavar="MODEL", help="a run folder or a bundle folder")
    parser.add_argument("--to", required=True, choices=("ctranslate2",), help="the program")
    parser.add_argument("-o", "--output", required=True, metavar="FOLDER", help="where to write; a new or empty folder")
    parser.add_argument("--precision", default="float32", choices=("float32", "int8"), help="of the weights (float32)")
    parser.add_argument(
        "--plugin", action="append", default=[], metavar="MODULE", help="that the model was trained with"
    )


def run(args: argparse.Namespace) -> int:
    """Write the folder and name it. Raises S2SError for a wrong model, one of other parts, or a folder in use."""
    from s2s.task.ctranslate2_model import export
    from s2s.task.trained import load_trained

    folder = Path(args.output)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError("there is something already", where=f"-o {folder}", hint="Name a new folder")
    export(load_trained(args.model, device="cpu", plugins=args.plugin), folder, precision=args.precision)
    print(folder)
    return 0
