"""Relevance by mean embeddings, against a loop."""

import math

import pytest
import torch

from s2s.score.dialogue import embedding_average


def test_it_is_the_cosine_of_means():
    table = torch.randn(9, 5, generator=torch.Generator().manual_seed(1))
    outputs, references = [[1, 2, 3], [4], [5, 5]], [[3], [4], [6, 7, 8]]
    values = []
    for output, reference in zip(outputs, references, strict=True):
        means = [[sum(float(table[i][d]) for i in ids) / len(ids) for d in range(5)] for ids in (output, reference)]
        dot = sum(a * b for a, b in zip(*means, strict=True))
        values.append(dot / math.prod(math.sqrt(sum(a * a for a in mean)) for mean in means))
    assert embedding_average(outputs, references, table) == pytest.approx(sum(values) / 3)
    assert embedding_average([[4]], [[4]], table) == pytest.approx(1)
    assert embedding_average([[], [4]], [[4], [4]], table) == pytest.approx(0.5)
    assert embedding_average([], [], table) == 0
