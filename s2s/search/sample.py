"""Sampling: temperature, top-k (Fan et al. 2018, arXiv 1805.04833), top-p (Holtzman et al. 2020, arXiv 1904.09751)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

from s2s.errors import ConfigError
from s2s.search.constraints import Constraints
from s2s.search.loop import Frontier, decode, device_of, ranked, refuse_nan
from s2s.search.options import SearchConfig
from s2s.search.trace import Choice, rank
from s2s.types import PAD, Hypothesis, State, StepFunction


def sample(
    step: StepFunction,
    start: State,
    config: SearchConfig,
    *,
    max_lengths: Sequence[int],
    source_lengths: Sequence[int] | None = None,
    constraints: Sequence[Constraints | None] | None = None,
    indices: Sequence[int] | None = None,
) -> list[list[Hypothesis]]:
    """`config.nbest` outputs of each of B sources, drawn independently, the best score first.

    indices: a number for each source (its line, say); its draws depend on it and on `config.seed` alone, so not on
    neighbours. None: 0 to B - 1. The other arguments are those of `beam_search`. Log-probabilities are the model's own,
    before temperature and cuts. Raises ConfigError if constraints hold phrases that must appear: they need a beam.
    """
    sources, copies = len(max_lengths), config.nbest
    if any(one is not None and one.phrases for one in constraints or ()):
        raise ConfigError("phrases that must appear can't be sampled", hint="use beam search: search.sample=false")
    numbers = range(sources) if indices is None else indices
    owners = [source for source in range(sources) for _ in range(copies)]
    limits = [max_lengths[source] for source in owners]
    draws = [
        _draws(config.seed, number, copy, max_lengths[source])
        for source, number in enumerate(numbers)
        for copy in range(copies)
    ]
    table = torch.nn.utils.rnn.pad_sequence(draws, batch_first=True) if draws else torch.empty(0, 0)
    results = decode(
        step,
        start,
        _Sampler(config, table.to(device_of(start))),
        config=config,
        width=1,
        nbest=1,
        owners=owners,
        limits=limits,
        source_lengths=None if source_lengths is None else [source_lengths[source] for source in owners],
        constraints=None if constraints is None else [constraints[source] for source in owners],
    )
    drawn = [[one for group in results[at : at + copies] for one in group] for at in range(0, len(results), copies)]
    return [sorted(several, key=rank) for several in drawn]


def _draws(seed: int, number: int, copy: int, length: int) -> Tensor:
    """(length,) float64 uniform numbers in [0, 1) of one sample; a longer draw begins with a shorter one."""
    digest = hashlib.blake2b(f"{seed} {number} {copy}".encode(), digest_size=8).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1)
    return torch.rand(length, generator=generator, dtype=torch.float64)


class _Sampler:
    """Inverts the cumulative distribution at one uniform number a token. draws: (G, longest limit)."""

    def __init__(self, config: SearchConfig, draws: Tensor) -> None:
        self._config = config
        self._draws = draws

    def __call__(self, log_probs: Tensor, frontier: Frontier) -> Choice:
        """See `Chooser`; K is 1, so the slots are the groups."""
        values, ids = self._candidates(log_probs, frontier.never)
        highest = values.amax(1, keepdim=True)
        refuse_nan(highest)
        # In a row without any candidate this is NaN and the index 0; the value there is -inf, so the sample ends.
        probs = ((values - highest).double() / self._config.temperature).softmax(1)
        if self._config.top_p < 1.0:
            before = probs.cumsum(1) - probs
            probs = probs.masked_fill(before >= self._config.top_p, 0.0)
        total = probs.cumsum(1)
        draws = self._draws[frontier.slots, frontier.step]
        index = (total <= draws[:, None] * total[:, -1:]).sum(1, keepdim=True).clamp(max=total.shape[1] - 1)
        picked_ids, picked = ids.gather(1, index).squeeze(1), values.gather(1, index).squeeze(1)
        sums = picked + frontier.live.flatten()[frontier.slots]
        picked_ids = picked_ids.masked_fill(sums == -torch.inf, PAD)

        groups = frontier.live.shape[0]
        tokens = torch.full((groups, 1), PAD, device=log_probs.device)
        totals = sums.new_full((groups, 1), -torch.inf)
        probabilities = sums.new_zeros((groups, 1))
        tokens[frontier.slots, 0], totals[frontier.slots, 0] = picked_ids, sums
        probabilities[frontier.slots, 0] = picked
        return Choice(tokens, torch.zeros_like(tokens), probabilities, totals)

    def _candidates(self, log_probs: Tensor, never: Tensor | None) -> tuple[Tensor, Tensor]:
        """Values and ids (N, M), sorted only where a cut needs it."""
        size, top_k = log_probs.shape[1], self._config.top_k
        if not top_k and self._config.top_p == 1.0:
            values = log_probs if never is None else log_probs.masked_fill(never, -torch.inf)
            return values, torch.arange(size, device=log_probs.device).expand_as(values)
        values, ids = ranked(log_probs, top_k or size, never)
        values, order = values.sort(dim=1, descending=True, stable=True)  # what is never generated goes last
        return values[:, : top_k or size], ids.gather(1, order)[:, : top_k or size]
