"""`s2s demo`: the main job of a task from nothing to a trained model that one can look at; what `make demo` runs."""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from s2s.task.trained import Trained

_RECIPE = "translate/debian-en-de"
_FALLBACK = ["corpus=catalogs", "corpus.max_words=15", "name=translate/catalogs-en-de"]  # of the default recipe
# What the outputs of a task are called, and the command that makes them.
_OUTPUTS = {
    "translation": ("translations", "translate"),
    "summarisation": ("summaries", "summarise"),
    "dialogue": ("replies", "chat"),
}
# What is said in the sample conversation with a dialogue model.
_SAID = ("hello!", "how are you today?", "what do you do for fun?", "do you have any pets?", "i have to go now, bye")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `s2s demo`."""
    parser.add_argument("recipe", nargs="?", default=_RECIPE, metavar="RECIPE", help=f"what to train ({_RECIPE})")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="changes, such as trainer.minutes=1")


def run(args: argparse.Namespace) -> int:
    """Train the recipe unless a run of it has finished before; show what it gives. Raises S2SError."""
    from s2s.errors import DataError
    from s2s.text.corpus.debian_apt import NEED_NO_APT

    words = [args.recipe, *args.overrides]
    if "=" in args.recipe:  # the recipe was left out: this is a change of the default one
        words = [_RECIPE, *words]
    try:
        latest = _trained(words)
    except DataError as error:
        if error.hint != NEED_NO_APT or args.recipe.startswith("summarise/"):
            raise
        _say(str(error))
        _say("so this demo trains on the corpus `catalogs` (user-interface texts, by pip) instead.")
        words += _FALLBACK
        latest = _trained(words)
    _show(latest, words)
    return 0


def _trained(words: list[str]) -> Path:
    """The newest finished run of a recipe with overrides; made by `s2s train` if there is none."""
    from s2s.app import compose
    from s2s.command import train

    config = compose(words[0], words[1:])
    runs = Path(config.output) / config.name
    if found := _finished(runs):
        _say(f"{found} is there already. To train again: {command()} train {shlex.join(words)}")
        return found
    limit = f" for {config.trainer.minutes:g} minutes" if config.trainer.minutes else ""
    _say(f"training {config.name}{limit}; Ctrl-C saves and stops")
    parser = argparse.ArgumentParser()
    train.add_arguments(parser)
    train.run(parser.parse_args(words))
    found = _finished(runs)
    assert found is not None
    return found


def _finished(runs: Path) -> Path | None:
    """`latest`, which sorts after the names of runs; where links aren't allowed, the newest run with a report."""
    reports = sorted(runs.glob("*/report.html"))
    return reports[-1].parent if reports else None


def _show(latest: Path, words: list[str]) -> None:
    from s2s.task.trained import load_trained

    trained = load_trained(latest)
    _table(trained)
    folder = latest.resolve()
    shown = Path(os.path.relpath(folder)) if folder.is_relative_to(Path.cwd()) else folder
    print(f"\nattention={trained.config.attention.name}, scores of the whole test set:")
    for line in _scores(folder):
        print(f"  {line}")
    pictures = len(list(folder.glob("attention/*.png")))
    print("\nwhere it lies:")
    for name, what in (
        ("report.html", "open it in a browser: curves, scores, attention to point at"),
        ("attention", f"{pictures} attention pictures, one for each translation above"),
        ("scores.json", "the scores, with signatures and confidence intervals"),
        ("model", "the model, ready to use"),
    ):
        if (folder / name).exists():
            print(f"  {shown / name!s:<{len(str(shown)) + 12}}  {what}")
    shell, verb = command(), _OUTPUTS[trained.config.task.name][1]
    if verb == "chat":
        _converse(latest)
    print("\nwhat to try next:")
    said = "hello!" if verb == "chat" else "a text editor for programmers"
    for line, what in (
        (f'echo "{said}" | {shell} {verb} {latest}', "your own text"),
        (f"{shell} train {shlex.join(words)} attention=general", "another attention, one word apart"),
        (f"{shell} compare {shown} {latest}", "then this: both in one table"),
        (f"{shell} list", "all recipes, attentions, encoders, decoders and corpora"),
    ):
        print(f"  {line}    # {what}")


def _converse(latest: Path) -> None:
    """Talk at a terminal; elsewhere show a short conversation."""
    from s2s.command import chat

    if sys.stdin is not None and sys.stdin.isatty() and sys.stdout.isatty():
        parser = argparse.ArgumentParser()
        chat.add_arguments(parser)
        chat.run(parser.parse_args([str(latest)]))
        return
    from s2s.task.conversation import Conversation
    from s2s.task.model import load

    conversation = Conversation(load(latest))
    print("\na conversation:")
    for line in _SAID:
        print(f"  you: {line}\n  s2s: {conversation.say(line).text}")


def _table(trained: Trained) -> None:
    """Test outputs beside source and reference; the same pairs as the pictures of the run."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from s2s.show.console import one_line
    from s2s.task.generate import Generator
    from s2s.task.prepare import load_corpus
    from s2s.task.present import spread

    config = trained.config
    corpus = load_corpus(config)
    split = next((name for name in config.task.eval_splits if corpus.splits.get(name)), "dev")
    pairs = [corpus.splits[split][i] for i in spread(config.trainer.samples, len(corpus.splits[split]))]
    results = Generator([trained], config.search)([pair.source for pair in pairs])
    outputs = _OUTPUTS[config.task.name][0]
    table = Table(title=f"{len(pairs)} {outputs} of the {split} split", show_lines=True, expand=False)
    table.add_column("", justify="right")
    for heading in (f"source ({trained.languages[0]})", "s2s", f"reference ({trained.languages[1]})"):
        table.add_column(heading, ratio=1)
    for number, (pair, result) in enumerate(zip(pairs, results, strict=True), 1):
        texts = (pair.source.replace("\n", " / "), result.text, pair.target)
        table.add_row(str(number), *(Text(one_line(text)) for text in texts))  # Text: nothing in it is markup
    width = shutil.get_terminal_size((110, 24)).columns
    Console(width=max(60, min(width, 160))).print(table)


def _scores(folder: Path) -> list[str]:
    """A line for each score of `scores.json`."""
    from s2s.files import read_json
    from s2s.types import Score

    path = folder / "scores.json"
    if not path.is_file():
        return ["none were computed"]
    splits = read_json(path, 1 << 22)
    return [f"{split}: {Score(**score)}" for split, scores in splits.items() for score in scores]


def command() -> str:
    """How the user types `s2s`: as it is if it is on the PATH, else with its folder."""
    script = Path(sys.executable).parent / "s2s"
    found = shutil.which("s2s")
    if found and Path(found).resolve() == script.resolve():
        return "s2s"
    if not script.exists():
        return f"{shlex.quote(sys.executable)} -m s2s"
    near = script.is_relative_to(Path.cwd())
    return shlex.quote(str(script.relative_to(Path.cwd()) if near else script))


def _say(text: str) -> None:
    print(f"s2s demo: {text}", file=sys.stderr)
