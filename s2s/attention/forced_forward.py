"""Forced-forward attention: no source word is used twice."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from s2s.attention.align import Aligned, Alignment, SoftAlignment, grown
from s2s.attention.base import Attention, scored
from s2s.attention.constraint import THRESHOLD, Exhausted, ForwardConstraint
from s2s.attention.functional import lengths_of
from s2s.attention.normalise import Normaliser
from s2s.attention.options import Options, choice, number, plain_softmax
from s2s.attention.scan import LinearScan
from s2s.attention.score import ScoreName, make_score
from s2s.errors import ConfigError
from s2s.types import State

Mode = Literal["strict", "soft", "threshold"]
MODES = ("strict", "soft", "threshold")
EXHAUSTED = ("last", "zero")

DEFAULT = Options()

_LOW = -1e30  # an energy of masked positions; finite, for differences of minus infinity are NaN


class Pointer(Alignment):
    """A pointer that only moves forward: the next position is drawn from a softmax over those after the last one.

    In training the weights are the probabilities of where the pointer is, by an exact sum over all its ways there:
    a_ij = sum_{k<j} a_i-1,k exp(e_ij - R_ik), R_ik = log sum_{l>k} exp(e_il), from a start before the source (k = -1).
    As R falls with k this is a linear scan, q_j = exp(R_j-1 - R_j-2) q_j-1 + a_i-1,j-1, a_ij = exp(e_ij - R_i,j-1) q_j.
    The pointer comes to no word twice, so sum_i a_ij <= 1. In eval mode it takes the likeliest position.

    exhausted: at the last word there is nothing left to go to. last: it is used again; zero: the context is zero.
    State: where the pointer is, (B, H, 1 + S); index 0 is the start.
    """

    def __init__(self, exhausted: Exhausted) -> None:
        super().__init__()
        self.exhausted = exhausted
        self.sums_to_one = exhausted == "last"

    def initial_state(self, mask: Tensor, heads: int) -> State:
        """All before the first position: (B, H, 1 + S) float32."""
        start = torch.zeros(mask.size(0), heads, 1 + mask.size(1), device=mask.device)
        start[..., 0] = 1.0
        return start

    def forward(self, energies: Tensor, mask: Tensor, state: State, query: Tensor) -> Aligned:
        """Weights of all steps, one after another."""
        assert isinstance(state, Tensor)
        length = mask.size(1)
        pointer, real = grown(state, 1 + length), mask[:, None, None]
        e = energies.to(torch.promote_types(energies.dtype, torch.float32))
        e = e.masked_fill(~real, _LOW)
        # nothing lies behind the last word (or behind the start of a source without words): what is there stays
        end = torch.arange(1 + length, device=mask.device) == lengths_of(mask)[:, None, None]
        if self.training:
            left = e.flip(-1).logcumsumexp(-1).flip(-1)  # left_j = log sum_{l>=j} exp(e_l)
            share = torch.exp(e - left).masked_fill(~real, 0.0)
            scans = LinearScan(F.pad(left[..., 1:] - left[..., :-1], (0, min(1, length)))).unbind(2)
        rows = []
        for step in range(energies.size(2)):
            before = pointer[..., :length].to(e.dtype)  # where the pointer is, one to the left of each position
            if self.training:
                moved = share[:, :, step] * scans[step](before)
            else:
                moved = _likeliest(e[:, :, step], real.squeeze(2) & (before.cumsum(-1) > 0))
            stayed = end * pointer
            rows.append(moved + stayed[..., 1:] if self.exhausted == "last" else moved)
            pointer = F.pad(moved, (1, 0)) + stayed
        weights = torch.stack(rows, 2) if rows else torch.zeros_like(e)
        return Aligned(weights.to(energies.dtype), pointer, {})


def _likeliest(energies: Tensor, allowed: Tensor) -> Tensor:
    """1 at the highest of the allowed energies (..., S), the first among equals; zeros where none is allowed."""
    if not energies.size(-1):
        return energies
    place = energies.masked_fill(~allowed, -torch.inf).argmax(-1, keepdim=True)
    return torch.zeros_like(energies).scatter(-1, place, 1.0) * allowed


def forced_forward(
    query_size: int,
    memory_size: int,
    *,
    mode: Mode = "strict",
    score: ScoreName = "additive",
    threshold: float = THRESHOLD,
    exhausted: Exhausted = "last",
    options: Options = DEFAULT,
) -> Attention:
    """The seed of this toolkit: a source word that was aligned with an output word isn't used by later steps.

    mode: strict, a pointer that only moves forward (`Pointer`); soft, used words lose weight; threshold, words with
    past weights of at least `threshold` are out of reach (`ForwardConstraint`). exhausted: strict and threshold, what
    remains of a source that is used up, `last` or `zero`. Raises ConfigError.
    """
    choice("mode", mode, MODES)
    choice("exhausted", exhausted, EXHAUSTED)
    number("threshold", threshold, 0.0, 1.0, open_low=True)
    for name, value, default, readers in (
        ("threshold", threshold, THRESHOLD, ("threshold",)),
        ("exhausted", exhausted, "last", ("strict", "threshold")),
    ):
        if mode not in readers and value != default:
            raise ConfigError(
                f"{name} has no meaning with mode={mode}",
                where=f"attention.{name}",
                expected=f"{default}, or attention.mode={readers[0]}",
                found=str(value),
            )
    align: Alignment
    if mode == "strict":
        plain_softmax("forced_forward with mode=strict", options)
        align = Pointer(exhausted)
    else:
        soft = SoftAlignment(Normaliser(options.normaliser, options.temperature))
        align = ForwardConstraint(soft, mode, threshold=threshold, back=0, ahead=1, exhausted=exhausted)
    return scored(query_size, memory_size, options, lambda q, k: make_score(score, q, k, heads=options.heads), align)
