"""Dynamic convolution attention: energies from where the last alignment was and from the query, not from the source."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from s2s.attention.align import begun
from s2s.attention.base import Attention
from s2s.attention.keyvalue import KeyValue
from s2s.attention.options import LARGEST, Options, number, whole
from s2s.attention.past import Past, PastAttention, check_kernel, windows
from s2s.attention.score import Score, check_heads, uniform
from s2s.errors import ConfigError
from s2s.gather import linear

DEFAULT = Options()

# The least that the prior leaves to a position: far places stay possible where the filters insist.
_FLOOR = 1e-6


class UnseenScore(Score):
    """e_j = v . tanh(k_j + b): of query and source nothing is seen but what is added to the keys."""

    def __init__(self, size: int, heads: int) -> None:
        super().__init__()
        self.heads = check_heads(heads, size, "the inner layer")
        self.bias = nn.Parameter(torch.zeros(heads, size // heads))
        self.vector = uniform(heads, size // heads, fan=size // heads)

    def keys(self, states: Tensor) -> Tensor:
        """b at every position: (B, H, S, A / H)."""
        return self.bias.unsqueeze(1).expand(states.size(0), -1, states.size(1), -1)

    def forward(self, query: Tensor, keys: Tensor) -> Tensor:
        """Energies (B, H, T, S), the same for every step."""
        energies = (torch.tanh(keys) * self.vector.unsqueeze(1).to(keys.dtype)).sum(-1)
        return energies.unsqueeze(2).expand(-1, -1, query.size(1), -1)


class DynamicConvolution(Past):
    """term_ij = U f_ij + T g_ij, f = F * a_{i-1}, g = G(q_i) * a_{i-1}; prior_ij = log max((P * a_{i-1})_j, 1e-6).

    Battenberg et al. 2020, arXiv 1910.10288. F: `filters` static filters of length `kernel`; G(q) = V tanh(W q + b): as
    many that the query makes; P: a filter that looks back, with the probabilities of a beta-binomial distribution for
    moving by 0 to prior_length - 1 positions. Each head has its own F and G. The alignment before the first step is all
    on the first position.
    """

    def __init__(
        self,
        query_size: int,
        size: int,
        heads: int,
        *,
        filters: int,
        kernel: int,
        prior_length: int,
        alpha: float,
        beta: float,
    ) -> None:
        super().__init__()
        self.kernel, whole_filters = check_kernel(kernel), whole("filters", filters)
        self.static = uniform(heads, kernel, whole_filters, fan=kernel)
        self.hidden = nn.Linear(query_size, size)
        self.dynamic = nn.Linear(size, heads * kernel * filters, bias=False)
        self.weight = uniform(heads, 2 * filters, size // heads, fan=2 * filters)
        steps = whole("prior_length", prior_length) - 1
        alpha = number("alpha", alpha, 0.0, LARGEST, open_low=True)
        beta = number("beta", beta, 0.0, LARGEST, open_low=True)
        prior = [_beta_binomial(step, steps, alpha, beta) for step in range(steps, -1, -1)]
        self.register_buffer("prior", torch.tensor(prior), persistent=False)
        self.prior: Tensor

    def ready(self, state: Tensor, mask: Tensor) -> Tensor:
        """On the first position, if nowhere yet."""
        return begun(state, mask)

    def prepare(self, query: Tensor) -> Tensor:
        """The dynamic filters of every step: (B, T, H, kernel, filters)."""
        hidden = torch.tanh(linear(query, self.hidden.weight, self.hidden.bias))
        return linear(hidden, self.dynamic.weight).view(*query.shape[:2], *self.static.shape)

    def look(self, state: Tensor, prepared: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """U f + T g, and the prior's logarithm."""
        assert prepared is not None
        around = windows(state, self.kernel, self.kernel // 2)
        seen = torch.cat([around @ self.static.to(state.dtype), around @ prepared], -1)
        back = windows(state, self.prior.size(0), self.prior.size(0) - 1)
        prior = (back * self.prior.to(state.dtype)).sum(-1).clamp_min(_FLOOR).log()
        return seen @ self.weight.to(seen.dtype), prior

    def update(
        self, state: Tensor, weights: Tensor, prepared: Tensor | None, source: tuple[Tensor, ...]
    ) -> tuple[Tensor, Tensor | None]:
        """This alignment."""
        return weights, None


def _beta_binomial(k: int, n: int, alpha: float, beta: float) -> float:
    """Probability of k in 0..n."""

    def log_beta(a: float, b: float) -> float:
        return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)

    return math.comb(n, k) * math.exp(log_beta(k + alpha, n - k + beta) - log_beta(alpha, beta))


def dca(
    query_size: int,
    memory_size: int,
    *,
    filters: int = 8,
    kernel: int = 21,
    prior_length: int = 11,
    alpha: float = 0.1,
    beta: float = 0.9,
    size: int | None = None,
    options: Options = DEFAULT,
) -> Attention:
    """Battenberg et al. 2020 (arXiv 1910.10288): dynamic convolution attention, as `DynamicConvolution`.

    alpha, beta, prior_length: of the prior, whose mean step is (prior_length - 1) alpha / (alpha + beta), 1 by default.
    size: width of the inner layers, by default the query's. Raises ConfigError for kv: there are no keys.
    """
    if options.kv != "shared":
        raise ConfigError(
            "attention=dca doesn't look at the source's content and has no keys",
            where="attention.kv",
            expected="shared",
            found=options.kv,
            hint="Take attention=location_aware for keys and filters together",
        )
    inner = query_size if size is None else whole("size", size)
    score = UnseenScore(inner, options.heads)
    past = DynamicConvolution(
        query_size,
        inner,
        options.heads,
        filters=filters,
        kernel=kernel,
        prior_length=prior_length,
        alpha=alpha,
        beta=beta,
    )
    return PastAttention(score, past, KeyValue("shared", memory_size), options)
