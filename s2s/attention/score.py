"""Scores: how well a query fits a key. Stateless and parallel over T.

A score projects the encoder's states once a source (`keys`) and then compares queries with them (`forward`).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from s2s.attention.functional import additive_energies
from s2s.errors import ConfigError
from s2s.gather import linear


def _uniform(*shape: int, fan: int) -> nn.Parameter:
    """A weight drawn from U(-1/sqrt(fan), 1/sqrt(fan)), as torch's own linear layers."""
    bound = 1 / math.sqrt(fan)
    return nn.Parameter(torch.empty(*shape).uniform_(-bound, bound))


class Score(nn.Module):
    """Base of all scores."""

    def keys(self, states: Tensor) -> Tensor:
        """What is kept of the source: states (B, S, D) to keys (B, S, K)."""
        return states

    def forward(self, query: Tensor, keys: Tensor) -> Tensor:
        """Energies (B, T, S) of query (B, T, Q) and keys (B, S, K)."""
        raise NotImplementedError

    def reachable(self, mask: Tensor) -> Tensor:
        """Mask (B, S) of the positions that this score can give mass to: all, unless it says otherwise."""
        return mask


class AdditiveScore(Score):
    """e = v . tanh(W q + U k + b). Bahdanau et al. 2014, arXiv 1409.0473, A.1.2.

    Without b it is Luong's `concat`, whose one matrix is [W | U] (arXiv 1508.04025, eq. 8).
    normed: e = g v . tanh(...) / |v| with g starting at 1/sqrt(A), Raffel et al. 2017, arXiv 1704.00784, eq. 16. Its
    scalar offset r is left out: a softmax doesn't see it.
    """

    def __init__(
        self, query_size: int, memory_size: int, size: int, *, bias: bool = True, normed: bool = False
    ) -> None:
        super().__init__()
        self.query_weight = _uniform(size, query_size, fan=query_size)
        self.key_weight = _uniform(size, memory_size, fan=memory_size)
        self.bias = nn.Parameter(torch.zeros(size)) if bias else None
        self.vector = _uniform(size, fan=size)
        self.gain = nn.Parameter(torch.tensor(1 / math.sqrt(size))) if normed else None

    def keys(self, states: Tensor) -> Tensor:
        """U h + b: (B, S, A)."""
        return nn.functional.linear(states, self.key_weight, self.bias)

    def forward(self, query: Tensor, keys: Tensor) -> Tensor:
        """Energies (B, T, S)."""
        vector = self.vector if self.gain is None else self.gain * self.vector / self.vector.norm()
        return additive_energies(linear(query, self.query_weight), keys, vector)


class DotScore(Score):
    """e = q . k (Luong et al. 2015, arXiv 1508.04025, eq. 8), or q . k / sqrt(D) when scaled (Vaswani et al. 2017)."""

    def __init__(self, query_size: int, memory_size: int, *, scaled: bool = False) -> None:
        super().__init__()
        if query_size != memory_size:
            raise ConfigError(
                "a dot score needs a query as wide as the memory",
                where="attention",
                expected=f"query_size == memory_size ({memory_size})",
                found=f"query_size {query_size}",
                hint="Set decoder.width to encoder.width, or take attention=general",
            )
        self.scale = 1 / math.sqrt(query_size) if scaled else 1.0

    def forward(self, query: Tensor, keys: Tensor) -> Tensor:
        """Energies (B, T, S)."""
        return torch.bmm(query * self.scale, keys.transpose(1, 2))


class GeneralScore(Score):
    """e = q . W k: the bilinear score. Luong et al. 2015, arXiv 1508.04025, eq. 8."""

    def __init__(self, query_size: int, memory_size: int) -> None:
        super().__init__()
        self.weight = _uniform(query_size, memory_size, fan=memory_size)

    def keys(self, states: Tensor) -> Tensor:
        """W h, projected once a source: (B, S, Q)."""
        return nn.functional.linear(states, self.weight)

    def forward(self, query: Tensor, keys: Tensor) -> Tensor:
        """Energies (B, T, S)."""
        return torch.bmm(query, keys.transpose(1, 2))


class LocationScore(Score):
    """e_j = (W q)_j: from the query alone, blind to the source's content. Luong et al. 2015, arXiv 1508.04025, eq. 9.

    max_source: rows of W. Positions beyond it can get no mass (section 3.1 there: "ignore words near the end").
    """

    def __init__(self, query_size: int, max_source: int) -> None:
        super().__init__()
        self.weight = _uniform(max_source, query_size, fan=query_size)

    def keys(self, states: Tensor) -> Tensor:
        """Nothing but the length is kept: (B, S, 0)."""
        return states[..., :0]

    def forward(self, query: Tensor, keys: Tensor) -> Tensor:
        """Energies (B, T, S); zero beyond `max_source`, where `reachable` is False."""
        length, covered = keys.size(1), min(keys.size(1), self.weight.size(0))
        energies = linear(query, self.weight)[..., :covered]
        return nn.functional.pad(energies, (0, length - covered))

    def reachable(self, mask: Tensor) -> Tensor:
        """The mask without the positions that W has no row for."""
        return mask & (torch.arange(mask.size(1), device=mask.device) < self.weight.size(0))
