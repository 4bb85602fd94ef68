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

# Top-p sorts this many candidates, and all of them only where these don't hold its share.
_NUCLEUS = 256


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
        values, ids, odds = self._candidates(log_probs, frontier.never)
        total = odds.cumsum(1)
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

    def _candidates(self, log_probs: Tensor, never: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Values, ids and odds of being drawn, each (N, M); sorted only where a cut needs it."""
        size, top_k, top_p = log_probs.shape[1], self._config.top_k, self._config.top_p
        if top_k:
            values, ids = _best(log_probs, top_k, never)
            odds = self._odds(values)
            return values, ids, self._cut(odds, odds.sum(1, keepdim=True))
        allowed = log_probs if never is None else log_probs.masked_fill(never, -torch.inf)
        odds = self._odds(allowed)
        if top_p == 1.0:
            return allowed, torch.arange(size, device=log_probs.device).expand_as(allowed), odds
        mass = odds.sum(1, keepdim=True)
        values, ids = _best(log_probs, min(_NUCLEUS, size), never)
        odds = self._odds(values)
        if bool((odds.sum(1, keepdim=True) < top_p * mass).any()):
            values, ids = _best(log_probs, size, never)
            odds = self._odds(values)
        return values, ids, self._cut(odds, mass)

    def _odds(self, values: Tensor) -> Tensor:
        """(N, M) float64 probabilities at the temperature, relative to the row's highest; NaN in a row of -inf.

        Such a row gives index 0, where the value is -inf, so its sample ends.
        """
        highest = values.amax(1, keepdim=True)
        refuse_nan(highest)
        return ((values - highest).double() / self._config.temperature).exp()

    def _cut(self, odds: Tensor, mass: Tensor) -> Tensor:
        """Sorted odds with all but the smallest set that has the share `top_p` of the mass (N, 1) at zero."""
        return odds.masked_fill(odds.cumsum(1) - odds >= self._config.top_p * mass, 0.0)


def _best(log_probs: Tensor, width: int, never: Tensor | None) -> tuple[Tensor, Tensor]:
    """The `width` best candidates, what is never generated last: values and ids, (N, width)."""
    values, ids = ranked(log_probs, width, never)
    values, order = values.sort(dim=1, descending=True, stable=True)
    return values[:, :width], ids.gather(1, order)[:, :width]
