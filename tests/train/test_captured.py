"""Recorded updates against the plain ones: run eagerly through a recorder that only repeats, and on a GPU for real."""

import dataclasses
import math

import pytest
import torch
from replay import ReplayingRecorder, as_on_a_gpu  # noqa: F401
from test_resume import Killed, assert_same, everything, stop_at
from torch import nn
from train_toys import OPTIM, TRAINER, VOCABULARY, Session, corpus, tiny

from s2s.errors import RunError
from s2s.model.copying import pointer
from s2s.recording import CaptureError, CudaRecorder
from s2s.text.batching import Example, collate
from s2s.train import checkpoint, graph, recorded
from s2s.train.average import MovingAverage
from s2s.train.graph import CapturedUpdates, padding_multiple
from s2s.train.step import make_optimizer, update

BUDGET = dataclasses.replace(TRAINER, batch_tokens=64)
CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")


class EagerRecorder:
    """Runs work twice, as a warm-up does, and gives it back. refuses: the numbers of works that it does not record."""

    def __init__(self, refuses=()):
        self.recorded, self.refuses = 0, refuses

    def record(self, work):
        self.recorded += 1
        work()
        work()
        if self.recorded in self.refuses:
            raise RuntimeError("operation not permitted when stream is capturing\nmore")
        return work


class Spoiler(nn.Module):
    """In the readout of a decoder: makes features infinite while it is on, where no attention sees it."""

    def __init__(self, inner):
        super().__init__()
        self.inner, self.on, self.reached = inner, False, True

    def forward(self, embedded):
        found = self.inner(embedded) if self.reached else self.inner(embedded).detach()
        return found / 0 if self.on else found


def batches(*sizes, start=0):
    made, examples = [], corpus()
    for size in sizes:
        made.append(collate(examples[start : start + size], range(start, start + size)))
        start += size
    return made


def pair(optim, *, trainer=BUDGET, recorder=None, double=True):
    """The same model twice: for plain updates and for recorded ones."""
    models = [tiny(0.0, input_feed=False).train() for _ in range(2)]
    for model in models:
        model.decoder.readout_embedding = Spoiler(model.decoder.readout_embedding)
        if double:
            model.double()
    optimizers = [make_optimizer(model, optim) for model in models]
    averages = [MovingAverage(model, optim.ema) if optim.ema else None for model in models]
    captured = CapturedUpdates(models[1], optimizers[1], averages[1], optim, trainer, recorder or EagerRecorder())
    return models, optimizers, averages, captured


def same(models, optimizers, averages, *, atol=1e-7):
    for a, b in zip(models[0].parameters(), models[1].parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=atol, rtol=1e-6)
    for a, b in zip(*(o.state_dict()["state"].values() for o in optimizers), strict=True):
        assert a.keys() == b.keys()
        for key, value in a.items():
            torch.testing.assert_close(value, b[key], atol=atol, rtol=1e-6)
    if averages[0]:
        for a, b in zip(averages[0].shadow, averages[1].shadow, strict=True):
            torch.testing.assert_close(a, b, atol=atol, rtol=1e-6)


def plain(model, parts, optimizer, average, optim, *, rate, number):
    made = update(model, parts, optimizer, optim, rate=rate)
    if made.finite and average:
        average.update(number)
    return made


