"""`s2s verify MODEL`: whether the files of a model, or of a prepared corpus, are whole and safe to load."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `s2s verify`."""
    parser.add_argument("model", metavar="MODEL", help="a run folder, a bundle folder or a folder of s2s prepare")


def run(args: argparse.Namespace) -> int:
    """Write `ok` with the number of files and bytes, or each problem on a line; the exit code is then 2.

    Raises BundleError where there is neither.
    """
    from s2s.bundle import kind_of, read_manifest, resolve, verify
    from s2s.files import present

    if kind_of(args.model) == "corpus":
        from s2s.task.prepared_folder import PreparedFolder

        folder, kind = Path(args.model), "corpus"
        problems = PreparedFolder(folder).problems()
    else:
        folder, kind = resolve(args.model), "bundle"
        problems = verify(folder)
    for problem in problems:
        print(problem)
    if problems:
        return 2
    sizes = [entry["size"] for entry in read_manifest(present(folder), kind)["files"].values()]
    print(f"ok: {len(sizes)} files, {sum(sizes):,} bytes, all as the manifest says")
    return 0
