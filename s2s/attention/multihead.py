"""Multi-head attention over the source, with any score."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from s2s.attention.base import Attention, scored
from s2s.attention.options import Options
from s2s.attention.score import Score, ScoreName, make_score
from s2s.gather import linear


class ProjectedQuery(Score):
    """A score behind a projection of the query, W_Q q: with kv=project, Vaswani et al.'s multi-head attention."""

    step_weights = ("weight",)

    def __init__(self, score: Score, query_size: int) -> None:
        super().__init__()
        self.score, self.heads = score, score.heads
        self.weight = nn.Parameter(nn.init.xavier_uniform_(torch.empty(query_size, query_size)))

    def keys(self, states: Tensor) -> Tensor:
        """Those of the score."""
        return self.score.keys(states)

    def forward(self, query: Tensor, keys: Tensor) -> Tensor:
        """Energies (B, H, T, S)."""
        energies: Tensor = self.score(linear(query, self.weight), keys)
        return energies

    def attend(self, query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor] | None:
        """That of the score."""
        return self.score.attend(linear(query, self.weight), keys, values, mask)


MULTIHEAD = Options(heads=4, kv="project")


def multihead(
    query_size: int, memory_size: int, *, score: ScoreName = "scaled_dot", options: Options = MULTIHEAD
) -> Attention:
    """Vaswani et al. 2017 (arXiv 1706.03762, section 3.2.2), with any score.

    Query, keys and values are projected (kv=project), the heads share the width, one matrix mixes their contexts.
    """
    return scored(
        query_size,
        memory_size,
        options,
        lambda q, k: ProjectedQuery(make_score(score, q, k, heads=options.heads), q),
    )