@pytest.mark.parametrize(
    ("name", "clip", "sizes"),
    [("adamw", None, (1, 4, 3)), ("adamw", 0.1, (8,)), ("adam", 0.1, (1, 4, 3)), ("sgd", None, (8,))],
    ids=str,
)
def test_recorded_updates_equal_plain_ones(name, clip, sizes):
    """Weights, optimiser, averages and counts, with rates that change, and with updates that aren't finite."""
    optim = dataclasses.replace(OPTIM, name=name, clip=clip, eps=1e-4)
    models, optimizers, averages, captured = pair(optim)
    expected, skipped = [], 0
    for number in range(6):
        parts, rate, bad = batches(*sizes, start=2 * number), 0.01 / (1 + number), number in (1, 4)
        for model in models:
            model.decoder.readout_embedding.on = bad
        expected.append(plain(models[0], parts, optimizers[0], averages[0], optim, rate=rate, number=number))
        captured.update(parts, rate=rate, number=number)
        skipped += bad
        same(models, optimizers, averages)
        if number == 3:
            seen = captured.read()
            made = [one for one in expected if one.finite]
            assert seen.loss == pytest.approx(sum(one.loss * one.tokens for one in made), rel=1e-5)
            assert seen.nll == pytest.approx(sum(one.nll * one.tokens for one in made), rel=1e-5)
            assert seen.tokens == sum(one.tokens for one in made)
            assert (seen.skipped, seen.bad, seen.longest) == (1, 0, 1)
            assert seen.norm == pytest.approx(expected[-1].norm, rel=1e-5)
    seen = captured.read()
    assert (seen.skipped, seen.bad, seen.longest) == (1, 0, 1)
    assert seen.tokens == expected[-1].tokens
    assert captured.recorder.recorded >= 2


def test_what_can_be_copied_is_that_of_each_batch(as_on_a_gpu):  # noqa: F811
    models = [tiny(0.0).double().train() for _ in range(2)]
    for model in models:
        model.copy = pointer(model.decoder.output_size, model.decoder.context_size).double()
    optimizers, recorder = [make_optimizer(model, OPTIM) for model in models], ReplayingRecorder()
    captured = CapturedUpdates(models[1], optimizers[1], None, OPTIM, BUDGET, recorder)
    for number in range(6):
        (one,) = batches(4, start=2 * number)
        copies, target = one.source.clone(), one.target_out.clone()
        copies[:, 0] = target[:, 0] = VOCABULARY + number % 3  # can only be copied
        parts = [one._replace(copies=copies, target_out=target)]
        plain(models[0], parts, optimizers[0], None, OPTIM, rate=0.01, number=number)
        captured.update(parts, rate=0.01, number=number)
        same(models, optimizers, [None])
    assert recorder.replayed


def test_a_row_of_bad_updates_is_counted_over_reads():
    models, _, _, captured = pair(OPTIM)
    for number, bad in enumerate([True, True, False, True]):
        models[1].decoder.readout_embedding.on = bad
        captured.update(batches(4), rate=0.01, number=number)
    seen = captured.read()
    assert (seen.skipped, seen.bad, seen.longest) == (3, 1, 2)
    captured.update(batches(4), rate=0.01, number=4)
    seen = captured.read()
    assert (seen.skipped, seen.bad, seen.longest) == (1, 2, 2)
    models[1].decoder.readout_embedding.on = False
    captured.update(batches(4), rate=0.01, number=5)
    assert captured.read()[3:6] == (0, 0, 0)


def test_an_update_that_is_not_finite_leaves_buffers_as_they_were():
    models, _, _, captured = pair(OPTIM)
    captured.release()
    models[1].register_buffer("calls", torch.zeros(()))
    models[1].encoder.register_forward_hook(lambda *_: [models[1].calls.add_(1)].clear())
    captured = CapturedUpdates(models[1], make_optimizer(models[1], OPTIM), None, OPTIM, BUDGET, EagerRecorder())
    for number, bad in enumerate([False, True, False, True]):
        models[1].decoder.readout_embedding.on = bad
        captured.update(batches(4), rate=0.01, number=number)
    assert models[1].calls == 2


