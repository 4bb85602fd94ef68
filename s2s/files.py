"""Files that survive what happens to them: atomic writing, one writer a folder, and reading of untrusted JSON.

A writer that is killed at any moment leaves the old content or the new one, never a mixture. That takes a temporary
sibling, fsync of its data, a rename, and fsync of the folder that holds the name.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import json
import math
import os
import re
import secrets
import shutil
import socket
import stat
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, NoReturn

from s2s.errors import DataError, RunError, S2SError

MAX_DEPTH = 100  # of nested JSON; far below the depth at which Python code that walks it fails
LEFTOVER_SECONDS = 10  # a temporary sibling this old that no process holds was left by a killed one


def printable(text: object, limit: int = 80) -> str:
    """Untrusted text made fit for a terminal: no control characters, at most `limit` characters."""
    plain = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in str(text))
    return plain if len(plain) <= limit else plain[: limit - 3] + "..."


def write_failure(error: OSError, path: str | Path) -> RunError:
    """The error to raise where writing `path` failed; for a full disk it says how much is free."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        folder = Path(path).absolute()
        while not folder.is_dir():
            folder = folder.parent
        free = shutil.disk_usage(folder).free
        return RunError(
            f"no room left to write this file ({error.strerror})",
            where=str(path),
            found=f"{free / 1e6:.1f} MB free on its disk",
            hint="What was there before is intact. Free some space, then run the same command again.",
        )
    return RunError(f"can't write here ({error.strerror or error})", where=str(path), hint="Choose another place.")


def write_atomic(path: str | Path, content: bytes | Callable[[BinaryIO], object]) -> None:
    """Write a file in one step: readers, and whoever comes after a crash, see the old content or the new one.

    content: the bytes, or a function that writes them to the open file that it is handed. Missing folders are made; a
    link is followed. Raises RunError where the disk is full or the place isn't writable: the old file is then intact.
    """
    target = Path(os.path.realpath(path))
    temporary = _temporary_name(target)
    try:
        if target.exists() and not target.is_file():
            raise RunError("can't be replaced by a file", where=str(path), hint="Name a file that is new or ordinary.")
        target.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(target.parent, _prefix(target))
        with open(temporary, "xb") as file:
            _try_lock(file.fileno())
            if isinstance(content, bytes):
                file.write(content)
            else:
                content(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
        _sync(target.parent)
    except OSError as error:
        raise write_failure(error, path) from error
    finally:
        with suppress(OSError):
            temporary.unlink()


@contextmanager
def replace_folder(folder: str | Path) -> Iterator[Path]:
    """Hands out an empty temporary folder; when the block ends well, that takes the place of `folder` in one step.

    What `folder` held before is removed, and kept whole if the block raises or the process is killed. One process may
    replace a folder at a time. Raises RunError where the disk is full or the place isn't writable.
    """
    target = Path(os.path.realpath(folder))
    temporary = _temporary_name(target)
    held = None
    try:
        if target.exists() and not target.is_dir():
            raise RunError("can't be replaced by a folder", where=str(folder), hint="Name a folder.")
        target.parent.mkdir(parents=True, exist_ok=True)
        if _previous(target).exists() and not target.exists():
            os.rename(_previous(target), target)
        remove_leftovers(target.parent, _prefix(target))
        temporary.mkdir()
        held = _hold(temporary)
        yield temporary
        for path in [*temporary.rglob("*"), temporary]:
            _sync(path)
        _swap(temporary, target)
        _sync(target.parent)
    except OSError as error:
        raise write_failure(error, folder) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)  # after a swap this is the old content
        if held is not None:
            os.close(held)


def remove_folder(folder: Path) -> None:
    """Remove a folder so that a crash never leaves a part of it under its name. Raises RunError."""
    temporary = _temporary_name(folder)
    try:
        os.rename(folder, temporary)
        shutil.rmtree(temporary)
    except OSError as error:
        raise write_failure(error, folder) from error


