"""A level of sentences above the encoder's words: how much each sentence of a source weighs."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from s2s.model.encoder import recurrent_encoder
from s2s.types import EOS, PAD, Encoded

POSITIONS = 64  # sentences; later ones share the last vector


class SentenceLevel(nn.Module):
    """Sentences by the mean of their states, a bidirectional GRU over them, and static attention on what it gives.

    Hierarchical attention after Nallapati et al. 2016, arXiv 1602.06023, section 2.4, with vectors for the sentences'
    places as there. Its upper level is the context vector of Yang et al. 2016 (HAN, NAACL N16-1174, section 2.2):
    p = softmax_s(u . tanh(W s + b)), the same for every step of the decoder.

    `marks` (V,) int64 says where sentences end, see `s2s.text.sentences.sentence_marks`; `fit` learns it.
    """

    marks: Tensor

    def __init__(self, source_size: int, width: int) -> None:
        super().__init__()
        self.encoder = recurrent_encoder(width, cell="gru", width=width + width % 2)
        self.place = nn.Embedding(POSITIONS, self.encoder.width)
        self.inner = nn.Linear(self.encoder.width, self.encoder.width)
        self.vector = nn.Parameter(torch.zeros(self.encoder.width).uniform_(-0.1, 0.1))
        nn.init.normal_(self.place.weight, std=0.1)
        self.register_buffer("marks", torch.zeros(source_size, dtype=torch.int64))

    def fit(self, marks: Sequence[int]) -> None:
        """marks: of each id of the source's tokenizer."""
        self.marks.copy_(torch.tensor(marks))

    def sentences(self, source: Tensor) -> Tensor:
        """The number of the sentence, from 0, that each position of ids (B, S) stands in: (B, S) int64."""
        marks = self.marks[source]
        following = torch.nn.functional.pad(source, (0, 1), value=PAD)[:, 1:]
        begins, soft, sure = (self.marks[following] & 1) > 0, (marks & 2) > 0, (marks & 4) > 0
        ends = (sure | (soft & begins)) & (following != PAD) & (following != EOS)
        return ends.cumsum(1) - ends.long()

    def forward(self, encoded: Encoded, source: Tensor) -> Encoded:
        """The same with `prior` (B, S): each position has the weight of its sentence; those of a source sum to 1."""
        number = self.sentences(source)
        counts = (number * encoded.mask).amax(1) + 1  # (B,)
        states = encoded.states.masked_fill(~encoded.mask.unsqueeze(-1), 0.0)
        batch, _, width = states.shape
        longest = int(counts.max())
        number = number.clamp_max(longest - 1)  # of padding, which isn't counted
        sums = states.new_zeros(batch, longest, width).scatter_add_(1, number.unsqueeze(-1).expand_as(states), states)
        sizes = states.new_zeros(batch, longest).scatter_add_(1, number, encoded.mask.to(states.dtype))
        means = sums / sizes.clamp_min(1).unsqueeze(-1)
        above = self.encoder(means, counts)
        places = torch.arange(longest, device=source.device).clamp_max(POSITIONS - 1)
        energies = torch.tanh(self.inner(above.states + self.place(places))) @ self.vector
        weights = energies.float().masked_fill(~above.mask, -torch.inf).softmax(1)
        return encoded._replace(prior=weights.gather(1, number))
