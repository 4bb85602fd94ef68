"""Scheduled sampling: the model's own predictions among its inputs."""

import dataclasses

import pytest
import torch
from test_step import OPTIM, batches
from train_toys import OPTIM as RUN_OPTIM
from train_toys import TRAINER, Session, corpus, tiny

from s2s.train import loop, step
from s2s.train.loss import best_tokens, smoothed_cross_entropy
from s2s.train.options import OptimConfig
from s2s.train.schedule import sampling_share
from s2s.train.step import make_optimizer, own_inputs, update
from s2s.types import BOS


def predictions(model, batch):
    """What the model says after the right inputs, row by row."""
    with torch.no_grad():
        return model.log_probs(model(batch).features).argmax(-1)


def test_all_inputs_but_the_first_are_predictions_where_the_share_is_one():
    model, (batch,) = tiny().eval(), batches(7)
    made, predicted = own_inputs(model, batch, 1.0), predictions(model, batch)
    assert made._replace(target_in=batch.target_in) is not batch
    assert all(torch.equal(a, b) for a, b in zip(made[:2] + made[3:5], batch[:2] + batch[3:5], strict=True))
    for row, length in enumerate(batch.target_lengths.tolist()):
        assert made.target_in[row, :length].tolist() == [BOS, *predicted[row, : length - 1].tolist()]
        assert torch.equal(made.target_in[row, length:], batch.target_in[row, length:])
    assert not torch.equal(made.target_in, batch.target_in)
    assert torch.equal(own_inputs(model, batch, 0.0).target_in, batch.target_in)


def test_the_share_is_that_of_replaced_inputs_and_the_seed_says_which():
    model, (batch,) = tiny().eval(), batches(30)
    every, places, replaced = own_inputs(model, batch, 1.0), 0, 0
    differs = every.target_in != batch.target_in  # where a replacement can be seen
    for seed in range(30):
        torch.manual_seed(seed)
        mixed = own_inputs(model, batch, 0.3).target_in
        assert bool(((mixed == batch.target_in) | (mixed == every.target_in)).all())
        replaced += int((mixed != batch.target_in).sum())
        places += int(differs.sum())
        torch.manual_seed(seed)
        assert torch.equal(own_inputs(model, batch, 0.3).target_in, mixed)
    assert replaced / places == pytest.approx(0.3, abs=0.03)


def test_the_best_token_whatever_the_chunks(monkeypatch):
    features, weight, bias = torch.randn(9, 4), torch.randn(7, 4), torch.randn(7)
    expected = (features @ weight.t() + bias).argmax(1)
    for chunk in (1, 20, 1 << 20):
        monkeypatch.setattr("s2s.train.loss._CHUNK", chunk)
        monkeypatch.setattr("s2s.train.loss._ROWS", 1)
        assert torch.equal(best_tokens(features, weight, bias), expected)
    assert best_tokens(features[:0], weight, bias).tolist() == []


def test_the_share_rises_linearly_to_its_end():
    config = OptimConfig(scheduled_sampling=0.4)
    assert [sampling_share(config, x) for x in (0.0, 0.25, 0.5, 1.0, 1.2)] == pytest.approx([0, 0.1, 0.2, 0.4, 0.4])
    assert sampling_share(OptimConfig(), 0.7) == 0


def test_a_run_asks_for_the_share_of_its_progress(tmp_path, monkeypatch):
    shares = []
    monkeypatch.setattr(
        loop, "update", lambda *args, sampling, **more: shares.append(sampling) or update(*args, **more)
    )
    optim = dataclasses.replace(RUN_OPTIM, scheduled_sampling=0.5)
    Session(tmp_path, optim=optim, trainer=dataclasses.replace(TRAINER, steps=10)).fit()
    assert shares == pytest.approx([0.05 * n for n in range(10)])


def test_without_it_an_update_is_bit_for_bit_what_it_was():
    """The update as it was before there was scheduled sampling, links or a loss of the attention."""
    model, (batch,) = tiny(0.3).train(), batches(8)
    optimizer = make_optimizer(model, OPTIM)
    torch.manual_seed(5)
    for _ in range(2):
        optimizer.zero_grad()
        mask = torch.arange(batch.target_out.size(1)) < batch.target_lengths.unsqueeze(1)
        features, weight, bias = model(batch).features[mask], model.output.weight, model.output.bias
        loss = smoothed_cross_entropy(features, weight, bias, batch.target_out[mask], smoothing=OPTIM.label_smoothing)
        (loss.loss / int(mask.sum())).backward()
        optimizer.step()
    drawn = torch.rand(3)
    other = tiny(0.3).train()
    optimizer = make_optimizer(other, OPTIM)
    torch.manual_seed(5)
    made = [update(other, [batch], optimizer, OPTIM, rate=OPTIM.lr, sampling=0.0) for _ in range(2)]
    assert torch.equal(torch.rand(3), drawn)
    assert made[1].loss == loss.loss.item() / int(mask.sum())
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))


def test_both_passes_of_rdrop_get_the_same_inputs():
    model, (batch,) = tiny().train(), batches(8)
    torch.manual_seed(0)
    plain = update(model, [batch], make_optimizer(model, OPTIM), OPTIM, rate=0.0, sampling=0.5)
    both = dataclasses.replace(OPTIM, rdrop=9.0)
    torch.manual_seed(0)
    double = update(model, [batch], make_optimizer(model, both), both, rate=0.0, sampling=0.5)
    assert double.loss == pytest.approx(plain.loss, rel=1e-6)
    torch.manual_seed(1)
    assert update(model, [batch], make_optimizer(model, OPTIM), OPTIM, rate=0.0, sampling=0.5).loss != plain.loss


def test_under_autocast_every_weight_still_gets_its_gradient(monkeypatch):
    """Autocast keeps the weights that it cast; those cast without gradients must not serve the second pass."""
    model, (batch,) = tiny().train(), batches(8)
    monkeypatch.setattr(step, "own_inputs", lambda model, batch, share: [own_inputs(model, batch, share), batch][1])
    gradients = []
    for sampling in (0.0, 1.0):
        update(model, [batch], make_optimizer(model, OPTIM), OPTIM, rate=0.0, precision="bf16", sampling=sampling)
        gradients.append([p.grad.clone() for p in model.parameters()])
    for a, b in zip(*gradients, strict=True):
        assert torch.equal(a, b)


def exposed(sampling):
    """Loss after its own predictions, of a model trained to copy for a few steps."""
    optim, model = OptimConfig(label_smoothing=0.0), tiny(input_feed=False).train()
    optimizer, (new,) = make_optimizer(model, optim), batches(30, examples=corpus(90)[60:])
    parts = batches(20, 20, 20, examples=corpus(90))
    torch.manual_seed(0)
    for number in range(60):
        update(model, [parts[number % 3]], optimizer, optim, rate=0.03, sampling=sampling * number / 60)
    model.eval()
    return float(step.batch_loss(model, own_inputs(model, new, 1.0), optim).nll) / int(new.target_lengths.sum())


def test_a_model_trained_on_its_own_predictions_bears_them_better():
    assert exposed(0.9) < 0.9 * exposed(0.0)
