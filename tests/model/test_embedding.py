"""Embeddings that can share their weight with an output layer."""

import torch

from s2s.model.embedding import Embedding
from s2s.types import PAD


def test_vectors_are_the_weight_times_the_root_of_the_width():
    torch.manual_seed(0)
    made = Embedding(500, 16)
    tokens = torch.tensor([[3, 499], [7, 3]])
    torch.testing.assert_close(made(tokens), 4 * made.weight[tokens])
    assert abs(made.weight[1:].std().item() - 1 / 4) < 0.01  # suits an output layer
    assert abs(made(torch.arange(1, 500)).std().item() - 1) < 0.04  # suits a recurrent layer


def test_padding_is_zero_and_learns_nothing():
    made = Embedding(5, 4)
    assert not made(torch.tensor([PAD])).any()
    made(torch.tensor([PAD, 2, PAD])).sum().backward()
    assert not made.weight.grad[PAD].any()
    assert made.weight.grad[2].all()
