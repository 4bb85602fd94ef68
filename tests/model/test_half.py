"""Training with products in bf16 on a CPU: every attention and copying, against float32."""

from __future__ import annotations

import pytest
import torch
from model_toys import batch, copying, tiny

from s2s.attention import names
from s2s.train.options import OptimConfig
from s2s.train.precision import autocast
from s2s.train.step import batch_loss

OPTIM = OptimConfig(label_smoothing=0.1)


def loss_and_gradient(model, one, precision):
    """The gradient of all parameters in a row."""
    torch.manual_seed(2)
    model.zero_grad()
    with autocast(torch.device("cpu"), precision):
        loss = batch_loss(model, one, OPTIM).loss
    loss.backward()
    given = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
    assert all(p.dtype == torch.float32 for p in given)
    return loss.detach(), torch.cat(given)


def assert_near(model, one):
    exact, slope = loss_and_gradient(model, one, "float32")
    rounded, found = loss_and_gradient(model, one, "bf16")
    assert rounded.item() == pytest.approx(exact.item(), rel=0.02)
    assert torch.cosine_similarity(found, slope, 0) > 0.99


@pytest.mark.parametrize("feed", [True, False])
@pytest.mark.parametrize("name", sorted(set(names()) - {"hard"}))  # which draws its positions
def test_every_attention_trains_in_bf16(name, feed):
    assert_near(tiny(attention=name, width=8, input_feed=feed, chance=False).train(), batch())


def test_a_model_that_copies_trains_in_bf16():
    model, one = copying(tiny(width=8).train(), batch())
    assert_near(model, one)
