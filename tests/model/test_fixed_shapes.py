"""Batches filled up to fixed shapes, and the loss over all their positions: the same as without padding, exactly."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from model_toys import MIXED, batch, copying, kind, tiny

from s2s.attention import names
from s2s.text.batching import fill_to_shape
from s2s.train.graph import fixed_loss, fixed_shape, obstacle
from s2s.train.loss import Copied, smoothed_cross_entropy
from s2s.train.options import OptimConfig
from s2s.train.step import batch_loss
from s2s.types import PAD

OPTIM = OptimConfig(label_smoothing=0.1)
FIXED = (4, 7, 6)  # rows, source, target


@given(st.integers(0, 3), st.integers(0, 3), st.integers(0, 3))
@settings(max_examples=20, deadline=None)
def test_filling_adds_empty_rows_and_padding_only(rows, source, target):
    one = batch()
    filled = fill_to_shape(one, 3 + rows, 6 + source, 5 + target)
    assert filled.source.shape == (3 + rows, 6 + source)
    assert filled.target_in.shape == filled.target_out.shape == (3 + rows, 5 + target)
    for full, before in zip(filled[:5], one[:5], strict=True):
        assert torch.equal(full[tuple(slice(size) for size in before.shape)], before)
    assert filled.target_lengths.sum() == one.target_lengths.sum()
    assert int((filled.source != PAD).sum()) == int((one.source != PAD).sum())
    assert filled.source_lengths[3:].tolist() == [1] * rows
    assert filled.rows == one.rows


@pytest.mark.parametrize("shape", [(2, 6, 5), (3, 5, 5), (3, 6, 4)])
def test_what_is_larger_is_refused(shape):
    with pytest.raises(ValueError, match="doesn't fit"):
        fill_to_shape(batch(), *shape)


def test_links_and_copies_are_filled_too():
    one = batch()._replace(links=torch.ones(3, 5, 6), copies=torch.ones(3, 6, dtype=torch.int64))
    filled = fill_to_shape(one, *FIXED)
    assert filled.links.shape == (4, 6, 7)
    assert filled.links.sum() == one.links.sum()
    assert filled.copies.shape == (4, 7)
    assert filled.copies.sum() == one.copies.sum()


def test_a_bucket_has_one_shape():
    """Any batch of a budget and its bucket of lengths gets the same shape; a larger one keeps its rows."""
    shapes = {fixed_shape(batch(((s, t),) * 2), 64, 8).source.shape for s in range(1, 8) for t in range(1, 8)}
    assert shapes == {(8, 8)}
    assert fixed_shape(batch(((9, 2),) * 2), 64, 8).source.shape == (4, 16)
    assert fixed_shape(batch(((30, 2),) * 4), 64, 8).source.shape == (4, 32)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("copying", [False, True])
def test_tokens_that_count_nothing(smoothing, copying):
    generator = torch.Generator().manual_seed(0)
    leaves = [
        torch.randn(*s, generator=generator, dtype=torch.float64).requires_grad_() for s in ((9, 5), (7, 5), (7,))
    ]
    targets, real = torch.arange(9) % 7, torch.arange(9) % 3 != 1
    if copying:
        targets[3] = 8  # can only be copied
        leaves += [torch.linspace(-3, -1, 9, dtype=torch.float64).requires_grad_() for _ in range(2)]

    def loss(rows, **counts):
        copied = Copied(leaves[3][rows], leaves[4][rows]) if copying else None
        features, weight, bias = leaves[0][rows], *leaves[1:3]
        return smoothed_cross_entropy(
            features, weight, bias, targets[rows], smoothing=smoothing, copied=copied, **counts
        )

    counted, alone = loss(slice(None), counts=real.double()), loss(real)
    for one, other in zip(counted[:2], alone[:2], strict=True):
        torch.testing.assert_close(one, other, atol=1e-12, rtol=1e-12)
    for one, other in zip(*(torch.autograd.grad(1.5 * loss.loss, leaves) for loss in (counted, alone)), strict=True):
        torch.testing.assert_close(one, other, atol=1e-12, rtol=1e-12)


def assert_filled_equals_unfilled(model, one=None):
    model = model.double().train()
    one = batch() if one is None else one
    found, wanted = [], []
    for values, (loss, nll) in (
        (found, fixed_loss(model, fill_to_shape(one, *FIXED), 0.1)),
        (wanted, batch_loss(model, one, OPTIM)[:2]),
    ):
        values += [loss, nll, *torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)]
    for a, b in zip(found, wanted, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            torch.testing.assert_close(a, b, atol=1e-9, rtol=1e-7)


@pytest.mark.parametrize("name", names())
def test_every_attention_gives_the_same_loss_and_gradients(name):
    """Chance off, as the two batches draw in other shapes."""
    model = tiny(attention=name, width=8, chance=False)
    if reason := obstacle(model, OPTIM):
        assert name == "hard"
        assert reason == "the loss of HardAttention is no plain sum over tokens"
        return
    assert_filled_equals_unfilled(model)


@pytest.mark.parametrize("options", MIXED, ids=kind)
def test_every_model_gives_the_same_loss_and_gradients(options):
    model = tiny(**options)
    assert not obstacle(model, OPTIM)
    assert_filled_equals_unfilled(model)


@pytest.mark.parametrize("options", [{}, {"input_feed": False}, MIXED[1]], ids=kind)
def test_a_model_that_copies_gives_the_same_loss_and_gradients(options):
    model, one = copying(tiny(**options), batch())
    assert not obstacle(model, OPTIM)
    assert_filled_equals_unfilled(model, one)


@pytest.mark.parametrize("options", [{"rdrop": 1.0}, {"guided_alignment": 0.5}, {"scheduled_sampling": 0.1}], ids=str)
def test_what_needs_the_real_positions_alone_is_named(options):
    assert obstacle(tiny(), OptimConfig(**options)).startswith(f"optim.{next(iter(options))} ")


def shapes_alone(model, monkeypatch, one=None):
    """Forward and backward without any values: what waits for one, or has a shape that hangs on one, raises."""
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda device: False)  # which doesn't know this device
    nowhere = torch.device("meta")
    one = fill_to_shape(batch(((2, 1),)), 2, 4, 3) if one is None else fill_to_shape(one, *FIXED)
    loss, _ = fixed_loss(model.train().to(nowhere), one.to(nowhere), 0.1)
    loss.backward()


@pytest.mark.parametrize("name", names())
def test_no_attention_waits_for_the_device(name, monkeypatch):
    shapes_alone(tiny(attention=name, width=8, dropout=0.1), monkeypatch)


@pytest.mark.parametrize("options", MIXED, ids=kind)
def test_no_model_waits_for_the_device(options, monkeypatch):
    shapes_alone(tiny(**options, dropout=0.1), monkeypatch)


def test_copying_waits_for_no_device(monkeypatch):
    model, one = copying(tiny(dropout=0.1), batch())
    shapes_alone(model, monkeypatch, one)


def test_waiting_is_seen(monkeypatch):
    model = tiny()
    model.encoder.register_forward_hook(lambda module, inputs, encoded: encoded if encoded.states.sum() > 0 else None)
    with pytest.raises(RuntimeError, match="meta"):
        shapes_alone(model, monkeypatch)
