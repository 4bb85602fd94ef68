"""What a toolkit must offer to be measured, and the shapes that are."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from bench.measure import Measured

VOCABULARY = 8000  # pieces, one vocabulary for both sides
THREADS = 2
FORCED = 15  # tokens of every output when decoding is measured
SENTENCES = 512  # that are decoded
TOOK = r"(\d+) sentences in ([\d.]+) s"  # what the loops here tell


@dataclass(frozen=True)
class Shape:
    """A model and its batches. attention: additive or general of a recurrent model, None of a Transformer.

    Recurrent: embeddings 256, bidirectional LSTM 2 x 256, LSTM 512 (`feed`: with input feeding), dropout 0.3, 64
    sentences.
    Transformer: 3 + 3 layers of 256, 4 heads, feed-forward 1,024, dropout 0.1, tied embeddings, 4,096 target tokens.
    """

    name: str
    attention: str | None
    updates: int
    feed: bool = True


SHAPES = (
    Shape("lstm-additive", "additive", 30),
    Shape("lstm-general", "general", 30),
    Shape("lstm-general-unfed", "general", 30, feed=False),
    Shape("transformer", None, 12),
)
EVERY = tuple(shape.name for shape in SHAPES)
BEAMS = (5, 1)  # that decoding is measured with


@dataclass(frozen=True)
class Corpus:
    """Files of text cut into pieces already, with spaces between them: train, val and test, .en and .de each."""

    folder: Path

    def path(self, split: str, language: str) -> Path:
        """The file of one side."""
        return self.folder / f"{split}.{language}"

    def vocabulary(self) -> list[str]:
        """All pieces."""
        return (self.folder / "vocabulary").read_text(encoding="utf-8").split("\n")[:-1]

    def write_counted(self, path: Path) -> None:
        """Write the vocabulary as OpenNMT and eole read it: with counts, which only say the order."""
        pieces = self.vocabulary()
        counted = (f"{piece}\t{len(pieces) - place}\n" for place, piece in enumerate(pieces))
        path.write_text("".join(counted), encoding="utf-8")


class Peer(Protocol):
    """A toolkit. requirements: of pip; bare: those that are installed without what they depend on.

    packages: whose versions are told with a result. output: the file that decoding writes in its folder; None for
    one that sees to it by itself that each output has `FORCED` tokens.
    """

    name: str
    output: str | None
    packages: Sequence[str]
    requirements: Sequence[str]
    bare: Sequence[str]
    shapes: Sequence[str]  # none where it is of no use on this machine
    beams: Sequence[int]  # that it decodes with
    trained_by: str  # whose models it decodes; its own name for one that trains

    def train(self, shape: Shape, corpus: Corpus, folder: Path, python: Path) -> list[str]:
        """Write what training needs into `folder`, and give the command that makes `shape.updates` updates there."""

    def updates(self, done: Measured, folder: Path) -> list[tuple[float, float]]:
        """Seconds since the start, and real target tokens, of each update that the run tells of."""

    def decode(self, shape: Shape, corpus: Corpus, folder: Path, python: Path, beam: int) -> list[str]:
        """The command that decodes the test sentences with what was trained in `folder`."""

    def sentences_a_second(self, done: Measured) -> float:
        """Of a decoding run; loading isn't counted."""


def steps_of(lines: Sequence[tuple[float, str]], pattern: str) -> list[tuple[float, float]]:
    """Seconds and tokens of each line in which `pattern` finds a number of tokens."""
    found = ((seconds, re.search(pattern, line)) for seconds, line in lines)
    return [(seconds, float(match.group(1))) for seconds, match in found if match]


def rate_of(done: Measured, pattern: str) -> float:
    """Sentences a second of a run that tells how many seconds they took, as soon as they are over.

    pattern: finds the seconds as its last group, and before them how many sentences, if not `SENTENCES`. Of a run in
    turns only the seconds in which it ran count, which it can't know by itself. Raises ValueError if nothing is found.
    """
    found = [(at, match.groups()) for at, line in done.lines if (match := re.search(pattern, line))]
    if not found:
        raise ValueError(f"nothing like {pattern!r} in what it wrote: {[line for _, line in done.lines[-5:]]}")
    at, (*count, seconds) = found[-1]
    return float(count[0] if count else SENTENCES) / (done.running(at) - done.running(at - float(seconds)))
