"""Weights laid out once: the products of plain ones, wherever they are used."""

import pytest
import torch
from torch.nn import functional as F

from s2s.gather import linear
from s2s.products import PackedWeight


def rows(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


@pytest.mark.parametrize("shape", [(300, 500), (3, 5)], ids=["packed", "small"])
def test_products_are_those_of_the_plain_weight(shape):
    outputs, inputs = shape
    weight, bias = rows(outputs, inputs), rows(outputs)
    packed = PackedWeight(weight)
    assert (packed._packed is not None) == (shape == (300, 500))
    for batch in ((7,), (2, 7), (1,), (0,), (2, 0)):
        x, known = rows(*batch, inputs), rows(*batch, outputs)
        for added in (None, bias, known):
            expected = F.linear(x, weight) if added is None else F.linear(x, weight) + added
            torch.testing.assert_close(packed.product(x, added), expected, rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(linear(x, packed, added), expected, rtol=1e-4, atol=1e-4)
    strided = rows(inputs, 2 * 9).t()[::2]
    torch.testing.assert_close(packed.product(strided), F.linear(strided, weight), rtol=1e-4, atol=1e-4)
    assert packed.size(0) == outputs
    assert packed.size(1) == inputs


def test_some_rows_of_a_weight():
    weight, x, ids = rows(600, 500), rows(4, 500), torch.tensor([5, 0, 599])
    torch.testing.assert_close(PackedWeight(weight).rows(ids).product(x), x @ weight[ids].t(), rtol=1e-4, atol=1e-4)


def test_what_one_dnn_has_no_layout_for_stays_as_it_is(monkeypatch):
    weight, x = rows(300, 500), rows(4, 500)
    exact = PackedWeight(weight.double())
    assert exact._packed is None
    assert torch.equal(exact.product(x.double()), x.double() @ weight.double().t())
    monkeypatch.setattr("s2s.products._has", lambda operation: False)
    assert PackedWeight(weight)._packed is None
