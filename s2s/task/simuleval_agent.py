"""An agent for the package SimulEval (Ma et al. 2020), which runs and scores online translation.

    simuleval --agent-class s2s.task.simuleval_agent.StreamAgent --model MODEL --wait-k 3 \\
        --source source.txt --target reference.txt --output FOLDER

SimulEval pins old versions of other packages, so s2s doesn't depend on it and nothing in s2s imports this module: make
an environment for both, and install s2s and SimulEval there.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from typing import Protocol

from s2s.errors import RunError

try:
    from simuleval.agents import ReadAction, TextToTextAgent, WriteAction
except ImportError as error:
    raise RunError(
        f"SimulEval can't be imported ({error})",
        hint="Install it beside s2s in an environment of its own: pip install simuleval",
    ) from error


class SentenceStream(Protocol):
    """The translation of one sentence, word by word."""

    def read(self, word: str) -> list[str]:
        """Take one more source word; the target words that can be written now."""

    def finish(self) -> list[str]:
        """The source is over; the rest of the target words."""


class StreamAgent(TextToTextAgent):  # type: ignore[misc]  # SimulEval has no types
    """Hands each source word to a stream as it comes, and writes what the stream gives.

    args: SimulEval's options with those of `add_args`; `args.device` is where the model runs.
    Raises BundleError on a folder that holds no model, UsageError on a policy that the model can't follow.
    """

    def __init__(self, args: Namespace) -> None:
        self.open_stream = stream_opener(args)
        super().__init__(args)

    @staticmethod
    def add_args(parser: ArgumentParser) -> None:
        """Add the options of the agent to SimulEval's."""
        parser.add_argument("--model", required=True, help="run folder or bundle folder of a model of s2s")
        parser.add_argument(
            "--wait-k", type=int, help="read K words, then write one for each that is read (default: the model decides)"
        )

    def reset(self) -> None:
        """Forget the sentence; the next word begins a new one."""
        super().reset()
        self.stream: SentenceStream | None = None
        self.words_read = 0

    def policy(self) -> ReadAction | WriteAction:
        """Read the source words that are new, and write what can be written; at the end of the source, all the rest."""
        if self.stream is None:
            self.stream = self.open_stream()
        written = []
        for word in self.states.source[self.words_read :]:
            written += self.stream.read(word)
        self.words_read = len(self.states.source)
        if self.states.source_finished:
            written += self.stream.finish()
        elif not written:
            return ReadAction()
        return WriteAction(" ".join(written), finished=self.states.source_finished)


def stream_opener(args: Namespace) -> Callable[[], SentenceStream]:
    """Loads `args.model` to `args.device` once; what is returned opens a new stream of it at each call."""
    from s2s.task.stream import Stream
    from s2s.task.trained import load_trained

    trained = load_trained(args.model, device=args.device)
    return lambda: Stream(trained, wait_k=args.wait_k)
