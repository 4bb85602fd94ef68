"""Beam search over many sources at once; one beam is greedy search.

A finished hypothesis keeps its slot (as in Bahdanau et al. 2014, arXiv 1409.0473, and Sutskever et al. 2014, arXiv
1409.3215), so the beam of a source narrows by one with each, and the source is done when all slots are finished.
Live hypotheses have the same length and are ranked by log-probability; the penalties rank the finished ones.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from s2s.search.constraints import Constraints
from s2s.search.loop import Frontier, decode, ranked
from s2s.search.options import SearchConfig
from s2s.search.trace import Choice
from s2s.types import PAD, Hypothesis, State, StepFunction


def beam_search(
    step: StepFunction,
    start: State,
    config: SearchConfig,
    *,
    max_lengths: Sequence[int],
    source_lengths: Sequence[int] | None = None,
    constraints: Sequence[Constraints | None] | None = None,
) -> list[list[Hypothesis]]:
    """The `config.nbest` best outputs of each of B sources, best first; `config.beam=1` is greedy search.

    start: state of B rows. max_lengths: most tokens of each source's output, EOS included (see `SearchConfig.limit`).
    source_lengths: to which attention weights are cut and over which coverage is counted; None: all columns count.
    constraints: of each source. Where they can't be met at all (`Constraints.problems`), that source is searched
    without them and flagged "constraint_unmet".

    Finished outputs come first, then those cut off at the limit (flagged "unfinished"). Equal scores are ordered by
    the earlier finish, equal candidates by the lower slot, then the lower id. Raises ConfigError and RunError as
    `loop.decode` does.
    """
    return decode(
        step,
        start,
        choose_best,
        config=config,
        width=config.beam,
        nbest=config.nbest,
        owners=range(len(max_lengths)),
        limits=max_lengths,
        source_lengths=source_lengths,
        constraints=constraints,
    )


def choose_best(log_probs: Tensor, frontier: Frontier) -> Choice:
    """The likeliest continuations of each group, over all its slots, as many as its capacity."""
    live, slots = frontier.live, frontier.slots
    groups, width = live.shape
    values, ids = ranked(log_probs, width, frontier.never)
    found = values.shape[1]
    # Only the best candidates of each row meet here, so no copy of all log-probabilities is made.
    totals = values.new_full((groups * width, found), -torch.inf)
    totals[slots] = values + live.flatten()[slots, None]
    best, order = totals.view(groups, width * found).sort(dim=1, descending=True, stable=True)
    best, order = best[:, :width], order[:, :width]
    parents = order // found
    rows = frontier.row_of.view(groups, width).gather(1, parents)
    flat = rows * found + order % found
    over = torch.arange(width, device=live.device) >= frontier.capacity[:, None]
    best = best.masked_fill(over, -torch.inf)
    tokens = ids.flatten()[flat].masked_fill(best == -torch.inf, PAD)
    choice = Choice(tokens, parents, values.flatten()[flat], best)
    if frontier.lexical is None:
        return choice
    return frontier.lexical.choose(choice, log_probs, (values, ids), slots, live, frontier.capacity, frontier.lifted)
