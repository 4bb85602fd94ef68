"""Diverse beam search: several small beams, each kept away from the tokens that those before it take.

Vijayakumar et al. 2016, arXiv 1610.02424, with the Hamming diversity of section 5.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from s2s.errors import ConfigError
from s2s.search.beam import choose_best
from s2s.search.constraints import Constraints
from s2s.search.loop import Frontier, decode
from s2s.search.options import SearchConfig
from s2s.search.trace import Choice, rank
from s2s.types import PAD, Hypothesis, State, StepFunction


def diverse_beam_search(
    step: StepFunction,
    start: State,
    config: SearchConfig,
    *,
    max_lengths: Sequence[int],
    source_lengths: Sequence[int] | None = None,
    constraints: Sequence[Constraints | None] | None = None,
) -> list[list[Hypothesis]]:
    """`config.nbest` outputs of each of B sources from `config.beam_groups` beams, `config.beam` slots in all.

    A token costs a beam `config.diversity` for each time that the earlier beams of its source take it at the same
    position. That steers the search only: log-probabilities and scores are the model's own. The best output of each
    beam comes first, the best of them at the front; then the second of each, and so on.
    The arguments are those of `beam_search`. Raises ConfigError if constraints hold phrases that must appear.
    """
    if any(one is not None and one.phrases for one in constraints or ()):
        hint = "take one beam: search.beam_groups=1"
        raise ConfigError("phrases that must appear can't be searched for by several beams", hint=hint)
    beams = config.beam_groups
    config = replace(config, early_finish=False)  # a beam that stopped early would leave its tokens to the others
    owners = [source for source in range(len(max_lengths)) for _ in range(beams)]
    width = config.beam // beams
    found = decode(
        step,
        start,
        _Diverse(beams, config.diversity),
        config=config,
        width=width,
        nbest=min(config.nbest, width),
        owners=owners,
        limits=[max_lengths[source] for source in owners],
        source_lengths=None if source_lengths is None else [source_lengths[source] for source in owners],
        constraints=None if constraints is None else [constraints[source] for source in owners],
    )
    outputs = []
    for at in range(0, len(found), beams):
        ranked = [
            (number, rank(hypothesis), beam, hypothesis)
            for beam, several in enumerate(found[at : at + beams])
            for number, hypothesis in enumerate(several)
        ]
        outputs.append([one[-1] for one in sorted(ranked, key=lambda one: one[:3])[: config.nbest]])
    return outputs


class _Diverse:
    """Beam after beam: the groups of a source are `beams` in a row."""

    def __init__(self, beams: int, strength: float) -> None:
        self._beams, self._strength = beams, strength

    def __call__(self, log_probs: Tensor, frontier: Frontier) -> Choice:
        """See `Chooser`."""
        groups, width = frontier.live.shape
        group = frontier.slots // width
        taken = log_probs.new_zeros(groups // self._beams, log_probs.shape[1])  # how often, by the beams so far
        choices = []
        for beam in range(self._beams):
            rows = (group % self._beams == beam).nonzero().squeeze(1)
            if not len(rows):
                choices.append(_nothing(frontier.live[beam :: self._beams]))
                continue
            own, costs = group[rows] // self._beams, self._strength * taken
            slots = own * width + frontier.slots[rows] % width
            row_of = torch.zeros(groups // self._beams * width, dtype=torch.int64, device=slots.device)
            row_of[slots] = torch.arange(len(rows), device=slots.device)
            part = frontier._replace(
                slots=slots,
                row_of=row_of,
                live=frontier.live[beam :: self._beams],
                capacity=frontier.capacity[beam :: self._beams],
            )
            choice = choose_best(log_probs[rows] - costs[own], part)
            filled = choice.totals != -torch.inf
            cost = costs.gather(1, choice.tokens).masked_fill(~filled, 0.0)  # given back: it only steers
            choices.append(choice._replace(log_probs=choice.log_probs + cost, totals=choice.totals + cost))
            taken.scatter_add_(1, choice.tokens.masked_fill(~filled, PAD), filled.to(taken.dtype))
        return Choice(*(torch.stack(parts, 1).flatten(0, 1) for parts in zip(*choices, strict=True)))


def _nothing(live: Tensor) -> Choice:
    """The choice of beams that have all ended. live: (G, K)."""
    empty = torch.full_like(live, -torch.inf)
    none = torch.full(live.shape, PAD, device=live.device)
    return Choice(none, torch.zeros_like(none), torch.zeros_like(live), empty)
