"""The kernels of a CPU: compiled for this very processor at their first use, kept, and loaded."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import logging
import os
import platform
import shutil
import stat
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path

from s2s.paths import cache_folder

_SOURCES = Path(__file__).with_name("c")  # each file by itself, with what they share in a header
_FLAGS = ("-std=c99", "-O3", "-fPIC", "-fno-math-errno", "-fno-trapping-math")
_PATIENCE = 120  # seconds that compiling may take; it takes one
_log = logging.getLogger("s2s")


class _BuildError(Exception):
    """It didn't compile."""


@functools.cache
def library() -> ctypes.CDLL | None:
    """The compiled kernels, or None where there is no C compiler ($CC, cc, gcc or clang). A failure is told once."""
    # threads are those of torch's OpenMP; where it has none that the compiler knows, a kernel runs in one
    kinds = [(*_FLAGS, *_tuned(), openmp) for openmp in ("-fopenmp", "-fopenmp-simd")]
    for flags in kinds:
        if (found := _kept(flags)) is not None:
            return found
    compiler = _compiler()
    if compiler is None:
        return None
    try:
        with suppress(OSError, _BuildError):
            return _made(compiler, kinds[0])
        return _made(compiler, kinds[1])
    except (OSError, _BuildError) as error:
        _log.warning("no kernel is used on this CPU, as %s failed: %s", compiler, error)
    return None


def _compiler() -> str | None:
    for name in (os.environ.get("CC", ""), "cc", "gcc", "clang"):
        if name and (found := shutil.which(name)):
            return found
    return None


def _tuned() -> tuple[str, ...]:
    """Flags for this processor."""
    return ("-march=native",) if platform.machine().lower() in ("x86_64", "amd64") else ("-mcpu=native",)


def _processor() -> str:
    """What tells this processor from others that share a home folder with it."""
    with suppress(OSError), open("/proc/cpuinfo", encoding="utf-8", errors="replace") as lines:
        told = {line for line in lines if line.startswith(("model name", "flags", "Features", "CPU part"))}
        return "".join(sorted(told))
    return platform.processor()


def _place(flags: tuple[str, ...]) -> Path:
    sources = (path.read_text(encoding="utf-8") for path in sorted(_SOURCES.glob("*.[ch]")))
    told = "\n".join([*sources, *flags, platform.machine(), _processor()])
    return cache_folder() / "kernels" / f"{hashlib.sha256(told.encode()).hexdigest()[:32]}.so"


def _kept(flags: tuple[str, ...]) -> ctypes.CDLL | None:
    """What was made before; None too where it is damaged or not ours."""
    place = _place(flags)
    if _is_ours(place):
        with suppress(OSError):
            return ctypes.CDLL(str(place))
    return None


def _made(compiler: str, flags: tuple[str, ...]) -> ctypes.CDLL:
    """Made now, and kept. Raises _BuildError, or OSError where it can't be loaded."""
    place = _place(flags)
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / place.name
        _compile(compiler, flags, made)
        with suppress(OSError):  # a home that can't be written: compiled anew each time
            place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            temporary = place.with_name(f".{place.name}.{os.getpid()}")
            shutil.copyfile(made, temporary)
            os.chmod(temporary, 0o700)
            os.replace(temporary, place)
        return ctypes.CDLL(str(place if _is_ours(place) else made))  # a temporary folder may not be for programs


def _is_ours(path: Path) -> bool:
    """Whether a file is there that nobody else could have written."""
    try:
        found = path.stat()
        above = path.parent.stat()
    except OSError:
        return False
    writable = (found.st_mode | above.st_mode) & (stat.S_IWGRP | stat.S_IWOTH)
    return not writable and found.st_uid == above.st_uid == os.getuid()


def _compile(compiler: str, flags: tuple[str, ...], made: Path) -> None:
    """Raises _BuildError. The library names no OpenMP of its own: it is to find the one that torch has loaded."""
    objects = {source: made.with_name(f"{source.stem}.o") for source in sorted(_SOURCES.glob("*.c"))}
    commands = [[compiler, *flags, "-c", str(source), "-o", str(linked)] for source, linked in objects.items()]
    for command in (*commands, [compiler, "-shared", *map(str, objects.values()), "-o", str(made)]):
        try:
            done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=_PATIENCE)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise _BuildError(str(error)) from error
        if done.returncode:
            raise _BuildError((done.stderr.strip() or "no message").split("\n")[0])
