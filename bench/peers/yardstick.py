"""What needs no other toolkit: torch's fused LSTM without attention, to compare with where nothing is installed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bench.measure import Measured
from bench.peers.base import Corpus, Shape, steps_of

_LOOP = Path(__file__).with_name("yardstick_loop.py")


class Yardstick:
    """yardstick_loop.py: the recurrent shapes with neither attention nor input feeding. It doesn't decode."""

    name = trained_by = "yardstick"
    shapes = ("lstm-additive", "lstm-general")
    requirements: Sequence[str] = ()
    bare: Sequence[str] = ()

    def train(self, shape: Shape, corpus: Corpus, folder: Path, python: Path) -> list[str]:
        return [str(python), str(_LOOP), str(corpus.folder), str(shape.updates)]

    def updates(self, done: Measured, folder: Path) -> list[tuple[float, float]]:
        return steps_of(done.lines, r"update \d+ tokens (\d+)")

    def decode(self, shape: Shape, corpus: Corpus, folder: Path, python: Path, beam: int) -> list[str]:
        raise NotImplementedError("the yardstick doesn't decode")

    def sentences_a_second(self, done: Measured) -> float:
        raise NotImplementedError("the yardstick doesn't decode")
