"""A trained model as a folder of data files, saved in one step and read without trusting a byte of it.

    manifest.json       format version, size and SHA-256 of every other file; written last
    config.json         plain values that name no code
    model.safetensors   the weights
    source.spm ...      the tokenizer files (*.spm or *.json)
    README.md           the model card

Nothing in the folder is ever executed: no pickle, no `_target_`. Sizes, hashes, the header of the weights and the
config are checked before a library opens them or memory is taken for them.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from s2s import __version__
from s2s.errors import BundleError
from s2s.files import parse_json, present, printable, read_json, replace_folder, sha256, to_json, walk
from s2s.tensors import (
    TensorHeader,
    headers,
    is_count,
    is_pickle,
    match,
    open_plain,
    parse_tensors,
    pickle_error,
    write_tensors,
)

__all__ = ["Bundle", "TensorHeader", "headers", "match", "read", "read_config", "resolve", "save", "verify"]

FORMAT = 1  # of the folder; raise it when an older s2s would misread what a newer one writes
NEEDS = "0.1.0"  # the oldest s2s that reads this format
MAX_JSON = 1 << 20  # bytes of config.json and manifest.json
MAX_FILE = 1 << 28  # bytes of a tokenizer file or card
SLACK = 1 << 20  # a number in the config of a model may be this big however small the weights are
PATIENCE = 10.0  # seconds in which a folder that is replaced again and again is read again and again

CONFIG, WEIGHTS, CARD, MANIFEST = "config.json", "model.safetensors", "README.md", "manifest.json"
PICKLES = (".pt", ".pth", ".bin", ".pkl", ".pickle", ".ckpt", ".joblib")
_T = TypeVar("_T")


@dataclass(frozen=True)
class Bundle:
    """What a model folder holds. files: the tokenizer files by name. manifest: as written, checked."""

    config: dict[str, Any]
    tensors: dict[str, Tensor]
    files: dict[str, bytes]
    manifest: dict[str, Any]


def save(
    folder: str | Path, *, config: dict[str, Any], tensors: Mapping[str, Tensor], files: Mapping[str, bytes], card: str
) -> None:
    """Write a bundle in one step: who reads meanwhile, or after a crash, finds the old one or the new one, whole.

    config: plain values. tensors: finite; any device. files: tokenizer files, `*.spm` or `*.json`. card: Markdown.
    Raises BundleError for what `read` would refuse, or where `folder` holds something else than a bundle; RunError
    where the disk is full or the place isn't writable.
    """
    for name in files:
        _check_name(name, str(folder))
        if name in (CONFIG, MANIFEST) or not name.endswith((".spm", ".json")):
            raise BundleError(f"{printable(name)} is no name for a tokenizer file", expected="*.spm or *.json")
    target = present(folder)
    if target.is_dir() and any(target.iterdir()):
        read_manifest(target)  # never replace a folder that is no bundle
    try:
        text = to_json(config)
    except (TypeError, ValueError) as error:
        raise BundleError(f"the config holds no plain values ({error})") from error
    _parse_config(text, CONFIG)
    for name, tensor in tensors.items():
        _require_finite(name, tensor, "the weights to save")
    with replace_folder(folder) as new:
        write_tensors(new / WEIGHTS, tensors)
        for name, data in {CONFIG: text, CARD: card.encode("utf-8"), **files}.items():
            (new / name).write_bytes(data)
        write_manifest(new, "bundle")
        read_manifest(new)


def read(folder: str | Path) -> Bundle:
    """The bundle in a folder, every part of it checked. Raises BundleError that names the file and what is wrong."""
    return _steadily(folder, _read)


def verify(folder: str | Path) -> list[str]:
    """Every problem of a bundle, one line each; empty if it is whole and safe. Unlisted files count as problems."""
    return _steadily(folder, lambda place: [str(problem) for problem in _problems(place)])


def resolve(path: str | Path) -> Path:
    """The bundle folder for a MODEL argument: a run folder, a link to one, or a bundle folder.

    Raises BundleError that says what was found instead.
    """
    path = Path(path)
    for folder in (path, path / "model"):
        if os.path.lexists(present(folder) / MANIFEST):
            read_manifest(present(folder))
            return folder
    refuse = partial(BundleError, where=str(path), expected="a run folder or a bundle folder")
    try:
        if path.is_file():
            with open(path, "rb") as file:
                raise pickle_error(path) if path.suffix in PICKLES or is_pickle(file.read(9)) else refuse("is a file")
        if path.is_symlink() and not path.exists():
            raise refuse("is a link to nothing", found=os.readlink(path))
        names = sorted(entry.name for entry in path.iterdir())
    except OSError as error:
        raise refuse(f"can't be opened ({error.strerror})") from error
    if "latest" in names:
        raise refuse("holds runs, not a model", hint=f"Try {path / 'latest'}")
    if "config.yaml" in names:
        raise refuse("this run has saved no model yet", hint=f"To finish it: s2s train --resume {path}")
    shown = ", ".join(printable(name, 40) for name in names[:5]) or "an empty folder"
    raise refuse("holds no model", found=shown + (f" and {len(names) - 5} more" if len(names) > 5 else ""))


def read_config(folder: str | Path) -> dict[str, Any]:
    """The config of a bundle, checked, without its weights. Raises BundleError."""
    path = present(folder) / CONFIG
    return _parse_config(_read_bytes(path, MAX_JSON), str(path))


def read_manifest(folder: Path, kind: str = "bundle") -> dict[str, Any]:
    """The manifest of a folder, checked: kind, version, and for each file a plain name, a size and a SHA-256.

    kind: "bundle", "checkpoint" or "corpus". Raises BundleError.
    """
    path = folder / MANIFEST
    where = str(path)
    if path.is_symlink():
        raise BundleError("is a link", where=where, expected="an ordinary file")
    manifest: dict[str, Any] = read_json(path, MAX_JSON, error=BundleError)
    found = manifest.get("format") if isinstance(manifest, dict) else None
    if found != f"s2s {kind}":
        raise BundleError("is of another kind", where=where, expected=f"s2s {kind}", found=printable(found))
    version: Any = manifest.get("format_version")
    files = manifest.get("files")
    if not is_count(version) or not isinstance(files, dict):
        raise BundleError("is damaged", where=where, expected="format_version and files")
    if version > FORMAT:
        needs = printable(manifest.get("needs", "a newer one"), 20)
        raise BundleError(
            f"needs s2s >= {needs}",
            where=where,
            expected=f"format version {FORMAT} or older",
            found=str(version),
            hint="Type: pip install -U s2s",
        )
    required = {CONFIG, WEIGHTS} if kind == "bundle" else set()
    for name in sorted(required - files.keys()):
        raise BundleError(f"does not list {name}", where=where)
    for name, entry in files.items():
        _check_name(name, where)
        whole = isinstance(entry, dict) and is_count(entry.get("size")) and isinstance(entry.get("sha256"), str)
        if not whole or not re.fullmatch("[0-9a-f]{64}", entry["sha256"]):
            raise BundleError(f"is damaged at {printable(name)}", where=where, expected="size and sha256")
    return manifest


def kind_of(folder: str | Path) -> str | None:
    """What the manifest of a folder says that it is ("bundle", "checkpoint", "corpus", ...); None without one."""
    path = present(folder) / MANIFEST
    found = read_json(path, MAX_JSON, error=BundleError) if path.is_file() else None
    kind = found.get("format") if isinstance(found, dict) else None
    return kind.removeprefix("s2s ") if isinstance(kind, str) else None


def write_manifest(folder: Path, kind: str) -> None:
    """Write the manifest of all files in a folder, as the last of them. kind: as in `read_manifest`."""
    entries = {p.name: {"size": p.stat().st_size, "sha256": sha256(p)} for p in sorted(folder.iterdir())}
    manifest = {"format": f"s2s {kind}", "format_version": FORMAT, "s2s": __version__, "needs": NEEDS, "files": entries}
    (folder / MANIFEST).write_bytes(to_json(manifest))


def read_listed(folder: Path, manifest: dict[str, Any], name: str, max_bytes: int | None = None) -> bytes:
    """The bytes of a file that a checked manifest lists, compared with its size and SHA-256. Raises BundleError."""
    _check_listed(folder, manifest, name)
    path, entry = folder / name, manifest["files"][name]
    data = _read_bytes(path, entry["size"] if max_bytes is None else max_bytes)
    digest = hashlib.sha256(data).hexdigest()
    if digest != entry["sha256"]:
        tokenizer = name.endswith((".spm", ".json")) and name != CONFIG
        what = "is not the tokenizer file that the model was saved with" if tokenizer else "was changed or damaged"
        raise BundleError(
            what, where=str(path), expected=f"SHA-256 {entry['sha256'][:12]}...", found=f"{digest[:12]}..."
        )
    return data


def _check_listed(folder: Path, manifest: dict[str, Any], name: str) -> None:
    """What can be said of a listed file without reading it all: there, ordinary, no pickle, of the right size."""
    path, expected = folder / name, manifest["files"][name]["size"]
    with open_plain(path) as file:
        size = os.fstat(file.fileno()).st_size
        if is_pickle(file.read(9)):
            raise pickle_error(path)
    if size != expected:
        raise BundleError("has the wrong size", where=str(path), expected=f"{expected:,} bytes", found=f"{size:,}")


def _load(folder: Path, manifest: dict[str, Any], name: str) -> Any:
    """The content of a listed file: the config, the weights, or bytes. Raises BundleError."""
    where = str(folder / name)
    if name == CONFIG:
        return _parse_config(read_listed(folder, manifest, name, MAX_JSON), where)
    if name == WEIGHTS:
        tensors = parse_tensors(read_listed(folder, manifest, name), where)
        for key, tensor in tensors.items():
            _require_finite(key, tensor, where)
        return tensors
    return read_listed(folder, manifest, name, MAX_FILE)


def _read(folder: Path) -> Bundle:
    manifest = read_manifest(folder)
    for name in manifest["files"]:
        _check_listed(folder, manifest, name)
    config = _load(folder, manifest, CONFIG)
    _check_sizes(config, headers(folder / WEIGHTS), str(folder / CONFIG))
    content = {name: _load(folder, manifest, name) for name in manifest["files"]}
    files = {name: data for name, data in content.items() if name not in (CONFIG, WEIGHTS, CARD)}
    return Bundle(config, content[WEIGHTS], files, manifest)


def _problems(folder: Path) -> list[BundleError]:
    """What `_read` would raise, all of it, and the files that the manifest doesn't list."""
    found: list[BundleError] = []

    def attempt(check: Callable[[], object]) -> None:
        try:
            check()
        except BundleError as problem:
            found.append(problem)

    try:
        manifest = read_manifest(folder)
    except BundleError as problem:
        return [problem]
    for name in manifest["files"]:
        attempt(partial(_load, folder, manifest, name))
    if not found:
        attempt(lambda: _check_sizes(read_config(folder), headers(folder / WEIGHTS), str(folder / CONFIG)))
    for name in sorted(os.listdir(folder)):
        if name not in manifest["files"] and name != MANIFEST:
            found.append(BundleError("is not listed in the manifest and not used", where=printable(folder / name, 200)))
    return found


