"""One update: normalised by all its tokens, and never made of what is not finite."""

import dataclasses
import math
import os

import pytest
import torch
from torch import nn
from toys import TINY, call
from train_toys import corpus, tiny

from s2s.text.batching import collate
from s2s.train.options import OptimConfig
from s2s.train.precision import autocast, chosen, half_is_worth_it, prepare_half
from s2s.train.step import batch_loss, clip_gradients, make_optimizer, update

OPTIM = OptimConfig(lr=0.01, warmup=0, clip=None)


def batches(*sizes, examples=None):
    examples, made, start = examples or corpus(), [], 0
    for size in sizes:
        made.append(collate(examples[start : start + size], range(start, start + size)))
        start += size
    return made


def updated(parts, optim=OPTIM, *, updates=2, dropout=0.0):
    model = tiny(dropout).train()
    optimizer = make_optimizer(model, optim)
    made = [update(model, parts, optimizer, optim, rate=optim.lr) for _ in range(updates)]
    return [p.detach() for p in model.parameters()], made


@pytest.mark.parametrize(
    "name, clip, sizes",
    [("adamw", None, (6, 6)), ("adamw", 0.1, (1, 2, 9)), ("adam", 0.1, (4, 8)), ("sgd", 0.1, (1,) * 12)],
    ids=str,
)
def test_micro_batches_equal_one_big_batch(name, clip, sizes):
    optim = dataclasses.replace(OPTIM, name=name, clip=clip, eps=1e-4)
    whole, one = updated(batches(12), optim)
    parts, many = updated(batches(*sizes), optim)
    for a, b in zip(whole, parts, strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-6)
    for a, b in zip(one, many, strict=True):
        assert (a.tokens, a.loss, a.nll, a.norm) == pytest.approx((b.tokens, b.loss, b.nll, b.norm), rel=1e-5)


def test_loss_is_the_mean_over_target_tokens():
    model, (batch,) = tiny().eval(), batches(5)
    targets = [[*e.target, 3] for e in corpus()[:5]]
    with torch.no_grad():
        log_probs = model.log_probs(model(batch).features)
    nll = -sum(log_probs[row, t, token].item() for row, ids in enumerate(targets) for t, token in enumerate(ids))
    tokens = sum(map(len, targets))
    _, (made,) = updated([batch], dataclasses.replace(OPTIM, label_smoothing=0.0), updates=1)
    assert made.tokens == tokens
    assert made.nll == pytest.approx(nll / tokens, rel=1e-5)
    assert made.loss == pytest.approx(made.nll, rel=1e-6)
    _, (smoothed,) = updated([batch], dataclasses.replace(OPTIM, label_smoothing=0.3), updates=1)
    assert smoothed.nll == pytest.approx(made.nll, rel=1e-6)
    assert smoothed.loss != pytest.approx(made.loss, rel=1e-3)


def test_rdrop_adds_nothing_where_two_passes_agree():
    (batch,) = batches(5)
    plain = batch_loss(tiny(0.0).train(), batch, OPTIM)
    both = batch_loss(tiny(0.0).train(), batch, dataclasses.replace(OPTIM, rdrop=5.0))
    torch.testing.assert_close(both.loss, plain.loss)
    torch.testing.assert_close(both.nll, plain.nll)
    # with dropout the passes differ and the term is positive
    torch.manual_seed(0)
    without = batch_loss(tiny(0.4).train(), batch, dataclasses.replace(OPTIM, rdrop=1e-9))
    strong = batch_loss(tiny(0.4).train(), batch, dataclasses.replace(OPTIM, rdrop=5.0))
    assert strong.loss > without.loss + 1e-3
    assert strong.nll.item() == pytest.approx(without.nll.item(), rel=1e-6)
    # in eval mode there is one pass
    model = tiny(0.4).eval()
    assert batch_loss(model, batch, dataclasses.replace(OPTIM, rdrop=5.0)).loss == batch_loss(model, batch, OPTIM).loss


def test_clipping_bounds_the_step_and_reports_the_norm_before_it():
    free, (made,) = updated(batches(6), dataclasses.replace(OPTIM, name="sgd", weight_decay=0.0), updates=1)
    clip = made.norm / 3
    bounded, (same,) = updated(
        batches(6), dataclasses.replace(OPTIM, name="sgd", weight_decay=0.0, clip=clip), updates=1
    )
    before = [p.detach() for p in tiny().parameters()]
    assert same.norm == pytest.approx(made.norm, rel=1e-6)
    for start, far, near in zip(before, free, bounded, strict=True):
        torch.testing.assert_close(near - start, (far - start) / 3, atol=1e-6, rtol=1e-3)
    length = math.sqrt(sum(float(((near - start) ** 2).sum()) for start, near in zip(before, bounded, strict=True)))
    assert length == pytest.approx(OPTIM.lr * clip, rel=1e-3)


@pytest.mark.parametrize("limit", [None, 0.0, 0.5, 100.0])
def test_clipping_is_that_of_torch(limit):
    torch.manual_seed(3)
    leaves = [nn.Parameter(torch.zeros(3, 4)), nn.Parameter(torch.zeros(5)), nn.Parameter(torch.zeros(2))]
    for leaf in leaves[:2]:
        leaf.grad = torch.randn(leaf.shape).t().contiguous().t()
    other = [leaf.grad.clone() for leaf in leaves[:2]]
    norm = clip_gradients(leaves, limit)
    torch.testing.assert_close(norm, torch.cat([one.flatten() for one in other]).norm())
    share = min(1.0, limit / norm.item()) if limit else 1.0
    for leaf, before in zip(leaves, other, strict=False):
        torch.testing.assert_close(leaf.grad, share * before, rtol=1e-5, atol=1e-6)
    assert clip_gradients([nn.Parameter(torch.zeros(1))], 1.0) == 0.0


