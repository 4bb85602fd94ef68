"""Kernels of a CPU, in C, against the plain versions in float64."""

import pytest
import torch
from exact import NEAR, assert_same, masks, needs_c

from s2s import kernels
from s2s.activations import tanh, tanh_
from s2s.attention import build
from s2s.attention.functional import masked_softmax
from s2s.attention.fused import additive_attention, dot_attention
from s2s.errors import NonFiniteError, RunError
from s2s.kernels import cpu
from s2s.model import recurrent
from s2s.products import PackedWeight
from s2s.search.loop import ranked
from s2s.train.loss import Copied, smoothed_cross_entropy, smoothed_cross_entropy_plain
from s2s.types import Encoded

pytestmark = needs_c


@pytest.mark.parametrize("shape", [(0,), (1,), (7,), (3, 5), (33, 300)], ids=str)
def test_tanh(shape, calls):
    x = 6 * torch.randn(shape)
    assert_same(tanh, torch.tanh, x)
    assert calls == ["tanh_forward", "tanh_backward"]
    assert_same(lambda y: tanh(y.t() if y.dim() == 2 else y), lambda y: torch.tanh(y.t() if y.dim() == 2 else y), x)
    torch.testing.assert_close(tanh_(x.clone()), x.tanh(), **NEAR)


def test_ends_of_the_line():
    x = torch.tensor([0.0, 1e-30, 50.0, -50.0, 1e30, -1e30, torch.inf, -torch.inf, torch.nan])
    torch.testing.assert_close(tanh(x), x.tanh(), rtol=1e-6, atol=1e-6, equal_nan=True)


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (64, 33), (5, 256)], ids=str)
def test_gates_of_an_lstm(shape, calls):
    torch.manual_seed(1)
    gates, cell = 3 * torch.randn(shape[0], 4 * shape[1]), torch.randn(shape)
    assert_same(recurrent._lstm_gates, recurrent._lstm_gates, gates, cell)
    assert calls == ["lstm_forward", "lstm_backward"]


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("copies", [False, True])
def test_cross_entropy(copies, smoothing, calls, monkeypatch):
    monkeypatch.setattr("s2s.train.loss._CHUNK", 4 * 1100)  # several chunks, and columns of several blocks
    monkeypatch.setattr("s2s.train.loss._ROWS", 1)
    torch.manual_seed(8)
    features, weight, bias = torch.randn(10, 6), torch.randn(1100, 6), torch.randn(1100, 2)[:, 0]
    targets = torch.randint(0, 1110 if copies else 1100, (10, 2))[:, 0]  # strides that aren't 1
    targets[0] = 1099
    logs = [-torch.rand(10, 2)[:, 0] - 0.1, (-torch.rand(10, 2) - 0.1)[:, 0]] if copies else []

    def loss(function):
        return lambda f, w, b, *given: function(
            f, w, b, targets, smoothing=smoothing, copied=Copied(*given) if given else None
        )[0]

    assert_same(
        loss(smoothed_cross_entropy),
        loss(smoothed_cross_entropy_plain),
        features,
        weight,
        bias,
        *logs,
        rtol=1e-5,
        atol=1e-5,
    )
    assert calls == ["cross_entropy"] * 3


@pytest.mark.parametrize("target", [-1, 5])
def test_a_target_out_of_range_is_refused(target):
    with pytest.raises(IndexError, match=f"{target}.* vocabulary of 5"):
        smoothed_cross_entropy(torch.randn(2, 3), torch.randn(5, 3), torch.zeros(5), torch.tensor([0, target]))


def test_cross_entropy_of_nothing_and_of_padding():
    weight, bias = torch.randn(5, 3, requires_grad=True), torch.randn(5, requires_grad=True)
    nothing = smoothed_cross_entropy(torch.zeros(0, 3), weight, bias, torch.zeros(0, dtype=torch.int64))
    assert [one.abs().sum() for one in torch.autograd.grad(nothing.loss, (weight, bias))] == [0, 0]
    features, targets = torch.randn(4, 3), torch.tensor([1, 2, 3, 4])
    counts = torch.tensor([1.0, 0.0, 2.0, 0.0])
    once = smoothed_cross_entropy(features[[0, 2, 2]], weight, bias, targets[[0, 2, 2]], smoothing=0.1)
    counted = smoothed_cross_entropy(features, weight, bias, targets, smoothing=0.1, counts=counts)
    torch.testing.assert_close(counted.loss, once.loss)
    for made, expected in zip(*(torch.autograd.grad(one.loss, (weight, bias)) for one in (counted, once)), strict=True):
        torch.testing.assert_close(made, expected)


