r"""The one way text enters: records of UTF-8 text, where only "\n" ends a record.

`str.splitlines` and text-mode files also break at CR, VT, FF, U+0085, U+2028 and U+2029, so that one input line would
become two output lines. Everything here works on bytes for that reason.
"""

from __future__ import annotations

import gzip
import io
import os
import re
import sys
import unicodedata
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Literal, Self

from s2s.errors import DataError, UsageError

Errors = Literal["strict", "replace"]

MAX_LINE_BYTES = 64 * 2**20  # a longer "line" is a binary file or a device, and would fill the memory
_BOM = b"\xef\xbb\xbf"
_MAGIC = (
    (b"\x1f\x8b", "gzip", "Unpack it with gunzip, or give its file a name that ends in .gz."),
    (b"BZh", "bzip2", "Unpack it with bunzip2 first."),
    (b"\xfd7zXZ\x00", "xz", "Unpack it with unxz first."),
    (b"\x28\xb5\x2f\xfd", "zstandard", "Unpack it with unzstd first."),
    (b"PK\x03\x04", "zip", "Unpack it with unzip first."),
)
_TO_UTF8 = "Convert it with: iconv -f {} -t UTF-8."

# Controls that separate words become a space, all others vanish; tab stays, and every tokenizer takes it for a space.
_SEPARATORS = re.compile("[\n\x0b\x0c\r\x85]")
_UNWANTED = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff]")
# Separators, controls, format characters (zero-width space and joiners, marks of direction), lone surrogates.
_BLANK_CATEGORIES = frozenset({"Zs", "Zl", "Zp", "Cc", "Cf", "Cs"})


def is_blank(text: str) -> bool:
    """Whether `text` shows nothing: empty, or only spaces (of any width, also zero), tabs and controls."""
    return text.isspace() or all(unicodedata.category(character) in _BLANK_CATEGORIES for character in text)


def as_title(text: str) -> str:
    """A text in the style of a title: a capital first letter, no full stop at the end.

    A word with a capital inside (iPhone) stays, and so do an ellipsis and the stops of an abbreviation (U.S.).
    """
    text = text.strip()
    if text.endswith(".") and not text.endswith("..") and "." not in text.split()[-1][:-1]:
        text = text[:-1].rstrip()
    first = text.split()[0] if text else ""
    return text[0].upper() + text[1:] if first and first == first.lower() else text


def clean(text: str) -> tuple[str, int]:
    """`text` as a model may see it, and how many characters were taken out or replaced for that.

    Line ends at the end of the text are dropped, uncounted. NUL, other control characters and lone surrogates are
    removed; controls that separate words (line feed, CR, VT, FF, U+0085) become spaces; tabs stay.
    """
    text = text.rstrip("\r\n")
    if text.isprintable():
        return text, 0
    text, separators = _SEPARATORS.subn(" ", text)
    text, unwanted = _UNWANTED.subn("", text)
    return text, separators + unwanted


