"""`s2s doctor CORPUS`: what is in a corpus and what would be dropped, with a count for each reason."""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `s2s doctor`."""
    parser.add_argument("corpus", metavar="CORPUS", help="a corpus (see: s2s list corpora) or a recipe")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="options of the corpus, such as target=fr")


def run(args: argparse.Namespace) -> int:
    """Print the description. A recipe is looked at with its own corpus options and its length limits."""
    from s2s.text.corpus import describe

    print(describe(_corpus(args.corpus, args.overrides)), end="")
    return 0


def _corpus(name: str, overrides: list[str]):  # type: ignore[no-untyped-def]
    from s2s.app import compose
    from s2s.registry import group_names
    from s2s.task.prepare import load_corpus

    if name in group_names("corpus"):
        prefixed = [f"corpus.{override.removeprefix('corpus.')}" for override in overrides]
        return load_corpus(compose("translate/debian-en-de", [f"corpus={name}", *prefixed]))
    return load_corpus(compose(name, overrides))
