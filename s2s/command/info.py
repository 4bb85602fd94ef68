"""`s2s info MODEL`: what a model is, from its folder alone; no weights are read."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

MAX_SCORES = 1 << 22  # bytes of scores.json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `s2s info`."""
    parser.add_argument("model", metavar="MODEL", help="a run folder or a bundle folder")
    parser.add_argument("--json", action="store_true", help="write one JSON object")


def run(args: argparse.Namespace) -> int:
    """Write what the model is to stdout. Raises BundleError where there is none or it is damaged."""
    from s2s.bundle import resolve

    facts = describe(resolve(args.model))
    print(json.dumps(facts, ensure_ascii=False, indent=1) if args.json else to_text(facts))
    return 0


def describe(folder: Path) -> dict[str, Any]:
    """The facts of a bundle folder as plain values; scores come from `scores.json` beside it. Raises BundleError."""
    from s2s.bundle import CONFIG, WEIGHTS, headers, read_config, read_manifest
    from s2s.errors import BundleError
    from s2s.files import present, read_json

    place = present(folder)
    manifest, config, tensors = read_manifest(place), read_config(place), headers(place / WEIGHTS)
    corpus = _node(config, "corpus")
    languages = config.get("languages", [corpus[side] for side in ("source", "target") if side in corpus])
    scores = folder.resolve().parent / "scores.json"
    others = {n: e["size"] for n, e in manifest["files"].items() if n != CONFIG and n.endswith((".spm", ".json"))}
    return {
        "model": str(folder),
        "recipe": config.get("name"),
        "task": _node(config, "task").get("name"),
        "languages": languages if isinstance(languages, list) else [languages],
        "corpus": corpus,
        "attention": _node(config, "attention"),
        "encoder": _node(config, "encoder"),
        "decoder": _node(config, "decoder"),
        "parameters": sum(math.prod(header.shape) for header in tensors.values()),
        "tensors": len(tensors),
        "dtypes": sorted({str(header.dtype).removeprefix("torch.") for header in tensors.values()}),
        "bytes": sum(entry["size"] for entry in manifest["files"].values()),
        "tokenizer": {**_node(config, "text"), "files": others},
        "training": _node(config, "training"),
        "scores": list(_scores(read_json(scores, MAX_SCORES, error=BundleError))) if scores.is_file() else [],
        "s2s": manifest.get("s2s"),
    }


def to_text(facts: dict[str, Any]) -> str:
    """The facts as lines `name  value`; untrusted text can't carry control characters to the terminal."""
    languages = " -> ".join(_plain(language) for language in facts["languages"])
    tokenizer = {key: value for key, value in facts["tokenizer"].items() if key != "files"}
    files = ", ".join(f"{_plain(name)} {size:,} bytes" for name, size in facts["tokenizer"]["files"].items())
    dtypes = ", ".join(facts["dtypes"])
    rows = [
        ("model", facts["model"]),
        ("recipe", _plain(facts["recipe"])),
        ("task", _plain(facts["task"]) + (f", {languages}" if languages else "")),
        *((part, _options(facts[part])) for part in ("corpus", "attention", "encoder", "decoder")),
        ("parameters", f"{facts['parameters']:,} in {facts['tensors']} tensors ({dtypes})"),
        ("tokenizer", _options(tokenizer) + (f": {files}" if files else "")),
        ("size", f"{facts['bytes']:,} bytes, written by s2s {_plain(facts['s2s'])}"),
        *(("training" if not n else "", row) for n, row in enumerate(_pairs(facts["training"]))),
        *(("scores" if not n else "", _score(score)) for n, score in enumerate(facts["scores"])),
    ]
    return "\n".join(f"{name:<12}{value}" for name, value in rows)


def _node(config: dict[str, Any], name: str) -> dict[str, Any]:
    node = config.get(name, {})
    return node if isinstance(node, dict) else {"name": node}


def _plain(value: object) -> str:
    from s2s.files import printable

    return "not said" if value is None else printable(value)


def _pairs(node: dict[str, Any]) -> Iterator[str]:
    for key, value in node.items():
        shown = f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else _plain(value)
        yield f"{_plain(key)} {shown}"


def _options(node: dict[str, Any]) -> str:
    """`name (option value, ...)`, without the options that are null."""
    options = ", ".join(_pairs({key: value for key, value in node.items() if key != "name" and value is not None}))
    return _plain(node.get("name")) + (f" ({options})" if options else "")


def _scores(node: Any, path: tuple[str, ...] = ()) -> Iterator[dict[str, Any]]:
    """Every object with a number `value` in scores.json, however they are grouped; `split` is the path to it."""
    if isinstance(node, dict) and _is_number(node.get("value")):
        yield {"split": " ".join(path), **node}
    elif isinstance(node, dict):
        for key, inner in node.items():
            yield from _scores(inner, (*path, key))
    elif isinstance(node, list):
        for inner in node:
            yield from _scores(inner, path)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and abs(value) < 1e15


def _score(score: dict[str, Any]) -> str:
    low, high = score.get("low"), score.get("high")
    bounds = _is_number(low) and _is_number(high)
    names = list(dict.fromkeys(f"{score['split']} {score.get('name', '')}".split()))
    return (
        f"{_plain(' '.join(names))} {score['value']:.2f}"
        + (f" [{low:.2f}, {high:.2f}]" if bounds else "")
        + (f" ({_plain(score['signature'])})" if score.get("signature") else "")
    )
