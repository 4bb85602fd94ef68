"""Token embeddings that can be shared with an output layer."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from s2s.types import PAD


class Embedding(nn.Embedding):
    """An embedding scaled by the root of its width (Vaswani et al. 2017, arXiv 1706.03762, section 3.4).

    Its weight is drawn with standard deviation 1/sqrt(width), which suits an output layer that shares it; scaled, its
    vectors have unit entries, which suits a recurrent layer.
    """

    def __init__(self, size: int, width: int) -> None:
        super().__init__(size, width, padding_idx=PAD)
        self.scale = math.sqrt(width)
        with torch.no_grad():
            self.weight.normal_(std=1 / self.scale)
            self.weight[PAD].zero_()

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens (..., ) to vectors (..., width)."""
        return super().forward(tokens) * self.scale
