"""The folder of a run: `runs/<recipe>/<time and job number>/`, and `latest`, a link to the newest that finished."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from s2s.errors import RunError


def create(output: str, name: str) -> tuple[Path, list[Path]]:
    """A new, empty run folder, named by the time and a number, so that several a second don't meet.

    Returns it, and all folders that were made for it, innermost first. Raises RunError where none can be made.
    """
    parent = Path(output) / name
    missing = [folder for folder in (parent, *parent.parents) if not folder.exists()]
    stamp = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    try:
        parent.mkdir(parents=True, exist_ok=True)
        for number in range(1000):
            folder = parent / (f"{stamp}-{number}" if number else stamp)
            try:
                folder.mkdir()
                return folder, [folder, *missing]
            except FileExistsError:
                continue
    except OSError as error:
        raise RunError(f"can't make a run folder ({error.strerror})", where=str(parent), hint="Set output=") from error
    raise RunError("can't find a free name for the run folder", where=str(parent))


def remove(folder: Path, made: Sequence[Path]) -> None:
    """Remove a run folder, and of the folders made for it those that hold nothing else."""
    shutil.rmtree(folder, ignore_errors=True)
    with suppress(OSError):  # not empty: another run lies there
        for parent in made[1:]:
            parent.rmdir()


def point_latest(folder: Path) -> None:
    """Let `latest` beside the run point to it. Where links aren't allowed, nothing is done."""
    link, new = folder.parent / "latest", folder.parent / f".latest-{os.getpid()}"
    try:
        new.unlink(missing_ok=True)
        new.symlink_to(folder.name, target_is_directory=True)
        os.replace(new, link)
    except OSError:
        new.unlink(missing_ok=True)
