"""Temporal attention: what was attended before counts less."""

from __future__ import annotations

import torch
from torch import Tensor

from s2s.attention.align import Aligned, Alignment, grown
from s2s.attention.base import Attention, scored
from s2s.attention.normalise import Normaliser
from s2s.attention.options import Options
from s2s.attention.score import ScoreName, make_score
from s2s.types import State

DEFAULT = Options()

# The logarithm of an empty sum. Unlike minus infinity it makes no NaN, and adding to it gives the other term exactly.
_NOTHING = -1e30


class Temporal(Alignment):
    """e'_ij = e_ij - log sum_{k<i} exp(e_kj), then the normaliser; the first step is plain.

    With softmax these are the weights of Nallapati et al. 2016, arXiv 1602.06023, and Paulus et al. 2017, arXiv
    1705.04304, section 2.1: exp(e_ij) / sum_{k<i} exp(e_kj), divided by their sum. The other normalisers take e'
    as they would take e. The state is log sum exp(e), (B, H, S); a position that is new to a source that grows has no
    past and counts in full, as all do at the first step.
    """

    def __init__(self, normaliser: Normaliser) -> None:
        super().__init__()
        self.normaliser = normaliser

    def initial_state(self, mask: Tensor, heads: int) -> State:
        """No past: (B, H, S) float32."""
        return torch.full((mask.size(0), heads, mask.size(1)), _NOTHING, device=mask.device)

    def forward(self, energies: Tensor, mask: Tensor, state: State, query: Tensor) -> Aligned:
        """All steps at once."""
        assert isinstance(state, Tensor)
        exact = energies.to(torch.promote_types(energies.dtype, torch.float32))
        before = grown(state, mask.size(1), _NOTHING).to(exact.dtype).unsqueeze(2)
        if energies.size(2) > 1:
            sums = torch.cat([before, torch.logaddexp(before, exact.logcumsumexp(2))], 2)
        else:
            sums = torch.cat([before, torch.logaddexp(before, exact)], 2)
        past = sums[:, :, :-1]
        fresh = exact - past.masked_fill(past < _NOTHING / 2, 0.0)
        return Aligned(self.normaliser(fresh, mask[:, None, None]).to(energies.dtype), sums[:, :, -1], {})


def temporal(
    query_size: int, memory_size: int, *, score: ScoreName = "additive", options: Options = DEFAULT
) -> Attention:
    """Nallapati et al. 2016 (arXiv 1602.06023) and Paulus et al. 2017 (arXiv 1705.04304), with any score."""
    return scored(
        query_size,
        memory_size,
        options,
        lambda q, k: make_score(score, q, k, heads=options.heads),
        Temporal(Normaliser(options.normaliser, options.temperature)),
    )
