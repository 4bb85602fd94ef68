"""What a source's ids don't say: where each stands, how frequent it is, and how long an output is asked for."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import get_args

import torch
from torch import Tensor, nn

from s2s.errors import ConfigError
from s2s.types import UNK, Batch, Feature

POSITIONS = 256  # later ones share the last vector
_COUNTS = (1, 2, 3, 4, 6, 9, 14)  # upper ends of the classes of term frequency; one more for what is above
_RARITIES = 16  # classes of inverse document frequency
LENGTHS = 100  # words; longer outputs share the last vector, 0 is "any"
_UNASKED = 0.2  # share of training examples that aren't told their length, so that a model can go without

_STD = 0.1  # of the vectors at first, beside embeddings with entries of about 1


class SourceFeatures(nn.Module):
    """Vectors that are added to the embeddings of a source.

    position: one for each place in the source. frequency: one for how often a token stands in its source and one for
    how few sources of the training data have it (term frequency and inverse document frequency in classes: Nallapati et
    al. 2016, arXiv 1602.06023, section 2.2; there they are concatenated). length: one for the number of words that the
    output shall have (Fan et al. 2018, arXiv 1711.05217, section 2.1, where it is a marker before the source).

    `fit` learns the tables that aren't trained: `rarity` (V,) int64, the class of each source token, and `begins`
    (U + 1,) bool, which target ids begin a word; the last entry is that of ids above the vocabulary, which are words.
    """

    rarity: Tensor
    begins: Tensor
    bounds: Tensor

    def __init__(self, names: Sequence[Feature], source_size: int, target_size: int, width: int) -> None:
        super().__init__()
        wrong = [name for name in names if name not in get_args(Feature)]
        if wrong or len(set(names)) < len(names):
            raise ConfigError(
                "unknown feature" if wrong else "a feature twice",
                where="model.features",
                expected=f"some of {', '.join(get_args(Feature))}",
                found=f"[{', '.join(map(str, names))}]",
            )
        self.position = nn.Embedding(POSITIONS, width) if "position" in names else None
        self.count = nn.Embedding(len(_COUNTS) + 1, width) if "frequency" in names else None
        self.idf = nn.Embedding(_RARITIES, width) if "frequency" in names else None
        self.length = nn.Embedding(LENGTHS + 1, width) if "length" in names else None
        if "frequency" in names:
            self.register_buffer("rarity", torch.zeros(source_size, dtype=torch.int64))
            self.register_buffer("bounds", torch.tensor(_COUNTS), persistent=False)
        if "length" in names:
            self.register_buffer("begins", torch.ones(target_size + 1, dtype=torch.bool))
        for table in (self.position, self.count, self.idf, self.length):
            if table is not None:
                nn.init.normal_(table.weight, std=_STD)

    def fit(self, sources: Iterable[Sequence[int]], begins: Sequence[bool]) -> None:
        """sources: ids of the training sources. begins: of each id of the target's tokenizer, see `beginnings`."""
        if self.idf is not None:
            self.rarity.copy_(rarities(sources, len(self.rarity)))
        if self.length is not None:
            self.begins[:-1] = torch.tensor(begins)

    def words(self, batch: Batch) -> Tensor | None:
        """How many words each target of a batch has, (B,) int64; 0 (any) in eval mode and for some in training."""
        if self.length is None or not self.training:
            return None
        places = torch.arange(batch.target_out.size(1), device=batch.target_out.device)
        inside = places < batch.target_lengths.unsqueeze(1) - 1  # all but EOS
        counts = (self.begins[batch.target_out.clamp_max(len(self.begins) - 1)] & inside).sum(1)
        asked = torch.rand(counts.shape, device=counts.device) >= _UNASKED
        return counts.clamp_min(1) * asked

    def forward(self, source: Tensor, words: Tensor | None) -> Tensor:
        """source: ids (B, S); words: (B,) int64 or None (any). Returns (B, S, width)."""
        batch, length = source.shape
        parts = []
        if self.position is not None:
            places = torch.arange(length, device=source.device).clamp_max(POSITIONS - 1)
            parts.append(self.position(places).expand(batch, -1, -1))
        if self.count is not None and self.idf is not None:
            counts = torch.zeros(batch, len(self.rarity), dtype=torch.int64, device=source.device)
            counts.scatter_add_(1, source, torch.ones_like(source))
            parts.append(self.count(torch.bucketize(counts.gather(1, source), self.bounds)))
            parts.append(self.idf(self.rarity[source]))
        if self.length is not None:
            asked = source.new_zeros(batch) if words is None else words.clamp(0, LENGTHS)
            parts.append(self.length(asked).unsqueeze(1).expand(-1, length, -1))
        return torch.stack(parts).sum(0)


def rarities(sources: Iterable[Sequence[int]], size: int) -> Tensor:
    """The class of log(N / n) / log(N) of each id, where n of N sources have it: (V,) int64. Unseen ids are rarest."""
    holders, total = torch.zeros(size, dtype=torch.float64), 0
    for ids in sources:
        total += 1
        holders[sorted(set(ids))] += 1
    share = torch.log(total / holders.clamp_min(1)) / max(math.log(max(total, 1)), 1e-9)
    classes = (share * _RARITIES).long().clamp(0, _RARITIES - 1)
    classes[holders == 0] = _RARITIES - 1
    classes[UNK] = _RARITIES - 1
    return classes