def test_trial_runs_leave_nothing_behind():
    """Not in weights, gradients, counts or random state, though dropout draws and buffers move."""
    model = tiny(0.3).train()
    model.register_buffer("calls", torch.zeros(()))
    model.encoder.register_forward_hook(lambda *_: [model.calls.add_(1)].clear())
    optimizer = make_optimizer(model, OPTIM)
    before = [p.detach().clone() for p in model.parameters()]
    captured = CapturedUpdates(model, optimizer, None, OPTIM, BUDGET, EagerRecorder())
    state = torch.get_rng_state()
    captured.reserve(batches(8)[0])
    assert torch.equal(torch.get_rng_state(), state)
    assert model.calls == 0
    for a, b in zip(before, model.parameters(), strict=True):
        assert torch.equal(a, b)
        assert b.grad is None or not b.grad.any()
    assert captured.read()[:6] == (0, 0, 0, 0, 0, 0)
    captured.update(batches(8), rate=0.01, number=0)
    assert model.calls == 1
    assert captured.read().tokens > 0


def test_shapes_are_recorded_when_they_recur_and_not_without_limit(monkeypatch):
    *_, captured = pair(OPTIM)
    captured.update(batches(8), rate=0.01, number=0)
    assert captured.recorder.recorded == 1  # what changes the weights
    captured.update(batches(4), rate=0.01, number=1)  # the same shape
    captured.update(batches(4), rate=0.01, number=2)
    assert captured.recorder.recorded == 2
    long = collate([Example([5] * 12, [5] * 12)], [0])
    monkeypatch.setattr(graph, "MAX_GRAPHS", 1)
    for number in range(3, 6):
        captured.update([long], rate=0.01, number=number)
    assert captured.recorder.recorded == 2


def test_a_gradient_that_comes_late_is_not_forgotten():
    """A parameter that no loss reaches isn't decayed, as in the plain update; once one reaches it, it moves."""
    models, optimizers, averages, captured = pair(OPTIM)
    for number in range(5):
        for model in models:
            model.decoder.readout_embedding.reached = number > 2
        parts = batches(6)
        plain(models[0], parts, optimizers[0], averages[0], OPTIM, rate=0.01, number=number)
        captured.update(parts, rate=0.01, number=number)
    same(models, optimizers, averages)
    assert captured.recorder.recorded == 3  # a shape, and twice what changes the weights


def test_what_cannot_be_recorded_raises_and_the_plain_update_goes_on():
    models, optimizers, averages, captured = pair(OPTIM, recorder=EagerRecorder(refuses=[2]))
    for number in range(4):
        parts = batches(6)
        plain(models[0], parts, optimizers[0], averages[0], OPTIM, rate=0.01, number=number)
        if number < 1:
            captured.update(parts, rate=0.01, number=number)
        elif number == 1:
            with pytest.raises(CaptureError, match=r"^operation not permitted when stream is capturing$"):
                captured.update(parts, rate=0.01, number=number)
            captured.release()
        if number >= 1:
            plain(models[1], parts, optimizers[1], averages[1], OPTIM, rate=0.01, number=number)
    same(models, optimizers, averages)
    assert not hasattr(optimizers[1], "found_inf")


def test_half_precision_stays_near():
    trainer = dataclasses.replace(BUDGET, precision="bf16")
    models, optimizers, averages, captured = pair(OPTIM, trainer=trainer, double=False)
    for number in range(3):
        plain(models[0], batches(8), optimizers[0], averages[0], OPTIM, rate=0.001, number=number)
        captured.update(batches(8), rate=0.001, number=number)
    for a, b in zip(models[0].parameters(), models[1].parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=6e-3, rtol=0)


@pytest.fixture
def eager(monkeypatch):
    """Runs on this machine record their updates, as they do on a GPU."""
    made = []

    def recorder(device):
        made.append(EagerRecorder())
        return made[-1]

    monkeypatch.setattr(recorded, "recorder", recorder)
    return made


