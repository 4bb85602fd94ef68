"""Decoder state is a nested tuple of tensors, batch first. These are the operations that search needs on it."""

from __future__ import annotations

import torch
from torch import Tensor

from s2s.types import State


def select(state: State, rows: Tensor) -> State:
    """Rows of a state. rows: (N,) int64 indices, repeats allowed; every tensor (B, ...) becomes (N, ...)."""
    if isinstance(state, Tensor):
        return state.index_select(0, rows)
    return tuple(select(part, rows) for part in state)


def concatenate(states: list[State]) -> State:
    """States of the same structure joined along the batch."""
    first = states[0]
    if isinstance(first, Tensor):
        return torch.cat([s for s in states if isinstance(s, Tensor)])
    return tuple(concatenate([s[i] for s in states]) for i in range(len(first)))
