"""A gate between encoder and attention that lets through what belongs into a summary."""

from __future__ import annotations

import torch
from torch import nn

from s2s.types import Encoded


class SelectiveGate(nn.Module):
    """h'_i = h_i * sigmoid(W h_i + U s + b), s the sum of the source: Zhou et al. 2017, arXiv 1704.07073, eq. 5-6.

    `final` and padding stay as they are. b starts at 2, so that at first nearly all is let through.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.own = nn.Linear(width, width)
        self.whole = nn.Linear(width, width, bias=False)
        nn.init.constant_(self.own.bias, 2.0)

    def forward(self, encoded: Encoded) -> Encoded:
        """states (B, S, D) to states (B, S, D)."""
        gate = torch.sigmoid(self.own(encoded.states) + self.whole(encoded.final).unsqueeze(1))
        return encoded._replace(states=encoded.states * gate.to(encoded.states.dtype))
