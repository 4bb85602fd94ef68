"""The folder of a run: `runs/<recipe>/<time and job number>/`, and `latest`, a link to the newest that finished."""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path

from s2s.errors import RunError


def create(output: str, name: str) -> Path:
    """A new, empty run folder, named by the time and a number, so that several a second don't meet."""
    parent = Path(output) / name
    stamp = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    try:
        parent.mkdir(parents=True, exist_ok=True)
        for number in range(1000):
            folder = parent / (f"{stamp}-{number}" if number else stamp)
            try:
                folder.mkdir()
                return folder
            except FileExistsError:
                continue
    except OSError as error:
        raise RunError(f"can't make a run folder ({error.strerror})", where=str(parent), hint="Set output=") from error
    raise RunError("can't find a free name for the run folder", where=str(parent))


def point_latest(folder: Path) -> None:
    """Let `latest` beside the run point to it. Where links aren't allowed, nothing is done."""
    link, new = folder.parent / "latest", folder.parent / f".latest-{os.getpid()}"
    try:
        new.unlink(missing_ok=True)
        new.symlink_to(folder.name, target_is_directory=True)
        os.replace(new, link)
    except OSError:
        new.unlink(missing_ok=True)
