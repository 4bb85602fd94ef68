"""Scores: how well a query fits a key. Stateless, parallel over T, with any number of heads.

A score projects the encoder's states once a source (`keys`) and then compares queries with them (`forward`). Heads
split the total width of what is compared.
"""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from s2s.attention.functional import additive_energies, split_heads
from s2s.attention.fused import additive_attention, dot_attention
from s2s.errors import ConfigError
from s2s.gather import at_once, energies, linear
from s2s.kernels import compiled, usable

ScoreName = Literal["additive", "additive_normed", "concat", "dot", "scaled_dot", "general"]


def uniform(*shape: int, fan: int) -> nn.Parameter:
    """A weight drawn from U(-1/sqrt(fan), 1/sqrt(fan)), as torch's own linear layers."""
    bound = 1 / math.sqrt(fan)
    return nn.Parameter(torch.empty(*shape).uniform_(-bound, bound))


def check_heads(heads: int, width: int, what: str) -> int:
    """heads, if they divide the width. Raises ConfigError."""
    if width % heads:
        divisors = [number for number in range(1, min(width, 64) + 1) if width % number == 0]
        raise ConfigError(
            f"the heads share {what} evenly",
            where="attention.heads",
            expected=f"a divisor of {width} ({', '.join(map(str, divisors))})",
            found=str(heads),
        )
    return heads


class Score(nn.Module):
    """Base of all scores."""

    heads = 1
    step_weights: tuple[str, ...] = ()  # parameters that every step multiplies by, through `s2s.gather.linear`

    def keys(self, states: Tensor) -> Tensor:
        """What is kept of the source: states (B, S, D) to keys (B, H, S, K)."""
        return split_heads(states, self.heads)

    def forward(self, query: Tensor, keys: Tensor) -> Tensor:
        """Energies (B, H, T, S) of query (B, T, Q) and keys (B, H, S, K)."""
        raise NotImplementedError

    def attend(self, query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor] | None:
        """Contexts (B, T, H V) and weights (B, H, T, S) of a softmax over these energies, by one kernel.

        query (B, T, Q), keys (B, H, S, K), values (B, H, S, V), mask (B, S) or None for all. Gives None where there is
        no kernel for them.
        """
        return None

    def reachable(self, mask: Tensor) -> Tensor:
        """Mask (B, S) of the positions that this score can give mass to: all, unless it says otherwise."""
        return mask