class Lines(Iterator[str]):
    """Records of a text, read one at a time. A context manager; closes its file at the end.

    name: what messages call the text (a path or "<stdin>"). count: records given so far.
    replaced: invalid bytes replaced by U+FFFD so far (only with errors="replace").
    """

    def __init__(self, stream: BinaryIO, name: str, *, errors: Errors = "strict", close: bool = False) -> None:
        if errors not in ("strict", "replace"):
            raise UsageError("unknown way to handle invalid UTF-8", expected="strict or replace", found=str(errors))
        self.name, self.count, self.replaced = name, 0, 0
        self._stream, self._errors, self._close, self._offset = stream, errors, close, 0

    def __next__(self) -> str:
        """The next record without its line end. Raises DataError for what isn't UTF-8 text."""
        raw = self._readline()
        if not raw:
            self.close()
            raise StopIteration
        if len(raw) > MAX_LINE_BYTES:
            raise DataError("line is too long", where=self._where(), expected=f"at most {MAX_LINE_BYTES} bytes")
        start = self._offset
        self._offset += len(raw)
        if start == 0:
            self._refuse_other_formats(raw)
            if raw == _BOM:
                return self.__next__()  # nothing but a mark: an empty file
            if raw.startswith(_BOM):
                raw = raw[len(_BOM) :]
                start = len(_BOM)
        raw = raw.removesuffix(b"\n").removesuffix(b"\r")
        try:
            text = raw.decode("utf-8")
        except UnicodeDecodeError as error:
            if self._errors == "strict":
                raise self._invalid(raw, start, error) from None
            text = raw.decode("utf-8", "replace")
            self.replaced += text.count("\ufffd") - raw.count("\ufffd".encode())
        self.count += 1
        return text

    def close(self) -> None:
        """Closes the file if `read_lines` opened it."""
        if self._close:
            self._stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _where(self) -> str:
        return f"{self.name}:{self.count + 1}"

    def _readline(self) -> bytes:
        if self._stream.closed:
            return b""
        try:
            return self._stream.readline(MAX_LINE_BYTES + 1)
        except EOFError:
            raise DataError("truncated gzip file", where=self._where(), hint="Obtain the file again.") from None
        except (gzip.BadGzipFile, zlib.error) as error:
            raise DataError("broken gzip file", where=self._where(), found=str(error)) from None
        except OSError as error:
            raise DataError("can't be read", where=self._where(), found=error.strerror or str(error)) from None

    def _refuse_other_formats(self, first: bytes) -> None:
        for magic, kind, hint in _MAGIC:
            if first.startswith(magic):
                raise DataError(f"looks like {kind}", where=self.name, expected="UTF-8 text", hint=hint)
        if first.startswith((b"\xff\xfe\x00\x00", b"\x00\x00\xfe\xff")):
            raise DataError("looks like UTF-32", where=self.name, expected="UTF-8 text", hint=_TO_UTF8.format("UTF-32"))
        even, odd = first[0::2].count(0), first[1::2].count(0)
        # Latin text in UTF-16 without a mark: nearly every other byte is NUL, always on the same side.
        half_is_nul = even + odd > 2 and max(even, odd) * 5 >= len(first) and min(even, odd) * 10 <= max(even, odd)
        if first.startswith((b"\xff\xfe", b"\xfe\xff")) or half_is_nul:
            raise DataError("looks like UTF-16", where=self.name, expected="UTF-8 text", hint=_TO_UTF8.format("UTF-16"))
        if even + odd >= 8 and (even + odd) * 10 > len(first):
            raise DataError("looks like a binary file", where=self.name, expected="UTF-8 text", found="many NUL bytes")

    def _invalid(self, raw: bytes, start: int, error: UnicodeDecodeError) -> DataError:
        return DataError(
            f"invalid UTF-8 byte 0x{raw[error.start]:02x}",
            where=self._where(),
            expected="UTF-8 text",
            found=f"{error.reason} at byte {error.start} of the line (byte {start + error.start} of the file)",
            hint="Pass --errors replace to put U+FFFD in its place, or convert the file with iconv.",
        )


def read_lines(source: str | os.PathLike[str] | BinaryIO, *, errors: Errors = "strict") -> Lines:
    r"""Opens a text for reading record by record; memory is bounded by the longest line.

    source: a path (unpacked on the fly if it ends in .gz), "-" for the standard input, or a binary stream.
    errors: "strict" raises DataError at invalid UTF-8, "replace" puts U+FFFD there and counts it in `Lines.replaced`.
    Only "\n" ends a record; one trailing CR and a byte order mark at the start are removed; a missing final newline
    makes no difference. Raises DataError for a missing file, and for UTF-16, gzip and binary files given by mistake.
    """
    if not isinstance(source, (str, os.PathLike)):
        return Lines(source, str(getattr(source, "name", "<stream>")), errors=errors)
    if source == "-":
        return Lines(sys.stdin.buffer, "<stdin>", errors=errors)
    path = Path(source).expanduser()
    try:
        stream = path.open("rb")
    except FileNotFoundError:
        raise DataError("no such file", where=str(source)) from None
    except IsADirectoryError:
        raise DataError("is a folder", where=str(source), expected="a text file") from None
    except OSError as error:
        raise DataError("can't be opened", where=str(source), found=error.strerror or str(error)) from None
    if path.suffix == ".gz":
        # BufferedReader because GzipFile.readline is slow; closing it closes the whole chain but the raw file.
        return Lines(_Unpacked(stream), str(source), errors=errors, close=True)
    return Lines(stream, str(source), errors=errors, close=True)


class _Unpacked(io.BufferedReader):
    """A gzip stream, unpacked and buffered; closing it closes the file below it too."""

    def __init__(self, stream: BinaryIO) -> None:
        super().__init__(gzip.GzipFile(fileobj=stream, mode="rb"))
        self._below = stream

    def close(self) -> None:
        super().close()
        self._below.close()