def present(folder: str | Path) -> Path:
    """Where the content of a replaced folder lies: in itself, or beside it if a save was killed between two renames.

    The second case exists only on file systems that can't exchange two names in one step.
    """
    folder = Path(folder)
    beside = _previous(Path(os.path.realpath(folder)))
    return beside if beside.is_dir() and not folder.exists() else folder


def remove_leftovers(folder: Path, start: str) -> None:
    """Remove what killed writers left in `folder` under names that begin with `start`; a living one's files stay."""
    for leftover in folder.glob("*.tmp-*"):
        if not leftover.name.startswith(start):
            continue
        with suppress(OSError):
            if time.time() - leftover.lstat().st_mtime < LEFTOVER_SECONDS:
                continue
            held = _hold(leftover)
            if held is None:
                continue
            try:
                if leftover.is_dir():
                    shutil.rmtree(leftover, ignore_errors=True)
                else:
                    leftover.unlink()
            finally:
                os.close(held)


class RunLock:
    """One process a run folder: `with RunLock(folder): ...`. When its process dies, by whatever, the system frees it.

    Raises RunError naming the process that holds it. On a file system that can't lock it warns and goes on.
    """

    def __init__(self, folder: str | Path) -> None:
        self.path = Path(folder) / ".lock"
        self._file: int | None = None

    def __enter__(self) -> RunLock:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            file = os.open(self.path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o644)
        except OSError as error:
            raise write_failure(error, self.path) from error
        if not _try_lock(file):
            holder = os.read(file, 300).decode("utf-8", "replace").strip()
            os.close(file)
            raise RunError(
                "another process is at work in this run folder",
                where=str(self.path.parent),
                found=printable(holder) or "no name in its lock file",
                hint="Wait until it ends, end it, or choose another folder.",
            )
        self._file = file
        try:
            os.ftruncate(file, 0)
            os.write(file, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
        except OSError as error:
            self.__exit__(None, None, None)
            raise write_failure(error, self.path) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            os.ftruncate(self._file, 0)  # the file itself stays: removing it would race with one who just opened it
            _unlock(self._file)
            os.close(self._file)
            self._file = None


def sha256(path: str | Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_json(path: str | Path, max_bytes: int, *, error: type[S2SError] = DataError) -> Any:
    """The value in an untrusted JSON file of at most `max_bytes` bytes. Raises `error`; see `parse_json`."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise error("is no ordinary file", where=str(path))
        with open(path, "rb") as file:
            data = file.read(max_bytes + 1)
    except OSError as reason:
        raise error(f"can't be read ({reason.strerror})", where=str(path)) from reason
    if len(data) > max_bytes:
        raise error("is too big", where=str(path), expected=f"at most {max_bytes:,} bytes")
    return parse_json(data, str(path), error=error)


def parse_json(data: bytes, where: str, *, error: type[S2SError] = DataError) -> Any:
    """The value of untrusted JSON text: UTF-8, no duplicate keys, finite numbers, not nested deeper than MAX_DEPTH."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
            raise error(f"the key {printable(twice)!r} stands twice", where=where)
        return found

    def finite(text: str) -> float:
        number = float(text)
        if not math.isfinite(number):
            refuse(text)
        return number

    def refuse(text: str) -> NoReturn:
        raise error(f"{printable(text)} is no finite number", where=where)

    try:
        value = json.loads(data.decode("utf-8"), object_pairs_hook=unique, parse_float=finite, parse_constant=refuse)
    except RecursionError as reason:
        raise error("is nested too deeply", where=where, expected=f"at most {MAX_DEPTH} levels") from reason
    except UnicodeDecodeError as reason:
        raise error(f"is no UTF-8 text (byte {reason.start})", where=where) from reason
    except ValueError as reason:  # not JSON, or a number with thousands of digits
        raise error(f"is no JSON ({printable(reason)})", where=where) from reason
    for depth, name, item in walk(value):
        if depth > MAX_DEPTH:
            raise error("is nested too deeply", where=where, expected=f"at most {MAX_DEPTH} levels")
        if any(isinstance(text, str) and re.search("[\ud800-\udfff]", text) for text in (name, item)):
            raise error("holds half a surrogate pair, which is no text", where=where)
    return value


def to_json(value: object) -> bytes:
    """JSON text of plain values, UTF-8, that `parse_json` gives back equal (tuples come back as lists).

    Floats are written so that they come back bit for bit. Raises ValueError or TypeError on NaN, Inf, a key that is no
    string, and whatever else JSON would change or can't hold.
    """
    for depth, name, _ in walk(value):
        if not isinstance(name, str):
            raise TypeError(f"a key of JSON must be a string, not {name!r}")
        if depth > MAX_DEPTH:
            raise ValueError(f"nested deeper than {MAX_DEPTH} levels")
    return (json.dumps(value, ensure_ascii=False, allow_nan=False, indent=1) + "\n").encode("utf-8")


def walk(value: object) -> Iterator[tuple[int, object, object]]:
    """Everything in nested dicts and lists as (depth, key, item), without recursion; in a list the key is ""."""
    waiting: list[tuple[int, object, object]] = [(1, "", value)]
    while waiting:
        depth, name, item = waiting.pop()
        yield depth, name, item
        if depth > MAX_DEPTH:
            continue
        if isinstance(item, dict):
            waiting.extend((depth + 1, key, inner) for key, inner in item.items())
        elif isinstance(item, (list, tuple)):
            waiting.extend((depth + 1, "", inner) for inner in item)


def _prefix(path: Path) -> str:
    return f".{path.name[:40]}.tmp-"


def _temporary_name(path: Path) -> Path:
    return path.with_name(f"{_prefix(path)}{os.getpid()}-{secrets.token_hex(4)}")


def _previous(folder: Path) -> Path:
    return folder.with_name(f".{folder.name[:40]}.previous")


def _sync(path: Path) -> None:
    """Make a file's bytes, or a folder's names, survive a power cut."""
    if os.name == "nt" and path.is_dir():
        return  # Windows can't open a folder
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def _swap(new: Path, old: Path) -> None:
    """Put folder `new` in the place of `old`, which may be missing."""
    if not old.exists():
        os.rename(new, old)
    elif not _exchange(new, old):
        shutil.rmtree(_previous(old), ignore_errors=True)
        os.rename(old, _previous(old))
        os.rename(new, old)  # a process killed before this line leaves what `present` finds
        shutil.rmtree(_previous(old), ignore_errors=True)


def _exchange(first: Path, second: Path) -> bool:
    """Exchange two names in one step by Linux' renameat2; False where system or file system can't."""
    if not sys.platform.startswith("linux"):
        return False
    function = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    here, flag = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    return function is not None and function(here, os.fsencode(first), here, os.fsencode(second), flag) == 0


def _hold(path: Path) -> int | None:
    """An open descriptor that holds the lock of a file or folder; None where another process has it."""
    if os.name == "nt" and path.is_dir():
        return None  # Windows can't open a folder
    file = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
    if _try_lock(file):
        return file
    os.close(file)
    return None


if sys.platform == "win32":  # written from the documentation; not tested
    import msvcrt

    def _try_lock(file: int) -> bool:
        os.lseek(file, 1 << 30, os.SEEK_SET)  # the lock is mandatory there, so it must not cover the text
        try:
            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        finally:
            os.lseek(file, 0, os.SEEK_SET)
        return True

    def _unlock(file: int) -> None:
        os.lseek(file, 1 << 30, os.SEEK_SET)
        msvcrt.locking(file, msvcrt.LK_UNLCK, 1)
else:
    import fcntl

    def _try_lock(file: int) -> bool:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError as error:
            warnings.warn(
                f"this file system can't lock ({error.strerror}): a second process isn't noticed", stacklevel=3
            )
        return True

    def _unlock(file: int) -> None:
        fcntl.flock(file, fcntl.LOCK_UN)
