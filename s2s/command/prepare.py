"""`s2s prepare RECIPE -o FOLDER`: the corpus of a recipe to ids once, for training in little memory."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `s2s prepare`."""
    parser.add_argument("recipe", metavar="RECIPE", help="a name (see: s2s list recipes) or a YAML file")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="changes, such as corpus.train=data/train")
    parser.add_argument("-o", "--output", metavar="FOLDER", required=True, help="a new folder, or one that was begun")
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="processes that encode (1)")
    parser.add_argument("--plugin", action="append", default=[], metavar="MODULE", help="whose builders are allowed")


def run(args: argparse.Namespace) -> int:
    """Prepare the folder, or finish it, and say how to train from it. Raises S2SError."""
    from s2s.app import compose
    from s2s.task.preparing import prepare_folder

    config = compose(args.recipe, args.overrides, args.plugin)
    counts = prepare_folder(
        config, Path(args.output), workers=args.workers, note=lambda text: print(text, file=sys.stderr)
    )
    print(f"{counts.pairs:,} pairs of train", file=sys.stderr)
    if counts.too_long:
        print(f"{counts.too_long:,} of them are too long and left out", file=sys.stderr)
    if counts.cut:
        print(f"{counts.cut:,} sources are cut off", file=sys.stderr)
    command = ["s2s", "train", args.recipe, *args.overrides, f"prepared={args.output}"]
    command += [f"--plugin={module}" for module in args.plugin]
    print(f"train from it with: {shlex.join(command)}", file=sys.stderr)
    print(args.output)
    return 0
