"""Examples and the batches of tensors that they become; which go together is planned in `s2s.text.plan`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from s2s.text.copying import Copier, CopyIds
from s2s.text.plan import Lengths
from s2s.types import BOS, EOS, PAD, Batch


@dataclass(frozen=True)
class Example:
    """One pair as ids, without special tokens."""

    source: Sequence[int]
    target: Sequence[int]
    links: Sequence[tuple[int, int]] | None = None  # (source position, target position), from 0; None = not known
    copies: CopyIds | None = None  # of a model that copies


def make_example(
    source: str, source_ids: Sequence[int], target: str, target_ids: Sequence[int], copier: Copier | None
) -> Example:
    """A pair of texts with their ids; copier: of a model that copies."""
    copies = None if copier is None else copier(source, source_ids, target, target_ids)
    return Example(source_ids, target_ids, copies=copies)


def pad(rows: Sequence[Sequence[int]], multiple: int = 1) -> tuple[Tensor, Tensor]:
    """Ids of several rows to one tensor (B, L) padded at the right with PAD, and the lengths (B,)."""
    lengths = [len(row) for row in rows]
    longest = -(-max(lengths, default=0) // multiple) * multiple
    padded = np.full((len(rows), longest), PAD, dtype=np.int64)  # whose rows take a list at a fifth of torch's cost
    for place, row in enumerate(rows):
        padded[place, : len(row)] = row
    return torch.from_numpy(padded), torch.tensor(lengths, dtype=torch.int64)


def collate(examples: Sequence[Example], rows: Sequence[int], pad_multiple: int = 1) -> Batch:
    """A batch of `examples`; `rows` says which examples of the corpus they are. EOS and BOS are added here.

    Where links are known, the EOS of a target is linked to that of its source.
    """
    source, source_lengths = pad([[*e.source, EOS] for e in examples], pad_multiple)
    target_in, _ = pad([[BOS, *e.target] for e in examples], pad_multiple)
    outputs = [e.target if e.copies is None else e.copies.target for e in examples]
    target_out, target_lengths = pad([[*output, EOS] for output in outputs], pad_multiple)
    links = (
        _soft_links(examples, target_out.size(1), source.size(1))
        if any(e.links is not None for e in examples)
        else None
    )
    copied = [[*e.copies.source, EOS] for e in examples if e.copies is not None]
    copies = pad(copied, pad_multiple)[0] if copied else None
    return Batch(source, source_lengths, target_in, target_out, target_lengths, tuple(rows), links, copies)


def fill_to_shape(batch: Batch, rows: int, source: int, target: int) -> Batch:
    """The batch padded to (rows, source) and (rows, target): as many more empty rows and as much padding as it takes.

    An empty row has a target of length 0, which counts nothing, and a source of one PAD, so that attention has a place
    to look at. Raises ValueError where the batch is larger than that.
    """
    have, longest, wide = batch.source.size(0), batch.source.size(1), batch.target_in.size(1)
    if have > rows or longest > source or wide > target:
        raise ValueError(f"({have}, {longest}, {wide}) doesn't fit into ({rows}, {source}, {target})")

    def wider(ids: Tensor, length: int) -> Tensor:
        return F.pad(ids, (0, length - ids.size(1), 0, rows - have), value=PAD)

    return Batch(
        wider(batch.source, source),
        F.pad(batch.source_lengths, (0, rows - have), value=1),
        wider(batch.target_in, target),
        wider(batch.target_out, target),
        F.pad(batch.target_lengths, (0, rows - have), value=0),
        batch.rows,
        None if batch.links is None else F.pad(batch.links, (0, source - longest, 0, target - wide, 0, rows - have)),
        None if batch.copies is None else wider(batch.copies, source),
    )


def _soft_links(examples: Sequence[Example], target_size: int, source_size: int) -> Tensor:
    """Links as the share of each source position, (B, T, S): the links of a target position share it evenly."""
    places = [
        (row, target, source)
        for row, e in enumerate(examples)
        if e.links is not None
        for source, target in (*e.links, (len(e.source), len(e.target)))
    ]
    shares = torch.zeros(len(examples), target_size, source_size)
    shares[tuple(torch.tensor(places).t())] = 1.0
    return shares / shares.sum(-1, keepdim=True).clamp_min(1.0)


def example_lengths(examples: Sequence[Example]) -> Lengths:
    """Lengths with EOS, as a plan wants them."""
    return Lengths.of([(len(e.source) + 1, len(e.target) + 1) for e in examples])