def test_a_run_of_recorded_updates_logs_what_a_plain_one_does(tmp_path, eager):
    sessions = []
    for name in ("auto", "off"):
        (tmp_path / name).mkdir()
        trainer = dataclasses.replace(BUDGET, graphs=name, steps=12, log_every=3, accumulate=2)
        one = Session(tmp_path / name, trainer=trainer, dropout=0.0)
        one.data = dataclasses.replace(one.data, plan=dataclasses.replace(one.data.plan, pad_multiple=8))
        one.fit()
        sessions.append(one)
    found, wanted = sessions
    assert found.run.captured is not None
    assert wanted.run.captured is None
    assert len(eager) == 1
    assert eager[0].recorded >= 2
    for kind in ("train", "valid"):
        for a, b in zip(found.events(kind), wanted.events(kind), strict=True):
            for key, value in b.items():
                if "second" not in key and not isinstance(value, str):
                    assert a[key] == pytest.approx(value, rel=1e-4), key
    assert found.run.position.tokens == wanted.run.position.tokens
    for a, b in zip(found.run.model.parameters(), wanted.run.model.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=2e-5, rtol=1e-4)


def test_lengths_are_multiples_in_a_recorded_run(tmp_path, eager):
    assert padding_multiple(TRAINER) == 8
    assert padding_multiple(dataclasses.replace(TRAINER, pad_multiple=3)) == 9
    assert padding_multiple(dataclasses.replace(TRAINER, pad_multiple=16)) == 16
    one = Session(tmp_path, trainer=dataclasses.replace(BUDGET, steps=4))
    one.fit()
    shapes = {key[0] for key in one.run.captured._works}
    assert shapes == {(8, 8)}


@pytest.mark.parametrize("stopped", [4, 7])
def test_a_recorded_run_that_is_killed_goes_on_exactly(tmp_path, eager, stopped):
    trainer = dataclasses.replace(BUDGET, steps=10, validate_every=3, log_every=4)
    (tmp_path / "whole").mkdir()
    whole = Session(tmp_path / "whole", trainer=trainer)
    whole.fit()
    (tmp_path / "parts").mkdir()
    first = stop_at(Session(tmp_path / "parts", trainer=trainer), stopped)
    with pytest.raises(Killed):
        first.fit()
    second = Session(tmp_path / "parts", trainer=trainer, resume=checkpoint.latest(first.checkpoints))
    second.fit()
    assert_same(everything(whole.run), everything(second.run))
    keep = ("step", "loss", "nll", "tokens", "norm")
    logs = [[{key: e[key] for key in keep} for e in one.events("train")] for one in (whole, second)]
    assert logs[0] == logs[1]


def test_why_updates_are_not_recorded_is_shown(tmp_path, eager):
    model = tiny(extra=True)
    one = Session(tmp_path, trainer=dataclasses.replace(BUDGET, steps=2), model=model)
    one.fit()
    reason = "the loss of Extra is no plain sum over tokens"
    assert one.run.captured is None
    assert [event["off"] for event in one.events("graphs")] == [reason]
    assert one.display.notes == [f"updates run without CUDA graphs: {reason}"]


@pytest.mark.parametrize("refused", [1, 2])
def test_a_run_whose_capture_fails_goes_on_without(tmp_path, monkeypatch, refused):
    monkeypatch.setattr(recorded, "recorder", lambda device: EagerRecorder(refuses=[refused]))
    one = Session(tmp_path, trainer=dataclasses.replace(BUDGET, steps=3))
    assert one.fit().step == 3
    assert one.run.captured is None
    assert len(one.events("graphs")) == 1
    assert "not permitted when stream is capturing" in one.display.notes[0]
    assert one.run.position.tokens == sum(event["tokens"] for event in one.events("train")[-1:])


def test_bad_steps_end_a_recorded_run_at_the_next_log_line(tmp_path, eager):
    model = tiny(input_feed=False)
    model.decoder.readout_embedding = Spoiler(model.decoder.readout_embedding)
    model.decoder.readout_embedding.on = True
    trainer = dataclasses.replace(BUDGET, steps=40, validate_every=100, log_every=5, max_bad_steps=7)
    one = Session(tmp_path, trainer=trainer, model=model)
    with pytest.raises(RunError, match="10 updates in a row had a loss or gradient that is not finite"):
        one.fit()
    assert [event["updates"] for event in one.events("skip")] == [5, 5]
    assert one.run.position.skipped == 10


