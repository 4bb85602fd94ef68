"""Decoder state and memory are nested tuples of tensors, batch first. The operations that search needs on them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from s2s.types import State


def select(state: State, rows: Tensor) -> State:
    """Rows of a state or memory. rows: (N,) int64 indices, repeats allowed; every tensor (B, ...) becomes (N, ...).

    Named tuples stay what they are.
    """
    if isinstance(state, Tensor):
        return state.index_select(0, rows)
    parts = [select(part, rows) for part in state]
    named: Any = type(state)
    return named(*parts) if hasattr(state, "_fields") else tuple(parts)


def concatenate(states: list[State]) -> State:
    """States of the same structure joined along the batch."""
    first = states[0]
    if isinstance(first, Tensor):
        return torch.cat([s for s in states if isinstance(s, Tensor)])
    return tuple(concatenate([s[i] for s in states]) for i in range(len(first)))
