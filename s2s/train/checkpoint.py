"""Training checkpoints: all that a run needs to go on exactly, as safetensors and JSON in a folder saved in one step.

    checkpoints/step-00001234/   model.safetensors ema.safetensors optimizer.safetensors ...   meta.json   manifest.json

Nothing is pickled. Tensors come back bit for bit, Python floats too (JSON holds their shortest exact decimal form).
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from s2s.bundle import read_listed, read_manifest, write_manifest
from s2s.errors import BundleError, ConfigError
from s2s.files import parse_json, present, remove_folder, remove_leftovers, replace_folder, to_json
from s2s.tensors import parse_tensors, write_tensors

META = "meta.json"
MAX_META = 1 << 26  # bytes
MAX_ROWS = 10  # changed keys that an error lists

Groups = Mapping[str, Mapping[str, Tensor]]


def save(folder: str | Path, step: int, *, tensors: Groups, meta: Mapping[str, Any]) -> Path:
    """Write `folder`/step-00001234 in one step and give its path. A checkpoint of that step is replaced.

    folder: the run's `checkpoints` folder. tensors: groups by name, such as model, ema, optimizer, rng; stored as they
    are. meta: plain JSON values; no NaN or Inf. Raises RunError where the disk is full (older checkpoints stay).
    """
    target = Path(folder) / f"step-{step:08d}"
    text = to_json(dict(meta))
    for group in tensors:
        if not re.fullmatch("[a-z][a-z0-9_]*", group):
            raise ValueError(f"a group of tensors needs a lower-case name, not {group!r}")
    remove_leftovers(Path(folder), ".step-")
    with replace_folder(target) as new:
        for group, content in tensors.items():
            write_tensors(new / f"{group}.safetensors", content)
        (new / META).write_bytes(text)
        write_manifest(new, "checkpoint")
    return target


def load(path: str | Path) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
    """The groups of tensors (on the CPU) and the meta of a checkpoint, after the same checks as a bundle.

    Raises BundleError that names the damaged file.
    """
    folder = present(path)
    manifest = read_manifest(folder, "checkpoint")
    if META not in manifest["files"]:
        raise BundleError(f"does not list {META}", where=str(folder / "manifest.json"))
    where = str(folder / META)
    meta = parse_json(read_listed(folder, manifest, META, MAX_META), where, error=BundleError)
    if not isinstance(meta, dict):
        raise BundleError("is no JSON object", where=where)
    groups = {
        name.removesuffix(".safetensors"): parse_tensors(read_listed(folder, manifest, name), str(folder / name))
        for name in manifest["files"]
        if name.endswith(".safetensors")
    }
    return groups, meta


def latest(folder: str | Path) -> Path | None:
    """The newest whole checkpoint in a run's `checkpoints` folder, or None.

    Whole means: the manifest is there and every file has its size (`load` compares the hashes). What a killed process
    left half written is removed. A step that isn't whole is passed over with a warning that names it.
    """
    remove_leftovers(Path(folder), ".step-")
    for path in reversed(_steps(Path(folder))):
        try:
            place = present(path)
            for name, entry in read_manifest(place, "checkpoint")["files"].items():
                if not (place / name).is_file() or (place / name).stat().st_size != entry["size"]:
                    raise BundleError("is missing or has the wrong size", where=str(place / name))
            return path
        except BundleError as problem:
            warnings.warn(f"a checkpoint is passed over: {problem}", stacklevel=2)
    return None


def prune(folder: str | Path, keep: int) -> list[Path]:
    """Remove all but the newest `keep` (at least 1) checkpoints; gives those removed. A crash leaves no half of one."""
    if keep < 1:
        raise ValueError(f"keep must be at least 1, not {keep}")
    removed = _steps(Path(folder))[:-keep]
    for path in removed:
        remove_folder(present(path))
    return removed


def flatten_optimizer(state: Mapping[str, Any]) -> tuple[dict[str, Tensor], Any]:
    """An optimizer's or scheduler's `state_dict()` as (tensors by name, JSON value); `unflatten_optimizer` undoes it.

    Keeps integer keys, tuples, and floats that aren't finite. Raises TypeError for what is no plain data.
    """
    tensors: dict[str, Tensor] = {}

    def encode(value: Any, path: str) -> Any:
        if isinstance(value, Tensor):
            tensors[path] = value
            return {"tensor": path}
        if isinstance(value, Mapping):
            if not all(type(key) in (int, str) for key in value):
                raise TypeError(f"{path or 'the state'} has keys that are neither int nor str")
            return {"dict": [[key, encode(inner, f"{path}.{key}".strip("."))] for key, inner in value.items()]}
        if isinstance(value, (list, tuple)):
            items = [encode(inner, f"{path}.{number}") for number, inner in enumerate(value)]
            return {"tuple" if isinstance(value, tuple) else "list": items}
        if isinstance(value, float) and not math.isfinite(value):
            return {"float": str(value)}
        if value is None or isinstance(value, (bool, int, float, str)):
            return value
        raise TypeError(f"{path} holds a {type(value).__name__}, which is no plain data")

    return tensors, encode(state, "")


def unflatten_optimizer(tensors: Mapping[str, Tensor], value: Any) -> Any:
    """What `flatten_optimizer` was given. Raises BundleError where the two parts don't fit together."""
    if not isinstance(value, dict):
        return value
    try:
        ((kind, inner),) = value.items()
        if kind == "tensor":
            return tensors[inner]
        if kind == "dict":
            return {key: unflatten_optimizer(tensors, item) for key, item in inner}
        if kind in ("list", "tuple"):
            items = [unflatten_optimizer(tensors, item) for item in inner]
            return items if kind == "list" else tuple(items)
        if kind == "float":
            return float(inner)
    except (KeyError, TypeError, ValueError) as error:
        raise BundleError(f"the optimizer's state is damaged ({error})", where=META) from error
    raise BundleError(f"the optimizer's state holds an unknown kind `{kind}`", where=META)


