"""Alignments: energies to weights, with whatever they remember of the past. The plain one is a normaliser."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

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


class SoftAlignment(Alignment):
    """A normaliser over the whole source: "soft" or "global" attention."""

    def __init__(self, normaliser: Normaliser) -> None:
        super().__init__()
        self.normaliser = normaliser

    def forward(self, energies: Tensor, mask: Tensor, state: State, query: Tensor) -> Aligned:
        """Each step by itself."""
        return Aligned(self.normaliser(energies, mask[:, None, None]), state, {})
