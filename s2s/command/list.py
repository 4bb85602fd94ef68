"""`s2s list`: what there is to choose from, a line each."""

from __future__ import annotations

import argparse

from s2s import paths
from s2s.registry import ALIASES

_KINDS = ("recipes", "attention", "self_attention", "copy", "encoder", "decoder", "corpora")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `s2s list`."""
    parser.add_argument("kind", nargs="?", choices=_KINDS, help="what to list (default: everything)")


def run(args: argparse.Namespace) -> int:
    """Write the names to stdout, aligned, each with the first comment line of its file."""
    kinds = [args.kind] if args.kind else list(_KINDS)
    for number, kind in enumerate(kinds):
        if len(kinds) > 1:
            print(f"{chr(10) if number else ''}{kind}:")
        lines = _lines(kind)
        width = max((len(name) for name, _ in lines), default=0)
        for name, text in lines:
            print(f"{name:<{width}}  {text}".rstrip())
    return 0


def _lines(kind: str) -> list[tuple[str, str]]:
    if kind == "recipes":
        return [(name, paths.summary(path)) for name, path in paths.recipe_files().items()]
    group = "corpus" if kind == "corpora" else kind
    lines = []
    for name, path in paths.group_files(group).items():
        others = [alias for alias, known in ALIASES.get(group, {}).items() if known == name]
        also = f" (also: {', '.join(sorted(others))})" if others else ""
        lines.append((name, paths.summary(path) + also))
    return lines
