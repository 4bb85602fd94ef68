"""`s2s info` and `s2s verify`."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import s2s
from s2s import bundle
from s2s.command import info, verify
from s2s.errors import BundleError

CONFIG = {
    "name": "translate/debian-en-de",
    "task": {"name": "translation"},
    "corpus": {"name": "debian", "source": "en", "target": "de", "max_words": None},
    "text": {"name": "sentencepiece", "size": 4000},
    "attention": {"name": "additive"},
    "encoder": {"name": "lstm", "layers": 1},
    "decoder": {"name": "lstm", "style": "luong"},
    "training": {"steps": 1234, "minutes": 5.5, "note": "evil \x1b[2J"},
}
SCORES = {
    "test": [
        {"name": "bleu", "value": 21.456, "low": 20.1, "high": 22.9, "signature": "nrefs:1|case:mixed"},
        {"name": "chrf", "value": 50, "signature": "nc:6"},
    ],
    "test_raw": {"bleu": {"value": 22.0}},
    "seconds": 3,
}


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    tensors = {"a": torch.zeros(10, 100), "b": torch.zeros(7, dtype=torch.int64)}
    files = {"source.spm": b"s" * 10, "target.spm": b"t"}
    bundle.save(tmp_path / "run" / "model", config=CONFIG, tensors=tensors, files=files, card="# Card\n")
    (tmp_path / "run" / "scores.json").write_text(json.dumps(SCORES))
    return tmp_path / "run"


def call(module: object, *arguments: str) -> int:
    parser = argparse.ArgumentParser()
    module.add_arguments(parser)  # type: ignore[attr-defined]
    return int(module.run(parser.parse_args(list(arguments))))  # type: ignore[attr-defined]


def test_info_tells_what_the_model_is(run_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(info, str(run_folder)) == 0
    text = capsys.readouterr().out
    for part in (
        "translation, en -> de",
        "debian (source en, target de)",
        "additive",
        "lstm (layers 1)",
        "1,007 in 2 tensors (float32, int64)",
        "sentencepiece (size 4,000): source.spm 10 bytes, target.spm 1 bytes",
        "steps 1,234",
        "test bleu 21.46 [20.10, 22.90] (nrefs:1|case:mixed)",
        "test chrf 50.00 (nc:6)",
        "test_raw bleu 22.00",
    ):
        assert part in text
    assert "\x1b" not in text
    assert "\\x1b[2J" in text


def test_info_as_json(run_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(info, str(run_folder / "model"), "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["parameters"] == 1007
    assert facts["languages"] == ["en", "de"]
    assert facts["attention"] == {"name": "additive"}
    assert facts["training"] == CONFIG["training"]
    assert [score["split"] for score in facts["scores"]] == ["test", "test", "test_raw bleu"]


def test_info_of_a_bare_bundle(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = {"task": "chat", "languages": ["fr", "it"], "corpus": {"source": "en"}}
    bundle.save(tmp_path / "model", config=config, tensors={}, files={}, card="")
    assert call(info, str(tmp_path / "model")) == 0
    text = capsys.readouterr().out
    assert "task        chat, fr -> it\n" in text
    assert "attention   not said\n" in text
    (tmp_path / "scores.json").write_text('{"a": {"value": 1e999}}')
    with pytest.raises(BundleError, match="no finite number"):
        call(info, str(tmp_path / "model"))


def test_verify_says_ok_or_each_problem(run_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(verify, str(run_folder)) == 0
    size = sum(path.stat().st_size for path in (run_folder / "model").iterdir() if path.name != "manifest.json")
    assert capsys.readouterr().out.startswith(f"ok: 5 files, {size:,} bytes")
    (run_folder / "model" / "source.spm").write_bytes(b"S" * 10)
    (run_folder / "model" / "target.spm").unlink()
    assert call(verify, str(run_folder)) == 2
    lines = capsys.readouterr().out.strip().split("\n")
    assert len(lines) == 2
    assert "source.spm: is not the tokenizer file" in lines[0]
    assert "target.spm: can't be read" in lines[1]
    with pytest.raises(BundleError, match="No such file"):
        call(verify, str(run_folder / "nothing"))


def test_their_arguments_are_light() -> None:
    code = (
        "import argparse, sys; from s2s.command import info, verify; "
        "[m.add_arguments(argparse.ArgumentParser()) for m in (info, verify)]; print('torch' in sys.modules)"
    )
    root = Path(s2s.__file__).resolve().parent.parent
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
