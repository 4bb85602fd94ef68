"""Coverage: the energies know how much each source position has been attended before."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from s2s.attention.align import grown
from s2s.attention.base import Attention
from s2s.attention.keyvalue import KeyValue
from s2s.attention.options import LARGEST, Options, choice, number, whole
from s2s.attention.past import Past, PastAttention
from s2s.attention.score import AdditiveScore, uniform
from s2s.errors import ConfigError
from s2s.gather import linear

Kind = Literal["see", "linguistic", "neural"]
DEFAULT = Options()

# Fertilities are at least N sigmoid(-10), so that a division by them stays finite.
_LEAST_LOGIT = -10.0


class SummedCoverage(Past):
    """term_ij = w_c c_ij with c_ij = sum_{k<i} a_kj. See et al. 2017, arXiv 1704.04368, eq. 10 to 12.

    With loss_weight, each step adds loss_weight sum_j min(a_ij, c_ij) to the training loss (the mean over heads).
    """

    def __init__(self, size: int, heads: int, loss_weight: float) -> None:
        super().__init__()
        self.weight = uniform(heads, 1, size // heads, fan=1)
        self.loss_weight = number("loss_weight", loss_weight, 0.0, LARGEST)

    def ready(self, state: Tensor, mask: Tensor) -> Tensor:
        """New positions are not covered."""
        return grown(state, mask.size(1))

    def look(self, state: Tensor, prepared: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """w_c c."""
        return state.unsqueeze(-1) * self.weight.to(state.dtype), None

    def update(
        self, state: Tensor, weights: Tensor, prepared: Tensor | None, source: tuple[Tensor, ...]
    ) -> tuple[Tensor, Tensor | None]:
        """The sum with this alignment, and the coverage loss."""
        loss = self.loss_weight * torch.minimum(weights, state).sum(-1).mean(1) if self.loss_weight else None
        return state + weights, loss


class LinguisticCoverage(SummedCoverage):
    """c_ij = sum_{k<i} a_kj / Phi_j, Phi_j = N sigmoid(U_f h_j): how many words position j should give, at most N.

    Tu et al. 2016, arXiv 1601.04811, section 3.1.1. Each head has its own fertilities.
    """

    def __init__(self, size: int, heads: int, memory_size: int, fertility: float) -> None:
        super().__init__(size, heads, 0.0)
        self.most = number("fertility", fertility, 0.0, LARGEST, open_low=True)
        self.fertility = nn.Linear(memory_size, heads, bias=False)

    def source(self, states: Tensor) -> tuple[Tensor, ...]:
        """Phi, (B, S, H)."""
        return (self.most * torch.sigmoid(self.fertility(states).clamp_min(_LEAST_LOGIT)),)

    def update(
        self, state: Tensor, weights: Tensor, prepared: Tensor | None, source: tuple[Tensor, ...]
    ) -> tuple[Tensor, Tensor | None]:
        """The sum with this alignment over the fertilities."""
        return state + weights / source[0].transpose(1, 2).to(weights.dtype), None


class NeuralCoverage(Past):
    """term_ij = V C_{i-1,j} with C_ij = GRU(C_{i-1,j}; a_ij, h_j, q_i), `units` numbers a position, zeros at first.

    Tu et al. 2016, arXiv 1601.04811, section 3.1.2. The heads share the GRU, and each has its own coverage.
    """

    def __init__(self, query_size: int, memory_size: int, size: int, heads: int, units: int) -> None:
        super().__init__()
        self.units, inputs = whole("units", units), 1 + memory_size + query_size
        self.weight = uniform(heads, units, size // heads, fan=units)
        self.of_weights = uniform(3 * units, fan=inputs)
        self.of_source = uniform(3 * units, memory_size, fan=inputs)
        self.of_query = uniform(3 * units, query_size, fan=inputs)
        self.bias = nn.Parameter(torch.zeros(3 * units))
        self.recurrent = uniform(3 * units, units, fan=units)

    def initial_state(self, mask: Tensor, heads: int) -> Tensor:
        """Zeros (B, H, S, units)."""
        return super().initial_state(mask, heads).unsqueeze(-1).repeat(1, 1, 1, self.units)

    def source(self, states: Tensor) -> tuple[Tensor, ...]:
        """The source's share of the GRU's input, (B, S, 3 units)."""
        return (nn.functional.linear(states, self.of_source),)

    def prepare(self, query: Tensor) -> Tensor:
        """The query's share of the GRU's input, (B, T, 3 units)."""
        return linear(query, self.of_query, self.bias)

    def ready(self, state: Tensor, mask: Tensor) -> Tensor:
        """New positions are not covered."""
        return grown(state.transpose(2, 3), mask.size(1)).transpose(2, 3)

    def look(self, state: Tensor, prepared: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """V C."""
        return state @ self.weight.to(state.dtype), None

    def update(
        self, state: Tensor, weights: Tensor, prepared: Tensor | None, source: tuple[Tensor, ...]
    ) -> tuple[Tensor, Tensor | None]:
        """One step of the GRU at every position."""
        assert prepared is not None
        known = source[0].to(state.dtype) + prepared.unsqueeze(1)
        inputs = known.unsqueeze(1) + weights.unsqueeze(-1) * self.of_weights.to(state.dtype)
        hidden = nn.functional.linear(state, self.recurrent.to(state.dtype)).to(state.dtype)
        reset, keep = torch.sigmoid((inputs + hidden)[..., : 2 * self.units]).chunk(2, -1)
        fresh = torch.tanh(inputs[..., 2 * self.units :] + reset * hidden[..., 2 * self.units :])
        return torch.lerp(fresh, state, keep), None


def coverage(
    query_size: int,
    memory_size: int,
    *,
    kind: Kind = "see",
    loss_weight: float = 0.0,
    fertility: float = 2.0,
    units: int = 10,
    size: int | None = None,
    options: Options = DEFAULT,
) -> Attention:
    """Additive attention with coverage: See et al. 2017 (arXiv 1704.04368) or Tu et al. 2016 (arXiv 1601.04811).

    kind: see, the sum of the past weights, with loss_weight its coverage loss (1 in the paper, which turns it on for a
    last, short phase of training, as from the start it disturbs the main objective); linguistic, that sum over each
    position's fertility, which is at most `fertility`; neural, a GRU with `units` numbers a position. size: width A of
    the inner layer, by default the query's. Raises ConfigError for an option of another kind.
    """
    choice("kind", kind, ("see", "linguistic", "neural"))
    for name, value, default, owner in (
        ("loss_weight", loss_weight, 0.0, "see"),
        ("fertility", fertility, 2.0, "linguistic"),
        ("units", units, 10, "neural"),
    ):
        if kind != owner and value != default:
            raise ConfigError(
                f"{name} belongs to kind={owner}",
                where=f"attention.{name}",
                expected=f"{default:g} with kind={kind}",
                found=str(value),
                hint=f"Leave it out, or set attention.kind={owner}",
            )
    inner = query_size if size is None else whole("size", size)
    key_value = KeyValue(options.kv, memory_size, query_size)
    score = AdditiveScore(query_size, key_value.key_size, inner, heads=options.heads)
    past: Past
    if kind == "see":
        past = SummedCoverage(inner, options.heads, loss_weight)
    elif kind == "linguistic":
        past = LinguisticCoverage(inner, options.heads, memory_size, fertility)
    else:
        past = NeuralCoverage(query_size, memory_size, inner, options.heads, units)
    return PastAttention(score, past, key_value, options)
