"""Alignments: energies to weights, with whatever they remember of the past. The plain one is a normaliser."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from s2s.attention.normalise import Normaliser
from s2s.types import State


class Aligned(NamedTuple):
    """What an alignment gives."""

    weights: Tensor  # (B, H, T, S)
    state: State
    aux: dict[str, Tensor]  # as in `AttentionOutput`


class Alignment(nn.Module):
    """Base of all alignments. The same promises as `Attention`: chunk invariance, masked rows give zeros."""

    sums_to_one = True

    def initial_state(self, mask: Tensor, heads: int) -> State:
        """State before the first query. mask: (B, S). Its tensors are batch first, (B, H, ...)."""
        return ()

    def forward(self, energies: Tensor, mask: Tensor, state: State, query: Tensor) -> Aligned:
        """energies (B, H, T, S), mask (B, S), query (B, T, Q), for what needs more than energies."""
        raise NotImplementedError


def grown(state: Tensor, length: int, fill: float = 0.0) -> Tensor:
    """A state (B, H, S') that was made for a shorter source, with `fill` up to `length` (online decoding)."""
    missing = length - state.size(-1)
    return F.pad(state, (0, missing), value=fill) if missing else state


def begun(state: Tensor, mask: Tensor, nothing: float = 0.0, everything: float = 1.0) -> Tensor:
    """The last alignment (B, H, S') of a source with mask (B, S), ready for the next step: (B, H, S).

    Rows that are nowhere yet (`nothing` at every position) stand at the first real position, which is what
    "a_{-1} = one-hot(0)" says; a source of which nothing was known before may start late.
    """
    state = grown(state, mask.size(1), nothing)
    first = mask & (mask.cumsum(1) == 1)
    nowhere = (state <= nothing).all(-1, keepdim=True)
    return torch.where(nowhere & first.unsqueeze(1), everything, state)


class SoftAlignment(Alignment):
    """A normaliser over the whole source: "soft" or "global" attention."""

    def __init__(self, normaliser: Normaliser) -> None:
        super().__init__()
        self.normaliser = normaliser

    def forward(self, energies: Tensor, mask: Tensor, state: State, query: Tensor) -> Aligned:
        """Each step by itself."""
        return Aligned(self.normaliser(energies, mask[:, None, None]), state, {})