def _steadily(folder: str | Path, function: Callable[[Path], _T]) -> _T:
    """What `function` makes of a folder; done again if another process replaced the folder meanwhile."""
    end = time.monotonic() + PATIENCE
    while True:
        before, problem = _stamp(folder), None
        try:
            result = function(present(folder))
        except BundleError as error:
            problem = error
        if _stamp(folder) == before or time.monotonic() > end:
            break
    if problem is not None:
        raise problem
    return result


def _stamp(folder: str | Path) -> tuple[Path, int, int] | None:
    """What changes when a folder is replaced: where its content lies, and which manifest that is."""
    place = present(folder)
    try:
        status = (place / MANIFEST).stat()
    except OSError:
        return None
    return place, status.st_ino, status.st_mtime_ns


def _check_name(name: str, where: str) -> None:
    """Refuse a path in a manifest that is more than the plain name of a data file."""
    if not re.fullmatch(r"[^./\\:\x00-\x1f][^/\\:\x00-\x1f]{0,99}", name) or name == MANIFEST:
        raise BundleError(
            f"lists a path that is refused: {printable(name)}",
            where=where,
            expected="a plain file name in the same folder",
        )
    if name.endswith(PICKLES):
        raise pickle_error(f"{where} lists {printable(name)}")
    if not name.endswith((".json", ".jsonl", ".safetensors", ".spm", ".md")):
        raise BundleError(f"lists a file of unknown kind: {printable(name)}", where=where)


