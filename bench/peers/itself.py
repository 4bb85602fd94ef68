"""s2s: trained by `s2s train`, decoded through the Python interface that its commands call."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.measure import Measured
from bench.peers.base import BEAMS, EVERY, THREADS, TOOK, Corpus, Shape, rate_of
from s2s.train.precision import fast_half

_SHAPES = Path(__file__).resolve().parents[1] / "shapes"
_LOOP = Path(__file__).with_name("itself_loop.py")


class S2S:
    """settings: of `Model.generator`, and `workers`, to decode what the first of its kind has trained."""

    trained_by = "s2s"
    changes: Sequence[str] = ()  # of the recipe
    beams: Sequence[int] = BEAMS
    output: str | None = None
    requirements: Sequence[str] = ()
    bare: Sequence[str] = ()

    def __init__(self, name: str = "s2s", **settings: Any) -> None:
        self.name, self._settings = name, settings
        exported = settings.get("engine") == "ctranslate2"
        self.packages: Sequence[str] = ("s2s", "ctranslate2") if exported else ("s2s", "torch")
        self.shapes: Sequence[str] = ("transformer",) if exported else EVERY

    def train(self, shape: Shape, corpus: Corpus, folder: Path, python: Path) -> list[str]:
        recipe = _SHAPES / ("transformer.yaml" if shape.attention is None else "lstm.yaml")
        changes = [] if shape.attention is None else [f"attention={shape.attention}"]
        changes += [f"corpus.train={corpus.folder}/train", f"corpus.dev={corpus.folder}/val", f"threads={THREADS}"]
        changes += [] if shape.feed else ["decoder.input_feed=false"]
        changes += self.changes
        changes += [f"trainer.steps={shape.updates}", f"trainer.validate_every={shape.updates}", f"output={folder}/run"]
        return [str(python), "-m", "s2s", "train", str(recipe), *changes]

    def updates(self, done: Measured, folder: Path) -> list[tuple[float, float]]:
        log = run_of(folder) / "log.jsonl"
        events = map(json.loads, log.read_text(encoding="utf-8").splitlines())
        steps = [(event["seconds"], event["tokens"]) for event in events if event["event"] == "train"]
        began = next(seconds for seconds, line in done.lines if line.startswith("training, until"))
        before = [0, *(tokens for _, tokens in steps)]
        return [(began + seconds, tokens - last) for (seconds, tokens), last in zip(steps, before, strict=False)]

    def decode(self, shape: Shape, corpus: Corpus, folder: Path, python: Path, beam: int) -> list[str]:
        settings = json.dumps({"beam": beam, **self._settings})
        return [str(python), str(_LOOP), str(run_of(folder)), str(corpus.path("test", "en")), settings]

    def sentences_a_second(self, done: Measured) -> float:
        return rate_of(done, TOOK)


class S2SInHalf(S2S):
    """Training with products in bf16, where the processor has units for them. It decodes as the others."""

    name = trained_by = "s2s, bf16"
    changes = ("trainer.precision=bf16",)
    beams = ()

    def __init__(self) -> None:
        super().__init__(self.name)
        if not fast_half():
            self.shapes = ()


def run_of(folder: Path) -> Path:
    """Where a training run in a folder has written."""
    (log,) = (path for path in folder.glob("run/**/log.jsonl") if path.parent.name != "latest")
    return log.parent
