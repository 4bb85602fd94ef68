"""`s2s translate MODEL`: lines in, lines out."""

from __future__ import annotations

import argparse

from s2s.command import text


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `s2s translate`."""
    text.add_model_arguments(parser)
    text.add_text_arguments(parser)
    text.add_engine_arguments(parser)
    text.add_request_arguments(parser)
    text.add_search_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Translate the input. Raises S2SError for a wrong model, option or input."""
    text.write_results(text.run_models(args, text.read_requests(args)), args)
    return 0
