"""Decode and score: the one path for validation during training, `s2s eval` and the final test."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from s2s.config import TaskConfig
from s2s.model.seq2seq import Seq2Seq, real_positions
from s2s.score.metrics import compute
from s2s.task.generate import Generator
from s2s.text.batching import BatchPlan, Example, collate, example_lengths
from s2s.text.corpus import Pair
from s2s.train.loss import smoothed_cross_entropy
from s2s.types import Result, Score


@dataclass(frozen=True)
class Evaluation:
    """What a split gave. results: one a pair, in order. seconds: of decoding alone."""

    results: list[Result]
    scores: list[Score]
    seconds: float

    @property
    def speed(self) -> float:
        """Sentences decoded a second."""
        return len(self.results) / self.seconds

    def flags(self) -> dict[str, int]:
        """How many results carry each flag."""
        counts: dict[str, int] = {}
        for result in self.results:
            for flag in result.flags:
                counts[flag] = counts.get(flag, 0) + 1
        return dict(sorted(counts.items()))


def evaluate(generator: Generator, pairs: Sequence[Pair], task: TaskConfig, *, intervals: bool = False) -> Evaluation:
    """Translate the sources of `pairs` and score the texts against the targets, as raw text."""
    began = time.monotonic()
    results = generator([pair.source for pair in pairs])
    seconds = max(time.monotonic() - began, 1e-9)
    scores = compute(
        list(task.metrics),
        [result.text for result in results],
        [[pair.target for pair in pairs]],
        lowercase=task.lowercase,
        tokenize=task.tokenize,
        intervals=intervals,
    )
    return Evaluation(results, scores, seconds)


@torch.no_grad()
def dev_loss(model: Seq2Seq, examples: Sequence[Example], budget: int) -> dict[str, float]:
    """Negative log-likelihood a target token (EOS included, natural log, teacher forced, unsmoothed), and exp of it."""
    device = next(model.parameters()).device
    total, tokens = 0.0, 0
    for rows in BatchPlan(example_lengths(examples), budget).epoch(0, shuffle=False):
        batch = collate([examples[row] for row in rows], rows).to(device)
        features = real_positions(model(batch).features, batch.target_lengths)
        targets = real_positions(batch.target_out, batch.target_lengths)
        total += float(smoothed_cross_entropy(features, model.output.weight, model.output.bias, targets).nll)
        tokens += targets.numel()
    loss = total / max(1, tokens)
    return {"loss": loss, "ppl": math.exp(min(loss, 700.0))}
