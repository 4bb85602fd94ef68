"""`s2s verify MODEL`: whether the files of a model are whole and safe to load."""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `s2s verify`."""
    parser.add_argument("model", metavar="MODEL", help="a run folder or a bundle folder")


def run(args: argparse.Namespace) -> int:
    """Write `ok` with the number of files and bytes, or each problem on a line; the exit code is then 2.

    Raises BundleError where there is no model.
    """
    from s2s.bundle import read_manifest, resolve, verify
    from s2s.files import present

    folder = resolve(args.model)
    problems = verify(folder)
    for problem in problems:
        print(problem)
    if problems:
        return 2
    sizes = [entry["size"] for entry in read_manifest(present(folder))["files"].values()]
    print(f"ok: {len(sizes)} files, {sum(sizes):,} bytes, all as the manifest says")
    return 0