def test_the_rate_scales_the_step():
    optim = dataclasses.replace(OPTIM, name="sgd", weight_decay=0.0)
    model = tiny().train()
    before = [p.detach().clone() for p in model.parameters()]
    update(model, batches(6), make_optimizer(model, optim), optim, rate=0.0)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_weights_decay_and_vectors_do_not():
    optim = dataclasses.replace(OPTIM, weight_decay=0.5)
    model = tiny()
    optimizer = make_optimizer(model, optim)
    decays = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert len(decays) == len(list(model.parameters()))
    for parameter in model.parameters():
        assert decays[id(parameter)] == (0.5 if parameter.dim() > 1 else 0.0)


def poisoned():
    """A model whose loss is not finite for sources that hold word 11, and finite for the others."""
    model = tiny()
    with torch.no_grad():
        model.source_embedding.weight[11] = math.inf
    return model.train()


@pytest.mark.parametrize("cause", ["loss", "gradient"])
def test_what_is_not_finite_changes_nothing(cause):
    model = poisoned() if cause == "loss" else tiny().train()
    good, bad = ([e for e in corpus(60) if (11 in e.source) == is_bad][:4] for is_bad in (False, True))
    optimizer = make_optimizer(model, OPTIM)
    assert update(model, batches(4, examples=good), optimizer, OPTIM, rate=0.01).finite
    hook = None
    if cause == "gradient":
        hook = model.decoder.bridge.weight.register_hook(lambda gradient: gradient * math.nan)
    weights = [p.detach().clone() for p in model.parameters()]
    moments = [v.clone() for state in optimizer.state.values() for v in state.values()]
    made = update(model, batches(4, examples=bad), optimizer, OPTIM, rate=0.01)
    assert not made.finite
    assert math.isfinite(made.loss) == (cause == "gradient")
    assert all(torch.equal(a, b) for a, b in zip(weights, model.parameters(), strict=True))
    after = [v for state in optimizer.state.values() for v in state.values()]
    assert all(torch.equal(a, b) for a, b in zip(moments, after, strict=True))
    if hook:
        hook.remove()
    assert update(model, batches(4, examples=good), optimizer, OPTIM, rate=0.01).finite  # and the next one is made
    assert not all(torch.equal(a, b) for a, b in zip(weights, model.parameters(), strict=True))


def test_one_bad_micro_batch_spoils_its_update_only():
    good, bad = ([e for e in corpus(60) if (11 in e.source) == is_bad][:3] for is_bad in (False, True))
    model = poisoned()
    before = [p.detach().clone() for p in model.parameters()]
    made = update(model, batches(3, 3, examples=good + bad), make_optimizer(model, OPTIM), OPTIM, rate=0.01)
    assert not made.finite
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_a_batch_without_target_tokens():
    (batch,) = batches(3)
    empty = batch._replace(target_lengths=torch.zeros(3, dtype=torch.int64))
    found, (made,) = updated([empty], updates=1)
    assert (made.tokens, made.loss, made.nll, made.norm) == (0, 0.0, 0.0, 0.0)
    assert made.finite
    for a, b in zip(found, tiny().parameters(), strict=True):
        assert torch.equal(a, b)
    # beside a full one it counts nothing
    mixed, (both,) = updated([batch, empty], updates=1)
    alone, (one,) = updated([batch], updates=1)
    assert dataclasses.astuple(both) == pytest.approx(dataclasses.astuple(one))
    for a, b in zip(mixed, alone, strict=True):
        torch.testing.assert_close(a, b)


def test_precision_on_a_cpu():
    cpu = torch.device("cpu")
    for precision, on in (("float32", False), ("auto", False), ("bf16", True)):
        assert chosen(cpu, precision) == ("bf16" if on else "float32")
        with autocast(cpu, precision):
            assert torch.is_autocast_enabled("cpu") == on


@pytest.mark.parametrize("units", [None, "amx_bf16", "avx512_bf16"])
def test_bf16_where_it_is_slow_is_told(monkeypatch, units):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True, units: True}, raising=False)
    monkeypatch.delenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY", raising=False)
    cpu = torch.device("cpu")
    assert prepare_half(cpu, "auto") == ""
    assert "ONEDNN_PRIMITIVE_CACHE_CAPACITY" not in os.environ
    assert ("no units for bf16" in prepare_half(cpu, "bf16")) == (units is None)
    assert os.environ.pop("ONEDNN_PRIMITIVE_CACHE_CAPACITY") == "4096"
    assert half_is_worth_it(cpu, "auto", 10**7) == (units is not None)
    assert not half_is_worth_it(cpu, "auto", 10**6)
    assert not half_is_worth_it(cpu, "float32", 10**7)


def test_training_tells_where_bf16_is_faster(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True}, raising=False)
    monkeypatch.setattr("s2s.train.precision._LARGE", 1000)
    given = ("train", "teach/copy", *TINY, "trainer.steps=2", "optim.warmup=0", f"output={tmp_path}")
    assert "trainer.precision=bf16 trains a model of this size faster" in call(*given).err
    assert "trainer.precision=bf16" not in call(*given, "trainer.precision=float32").err


def test_an_update_in_bf16_is_near_that_in_float32():
    model = tiny().train()
    made = update(model, batches(4), make_optimizer(model, OPTIM), OPTIM, rate=0.01, precision="bf16")
    _, (exact,) = updated(batches(4), updates=1)
    assert made.loss == pytest.approx(exact.loss, rel=0.02)
    assert all(p.dtype == torch.float32 for p in model.parameters())
