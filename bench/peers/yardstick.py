"""What needs no other toolkit: plain torch at work of the same sizes, to compare with where nothing is installed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bench.measure import Measured
from bench.peers.base import BEAMS, EVERY, TOOK, Corpus, Shape, rate_of, steps_of

_LOOP = Path(__file__).with_name("yardstick_loop.py")


class Yardstick:
    """yardstick_loop.py: the recurrent shapes without attention or input feeding, the Transformer by nn.Transformer."""

    name = trained_by = "yardstick"
    shapes: Sequence[str] = EVERY
    beams: Sequence[int] = BEAMS
    packages: Sequence[str] = ("torch",)
    output: str | None = None
    requirements: Sequence[str] = ()
    bare: Sequence[str] = ()

    def train(self, shape: Shape, corpus: Corpus, folder: Path, python: Path) -> list[str]:
        return self._command(shape, python, "train", corpus, shape.updates)

    def updates(self, done: Measured, folder: Path) -> list[tuple[float, float]]:
        return steps_of(done.lines, r"update \d+ tokens (\d+)")

    def decode(self, shape: Shape, corpus: Corpus, folder: Path, python: Path, beam: int) -> list[str]:
        return self._command(shape, python, "decode", corpus, beam)

    def sentences_a_second(self, done: Measured) -> float:
        return rate_of(done, TOOK)

    def _command(self, shape: Shape, python: Path, task: str, corpus: Corpus, number: int) -> list[str]:
        kind = "transformer" if shape.attention is None else "lstm"
        return [str(python), str(_LOOP), kind, task, str(corpus.folder), str(number)]
