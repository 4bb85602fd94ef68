"""Atomic writing, locks and untrusted JSON, under kill -9, full disks and hostile content."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import s2s
from s2s import files
from s2s.errors import BundleError, DataError, RunError
from s2s.files import RunLock, parse_json, printable, read_json, replace_folder, sha256, to_json, write_atomic

ROOT = Path(s2s.__file__).resolve().parent.parent


def child(code: str, *arguments: object) -> subprocess.Popen[str]:
    """A Python process that runs `code`."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)], capture_output=True)
    if done.returncode:
        pytest.skip("needs the right to mount a tmpfs")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_write_atomic_writes_bytes_or_what_a_function_writes(tmp_path: Path) -> None:
    path = tmp_path / "new" / "ein Ordner ü" / "a.txt"
    write_atomic(path, b"one")
    assert path.read_bytes() == b"one"
    write_atomic(path, lambda file: file.write(b"two"))
    assert path.read_bytes() == b"two"
    assert os.listdir(path.parent) == ["a.txt"]
    assert path.stat().st_mode & 0o777 == 0o666 & ~_umask()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_write_atomic_keeps_the_old_file_when_the_writer_fails(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_atomic(path, b"old")

    def fail(file: object) -> None:
        file.write(b"half")  # type: ignore[attr-defined]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomic(path, fail)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_write_atomic_follows_a_link_and_refuses_a_folder_or_pipe(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("target")
    write_atomic(tmp_path / "link", b"x")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_bytes() == b"x"
    os.mkfifo(tmp_path / "pipe")
    for name in ("pipe", "."):
        with pytest.raises(RunError, match="can't be replaced by a file"):
            write_atomic(tmp_path / name, b"x")
    assert (tmp_path / "pipe").is_fifo()


def test_write_atomic_says_where_it_cannot_write(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for path in (tmp_path / "file" / "below.txt", tmp_path / ("n" * 300)):
        with pytest.raises(RunError, match="can't write here") as caught:
            write_atomic(path, b"x")
        assert str(path) in str(caught.value)


def test_full_disk_keeps_the_old_file_and_says_how_much_is_free(small_disk: Path) -> None:
    path = small_disk / "a.bin"
    write_atomic(path, b"old" * 1000)
    with pytest.raises(RunError, match=r"no room left.*MB free.*Free some space") as caught:
        write_atomic(path, b"n" * 2_000_000)
    assert caught.value.exit_code == 1
    assert path.read_bytes() == b"old" * 1000
    assert os.listdir(small_disk) == ["a.bin"]
    with pytest.raises(RunError, match="no room left"), replace_folder(small_disk / "folder") as new:
        (new / "big").write_bytes(b"n" * 2_000_000)
    assert os.listdir(small_disk) == ["a.bin"]


def test_a_quota_counts_as_a_full_disk(tmp_path: Path) -> None:
    code = """
import resource, sys
from s2s.errors import RunError
from s2s.files import write_atomic
write_atomic(sys.argv[1], b"old")
resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
try:
    write_atomic(sys.argv[1], b"n" * 10000)
except RunError as error:
    print(error)
"""
    out, _ = child(code, tmp_path / "a").communicate(timeout=600)
    assert "no room left to write this file" in out
    assert (tmp_path / "a").read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a"]


@pytest.mark.parametrize("exchange", [True, False])
def test_kill_9_while_replacing_a_folder_leaves_one_version_whole(tmp_path: Path, exchange: bool) -> None:
    code = """
import os, signal, sys, time
from s2s import files
from s2s.files import present, replace_folder
if sys.argv[2] == "False":
    files._exchange = lambda first, second: False
files.LEFTOVER_SECONDS = 0
os.fsync = lambda file: None  # it guards against a power cut, not a kill, and takes long on a busy disk

def save(number):
    with replace_folder(sys.argv[1]) as new:
        for name in ("a", "b", "c"):
            (new / name).write_text(str(number))

def timed(number):
    began = time.monotonic()
    save(number)
    return time.monotonic() - began

took = min(timed(0) for _ in range(3))  # so that kills fall into every part of a save, on any disk
last = 0
for round in range(300):
    if round >= 40 and last > 0:
        break
    writer = os.fork()
    if writer == 0:
        number = last
        while True:
            number += 1
            save(number)
    time.sleep(took * (0.2 + 0.13 * (round % 40)))
    os.kill(writer, signal.SIGKILL)
    os.waitpid(writer, 0)
    place = present(sys.argv[1])
    found = {(place / name).read_text() for name in ("a", "b", "c")}
    assert sorted(os.listdir(place)) == ["a", "b", "c"], os.listdir(place)
    assert len(found) == 1, found
    assert int(*found) >= last, (found, last)
    last = int(*found)
save(last + 1)
assert os.listdir(os.path.dirname(sys.argv[1])) == ["model"], os.listdir(os.path.dirname(sys.argv[1]))
print("versions", last)
"""
    out, _ = child(code, tmp_path / "runs" / "model", exchange).communicate(timeout=600)
    assert out.startswith("versions")
    assert int(out.split()[1]) > 0


def test_replace_folder_falls_back_where_names_cannot_be_exchanged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_exchange", lambda first, second: False)
    for number in range(3):
        with replace_folder(tmp_path / "model") as new:
            (new / f"{number}").touch()
        assert os.listdir(tmp_path) == ["model"]
        assert os.listdir(tmp_path / "model") == [str(number)]
    os.rename(tmp_path / "model", tmp_path / ".model.previous")  # killed between the two renames
    assert os.listdir(files.present(tmp_path / "model")) == ["2"]
    with pytest.raises(ValueError, match="stop"), replace_folder(tmp_path / "model"):
        raise ValueError("stop")
    assert os.listdir(tmp_path / "model") == ["2"]


def test_leftovers_go_when_they_are_old_and_nobody_holds_them(tmp_path: Path) -> None:
    for name in (".a.txt.tmp-1-old", ".a.txt.tmp-1-young", ".a.txt.tmp-1-held", ".b.txt.tmp-1-other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "part").touch()
    for name in (".a.txt.tmp-1-old", ".a.txt.tmp-1-held", ".b.txt.tmp-1-other"):
        os.utime(tmp_path / name, (0, 0))
    held = files._hold(tmp_path / ".a.txt.tmp-1-held")
    assert held is not None
    write_atomic(tmp_path / "a.txt", b"x")
    assert sorted(os.listdir(tmp_path)) == [".a.txt.tmp-1-held", ".a.txt.tmp-1-young", ".b.txt.tmp-1-other", "a.txt"]
    os.close(held)


LOCKER = """
import sys
from s2s.files import RunLock
with RunLock(sys.argv[1]):
    print("locked", flush=True)
    sys.stdin.read()
"""


def test_a_second_process_is_refused_and_a_killed_one_frees_the_lock(tmp_path: Path) -> None:
    first = child(LOCKER, tmp_path)
    assert first.stdout is not None
    assert first.stdout.readline() == "locked\n"
    with pytest.raises(RunError, match=f"another process.*process {first.pid} on "), RunLock(tmp_path):
        raise AssertionError("the lock was given twice")
    first.send_signal(signal.SIGKILL)
    first.wait(10)
    for _ in range(2):
        with RunLock(tmp_path), pytest.raises(RunError, match=f"process {os.getpid()} on "), RunLock(tmp_path):
            raise AssertionError("the lock was given twice")
    first.communicate()


def test_a_lock_file_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").write_bytes(b"content")
    (tmp_path / ".lock").symlink_to("precious")
    with pytest.raises(RunError), RunLock(tmp_path):
        pass
    assert (tmp_path / "precious").read_bytes() == b"content"


def test_json_comes_back_equal(tmp_path: Path) -> None:
    value = {"a": [1, 2.5, None, True, "ü\u2028\n"], "b": {"": {}}, "floats": [0.1, 1e-320, 2**70, 1 / 3]}
    write_atomic(tmp_path / "a.json", to_json(value))
    back = read_json(tmp_path / "a.json", 1000)
    assert back == value
    assert [x.hex() for x in back["floats"] if isinstance(x, float)] == [x.hex() for x in (0.1, 1e-320, 1 / 3)]
    for bad in ({"a": float("nan")}, {"a": float("-inf")}, {1: 2}, {"a": {1, 2}}, {"a": "\ud800"}):
        with pytest.raises((ValueError, TypeError)):
            to_json(bad)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b'{"a": 1, "b": 2, "a": 3}', "'a' stands twice"),
        (b'{"a": {"x": 1, "x": 1}}', "'x' stands twice"),
        (b'{"a": NaN}', "NaN is no finite number"),
        (b'{"a": [-Infinity]}', "-Infinity is no finite"),
        (b'{"a": 1e999}', "1e999 is no finite"),
        (b"9" * 5000, "is no JSON"),
        (b"[" * 99_000, "nested too deeply"),
        (b"[" * 200 + b"]" * 200, "nested too deeply"),
        (b'{"a":' * 101 + b"1" + b"}" * 101, "nested too deeply"),
        (b'{"a": "\\ud800"}', "surrogate"),
        (b'{"\\udc00": 1}', "surrogate"),
        (b"\xff\xfe{\x00}\x00", "no UTF-8"),
        (b"\xef\xbb\xbf{}", "is no JSON"),
        (b"", "is no JSON"),
        (b'{"a": 1', "is no JSON"),
        (b"{'a': 1}", "is no JSON"),
        (b'{"a": 1} {}', "is no JSON"),
    ],
)
def test_hostile_json_is_refused_with_the_file_named(tmp_path: Path, text: bytes, why: str) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(text)
    with pytest.raises(DataError, match=why) as caught:
        read_json(path, 100_000)
    assert str(path) in str(caught.value)


def test_json_has_limits_in_size_and_kind_of_file(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(b" " * 99 + b"1")
    assert read_json(tmp_path / "a.json", 100) == 1
    with pytest.raises(BundleError, match="too big"):
        read_json(tmp_path / "a.json", 99, error=BundleError)
    os.mkfifo(tmp_path / "pipe")
    for name, why in (("pipe", "no ordinary file"), ("none", "No such file"), (".", "no ordinary file")):
        with pytest.raises(DataError, match=why):
            read_json(tmp_path / name, 99)


def test_many_duplicate_keys_are_found_in_time() -> None:
    text = "{" + ",".join(f'"{n}":0' for n in range(100_000)) + ',"99999":0}'
    start = time.process_time()
    with pytest.raises(DataError, match="stands twice"):
        parse_json(text.encode(), "x")
    assert time.process_time() - start < 5
    assert json.loads(text)


def test_sha256_and_printable(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert sha256(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert printable("a\x1b[31mb\nü") == "a\\x1b[31mb\\x0aü"
    assert printable("x" * 100, 10) == "xxxxxxx..."
