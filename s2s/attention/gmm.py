"""Attention by Gaussians that move along the source: from the query alone, blind to the source's content."""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from s2s.attention.base import Attention
from s2s.attention.options import choice, number, probability, whole
from s2s.dropout import Dropout
from s2s.gather import linear
from s2s.types import AttentionOutput, Encoded, Memory, State

Version = Literal["V0", "V1", "V2"]

# Outputs of the network are kept in this range, so that nothing overflows or is divided by zero. A step or a width of
# exp(16) positions is longer than any source, and softplus is almost the identity up there.
_LOW, _HIGH = -8.0, 16.0


class GaussianMixture(Attention):
    """a_ij = sum_k (w_ik / Z_ik) exp(-(j - mu_ik)^2 / (2 sigma_ik^2)) with mu_i = mu_{i-1} + Delta_i.

    Positions count from 1, mu starts at 0, and positions that the mask leaves out don't count. w, Delta and sigma come
    from a network of the query with one tanh layer (its raw outputs here: w', d', s'):

    - V0, Graves 2013, arXiv 1308.0850, section 5.1: w = exp w', Delta = exp d', sigma = sqrt(exp(-s') / 2), Z = 1;
    - V1, Battenberg et al. 2020, arXiv 1910.10288: w = softmax w', Delta = exp d', sigma = sqrt(exp s'), and for Z the
      Gaussian's integral sqrt(2 pi) sigma;
    - V2, there too: as V1 with Delta = softplus d' and sigma = softplus s'.

    Weights needn't sum to one: mass may lie before, behind and between positions. Where they would sum to more, as V0's
    always may and a narrow Gaussian's at a position, they are divided by their sum. The state is mu, (B, K). All that
    a step needs of those before is a sum of Delta, so all steps are done at once.
    """

    sums_to_one = False

    def __init__(
        self,
        query_size: int,
        memory_size: int,
        size: int,
        *,
        version: Version,
        components: int,
        delta: float,
        sigma: float,
        dropout: float,
    ) -> None:
        super().__init__()
        self.memory_size = memory_size
        self.version, self.components = choice("version", version, get_args(Version)), whole("components", components)
        self.hidden = nn.Linear(query_size, size)
        self.output = nn.Linear(size, 3 * components)
        self.dropout = Dropout(probability("dropout", dropout))
        delta = number("delta", delta, 0.01, 1e4)
        sigma = number("sigma", sigma, 0.1, 1e4)
        with torch.no_grad():
            weight_bias, delta_bias, sigma_bias = self.output.bias.chunk(3)
            weight_bias.zero_()
            delta_bias.fill_(_before_softplus(delta) if version == "V2" else math.log(delta))
            sigma_bias.fill_(
                {
                    "V0": -math.log(2 * sigma * sigma),
                    "V1": 2 * math.log(sigma),
                    "V2": _before_softplus(sigma),
                }[version]
            )

    def make_memory(self, encoded: Encoded) -> Memory:
        """The states as values; there are no keys, (B, S, 0)."""
        return Memory(encoded.states[..., :0], encoded.states, encoded.mask)

    def initial_state(self, memory: Memory) -> State:
        """mu = 0, one place before the first position: (B, K) float32."""
        return torch.zeros(memory.mask.size(0), self.components, device=memory.mask.device)

    def mixture(self, query: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """w / Z, Delta and sigma of query (B, T, Q), each (B, T, K), in float32 at least."""
        hidden = torch.tanh(linear(query, self.hidden.weight, self.hidden.bias))
        raw = linear(hidden, self.output.weight, self.output.bias)
        raw = raw.to(torch.promote_types(raw.dtype, torch.float32)).clamp(_LOW, _HIGH)
        share, step, width = raw.chunk(3, -1)
        if self.version == "V0":
            return share.exp(), step.exp(), (-width / 2).exp() / math.sqrt(2)
        delta, sigma = (
            (step.exp(), (width / 2).exp()) if self.version == "V1" else (F.softplus(step), F.softplus(width))
        )
        return share.softmax(-1) / (math.sqrt(2 * math.pi) * sigma), delta, sigma

    def attend(self, query: Tensor, memory: Memory, state: State, need_weights: bool) -> AttentionOutput:
        """All steps at once."""
        assert isinstance(state, Tensor)
        share, delta, sigma = self.mixture(query)
        means = state.to(delta.dtype).unsqueeze(1) + delta.cumsum(1)
        places = memory.mask.cumsum(1).to(delta.dtype)
        distance = (places[:, None, :, None] - means.unsqueeze(2)) / sigma.unsqueeze(2)
        weights = torch.matmul(torch.exp(-0.5 * distance.square()), share.unsqueeze(-1)).squeeze(-1)
        weights = weights.masked_fill(~memory.mask.unsqueeze(1), 0.0)
        weights = (weights / weights.sum(-1, keepdim=True).clamp_min(1.0)).to(memory.values.dtype)
        context = torch.bmm(self.dropout(weights), memory.values)
        after = means[:, -1] if query.size(1) else state
        return AttentionOutput(context, weights if need_weights else None, after, {})


def _before_softplus(value: float) -> float:
    """x with log(1 + exp x) = value."""
    return value + math.log(-math.expm1(-value))


def gmm(
    query_size: int,
    memory_size: int,
    *,
    version: Version = "V2",
    components: int = 5,
    delta: float = 1.0,
    sigma: float = 1.0,
    size: int | None = None,
    dropout: float = 0.0,
) -> Attention:
    """Graves 2013 (arXiv 1308.0850; V0) and Battenberg et al. 2020 (arXiv 1910.10288; V1, V2).

    delta and sigma: how far a mean moves at a step and how wide a Gaussian is at the start of training, in source
    positions. A text is about as long as its translation, so a step is about one word, and a width of one sees its
    neighbours (frames of speech want a sigma of 10). size: of the network's inner layer, by default the query's.
    """
    inner = query_size if size is None else whole("size", size)
    return GaussianMixture(
        query_size,
        memory_size,
        inner,
        version=version,
        components=components,
        delta=delta,
        sigma=sigma,
        dropout=dropout,
    )
