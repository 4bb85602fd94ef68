"""`s2s train RECIPE [KEY=VALUE ...]`: train a recipe, score it and write its report."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from s2s.errors import ConfigError, S2SError, UsageError

if TYPE_CHECKING:
    from s2s.config import Config


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `s2s train`."""
    parser.add_argument("recipe", nargs="?", metavar="RECIPE", help="a name (see: s2s list recipes) or a YAML file")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="changes, such as attention=general")
    parser.add_argument("-m", "--multirun", action="store_true", help="sweep: one run for each combination of values")
    parser.add_argument("--resume", metavar="RUN", help="go on with a run folder, exactly")
    parser.add_argument("--changed-corpus", action="store_true", help="with --resume: the corpus may have changed")
    parser.add_argument("--dry-run", action="store_true", help="check all, run the largest batch, report memory")
    parser.add_argument("--plugin", action="append", default=[], metavar="MODULE", help="whose builders are allowed")


def run(args: argparse.Namespace) -> int:
    """Train one run, or all of a sweep one after the other (a failed one is told, and the next goes on)."""
    from s2s.app import compose, sweep

    if args.resume is not None:
        return _resume(args)
    if args.changed_corpus:
        raise UsageError("--changed-corpus goes with --resume", hint="Type: s2s train --resume RUN --changed-corpus")
    if not args.recipe:
        raise UsageError("which recipe?", hint="Type: s2s list recipes")
    if not args.multirun:
        _train(args, compose(args.recipe, args.overrides, args.plugin))
        return 0
    code, folders = 0, list[Path]()
    runs = sweep(args.recipe, args.overrides, args.plugin)
    for number, overrides in enumerate(runs, 1):
        print(f"run {number} of {len(runs)}: {' '.join(overrides)}", file=sys.stderr)
        try:
            place = _train(args, compose(args.recipe, overrides, args.plugin))
            folders += [place] if place else []
        except Exception as error:
            code = error.exit_code if isinstance(error, S2SError) else 1
            if args.debug or code > 128:
                raise
            print(f"s2s: run {number} failed: {type(error).__name__}: {error}", file=sys.stderr)
    if len(folders) > 1:
        print(f"compare them with: s2s compare {shlex.join(map(str, folders))}", file=sys.stderr)
    return code


def _train(args: argparse.Namespace, config: Config, folder: Path | None = None) -> Path | None:
    """Train in `folder` or a new one, and return it; None after a dry run."""
    from s2s.app import to_yaml
    from s2s.show.console import progress
    from s2s.task import run_folder, training

    if args.dry_run:
        from s2s.task.dry_run import dry_run

        print(dry_run(config))
        return None
    place, made = (folder, []) if folder else run_folder.create(config.output, config.name)
    try:
        training.train(config, place, to_yaml(config), progress(), changed_corpus=args.changed_corpus)
    except BaseException:
        if made and not (place / "config.yaml").exists():  # a run that failed before it began leaves nothing behind
            run_folder.remove(place, made)
        raise
    print(place)
    return place


def _resume(args: argparse.Namespace) -> int:
    from s2s.app import compose

    folder = Path(args.resume)
    if args.multirun:
        raise UsageError("-m makes new runs, and --resume goes on with one", hint="Leave one of them out")
    overrides = [*([args.recipe] if args.recipe else []), *args.overrides]
    if any("=" not in override for override in overrides):
        raise UsageError("--resume takes its recipe from the run", hint="Type: s2s train --resume RUN [KEY=VALUE ...]")
    if not (folder / "config.yaml").is_file():
        raise ConfigError("is no run folder: it has no config.yaml", where=str(folder))
    _train(args, compose(str(folder / "config.yaml"), overrides, args.plugin), folder.resolve())
    return 0
