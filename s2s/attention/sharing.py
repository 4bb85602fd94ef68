"""Rows of a search that read the same source ask together, as the queries of one call.

So the keys and values of a source are held once and read once for all of its rows. That is right where an attention has
no state: by its contract (`s2s.attention.base`) queries of one call then know nothing of each other.
"""

from __future__ import annotations

from typing import NamedTuple, cast

import torch
from torch import Tensor

from s2s.state import select
from s2s.types import AttentionOutput, Memory


class SharedMemory(NamedTuple):
    """The memory of B sources, of each of which up to K rows ask."""

    memory: Memory
    width: int  # K
    places: Tensor | None  # (N,) int64: of each row in the (B, K) grid; None where all N = B K come in its order


def for_rows(memory: Memory, rows: Tensor) -> Memory | SharedMemory:
    """The memory that N rows of a search read. memory: of all sources. rows: (N,) int64, the source of each.

    It is copied for each row where few rows share a source: the grid would be mostly empty.
    """
    sources, own, counts = torch.unique(rows, return_inverse=True, return_counts=True)
    width = int(counts.max()) if len(rows) else 1
    cells, count = len(sources) * width, len(rows)
    if width == 1 or 2 * cells > 3 * count:
        return cast(Memory, select(memory, rows))
    if len(sources) < memory.mask.size(0):
        memory = cast(Memory, select(memory, sources))
    order = own.argsort(stable=True)
    numbers = torch.arange(count, device=rows.device)
    rank = torch.empty_like(own)
    rank[order] = numbers - (counts.cumsum(0) - counts).repeat_interleave(counts)
    places = own * width + rank
    in_order = cells == count and torch.equal(places, numbers)
    return SharedMemory(memory, width, None if in_order else places)


def together(query: Tensor, shared: SharedMemory) -> Tensor:
    """Queries of rows (N, 1, Q) to those of sources (B, K, Q), zeros where no row asks."""
    sources = shared.memory.mask.size(0)
    grid = query.squeeze(1)
    if shared.places is not None:
        grid = grid.new_zeros(sources * shared.width, grid.size(1)).index_copy_(0, shared.places, grid)
    return grid.view(sources, shared.width, -1)


def apart(output: AttentionOutput, shared: SharedMemory) -> AttentionOutput:
    """What sources got (B, K, ...) to what rows get (N, 1, ...)."""

    def of_rows(values: Tensor) -> Tensor:
        flat = values.flatten(0, 1)
        return (flat if shared.places is None else flat[shared.places]).unsqueeze(1)

    weights = None if output.weights is None else of_rows(output.weights)
    aux = {name: of_rows(values) for name, values in output.aux.items()}
    return AttentionOutput(of_rows(output.context), weights, output.state, aux)
