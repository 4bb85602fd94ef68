"""The `s2s` command: finds the command's own module, runs it, and turns every error into one line and an exit code."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from s2s import __version__
from s2s.errors import S2SError

# Command -> (module below s2s.command, what it does). A module has `add_arguments(parser)` and `run(args) -> int`.
COMMANDS = {
    "list": ("list", "names of recipes, attention mechanisms, encoders, decoders and corpora, with a line each"),
    "demo": ("demo", "train the default recipe, unless that is done, and show what it gives"),
    "prepare": (
        "prepare",
        "turn a corpus into ids once, so that training a large one starts at once and in little memory",
    ),
    "train": ("train", "train a recipe, score it and write its report"),
    "eval": ("evaluate", "decode and score a split of the corpus"),
    "translate": ("translate", "translate lines"),
    "summarise": ("summarise", "summarise lines, files or folders"),
    "summarize": ("summarise", "the same as summarise"),
    "chat": ("chat", "talk with a dialogue model"),
    "stream": ("stream", "translate a source as it grows, word by word"),
    "serve": ("serve", "answer over HTTP, with a page to try models"),
    "score": ("score", "score a text against references"),
    "compare": ("compare", "compare runs in one table, with paired tests"),
    "gallery": ("gallery", "show every attention mechanism on one page, with pictures from runs"),
    "align": ("align", "link source and target words by attention"),
    "doctor": ("doctor", "say what is in a corpus and what would be dropped"),
    "info": ("info", "say what a model is"),
    "export": ("export", "write a model for another program"),
    "verify": ("verify", "check that the files of a model or a prepared corpus are whole and safe"),
}


class _Parser(argparse.ArgumentParser):
    """argparse with errors as ours: one line, exit code 2."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message}. For help: {self.prog} --help\n")


def parser() -> argparse.ArgumentParser:
    """What stands before a command: help, version, and the commands by name."""
    top = _Parser(prog="s2s", description="Encoder-decoder models with every attention mechanism, one word apart.")
    top.add_argument("--version", action="version", version=f"s2s {__version__}")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, (_, text) in COMMANDS.items():
        commands.add_parser(name, help=text)
    return top


def command_parser(command: str) -> argparse.ArgumentParser:
    """The arguments of one command; only its module is imported, so that help is quick."""
    module, text = COMMANDS[command]
    made = _Parser(prog=f"s2s {command}", description=text[0].upper() + text[1:] + ".")
    importlib.import_module(f"s2s.command.{module}").add_arguments(made)
    made.add_argument("--debug", action="store_true", help="show a traceback with an error")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code: 0 ok, 1 runtime failure, 2 usage, config or data, 130, 143."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or given[0] not in COMMANDS:
        parser().parse_args(given)  # shows help or version, or refuses the command
    command, *rest = given
    made = command_parser(command)
    if {"-h", "--help"} & set(rest):
        made.parse_args(rest)
    # intermixed: options may stand between words (s2s train RECIPE -m KEY=VALUE); its help would lack their defaults
    args = made.parse_intermixed_args(rest)
    try:
        code: int = importlib.import_module(f"s2s.command.{COMMANDS[command][0]}").run(args)
        if sys.stdout is not None:  # closed by the shell (>&-)
            sys.stdout.flush()
        return code
    except BrokenPipeError:
        # the reader went away (`| head`): what is still buffered must not raise again at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return _fail("interrupted", 130)
    except S2SError as error:
        if args.debug:
            raise
        return _fail(str(error), error.exit_code)
    except Exception as error:
        if args.debug:
            raise
        if _is_out_of_memory(error):
            return _fail("out of memory; take a smaller --batch-size, or trainer.batch_tokens when training", 1)
        return _fail(f"{type(error).__name__}: {' '.join(str(error).split())}. For a traceback add --debug", 1)


def _is_out_of_memory(error: Exception) -> bool:
    # torch raises its own class on a GPU and a plain RuntimeError on a CPU; it isn't imported here to look at them
    name = type(error).__name__
    return name in ("MemoryError", "OutOfMemoryError") or (name == "RuntimeError" and "can't allocate" in str(error))


def _fail(text: str, code: int) -> int:
    print(f"s2s: error: {text}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
