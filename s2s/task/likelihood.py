"""How likely a model finds texts that are known already."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from s2s.model.seq2seq import Copies, at_positions
from s2s.task.trained import Trained
from s2s.text.batching import Example, collate, example_lengths
from s2s.text.plan import BatchPlan

_BUDGET = 2000  # target tokens that are read together


@torch.no_grad()
def log_likelihoods(trained: Trained, examples: Sequence[Example]) -> list[Tensor]:
    """The log-probability of each target token given the source and the tokens before, EOS included: (T,) float32 each.

    In the order of the examples, on the CPU.
    """
    found: dict[int, Tensor] = {}
    for rows in BatchPlan(example_lengths(examples), _BUDGET).epoch(0, shuffle=False):
        own = _of_batch(trained, [examples[row] for row in rows])
        found.update(zip(rows, own, strict=True))
    return [found[row] for row in range(len(examples))]


def _of_batch(trained: Trained, examples: Sequence[Example]) -> list[Tensor]:
    model, batch = trained.model, collate(examples, range(len(examples))).to(trained.device)
    output = model(batch)
    places = torch.arange(batch.target_out.size(1), device=trained.device)
    real = places < batch.target_lengths.unsqueeze(1)
    copies = None
    if batch.copies is not None:
        extra = int(max(batch.copies.max(), batch.target_out.max())) + 1 - model.output.out_features
        copies = Copies(batch.copies[real.nonzero()[:, 0]], max(extra, 0))
    log_probs = model.step_log_probs(at_positions(output, lambda value: value[real].unsqueeze(1)), copies)
    wanted = log_probs.gather(1, batch.target_out[real].unsqueeze(1)).squeeze(1)
    return list(torch.split(wanted.cpu(), batch.target_lengths.tolist()))
