"""Constraints that keep an alignment from going back: part of a mechanism, or put on any trained model."""

from __future__ import annotations

import copy
from typing import Literal

import torch
from torch import Tensor, nn

from s2s.attention.align import Aligned, Alignment, grown
from s2s.attention.base import Attention, ScoredAttention
from s2s.attention.local import LocalAttention
from s2s.attention.parts import with_parts
from s2s.attention.reweight import Reweighted
from s2s.attention.split import PredictingQuery
from s2s.errors import UsageError
from s2s.types import State

ForwardMode = Literal["soft", "threshold", "strict", "window"]
Exhausted = Literal["last", "zero"]
THRESHOLD = 0.5

_FAR = 1e4
_LEAST = 1e-4  # what is left, at least, of a word that was used up, in mode=soft: nearer 0, rounding would decide


class ForwardConstraint(Alignment):
    """Any alignment, kept by its own past weights from going back. `mode`:

    soft: energies gain log(1 - u_j), u_j the sum of the position's past weights, at most 1, so that a softmax gives
    weights proportional to exp(e_j) (1 - u_j); differentiable. threshold: no position with u_j >= `threshold`. strict:
    none up to the last step's highest weight. window: none but those from `back` before it up to, and without, `ahead`
    after it (Ping et al. 2018, arXiv 1710.07654, section 3.5).
    exhausted: what a step does to which nothing is left: use the position of the last step's highest weight (last), or
    a zero context (zero).
    State: that of the alignment, u (B, H, S), and the place of the last highest weight (B, H), -1 at first.
    """

    def __init__(
        self, inner: Alignment, mode: ForwardMode, *, threshold: float, back: int, ahead: int, exhausted: Exhausted
    ) -> None:
        super().__init__()
        self.inner, self.mode, self.threshold, self.back, self.ahead = inner, mode, threshold, back, ahead
        self.exhausted = exhausted
        self.sums_to_one = inner.sums_to_one and (mode == "soft" or exhausted == "last")

    def initial_state(self, mask: Tensor, heads: int) -> State:
        """Nothing is used."""
        used = torch.zeros(mask.size(0), heads, mask.size(1), device=mask.device)
        place = torch.full((mask.size(0), heads), -1, device=mask.device)
        return self.inner.initial_state(mask, heads), used, place

    def forward(self, energies: Tensor, mask: Tensor, state: State, query: Tensor) -> Aligned:
        """Weights of all steps, one after another."""
        inner, used, place = state
        assert isinstance(used, Tensor)
        assert isinstance(place, Tensor)
        if not mask.size(1):
            return Aligned(energies, state, {})
        used = grown(used, mask.size(1))
        exact = energies.to(torch.promote_types(energies.dtype, torch.float32)).masked_fill(~mask[:, None, None], 0.0)
        rows, auxiliary = [], []
        for step, e in enumerate(exact.unbind(2)):
            allowed = self._allowed(used, place, mask)
            if self.mode == "soft":
                e = e + (1 - used).clamp(min=_LEAST).log()
            else:  # far below the lowest, not minus infinity: whatever the alignment does with it, it stays finite
                e = torch.where(allowed, e, e.amin(-1, keepdim=True) - _FAR)
            weights, inner, aux = self.inner(e.unsqueeze(2), mask, inner, query[:, step : step + 1])
            weights = weights.squeeze(2) * allowed
            left = (weights > 0).any(-1, keepdim=True)
            if self.exhausted == "last":
                kept = torch.arange(mask.size(1), device=mask.device) == place.unsqueeze(-1)
                weights = torch.where(left, weights, (kept & mask.unsqueeze(1)).to(weights.dtype))
            place = torch.where(left.squeeze(-1), weights.argmax(-1), place)
            used = used + weights
            rows.append(weights)
            auxiliary.append(aux)
        joined = {key: torch.cat([aux[key] for aux in auxiliary], 1) for key in (auxiliary[0] if auxiliary else ())}
        weights = torch.stack(rows, 2) if rows else exact
        return Aligned(weights.to(energies.dtype), (inner, used, place), joined)

    def _allowed(self, used: Tensor, place: Tensor, mask: Tensor) -> Tensor:
        """(B, H, S) bool."""
        real = mask.unsqueeze(1)
        if self.mode == "soft":
            return real
        if self.mode == "threshold":
            return real & (used < self.threshold)
        position, last = torch.arange(mask.size(1), device=mask.device), place.unsqueeze(-1)
        if self.mode == "strict":
            return real & (position > last)
        last = torch.where(last < 0, mask.int().argmax(1)[:, None, None], last)
        return real & (position >= last - self.back) & (position < last + self.ahead)


def constrain(
    module: nn.Module,
    mode: ForwardMode,
    *,
    threshold: float = THRESHOLD,
    back: int = 1,
    ahead: int = 3,
    exhausted: Exhausted = "last",
) -> nn.Module:
    """A copy of a trained model, or of one attention, that is kept from going back, as `ForwardConstraint` says.

    The copy shares every parameter, and what is trained or used through `module` doesn't change. Made for decoding: no
    training with the constraint is needed. Raises UsageError for an attention that has no energies to constrain or
    goes by its own past already, and for a model without attention.
    """

    def kept(part: nn.Module) -> nn.Module | None:
        if isinstance(part, ScoredAttention):
            nothing = torch.zeros(1, 0, dtype=torch.bool)
            free = type(part).attend in (ScoredAttention.attend, LocalAttention.attend)
            if not free or part.align.initial_state(nothing, part.heads) != ():
                raise _refused("the attention goes by its own past already", type(part.align).__name__)
            align = ForwardConstraint(
                part.align, mode, threshold=threshold, back=back, ahead=ahead, exhausted=exhausted
            )
            align.training = part.training
            copied = copy.copy(part)
            copied._modules = {**part._modules, "align": align}
            copied.sums_to_one = align.sums_to_one
            return copied
        if isinstance(part, Attention) and not isinstance(part, (PredictingQuery, Reweighted)):
            raise _refused("the attention has no energies to constrain", type(part).__name__)
        return None

    found = with_parts(module, kept)
    if found is module:
        raise _refused("the model has no attention", type(module).__name__)
    return found


def _refused(what: str, found: str) -> UsageError:
    return UsageError(
        what,
        where="search.forward",
        expected="an attention that scores every source position at every step",
        found=found,
        hint="Leave search.forward=off (no --forward) for this model",
    )
