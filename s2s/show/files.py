"""Writing one finished file: readers see the old one or the new one, never half of it."""

from __future__ import annotations

import os
from pathlib import Path

from s2s.errors import RunError


def write_whole(path: str | Path, data: bytes) -> None:
    """Write `data` to `path` by way of a temporary file beside it; missing folders are made.

    Raises RunError where the disk is full or the place isn't writable; an older file at `path` then stays as it was.
    """
    path = Path(path)
    temporary = path.with_name(path.name + ".tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(data)
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True) if temporary.is_file() else None
        raise RunError(
            f"can't write the file ({error.strerror or error})",
            where=str(path),
            hint="Free some space or choose another place.",
        ) from error