@pytest.mark.parametrize("shape", [(1, 1), (3, 7), (5, 256), (4, 1000), (70, 513)], ids=str)
@pytest.mark.parametrize("width", [1, 2, 9])
def test_the_largest_numbers_of_a_row(shape, width):
    torch.manual_seed(10)
    width = min(width, shape[1])
    for rows in (torch.randn(shape), torch.randint(0, 3, shape).float(), torch.full(shape, -torch.inf)):
        rows[0, shape[1] // 2 :] = -torch.inf
        values, ids = cpu.largest(rows, width)
        expected = rows.sort(dim=1, descending=True, stable=True)
        assert torch.equal(values, expected.values[:, :width])
        assert torch.equal(ids, expected.indices[:, :width])
    for place in (0, shape[1] - 1):
        rows = torch.randn(shape)
        rows[-1, place] = torch.nan
        first = cpu.largest(rows, width)[0][:, 0]
        assert first[-1].isnan()
        assert not first[:-1].isnan().any()


def test_a_search_ranks_by_the_kernel_as_without(calls):
    rows = torch.randint(-4, 0, (6, 700)).float()  # many equals
    never = torch.zeros(700, dtype=torch.bool)
    never[[0, 2]] = True
    found = [ranked(rows, 5, some) for some in (None, never)]
    assert calls == ["largest"] * 2
    kernels.use("plain")
    expected = [ranked(rows, 5, some) for some in (None, never)]
    kernels.use("auto")
    for made, plain in zip(found, expected, strict=True):
        assert torch.equal(made[0], plain[0])
        assert torch.equal(made[1], plain[1])
    rows[3, 650] = torch.nan
    with pytest.raises(RunError, match="NaN"):
        ranked(rows, 1, None)


@pytest.mark.parametrize("shape", [(0, 3), (1, 1), (31, 33), (70, 64)], ids=str)
def test_transposed(shape):
    matrix = torch.randn(shape)
    assert torch.equal(cpu.transposed(matrix), matrix.t())
    assert cpu.transposed(matrix).is_contiguous()


def test_a_transposed_weight_is_laid_out_by_the_kernel(calls):
    weight, x = torch.randn(600, 300), torch.randn(4, 600)
    torch.testing.assert_close(PackedWeight(weight.t()).product(x), x @ weight, rtol=1e-4, atol=1e-4)
    assert calls == ["transpose"]


def test_what_is_not_finite_stays_that_way():
    gates, cell = torch.randn(2, 12), torch.randn(2, 3)
    gates[0, 4] = torch.nan
    hidden, following = recurrent._lstm_gates(gates, cell)
    assert hidden[0, 1].isnan()
    assert following[0, 1].isnan()
    assert hidden.isnan().sum() == 1  # and goes nowhere else
    energies, mask = torch.randn(2, 2, 3), torch.ones(2, 1, 3, dtype=torch.bool)
    energies[0, 1, 2] = torch.nan
    weights = masked_softmax(energies, mask)
    assert weights[0, 1].isnan().all()
    assert weights.isnan().sum() == 3
    features = torch.randn(2, 3)
    features[1, 0] = torch.nan
    assert smoothed_cross_entropy(features, torch.randn(5, 3), torch.zeros(5), torch.tensor([0, 1])).nll.isnan()
    attention = build("additive", query_size=3, memory_size=3)
    states = torch.randn(2, 3, 3)
    memory = attention.remember(Encoded(states=states, mask=torch.ones(2, 3, dtype=torch.bool), final=states[:, 0]))
    with pytest.raises(NonFiniteError):
        attention(features.unsqueeze(1), memory, ())


def test_a_row_is_the_same_beside_any_others_and_with_any_number_of_threads():
    torch.manual_seed(9)
    query, keys, values = torch.randn(64, 1, 96), torch.randn(64, 9, 96), torch.randn(64, 9, 96)
    vector, mask = torch.randn(96), masks(64, 9)
    gates, cell = torch.randn(64, 4 * 96), torch.randn(64, 96)
    before = torch.get_num_threads()
    found = []
    try:
        for threads, rows in ((1, slice(0, 64)), (2, slice(0, 64)), (1, slice(5, 6))):
            torch.set_num_threads(threads)
            leaves = [one[rows].clone().requires_grad_() for one in (query, keys, values)]
            context, _ = additive_attention(leaves[0], leaves[1], vector, mask[rows], leaves[2])
            dots, _ = dot_attention(*(one.unsqueeze(1) for one in leaves), mask[rows], 0.1)
            gradients = torch.autograd.grad((context + dots).pow(2).sum(), leaves)
            found.append([context, dots, *gradients, *recurrent._lstm_gates(gates[rows], cell[rows])])
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(one, two) for one, two in zip(found[0], found[1], strict=True))
    assert all(torch.equal(one[5:6], two) for one, two in zip(found[0], found[2], strict=True))


def test_nothing_is_read_as_what_it_is_not():
    for kind in (torch.bfloat16, torch.float64):
        x = torch.randn(3, dtype=kind)
        assert not kernels.compiled(x)
        with pytest.raises(TypeError):
            cpu.tanh_into(x, x)
    kernels.use("plain")
    assert not kernels.compiled(torch.randn(3))
    kernels.use("auto")
    assert kernels.compiled(torch.randn(3))


def test_shapes_that_do_not_fit_are_refused_not_read():
    states, mask = torch.randn(2, 3, 4), torch.ones(2, 3, dtype=torch.bool)
    for given in ((states, states[:, :, :3], mask), (states, states, mask[:, :2]), (states[:1], states, mask)):
        query, keys, seen = given
        with pytest.raises(ValueError, match="expected"):
            additive_attention(query, keys, torch.ones(4), seen, states)
        with pytest.raises(ValueError, match="expected"):
            dot_attention(query.unsqueeze(1), keys.unsqueeze(1), states.unsqueeze(1), seen, 1.0)
        with pytest.raises(ValueError, match="expected"):
            dot_attention(query.repeat(1, 3, 1).unsqueeze(1), keys.unsqueeze(1), states.unsqueeze(1), seen, 1.0)
    with pytest.raises(ValueError, match="expected"):
        cpu.lstm_gates(torch.randn(2, 11), torch.randn(2, 3))