def check_resume(saved: Mapping[str, Any], wanted: Mapping[str, Any], free: Iterable[str], where: str) -> None:
    """Refuse to go on with a changed config. Raises ConfigError that lists the changed keys, at most MAX_ROWS.

    saved, wanted: nested plain configs. free: dotted keys that may differ (`trainer.max_steps`); a key that names a
    node frees all below it. where: of the run, for the message.
    """
    before, now = dict(_leaves(saved)), dict(_leaves(wanted))
    allowed = tuple(free)
    rows = [
        f"{key}: {before.get(key, 'absent')} -> {now.get(key, 'absent')}"
        for key in [*before, *(key for key in now if key not in before)]
        if (key not in before or key not in now or before[key] != now[key])
        and not any(key == name or key.startswith(f"{name}.") for name in allowed)
    ]
    if rows:
        more = f" | and {len(rows) - MAX_ROWS} more" if len(rows) > MAX_ROWS else ""
        raise ConfigError(
            f"can't go on with a changed config: {' | '.join(rows[:MAX_ROWS])}{more}",
            where=where,
            hint="Leave these keys as they were, or start a new run.",
        )


def _leaves(node: Any, path: str = "") -> Iterable[tuple[str, Any]]:
    """(dotted key, value) of everything in nested dicts that is no dict; lists and tuples count as one value."""
    if isinstance(node, Mapping) and (node or not path):
        for key, inner in node.items():
            yield from _leaves(inner, f"{path}.{key}" if path else str(key))
    else:
        yield path, list(node) if isinstance(node, tuple) else node


def _steps(folder: Path) -> list[Path]:
    """The folders of finished saves, oldest first."""
    if not folder.is_dir():
        return []
    pattern = re.compile(r"(\.?)step-(\d{8,})(\.previous)?")
    names = {f"step-{m[2]}" for p in folder.iterdir() if (m := pattern.fullmatch(p.name)) and bool(m[1]) == bool(m[3])}
    return sorted((folder / name for name in names), key=lambda path: int(path.name.removeprefix("step-")))
