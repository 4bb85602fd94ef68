"""`s2s doctor CORPUS`: what is in a corpus and what would be dropped, with a count for each reason."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from s2s.text.corpus import Corpus


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `s2s doctor`."""
    parser.add_argument("corpus", metavar="CORPUS", help="a corpus (see: s2s list corpora) or a recipe")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="options of the corpus, such as target=fr")


def run(args: argparse.Namespace) -> int:
    """Print the description. A recipe is looked at with its own corpus options. Raises S2SError."""
    from s2s.text.corpus import describe

    print(describe(_corpus(args.corpus, args.overrides)), end="")
    return 0


def _corpus(name: str, overrides: list[str]) -> Corpus:
    from s2s import paths
    from s2s.app import compose, compose_corpus
    from s2s.registry import group_names, unknown
    from s2s.task.prepare import load_corpus

    corpora, recipes = group_names("corpus"), paths.recipe_files()
    if name in corpora:
        corpus: Corpus = compose_corpus(name, overrides).build()
        return corpus
    if name not in recipes and not name.endswith((".yaml", ".yml")):
        raise unknown("corpus or recipe", name, [*corpora, *recipes])
    return load_corpus(compose(name, overrides))