@pytest.mark.usefixtures("as_on_a_gpu")
@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_what_is_replayed_equals_plain_updates(name):
    """No line of Python runs anew: what an update needs of the outside reaches it through its tensors alone."""
    optim = dataclasses.replace(OPTIM, name=name, clip=0.1, eps=1e-4)
    models, optimizers, averages, captured = pair(optim, recorder=ReplayingRecorder())
    for number in range(5):
        parts, rate = batches(1, 4, 3, start=2 * number), 0.01 / (1 + number)
        plain(models[0], parts, optimizers[0], averages[0], optim, rate=rate, number=number)
        captured.update(parts, rate=rate, number=number)
        same(models, optimizers, averages)
    assert captured.recorder.replayed > captured.recorder.recorded >= 2


def test_what_is_made_of_weights_is_made_anew_after_a_replay():
    """A graph changes weights without torch's counting it."""

    class Uncounted(EagerRecorder):
        def record(self, work):
            super().record(work)

            def replay():
                counts = [one._version for one in parameters]
                work()
                torch._C._autograd._unsafe_set_version_counter(parameters, counts)

            return replay

    recorder = Uncounted()
    models, _, _, captured = pair(OPTIM, recorder=recorder, double=False)
    parameters = tuple(models[1].parameters())
    for number in range(4):
        captured.update(batches(8), rate=0.1, number=number)
        with torch.no_grad():
            fresh = tiny(0.0, input_feed=False)
            fresh.decoder.readout_embedding = Spoiler(fresh.decoder.readout_embedding)
            fresh.load_state_dict(models[1].state_dict())
            kept, made = (model.eval().decoder.layers[0].recurrence(0)[0] for model in (models[1], fresh))
        models[1].train()
        torch.testing.assert_close(kept, made)


@CUDA
@pytest.mark.parametrize("feed", [True, False])
@pytest.mark.parametrize("sizes", [(8,), (1, 4, 3)], ids=str)
def test_cuda_graphs_equal_plain_updates(feed, sizes):
    device = torch.device("cuda")
    models = [tiny(0.0, input_feed=feed).to(device).train() for _ in range(2)]
    optimizers = [make_optimizer(model, OPTIM) for model in models]
    averages = [MovingAverage(model, OPTIM.ema) for model in models]
    captured = CapturedUpdates(models[1], optimizers[1], averages[1], OPTIM, BUDGET, CudaRecorder(device))
    captured.reserve(batches(8)[0])
    for number in range(6):
        parts = batches(*sizes, start=2 * number)
        plain(models[0], parts, optimizers[0], averages[0], OPTIM, rate=0.01, number=number)
        captured.update(parts, rate=0.01, number=number)
    seen = captured.read()
    assert math.isfinite(seen.loss)
    assert seen.skipped == 0
    same(models, optimizers, averages, atol=1e-3)


@CUDA
def test_a_replay_draws_dropout_anew():
    device = torch.device("cuda")
    model = tiny(0.5).to(device).train()
    captured = CapturedUpdates(model, make_optimizer(model, OPTIM), None, OPTIM, BUDGET, CudaRecorder(device))
    captured.reserve(batches(8)[0])
    losses = set()
    for number in range(4):
        captured.update(batches(8), rate=0.0, number=number)
        losses.add(captured.read().loss)
    assert len(losses) == 4


@CUDA
def test_a_run_on_a_gpu_records_its_updates(tmp_path):
    model = tiny(0.1).to("cuda")
    one = Session(tmp_path, trainer=dataclasses.replace(BUDGET, steps=30, log_every=10, precision="auto"), model=model)
    one.fit()
    assert one.run.captured is not None, one.display.notes
    assert one.events("train")[-1]["loss"] < math.log(VOCABULARY)
