"""Decoder state and memory are nested tuples of tensors, batch first. The operations that search needs on them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from s2s.types import State


def mapped(state: State, change: Callable[[Tensor], Tensor]) -> State:
    """The same structure with other tensors. Named tuples stay what they are."""
    if isinstance(state, Tensor):
        return change(state)
    parts = [mapped(part, change) for part in state]
    named: Any = type(state)
    return named(*parts) if hasattr(state, "_fields") else tuple(parts)


def tensors(state: State) -> list[Tensor]:
    """All tensors of a state or memory, in order."""
    return [state] if isinstance(state, Tensor) else [one for part in state for one in tensors(part)]


def select(state: State, rows: Tensor) -> State:
    """Rows of a state or memory. rows: (N,) int64 indices, repeats allowed; every tensor (B, ...) becomes (N, ...)."""
    return mapped(state, lambda one: one.index_select(0, rows))


def concatenate(states: list[State]) -> State:
    """States of the same structure joined along the batch."""
    first = states[0]
    if isinstance(first, Tensor):
        return torch.cat([s for s in states if isinstance(s, Tensor)])
    return tuple(concatenate([s[i] for s in states]) for i in range(len(first)))
