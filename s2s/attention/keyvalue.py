"""What is compared and what is read: the encoder's states as keys and values."""

from __future__ import annotations

from torch import Tensor, nn

from s2s.attention.options import KeyValueKind
from s2s.errors import ConfigError


class KeyValue(nn.Module):
    """States (B, S, D) to what keys are made of, (B, S, key_size), and values, (B, S, value_size).

    shared: both are the states (Bahdanau, Luong). project: W_K h and W_V h (Vaswani et al. 2017, arXiv 1706.03762).
    split: h = [k; v], no parameters (Daniluk et al. 2017, arXiv 1702.04521, section 2.2); D must be even.
    """

    def __init__(self, kind: KeyValueKind, memory_size: int, projected_key_size: int | None = None) -> None:
        super().__init__()
        self.kind = kind
        if kind == "split" and memory_size % 2:
            raise ConfigError(
                "kv=split shares the encoder's states between key and value",
                where="attention.kv",
                expected="an even memory_size",
                found=str(memory_size),
                hint="Take an even encoder.width, or kv=project",
            )
        self.key_size = self.value_size = memory_size // 2 if kind == "split" else memory_size
        if kind == "project":
            self.key_size = projected_key_size or memory_size
            self.key = nn.Linear(memory_size, self.key_size, bias=False)
            self.value = nn.Linear(memory_size, memory_size, bias=False)
            for matrix in (self.key.weight, self.value.weight):
                nn.init.xavier_uniform_(matrix)  # keeps the size of what it maps, as the projections of a Transformer

    def forward(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """Keys' raw material and values."""
        if self.kind == "project":
            return self.key(states), self.value(states)
        if self.kind == "split":
            return states[..., : self.key_size], states[..., self.key_size :]
        return states, states
