"""Weights as safetensors files, checked before a library opens them.

Layout: a little-endian uint64 with the length of a JSON header, the header {name: {dtype, shape, data_offsets}}, then
the data without holes (https://huggingface.co/docs/safetensors, "Format").
"""

from __future__ import annotations

import json
import math
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from s2s.errors import BundleError
from s2s.files import parse_json, printable

MAX_HEADER = 1 << 24  # bytes of a header
MAX_ROWS = 10  # of a table in an error
DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
    "U16": torch.uint16,
}
_NAMES = {dtype: name for name, dtype in DTYPES.items()}


@dataclass(frozen=True)
class TensorHeader:
    """What a file says of a tensor before its data is read. begin, end: bytes counted from the end of the header."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    begin: int
    end: int


_DRAWN = (Tensor.normal_, Tensor.uniform_, nn.init.normal_, nn.init.uniform_, nn.init.kaiming_uniform_)


class _Undrawn(TorchFunctionMode):
    """Initial values aren't drawn: for a tensor without memory torch would first import its compiler, for a second."""

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if function in _DRAWN:
            return args[0] if args else kwargs["tensor"]
        return function(*args, **kwargs)


@contextmanager
def sketched() -> Iterator[None]:
    """Modules built inside have shapes and types, but no memory (device meta)."""
    with torch.device("meta"), _Undrawn():
        yield


def persistent_buffers(model: nn.Module) -> dict[str, Tensor]:
    """What a model keeps beside its parameters, by name, such as the moving baseline of hard attention; not copied."""
    buffers = dict(model.named_buffers())
    kept = model.state_dict().keys() if buffers else ()
    return {name: buffer for name, buffer in buffers.items() if name in kept}


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write a safetensors file, tensor after tensor (no second copy of all of them), the same bytes each time.

    Raises BundleError for a dtype that is not in DTYPES.
    """
    names = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))  # so that the data is aligned
    entries: dict[str, Any] = {}
    end = 0
    for name in names:
        tensor = tensors[name]
        if tensor.dtype not in _NAMES or tensor.layout != torch.strided:
            raise BundleError(
                f"the tensor {name} can't be saved", expected="dense, of a common dtype", found=tensor.type()
            )
        begin, end = end, end + tensor.numel() * tensor.element_size()
        entries[name] = {"dtype": _NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [begin, end]}
    header = json.dumps(entries, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    with open(path, "wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        for name in names:
            flat = tensors[name].detach().cpu().reshape(-1)
            if flat.stride(0) != 1:  # such as one element of stride 0, which counts as contiguous but has no bytes view
                flat = flat.clone(memory_format=torch.contiguous_format)
            file.write(flat.view(torch.uint8).numpy().data)


def headers(path: str | Path) -> dict[str, TensorHeader]:
    """Names, shapes and dtypes in a safetensors file; its data is not read. Raises BundleError."""
    with open_plain(Path(path)) as file:
        size = os.fstat(file.fileno()).st_size
        start = file.read(9)
        return _parse_header(start + file.read(min(_header_length(start, size, str(path)), size)), size, str(path))


def parse_tensors(data: bytes, where: str) -> dict[str, Tensor]:
    """The tensors in the bytes of a safetensors file, on the CPU. Its header is checked first. Raises BundleError."""
    length = _header_length(data[:9], len(data), where)
    entries = _parse_header(data[: 8 + length], len(data), where)
    try:
        tensors = safetensors.torch.load(data)
    except (safetensors.SafetensorError, ValueError, RuntimeError) as error:
        raise BundleError(f"is no safetensors file ({printable(error)})", where=where) from error
    return {name: tensors[name] for name in entries}


def match(
    expected: Mapping[str, tuple[tuple[int, ...], torch.dtype]], found: Mapping[str, Tensor | TensorHeader]
) -> None:
    """Compare the tensors that a model has with those of a file; works on headers, so before anything is allocated.

    expected: (shape, dtype) by name. Raises BundleError with one row for each difference, at most MAX_ROWS rows.
    """
    rows = []
    for name in [*expected, *(name for name in found if name not in expected)]:
        want = _describe(*expected[name]) if name in expected else None
        have = _describe(tuple(found[name].shape), found[name].dtype) if name in found else None
        if have is None:
            rows.append(f"{name}: missing, expected {want}")
        elif want is None:
            rows.append(f"{printable(name)}: extra, found {have}")
        elif have != want:
            rows.append(f"{name}: expected {want}, found {have}")
    if rows:
        shown = " | ".join(rows[:MAX_ROWS]) + (f" | and {len(rows) - MAX_ROWS} more" if len(rows) > MAX_ROWS else "")
        raise BundleError(f"the weights don't fit the model of the config ({len(rows)} differences): {shown}")


def _describe(shape: tuple[int, ...], dtype: torch.dtype) -> str:
    return f"{tuple(shape)} {str(dtype).removeprefix('torch.')}"


def is_count(value: object) -> bool:
    """Whether an untrusted value is a number that can count things or bytes."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 53