class AdditiveScore(Score):
    """e = v . tanh(W q + U k + b). Bahdanau et al. 2014, arXiv 1409.0473, A.1.2.

    Without b it is Luong's `concat`, whose one matrix is [W | U] (arXiv 1508.04025, eq. 8).
    normed: e = g v . tanh(...) / |v| with g starting at 1/sqrt(A), Raffel et al. 2017, arXiv 1704.00784, eq. 16. Its
    scalar offset r belongs to who needs it: a softmax doesn't see it.
    """

    step_weights = ("query_weight",)

    def __init__(
        self,
        query_size: int,
        memory_size: int,
        size: int,
        *,
        bias: bool = True,
        normed: bool = False,
        heads: int = 1,
    ) -> None:
        super().__init__()
        self.heads = check_heads(heads, size, "the inner layer")
        self.query_weight = uniform(size, query_size, fan=query_size)
        self.key_weight = uniform(size, memory_size, fan=memory_size)
        self.bias = nn.Parameter(torch.zeros(size)) if bias else None
        self.vector = uniform(size, fan=size // heads)
        self.gain = nn.Parameter(torch.full((heads,), math.sqrt(heads / size))) if normed else None

    def keys(self, states: Tensor) -> Tensor:
        """U h + b: (B, H, S, A / H)."""
        return split_heads(at_once(states, self.key_weight, self.bias), self.heads)

    def vectors(self) -> Tensor:
        """v of each head, (H, A / H), normed where that is asked for."""
        vectors = self.vector.view(self.heads, -1)
        if self.gain is not None:
            vectors = self.gain.unsqueeze(1) * vectors / vectors.norm(dim=1, keepdim=True)
        return vectors

    def forward(self, query: Tensor, keys: Tensor) -> Tensor:
        """Energies (B, H, T, S)."""
        vectors = self.vectors()
        queries = split_heads(linear(query, self.query_weight), self.heads)
        if self.heads == 1:  # squeezed, not indexed: the gradient of an index is a whole tensor of zeros at each step
            return additive_energies(queries.squeeze(1), keys.squeeze(1), vectors.squeeze(0)).unsqueeze(1)
        pairs = zip(queries.unbind(1), keys.unbind(1), vectors, strict=True)
        return torch.stack([additive_energies(q, k, v) for q, k, v in pairs], 1)

    def attend(self, query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor] | None:
        """With one head and a mask."""
        if self.heads > 1 or mask is None or not (usable(query.device) or compiled(self.vector, keys, values)):
            return None
        asked, vector = linear(query, self.query_weight).to(keys.dtype), self.vectors().squeeze(0)
        context, weights = additive_attention(asked, keys.squeeze(1), vector, mask, values.squeeze(1))
        return context, weights.unsqueeze(1)


class DotScore(Score):
    """e = q . k (Luong et al. 2015, arXiv 1508.04025, eq. 8), or q . k / sqrt(d) when scaled (Vaswani et al. 2017)."""

    def __init__(self, query_size: int, memory_size: int, *, scaled: bool = False, heads: int = 1) -> None:
        super().__init__()
        if query_size != memory_size:
            raise ConfigError(
                "a dot score needs a query as wide as the keys",
                where="attention",
                expected=f"a query (decoder.width) as wide as the keys ({memory_size})",
                found=f"{query_size}",
                hint="Set decoder.width to encoder.width, or take attention=general or attention.kv=project",
            )
        self.heads = check_heads(heads, query_size, "the query")
        self.scale = math.sqrt(heads / query_size) if scaled else 1.0

    def forward(self, query: Tensor, keys: Tensor) -> Tensor:
        """Energies (B, H, T, S)."""
        queries = split_heads(query * self.scale if self.scale != 1.0 else query, self.heads)
        return energies(queries, keys)

    def attend(self, query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor] | None:
        """On a CPU, for few queries or few keys."""
        return dot_attention(split_heads(query, self.heads), keys, values, mask, self.scale)


class GeneralScore(DotScore):
    """e = q . W k: the bilinear score. Luong et al. 2015, arXiv 1508.04025, eq. 8."""

    def __init__(self, query_size: int, memory_size: int, *, heads: int = 1) -> None:
        super().__init__(query_size, query_size, heads=heads)
        self.weight = uniform(query_size, memory_size, fan=memory_size)

    def keys(self, states: Tensor) -> Tensor:
        """W h, projected once a source: (B, H, S, Q / H)."""
        return split_heads(at_once(states, self.weight, None), self.heads)


class LocationScore(Score):
    """e_j = (W q)_j: from the query alone, blind to the source's content. Luong et al. 2015, arXiv 1508.04025, eq. 9.

    max_source: rows of W. Positions beyond it can get no mass (section 3.1 there: "ignore words near the end").
    """

    step_weights = ("weight",)

    def __init__(self, query_size: int, max_source: int) -> None:
        super().__init__()
        self.weight = uniform(max_source, query_size, fan=query_size)

    def keys(self, states: Tensor) -> Tensor:
        """Nothing but the length is kept: (B, 1, S, 0)."""
        return states[..., :0].unsqueeze(1)

    def forward(self, query: Tensor, keys: Tensor) -> Tensor:
        """Energies (B, 1, T, S); zero beyond `max_source`, where `reachable` is False."""
        length, covered = keys.size(2), min(keys.size(2), self.weight.size(0))
        energies = linear(query, self.weight)[..., :covered]
        return nn.functional.pad(energies, (0, length - covered)).unsqueeze(1)

    def reachable(self, mask: Tensor) -> Tensor:
        """The mask without the positions that W has no row for."""
        return mask & (torch.arange(mask.size(1), device=mask.device) < self.weight.size(0))


def make_score(name: ScoreName, query_size: int, memory_size: int, *, size: int | None = None, heads: int = 1) -> Score:
    """A score by name. size: of the inner layer of the additive ones, by default the query's. Raises ConfigError."""
    if name in ("dot", "scaled_dot"):
        return DotScore(query_size, memory_size, scaled=name == "scaled_dot", heads=heads)
    if name == "general":
        return GeneralScore(query_size, memory_size, heads=heads)
    if name not in get_args(ScoreName):
        raise ConfigError(
            "unknown score",
            where="attention.score",
            expected=f"one of {', '.join(get_args(ScoreName))}",
            found=repr(name),
        )
    inner = query_size if size is None else size
    normed = name == "additive_normed"
    return AdditiveScore(query_size, memory_size, inner, bias=name != "concat", normed=normed, heads=heads)
