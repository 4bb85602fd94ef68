"""The loss and its own gradients against whole logits and autograd."""

import math

import pytest
import torch

from s2s.train import loss as room
from s2s.train.loss import Copied, smoothed_cross_entropy, smoothed_cross_entropy_plain, symmetric_divergence

VOCABULARY, WIDTH = 7, 5


def given(count, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()

    targets = torch.randint(VOCABULARY, (count,), generator=generator)
    return draw(count, WIDTH), draw(VOCABULARY, WIDTH), draw(VOCABULARY), targets


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.7])
@pytest.mark.parametrize("count", [0, 1, 9])
@pytest.mark.parametrize("chunk", [1, 2 * VOCABULARY, 4 * VOCABULARY + 3, 1 << 20])
def test_it_equals_the_plain_loss_whatever_the_chunks(monkeypatch, smoothing, count, chunk):
    monkeypatch.setattr(room, "_CHUNK", chunk)
    monkeypatch.setattr(room, "_ROWS", 1)
    *leaves, targets = given(count)
    fast = smoothed_cross_entropy(*leaves, targets, smoothing=smoothing)
    plain = smoothed_cross_entropy_plain(*leaves, targets, smoothing=smoothing)
    torch.testing.assert_close(fast.loss, plain.loss, atol=1e-12, rtol=1e-12)
    torch.testing.assert_close(fast.nll, plain.nll, atol=1e-12, rtol=1e-12)
    torch.testing.assert_close(fast.log_prob, plain.log_prob, atol=1e-12, rtol=1e-12)
    assert not fast.nll.requires_grad
    assert not fast.log_prob.requires_grad
    for scale in (1.0, -2.5):  # what comes from above is passed on
        found = torch.autograd.grad(scale * fast.loss, leaves, retain_graph=True)
        wanted = torch.autograd.grad(scale * plain.loss, leaves, retain_graph=True)
        for one, other in zip(found, wanted, strict=True):
            torch.testing.assert_close(one, other, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("chunk", [1, 3 * VOCABULARY, 1 << 20])
def test_copying_equals_the_plain_mixture(monkeypatch, smoothing, chunk):
    monkeypatch.setattr(room, "_CHUNK", chunk)
    monkeypatch.setattr(room, "_ROWS", 1)
    *leaves, targets = given(9)
    targets[2], targets[7] = VOCABULARY, VOCABULARY + 3  # can only be copied
    gate = torch.linspace(-3, 3, 9, dtype=torch.float64).requires_grad_()
    mass = torch.linspace(0.01, 0.9, 9, dtype=torch.float64).requires_grad_()
    leaves += [gate, mass]

    def both(loss):
        copied = Copied(torch.nn.functional.logsigmoid(gate), torch.nn.functional.logsigmoid(-gate) + mass.log())
        return loss(*leaves[:3], targets, smoothing=smoothing, copied=copied)

    fast, plain = both(smoothed_cross_entropy), both(smoothed_cross_entropy_plain)
    for one, other in zip(fast, plain, strict=True):
        torch.testing.assert_close(one, other, atol=1e-12, rtol=1e-12)
    found, wanted = (torch.autograd.grad(2.5 * one.loss, leaves) for one in (fast, plain))
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, atol=1e-12, rtol=1e-12)


def test_the_plain_loss_by_hand():
    """Two words, two tokens: (1 - eps) of the mass on the target and eps spread over both."""
    features, weight, bias = torch.eye(2), torch.tensor([[1.0, 0.0], [0.0, 3.0]]), torch.tensor([0.0, 1.0])
    first = [1 - math.log(math.exp(1) + math.exp(1)), 1 - math.log(math.exp(1) + math.exp(1))]
    second = [0 - math.log(1 + math.exp(4)), 4 - math.log(1 + math.exp(4))]
    targets = torch.tensor([0, 1])
    smooth = -(0.8 * first[0] + 0.2 * sum(first) / 2) - (0.8 * second[1] + 0.2 * sum(second) / 2)
    found = smoothed_cross_entropy(features, weight, bias, targets, smoothing=0.2)
    assert found.loss.item() == pytest.approx(smooth)
    assert found.nll.item() == pytest.approx(-first[0] - second[1])


def test_gradcheck():
    *leaves, targets = given(4)
    assert torch.autograd.gradcheck(
        lambda *inputs: smoothed_cross_entropy(*inputs, targets, smoothing=0.1).loss, leaves
    )


@pytest.mark.parametrize("frozen", [0, 1, 2])
def test_frozen_parts_get_no_gradient(frozen):
    *leaves, targets = given(4)
    wanted = torch.autograd.grad(smoothed_cross_entropy_plain(*leaves, targets).loss, leaves)
    leaves[frozen] = leaves[frozen].detach()
    smoothed_cross_entropy(*leaves, targets).loss.backward()
    for number, leaf in enumerate(leaves):
        assert (leaf.grad is None) == (number == frozen)
        if number != frozen:
            torch.testing.assert_close(leaf.grad, wanted[number])


def test_huge_logits_stay_finite():
    features, weight, bias, targets = given(4, torch.float32)
    found = smoothed_cross_entropy(features * 1e18, weight * 1e18, bias, targets)
    assert torch.isfinite(found.loss)
    worst = smoothed_cross_entropy(features * 1e30, weight * 1e30, bias, targets)
    assert not torch.isfinite(worst.loss)  # and what is beyond float32 is seen, not hidden


def test_under_autocast_it_stays_near():
    *leaves, targets = given(9, torch.float32)
    exact = smoothed_cross_entropy(*leaves, targets, smoothing=0.1)
    wanted = torch.autograd.grad(exact.loss, leaves)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = smoothed_cross_entropy(*leaves, targets, smoothing=0.1)
    assert mixed.loss.item() == pytest.approx(exact.loss.item(), rel=0.02)
    for one, other in zip(torch.autograd.grad(mixed.loss, leaves), wanted, strict=True):
        assert one.dtype == torch.float32
        torch.testing.assert_close(one, other, atol=0.1, rtol=0.1)


def test_symmetric_divergence_by_hand():
    p, q = torch.tensor([[0.5, 0.5], [0.2, 0.8]]), torch.tensor([[0.25, 0.75], [0.2, 0.8]])
    both = sum(a * math.log(a / b) + b * math.log(b / a) for a, b in ((0.5, 0.25), (0.5, 0.75))) / 2
    assert symmetric_divergence(p.log(), q.log()).item() == pytest.approx(both)
    assert symmetric_divergence(p.log(), p.log()).item() == 0
    assert symmetric_divergence(p.log(), q.log()).item() == pytest.approx(symmetric_divergence(q.log(), p.log()).item())
