"""Search: from a step function to outputs. It knows no model class.

`search` is the one call; `beam_search`, `diverse_beam_search`, `sample` and `force` are its parts.
"""

from __future__ import annotations

from collections.abc import Sequence

from s2s.search.beam import beam_search
from s2s.search.constraints import Constraints
from s2s.search.diverse import diverse_beam_search
from s2s.search.ensemble import ensemble
from s2s.search.forced import force
from s2s.search.options import SearchConfig
from s2s.search.sampling import sample
from s2s.types import Hypothesis, State, StepFunction

__all__ = ["Constraints", "SearchConfig", "beam_search", "diverse_beam_search", "ensemble", "force", "sample", "search"]


def search(
    step: StepFunction,
    start: State,
    config: SearchConfig,
    source_lengths: Sequence[int],
    *,
    constraints: Sequence[Constraints | None] | None = None,
    indices: Sequence[int] | None = None,
) -> list[list[Hypothesis]]:
    """The n-best outputs of each of B sources, by greedy, beam or diverse beam search or by sampling, as `config` says.

    start: state of B rows. source_lengths: (B,) tokens of each source, EOS included; they limit the outputs' lengths
    (`SearchConfig.limit`). constraints: of each source. indices: numbers that seed each source's sampling.
    Raises ConfigError that lists all problems of `config`.
    """
    config.check()
    limits = [config.limit(length) for length in source_lengths]
    if config.sample:
        return sample(
            step,
            start,
            config,
            max_lengths=limits,
            source_lengths=source_lengths,
            constraints=constraints,
            indices=indices,
        )
    beams = beam_search if config.beam_groups == 1 else diverse_beam_search
    return beams(step, start, config, max_lengths=limits, source_lengths=source_lengths, constraints=constraints)
