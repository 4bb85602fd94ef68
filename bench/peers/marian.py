"""The encoder-decoder of Hugging Face transformers (Marian), in the training loop that its users write."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bench.measure import Measured
from bench.peers.base import BEAMS, TOOK, Corpus, Shape, rate_of, steps_of

_LOOP = Path(__file__).with_name("marian_loop.py")


class Marian:
    """marian_loop.py, run where transformers is installed."""

    name = trained_by = "transformers (Marian)"
    shapes: Sequence[str] = ("transformer",)
    beams: Sequence[int] = BEAMS
    packages: Sequence[str] = ("transformers", "torch")
    output: str | None = None
    requirements: Sequence[str] = ("transformers>=5.0",)
    bare: Sequence[str] = ()

    def train(self, shape: Shape, corpus: Corpus, folder: Path, python: Path) -> list[str]:
        return [str(python), str(_LOOP), "train", str(corpus.folder), str(folder / "model"), str(shape.updates)]

    def updates(self, done: Measured, folder: Path) -> list[tuple[float, float]]:
        return steps_of(done.lines, r"update \d+ tokens (\d+)")

    def decode(self, shape: Shape, corpus: Corpus, folder: Path, python: Path, beam: int) -> list[str]:
        return [str(python), str(_LOOP), "decode", str(corpus.folder), str(folder / "model"), str(beam)]

    def sentences_a_second(self, done: Measured) -> float:
        return rate_of(done, TOOK)
