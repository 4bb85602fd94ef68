"""Kernels in C where products are in bf16: what they take is in float32 or rounded once, as without them."""

from __future__ import annotations

import pytest
import torch
from exact import needs_c

from s2s import kernels
from s2s.attention.score import AdditiveScore, DotScore, GeneralScore
from s2s.gather import gathered
from s2s.kernels import cpu
from s2s.model.recurrent import RecurrentLayer
from s2s.train.loss import Copied, smoothed_cross_entropy, smoothed_cross_entropy_plain

pytestmark = needs_c


def half():
    return torch.autocast("cpu", torch.bfloat16)


def nothing_copied():
    return {"log_generate": None, "log_copied": None, "counts": None}


@pytest.mark.parametrize("size", [1, 7, 513])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_logits_in_bf16_are_taken_in_float32_and_only_their_gradients_rounded(size, smoothing):
    torch.manual_seed(1)
    rows = 37
    logits, bias = (3 * torch.randn(rows, size)).bfloat16(), torch.randn(size)
    targets = torch.randint(0, size, (rows,))
    whole = logits.float()
    found = cpu.cross_entropy(logits, bias, targets, **nothing_copied(), smoothing=smoothing, learning=True)
    expected = cpu.cross_entropy(whole, bias, targets, **nothing_copied(), smoothing=smoothing, learning=True)
    for one, two in zip(found, expected, strict=True):
        assert torch.equal(one, two)
    assert torch.equal(logits, whole.bfloat16())  # the gradients, rounded as torch does


def test_without_learning_logits_in_bf16_stay_as_they_are():
    logits = torch.randn(3, 5).bfloat16()
    before = logits.clone()
    given = {**nothing_copied(), "smoothing": 0.0, "learning": False}
    assert cpu.cross_entropy(logits, torch.zeros(5), torch.tensor([0, 4, 2]), **given).d_bias is None
    assert torch.equal(logits, before)


@pytest.mark.parametrize("strange", [torch.nan, torch.inf])
def test_what_is_not_finite_does_not_become_a_number(strange):
    logits = torch.randn(2, 40).bfloat16()
    logits[0, 3] = strange
    given = {**nothing_copied(), "smoothing": 0.0, "learning": True}
    found = cpu.cross_entropy(logits, torch.zeros(40), torch.tensor([1, 1]), **given)
    assert found.norms[0].isnan()
    assert logits[0].isnan().all()
    assert torch.isfinite(found.norms[1])
    assert torch.isfinite(logits[1]).all()


def test_other_halves_are_refused():
    given = {**nothing_copied(), "smoothing": 0.0, "learning": True}
    with pytest.raises(TypeError, match="float16"):
        cpu.cross_entropy(torch.randn(2, 3).half(), torch.zeros(3), torch.tensor([0, 1]), **given)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("copies", [False, True])
def test_the_loss_under_autocast(copies, smoothing, calls, monkeypatch):
    monkeypatch.setattr("s2s.train.loss._CHUNK", 4 * 300)
    monkeypatch.setattr("s2s.train.loss._ROWS", 1)
    torch.manual_seed(2)
    leaves = [torch.randn(10, 6), torch.randn(300, 6), torch.randn(300)]
    leaves += [(-torch.rand(10) - 0.1).bfloat16(), -torch.rand(10) - 0.1] if copies else []
    leaves = [one.requires_grad_() for one in leaves]
    targets = torch.randint(0, 310 if copies else 300, (10,))

    def found(function):
        features, weight, bias, *logs = leaves
        loss = function(features, weight, bias, targets, smoothing=smoothing, copied=Copied(*logs) if logs else None)[0]
        return [loss, *torch.autograd.grad(loss, leaves)]

    with half():
        made = found(smoothed_cross_entropy)
    assert calls == ["cross_entropy"] * 3
    for one, exact in zip(made, found(smoothed_cross_entropy_plain), strict=True):
        assert one.dtype == exact.dtype
        assert float((one - exact).detach().norm() / exact.detach().norm()) < 0.02


@pytest.mark.parametrize("in_a_loop", [True, False])
@pytest.mark.parametrize("name", ["additive", "general", "dot"])
def test_attention_under_autocast_is_one_kernel_in_float32(name, in_a_loop, calls):
    torch.manual_seed(3)
    kinds = {"additive": lambda: AdditiveScore(8, 8, 8), "general": lambda: GeneralScore(8, 8)}
    score = kinds.get(name, lambda: DotScore(8, 8))()
    states, queries = torch.randn(3, 5, 8, requires_grad=True), torch.randn(3, 4, 8, requires_grad=True)
    mask = torch.rand(3, 5) < 0.7
    mask[:, 0] = True
    leaves = [states, queries, *score.parameters()]

    def found():
        keys, values = score.keys(states), states.unsqueeze(1)
        pairs = [score.attend(query, keys, values, mask) for query in queries.split(1 if in_a_loop else 4, 1)]
        return torch.cat([context for context, _ in pairs], 1)

    with half():
        if in_a_loop:
            with gathered():
                made = found()
        else:
            made = found()
    exact = found()
    outer = torch.randn(exact.shape)
    gradients = zip(torch.autograd.grad(made, leaves, outer), torch.autograd.grad(exact, leaves, outer), strict=True)
    assert {one.split("_")[0] for one in calls} == {"additive" if name == "additive" else "dot"}
    for one, two in [(made, exact), *gradients]:
        assert one.dtype == torch.float32
        assert float((one - two).detach().norm() / two.detach().norm()) < 0.02


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_a_sequence_under_autocast_gives_float32(cell):
    layer = RecurrentLayer(cell, 6, 8)
    inputs = torch.randn(2, 3, 6)
    with half():
        outputs, state = layer.sequence(inputs, layer.zeros(inputs))
    expected, last = layer.sequence(inputs, layer.zeros(inputs))
    for one, exact in zip((outputs, *state), (expected, *last), strict=True):
        assert one.dtype == torch.float32
        torch.testing.assert_close(one, exact, atol=0.02, rtol=0.02)


def test_a_tensor_in_half_takes_no_kernel_of_float32():
    with half():
        rounded = torch.nn.functional.linear(torch.randn(2, 3), torch.randn(4, 3))
        assert rounded.dtype == torch.bfloat16
        assert not kernels.compiled(rounded)
        assert not kernels.compiled(torch.randn(3), rounded)