def is_pickle(start: bytes) -> bool:
    """Whether a file starts as pickle does, or as the zip that torch.save makes of one.

    A safetensors header of 640, 896, ... bytes starts with the same two bytes as pickle; it goes on with `{`.
    """
    return start[:4] == b"PK\x03\x04" or (
        start[:1] == b"\x80" and start[1:2] in b"\x02\x03\x04\x05" and start[8:] != b"{"
    )


def open_plain(path: Path) -> Any:
    """An ordinary file, open for reading bytes. Raises BundleError for a link, device or pipe."""
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            raise BundleError("is a link or no file", where=str(path), expected="an ordinary file")
        return open(path, "rb")
    except OSError as error:
        raise BundleError(f"can't be read ({error.strerror})", where=str(path)) from error


def pickle_error(path: object) -> BundleError:
    """The error for a file or path that holds pickle."""
    return BundleError(
        "pickle is not loaded: it can run any code",
        where=str(path),
        expected="safetensors",
        hint="Convert it where you trust it: torch.load(..., weights_only=True), then safetensors.torch.save_file.",
    )


def _header_length(start: bytes, size: int, where: str) -> int:
    """The length of a safetensors header in a file of `size` bytes that begins with the 9 bytes `start`."""
    length = int.from_bytes(start[:8], "little")
    if is_pickle(start):
        raise pickle_error(where)
    if size < 10 or length > min(MAX_HEADER, size - 8) or start[8:9] != b"{":
        raise BundleError(
            "is no safetensors file or was cut off",
            where=where,
            expected=f"a header within its {size:,} bytes",
            found=f"a header of {length:,}",
        )
    return length


def _parse_header(head: bytes, size: int, where: str) -> dict[str, TensorHeader]:
    """Check the header of a safetensors file: `head` ends with it. size: of the whole file, in bytes."""
    length = int.from_bytes(head[:8], "little")
    content = parse_json(head[8 : 8 + length], f"{where} (header)", error=BundleError)

    def refuse(name: str, what: str) -> BundleError:
        return BundleError(f"the tensor {printable(name)} {what}", where=where)

    found: dict[str, TensorHeader] = {}
    for name, entry in content.items():
        if name == "__metadata__":
            continue
        if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
            raise refuse(name, "has a damaged header")
        shape, offsets = entry["shape"], entry["data_offsets"]
        if not isinstance(entry["dtype"], str) or entry["dtype"] not in DTYPES:
            raise refuse(name, f"has the dtype {printable(entry['dtype'], 20)}, expected one of {', '.join(DTYPES)}")
        if not isinstance(shape, list) or len(shape) > 16 or not all(map(is_count, shape)):
            raise refuse(name, "has a shape that is none")
        if not isinstance(offsets, list) or len(offsets) != 2 or not all(map(is_count, offsets)):
            raise refuse(name, "has offsets that are none")
        dtype = DTYPES[entry["dtype"]]
        if offsets[1] - offsets[0] != math.prod(shape) * dtype.itemsize:
            raise refuse(name, "has offsets that don't fit its shape")
        found[name] = TensorHeader(tuple(shape), dtype, *offsets)
    place = 0
    for name, header in sorted(found.items(), key=lambda item: (item[1].begin, item[1].end)):
        if header.begin != place:
            raise refuse(name, "overlaps another one or leaves a hole")
        place = header.end
    if place != size - 8 - length:
        raise BundleError(
            "is cut off or too long", where=where, expected=f"{8 + length + place:,} bytes", found=f"{size:,}"
        )
    return found