def _parse_config(data: bytes, where: str) -> dict[str, Any]:
    if len(data) > MAX_JSON:
        raise BundleError("is too big", where=where, expected=f"at most {MAX_JSON:,} bytes")
    config = parse_json(data, where, error=BundleError)
    if not isinstance(config, dict):
        raise BundleError("is no config", where=where, expected="a JSON object")
    for _, key, _ in walk(config):
        if re.fullmatch("_.*_", str(key), re.DOTALL):
            raise BundleError(f"names code: {printable(key)}", where=where, expected="plain values")
    return config


def _check_sizes(config: dict[str, Any], found: Mapping[str, TensorHeader], where: str) -> None:
    """Refuse a config that asks for more than the file of weights can hold, before a model is built from it."""
    elements = sum(math.prod(header.shape) for header in found.values())
    for node in ("model", "encoder", "decoder", "attention", "self_attention"):
        for _, key, value in walk(config.get(node)):
            limit = len(found) if key in ("layers", "depth", "blocks") else max(elements, SLACK)
            if isinstance(value, int) and not isinstance(value, bool) and value > limit:
                raise BundleError(
                    f"asks for {printable(value)} in {node} ({printable(key)})",
                    where=where,
                    expected=f"at most {limit:,}, since the weights are {len(found)} tensors of {elements:,} numbers",
                )


def _require_finite(name: str, tensor: Tensor, where: str) -> None:
    if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
        raise BundleError(f"the tensor {printable(name)} holds NaN or Inf", where=where, expected="finite numbers")


def _read_bytes(path: Path, max_bytes: int) -> bytes:
    with open_plain(path) as file:
        data: bytes = file.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise BundleError("is too big", where=str(path), expected=f"at most {max_bytes:,} bytes")
    return data
