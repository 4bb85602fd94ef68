"""Forced decoding: what a model gives to outputs that are known already."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from s2s.errors import UsageError
from s2s.search.loop import device_of, no_weights
from s2s.search.options import SearchConfig
from s2s.search.penalty import coverage_penalty, length_penalty
from s2s.state import select
from s2s.types import BOS, EOS, Hypothesis, State, StepFunction


@torch.no_grad()
def force(
    step: StepFunction,
    start: State,
    targets: Sequence[Sequence[int]],
    config: SearchConfig | None = None,
    *,
    rows: Sequence[int] | None = None,
    source_lengths: Sequence[int] | None = None,
) -> list[Hypothesis]:
    """The hypothesis that a search would report for each target: same step function, same penalties, same weights.

    start: state of one row a source. targets: ids without BOS, with EOS where they are complete (otherwise flagged
    "unfinished"). config: whose penalties rank; None: the defaults. rows: source row of each target; None: the targets
    are those of sources 0, 1, ... source_lengths: of each target, to which weights are cut.
    Raises UsageError if a target has an id outside the vocabulary, ConfigError if a coverage penalty is asked for and
    there are no weights.
    """
    config = config or SearchConfig()
    device = device_of(start)
    owners = list(range(len(targets))) if rows is None else list(rows)
    log_probs: list[list[float]] = [[] for _ in targets]
    weights: list[list[torch.Tensor]] = [[] for _ in targets]
    active = [index for index, ids in enumerate(targets) if ids]
    origins = [owners[index] for index in active]  # the row of the previous state that each active target continues
    state, position = start, 0
    while active:
        state = select(state, torch.tensor(origins, device=device))
        fed = [targets[index][position - 1] if position else BOS for index in active]
        output = step(
            torch.tensor(fed, device=device),
            state,
            torch.tensor([owners[index] for index in active], device=device),
        )
        state = output.state
        wanted = torch.tensor([targets[index][position] for index in active], device=device)
        size = output.log_probs.shape[1]
        if not bool(((wanted >= 0) & (wanted < size)).all()):
            raise UsageError("a target has an id outside the vocabulary", expected=f"0 to {size - 1}")
        values = output.log_probs.gather(1, wanted[:, None]).squeeze(1).tolist()
        attention = None if output.weights is None else output.weights.float().cpu()
        for row, index in enumerate(active):
            log_probs[index].append(values[row])
            if attention is not None:
                weights[index].append(attention[row])
        position += 1
        kept = [row for row, index in enumerate(active) if len(targets[index]) > position]
        active, origins = [active[row] for row in kept], kept
    return [
        _hypothesis(
            tuple(int(token) for token in ids),
            tuple(log_probs[index]),
            weights[index],
            None if source_lengths is None else source_lengths[index],
            config,
        )
        for index, ids in enumerate(targets)
    ]


def _hypothesis(
    ids: tuple[int, ...],
    probs: tuple[float, ...],
    weights: list[torch.Tensor],
    cut: int | None,
    config: SearchConfig,
) -> Hypothesis:
    alignment = torch.stack(weights)[:, :cut].clone() if weights else None
    log_prob = math.fsum(probs)
    score = log_prob / length_penalty(len(ids), config.length_penalty)
    if config.coverage_penalty and ids:
        if alignment is None:
            raise no_weights(config)
        score += float(coverage_penalty(alignment.sum(0, keepdim=True), config.coverage_penalty))
    flags = frozenset[str]() if ids[-1:] == (EOS,) else frozenset({"unfinished"})
    return Hypothesis(ids, score, log_prob, probs, alignment, flags)
