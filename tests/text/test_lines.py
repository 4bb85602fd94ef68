from __future__ import annotations

import gzip
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s2s.errors import DataError, UsageError
from s2s.text import lines as lines_module
from s2s.text.lines import as_title, clean, is_blank, read_lines


def read(data: bytes, errors: str = "strict") -> list[str]:
    return list(read_lines(io.BytesIO(data), errors=errors))  # type: ignore[arg-type]


@given(st.lists(st.text(st.characters(exclude_characters="\n\r\ufeff\x00", codec="utf-8"))))
def test_records_come_back_as_they_were_written(records: list[str]) -> None:
    assert read("".join(record + "\n" for record in records).encode()) == records


def test_empty_file_has_no_records() -> None:
    assert read(b"") == []
    assert read(b"\xef\xbb\xbf") == []


def test_blank_lines_are_records() -> None:
    assert read(b"a\n\nb\n\n") == ["a", "", "b", ""]


def test_missing_final_newline_makes_no_difference() -> None:
    assert read(b"a\nb") == read(b"a\nb\n") == ["a", "b"]


def test_crlf() -> None:
    assert read(b"a\r\nb\r\n\r\nc") == ["a", "b", "", "c"]


@pytest.mark.parametrize("separator", ["\r", "\u2028", "\u2029", "\u0085", "\x0b", "\x0c", "\x1c", "\x1e"])
def test_only_newline_ends_a_record(separator: str) -> None:
    assert read(f"a{separator}b\nc\n".encode()) == [f"a{separator}b", "c"]


def test_mark_is_removed_at_the_start_only() -> None:
    assert read(b"\xef\xbb\xbfa\n\xef\xbb\xbfb\n") == ["a", "\ufeffb"]
    assert read(b"\xef\xbb\xbf\nb\n") == ["", "b"]


def test_invalid_utf8_names_line_and_byte() -> None:
    with pytest.raises(DataError) as caught:
        read(b"good\nab\xffc\n")
    message = str(caught.value)
    assert "<stream>:2" in message
    assert "0xff" in message
    assert "byte 2 of the line (byte 7 of the file)" in message
    assert "--errors replace" in message


def test_invalid_utf8_is_replaced_and_counted() -> None:
    text = read_lines(io.BytesIO("a\ufffdb\n".encode() + b"x\xffy\xc3\n"), errors="replace")
    assert list(text) == ["a\ufffdb", "x\ufffdy\ufffd"]
    assert (text.replaced, text.count) == (2, 2)


def test_unknown_errors_policy() -> None:
    with pytest.raises(UsageError, match="strict or replace"):
        read(b"a\n", errors="ignore")


@pytest.mark.parametrize(
    "data, kind",
    [
        ("hello\nyou\n".encode("utf-16"), "UTF-16"),
        ("hello\nyou\n".encode("utf-16-le"), "UTF-16"),
        ("hello\nyou\n".encode("utf-16-be"), "UTF-16"),
        ("hello\nyou\n".encode("utf-32"), "UTF-32"),
        (gzip.compress(b"hello\n", mtime=0), "gzip"),
        (b"PK\x03\x04rest", "zip"),
        (b"\x01" + b"\0" * 20 + b"abc" * 10 + b"\0" * 9 + b"\n", "binary"),
    ],
)
def test_other_formats_are_recognised(data: bytes, kind: str) -> None:
    with pytest.raises(DataError, match=f"looks like .*{kind}"):
        read(data)


def test_a_single_nul_is_text() -> None:
    assert read(b"a\0b\n") == ["a\0b"]


def test_gzip_by_name(tmp_path: Path) -> None:
    path = tmp_path / "a.gz"
    path.write_bytes(gzip.compress("ä\nb\n".encode()))
    with read_lines(path) as text:
        assert list(text) == ["ä", "b"]


def test_truncated_gzip_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.gz"
    path.write_bytes(gzip.compress(os.urandom(3000).hex().encode())[:-100])
    with pytest.raises(DataError, match=r"a\.gz.*truncated gzip"):
        list(read_lines(path))


def test_text_named_gz(tmp_path: Path) -> None:
    path = tmp_path / "a.gz"
    path.write_bytes(b"plain\n")
    with pytest.raises(DataError, match="broken gzip"):
        list(read_lines(path))


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        read_lines(tmp_path / "absent")
    with pytest.raises(DataError, match="is a folder"):
        read_lines(tmp_path)


def test_file_is_closed_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"a\n")
    text = read_lines(path)
    list(text)
    assert text._stream.closed
    assert next(text, None) is None


def test_endless_line_is_refused_with_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines_module, "MAX_LINE_BYTES", 1000)
    asked = []

    class Endless(io.RawIOBase):
        def readline(self, size: int | None = -1, /) -> bytes:
            asked.append(size)
            return b"a" * (size or 0)

    with pytest.raises(DataError, match="too long"):
        list(read_lines(Endless()))  # type: ignore[arg-type]
    assert asked == [1001]


def test_records_arrive_one_by_one() -> None:
    code = "from s2s.text.lines import read_lines\nfor t in read_lines('-'): print(t.upper(), flush=True)"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"one\n")
        process.stdin.flush()
        assert process.stdout.readline() == b"ONE\n"
        process.stdin.close()
        assert process.wait(20) == 0


@pytest.mark.parametrize(
    "text", ["", " ", "\t", "\u00a0", "\u3000", "\u200b", " \u200b\u00a0\t", "\ufeff", "\x00", "\r"]
)
def test_blank(text: str) -> None:
    assert is_blank(text)


@pytest.mark.parametrize("text", ["a", " . ", "\u200ba", "字", "🙂"])
def test_not_blank(text: str) -> None:
    assert not is_blank(text)


def test_clean_counts_what_it_takes_out() -> None:
    assert clean("a\x00b\x1bc\ud800d\x7f") == ("abcd", 4)
    assert clean("a\x0bb\u0085c\rd") == ("a b c d", 3)
    assert clean("a\tb\u2028c \u200d") == ("a\tb\u2028c \u200d", 0)


def test_clean_ignores_a_trailing_newline() -> None:
    assert clean("hello\n") == clean("hello\r\n") == clean("hello") == ("hello", 0)


@given(st.text())
def test_clean_leaves_encodable_text_without_controls(text: str) -> None:
    result, count = clean(text)
    result.encode("utf-8")
    assert not any(c < " " and c != "\t" for c in result)
    assert clean(result) == (result, 0)
    assert count >= len(text.rstrip("\r\n")) - len(result)


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("a tool for mail.", "A tool for mail"),
        ("iPhone backups.", "iPhone backups"),
        ("made in the U.S.", "Made in the U.S."),
        ("and so on...", "And so on..."),
        ("Is it? yes!", "Is it? yes!"),
        (" über alles . ", "Über alles"),
        ("3 files.", "3 files"),
        (".", ""),
        ("", ""),
        ("etc.", "Etc"),
    ],
)
def test_the_style_of_a_title(text, title):
    assert as_title(text) == title
