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


class Grid(NamedTuple):
    """Where N rows of a search stand among those of their B sources, of each of which up to K ask."""

    sources: Tensor  # (B,) int64, those that rows ask
    width: int  # K
    places: Tensor | None  # (N,) int64: of each row in the (B, K) grid; None where all N = B K come in its order


class SharedMemory(NamedTuple):
    """The memory of the sources of a grid."""

    memory: Memory
    grid: Grid


def grid_of(rows: Tensor) -> Grid | None:
    """The grid of rows whose sources are (N,) int64; None where few share one, so that it would be mostly empty."""
    sources, own, counts = torch.unique(rows, return_inverse=True, return_counts=True)
    width = int(counts.max()) if len(rows) else 1
    cells, count = len(sources) * width, len(rows)
    if width == 1 or 2 * cells > 3 * count:
        return None
    order = own.argsort(stable=True)
    numbers = torch.arange(count, device=rows.device)
    rank = torch.empty_like(own)
    rank[order] = numbers - (counts.cumsum(0) - counts).repeat_interleave(counts)
    places = own * width + rank
    in_order = cells == count and torch.equal(places, numbers)
    return Grid(sources, width, None if in_order else places)


def shared(memory: Memory, grid: Grid) -> SharedMemory:
    """What the rows of a grid read. memory: of all sources."""
    if len(grid.sources) < memory.mask.size(0):
        memory = cast(Memory, select(memory, grid.sources))
    return SharedMemory(memory, grid)


def together(query: Tensor, grid: Grid) -> Tensor:
    """Queries of rows (N, 1, Q) to those of sources (B, K, Q), zeros where no row asks."""
    sources, cells = len(grid.sources), query.squeeze(1)
    if grid.places is not None:
        cells = cells.new_zeros(sources * grid.width, cells.size(1)).index_copy_(0, grid.places, cells)
    return cells.view(sources, grid.width, -1)


def apart(output: AttentionOutput, grid: Grid) -> AttentionOutput:
    """What sources got (B, K, ...) to what rows get (N, 1, ...)."""

    def of_rows(values: Tensor) -> Tensor:
        flat = values.flatten(0, 1)
        return (flat if grid.places is None else flat[grid.places]).unsqueeze(1)

    weights = None if output.weights is None else of_rows(output.weights)
    aux = {name: of_rows(values) for name, values in output.aux.items()}
    return AttentionOutput(of_rows(output.context), weights, output.state, aux)
