"""`fit`: limits, what is kept as best, and runs that go wrong."""

import dataclasses
import math
from typing import get_args

import pytest
import torch
from train_toys import OPTIM, TRAINER, Session, corpus, fingerprint, tiny

from s2s.errors import DataError, RunError
from s2s.score.metrics import compute
from s2s.text.batching import Example
from s2s.text.plan import BatchPlan, Lengths
from s2s.train import checkpoint, loop
from s2s.train.loop import LOWER_IS_BETTER, Data, Position
from s2s.train.options import Metric


def limits(tmp_path, **changes):
    one = Session(tmp_path, trainer=dataclasses.replace(TRAINER, **{"steps": None, **changes}))
    return one, one.fit()


def test_a_limit_in_epochs(tmp_path):
    one, position = limits(tmp_path, epochs=2.0)
    count = len(one.data.plan.epoch(0))
    assert (position.step, position.epoch, position.batch) == (2 * count, 2, 0)
    assert position.finished == "2 epochs"
    assert position.tokens == 2 * sum(len(e.target) + 1 for e in one.examples)  # each target token once an epoch
    (tmp_path / "half").mkdir()
    one, position = limits(tmp_path / "half", epochs=0.5)
    assert position.step == math.ceil(count / 2)


@pytest.mark.parametrize(("clock", "function"), [("wall", "monotonic"), ("cpu", "process_time")])
def test_a_limit_in_minutes(tmp_path, monkeypatch, clock, function):
    now = [0.0]
    monkeypatch.setattr(loop.time, function, lambda: now[0])
    limit = {"minutes": 1.0, "clock": clock, "validate_every": None, "validate_minutes": 0.4}
    trainer = dataclasses.replace(TRAINER, steps=None, **limit)
    one = Session(tmp_path, trainer=trainer)
    batch = one.data.batch

    def slow(rows, epoch):
        now[0] += 10.0  # seconds
        return batch(rows, epoch)

    one.data = Data(one.data.plan, slow)
    one.scores = lambda _: now.__setitem__(0, now[0] + 5.0) or {"loss": 1.0}
    position = one.fit()
    # validated after 30 s, by then 35; next due at 59 (65), where the run is over
    assert [event["step"] for event in one.events("valid")] == [3, 6]
    assert (position.step, position.finished) == (6, "1 minutes")
    assert position.seconds == 70.0
    assert position.training_seconds == 60.0
    logged = one.events("train")
    assert logged[0]["tokens_per_second"] == pytest.approx(logged[0]["tokens"] / 10.0)  # validation is not counted
    # what is left of processor time can't be foreseen, so no end is shown
    assert one.display.started == (None, 1.0 if clock == "wall" else None, 0)


def test_the_first_limit_ends_it(tmp_path):
    _, position = limits(tmp_path, epochs=50.0, steps=3)
    assert position.finished == "3 steps"


def test_patience(tmp_path):
    one = Session(tmp_path, trainer=dataclasses.replace(TRAINER, steps=100, validate_every=1, patience=2))
    one.scores = lambda number: {"loss": [9, 5, 6, 4, 4, 7, 1][number - 1]}
    position = one.fit()
    assert position.finished.startswith("patience: 2 validations")
    assert (position.step, position.best, position.best_step) == (6, 4, 4)
    assert [step for step, *_ in one.kept] == [1, 2, 4]
    assert [event["best"] for event in one.events("valid")] == [True, True, False, True, False, False]
    again = Session(tmp_path, resume=checkpoint.latest(one.checkpoints))
    assert again.fit().step == 6


@pytest.mark.parametrize("metric", ["loss", "bleu", "chrf", "ter", "generic"])
def test_which_way_is_better(tmp_path, metric):
    lower = metric in ("loss", "ter", "generic")
    assert (metric in LOWER_IS_BETTER) == lower
    one = Session(tmp_path, trainer=dataclasses.replace(TRAINER, steps=6, validate_every=1, metric=metric))
    values = [5.0, math.nan, 3.0, math.inf if not lower else -math.inf, 7.0, 7.0]
    one.scores = lambda number: {"other": 1.0, metric: values[number - 1]}
    position = one.fit()
    # values that are not numbers are never best; equal ones aren't better
    assert [step for step, *_ in one.kept] == ([1, 3] if lower else [1, 5])
    assert position.best == (3.0 if lower else 7.0)
    assert one.events("valid")[1][metric] is None  # JSON has no NaN


@pytest.mark.parametrize("metric", get_args(Metric))
def test_the_best_model_is_chosen_as_the_score_says(metric):
    [score] = compute([metric], ["a b", "a c"], [["a b", "a d"]])
    assert (metric in LOWER_IS_BETTER) != score.higher_is_better


def test_a_first_value_that_is_no_number_is_not_best(tmp_path):
    one = Session(tmp_path, trainer=dataclasses.replace(TRAINER, steps=2, validate_every=1))
    one.scores = lambda number: {"loss": math.nan}
    assert one.fit().best is None
    assert one.kept == []


def test_without_a_metric_the_first_score_counts_and_without_scores_the_loss(tmp_path):
    (tmp_path / "scored").mkdir()
    one = Session(tmp_path / "scored", trainer=dataclasses.replace(TRAINER, steps=2, validate_every=1, metric=None))
    one.scores = lambda number: {"loss": 5.0, "ppl": 9.0, "rouge1": 10.0 + number, "rouge2": 3.0 - number}
    assert one.fit().best == 10.0 + len(one.events("valid"))
    (tmp_path / "not").mkdir()
    one = Session(tmp_path / "not", trainer=dataclasses.replace(TRAINER, steps=2, validate_every=1, metric=None))
    one.scores = lambda number: {"loss": 5.0 - number, "ppl": 9.0}
    assert one.fit().best == 5.0 - len(one.events("valid"))


def test_a_missing_metric_is_named(tmp_path):
    one = Session(tmp_path, trainer=dataclasses.replace(TRAINER, metric="chrf"))
    one.scores = lambda _: {"loss": 1.0, "bleu": 2.0}
    with pytest.raises(RunError, match=r"validation gave no `chrf`; found loss, bleu\. Set trainer\.metric"):
        one.fit()
    assert one.display.closed == 1


def poisoned(*rows):
    """A corpus whose examples `rows` hold word 11, and a model that cannot read it."""
    examples = [Example([min(10, word) for word in e.source], e.target) for e in corpus()]
    for row in rows:
        examples[row] = Example([11, *examples[row].source[1:]], examples[row].target)
    model = tiny()
    with torch.no_grad():
        model.source_embedding.weight[11] = math.inf
    return {"examples": examples, "model": model}


def test_steps_that_are_not_finite_are_skipped_and_counted(tmp_path):
    one = Session(tmp_path, trainer=dataclasses.replace(TRAINER, steps=None, epochs=2.0), **poisoned(4, 17))
    position = one.fit()
    skips = one.events("skip")
    assert 2 <= len(skips) == position.skipped <= 4
    assert all({4, 17} & set(event["rows"]) for event in skips)
    assert {row for event in skips for row in event["rows"]} >= {4, 17}
    assert all(event["loss"] is None and event["reason"] == "loss is not finite" for event in skips)
    assert position.bad_steps == 0 or skips[-1]["step"] == position.step
    assert len(one.events("train")) + len(skips) == position.step  # a line for each step, as log_every=1 wants
    for name, parameter in one.run.model.named_parameters():
        assert torch.isfinite(parameter[:11]).all(), name
    for shadow in one.run.average.shadow:
        assert torch.isfinite(shadow[:11]).all()
    assert one.events("end")[0]["skipped"] == position.skipped
    trained = position.tokens + sum(sum(len(one.examples[row].target) + 1 for row in event["rows"]) for event in skips)
    assert trained == 2 * sum(len(e.target) + 1 for e in one.examples)  # what was skipped isn't counted


def test_bad_steps_in_a_row_stop_the_run_and_the_best_stays(tmp_path):
    trainer = dataclasses.replace(TRAINER, steps=100, validate_every=2, max_bad_steps=3)
    one = Session(tmp_path, trainer=trainer)
    batch, bad = one.data.batch, []

    def breaking(rows, epoch):
        if one.run.position.step >= 4:
            bad.append(rows)
        return batch(rows, epoch)

    one.data = Data(one.data.plan, breaking)
    one.run.model.decoder.bridge.weight.register_hook(lambda gradient: gradient * (math.inf if bad else 1))
    with pytest.raises(RunError, match=r"step 7, epoch \d: 3 updates in a row had a gradient that is not") as raised:
        one.fit()
    assert str(list(bad[-1][:20])) in str(raised.value)
    assert "best model so far is kept" in str(raised.value)
    assert raised.value.exit_code == 1
    assert [event["rows"] for event in one.events("skip")] == [list(rows) for rows in bad]
    assert len(bad) == 3
    assert checkpoint.latest(one.checkpoints).name == "step-00000006"
    assert all(
        torch.isfinite(value).all() for value in checkpoint.load(checkpoint.latest(one.checkpoints))[0]["ema"].values()
    )
    assert one.display.closed == 1
    assert len(one.display.notes) == 3


def test_one_good_step_between_starts_the_count_anew(tmp_path):
    trainer = dataclasses.replace(TRAINER, steps=8, max_bad_steps=2)
    one = Session(tmp_path, trainer=trainer)
    hook = {"on": False}
    one.run.model.decoder.bridge.weight.register_hook(lambda gradient: gradient * (math.nan if hook["on"] else 1))
    batch = one.data.batch

    def every_second(rows, epoch):
        hook["on"] = one.run.position.step % 2 == 1
        return batch(rows, epoch)

    one.data = Data(one.data.plan, every_second)
    position = one.fit()
    assert (position.step, position.skipped) == (8, 4)
    assert {event["reason"] for event in one.events("skip")} == {"gradient is not finite"}


def test_what_is_validated_and_kept_is_the_moving_average(tmp_path):
    one = Session(tmp_path)
    one.fit()
    own = fingerprint(one.run.model)
    with one.run.averaged():
        averaged = fingerprint(one.run.model)
    assert averaged != own
    assert one.events("valid")[-1]["loss"] == averaged
    assert all(scores["loss"] == seen for _, scores, seen in one.kept)


def test_the_last_checkpoints_are_averaged_at_the_end(tmp_path):
    optim = dataclasses.replace(OPTIM, ema=0.0, average=3)
    one = Session(tmp_path, optim=optim, trainer=dataclasses.replace(TRAINER, validate_every=3, keep=1))
    position = one.fit()
    paths = [one.checkpoints / f"step-{step:08d}" for step in (6, 9, 12)]
    states = [checkpoint.load(path)[0]["model"] for path in paths]  # they were kept, though keep=1
    for name, parameter in one.run.model.named_parameters():
        expected = torch.stack([state[name] for state in states]).mean(0)
        torch.testing.assert_close(parameter, expected, atol=1e-6, rtol=1e-6)
        assert torch.equal(states[-1][name], checkpoint.load(paths[-1])[0]["model"][name])
    assert [event["step"] for event in one.events("valid")] == [3, 6, 9, 12, 12]  # the mean is validated too
    assert position.step == 12


def test_checkpoints_beside_the_newest_are_removed(tmp_path):
    one = Session(tmp_path, trainer=dataclasses.replace(TRAINER, save_every=1, keep=2))
    one.fit()
    assert sorted(path.name for path in one.checkpoints.iterdir()) == ["step-00000011", "step-00000012"]


def test_a_checkpoint_goes_on_from_the_middle_of_an_epoch(tmp_path):
    one = Session(tmp_path, trainer=dataclasses.replace(TRAINER, steps=5))
    seen = []
    one.data = Data(one.data.plan, lambda rows, epoch: seen.append((epoch, rows)) or one.batch(rows, epoch))
    one.fit()
    assert 0 < one.run.position.batch < len(one.data.plan.epoch(0))
    other = Session(tmp_path, resume=checkpoint.latest(one.checkpoints))
    other.run.position.finished = ""  # its limit was raised
    other.data = Data(other.data.plan, lambda rows, epoch: seen.append((epoch, rows)) or other.batch(rows, epoch))
    other.fit()
    expected = [(epoch, rows) for epoch in range(3) for rows in one.data.plan.epoch(epoch)]
    assert seen == expected[:12]


def test_log_lines_are_means_over_the_tokens_since_the_last(tmp_path):
    sessions = []
    for log_every in (1, 5):
        folder = tmp_path / str(log_every)
        folder.mkdir()
        sessions.append(Session(folder, trainer=dataclasses.replace(TRAINER, log_every=log_every)))
        sessions[-1].fit()
    fine, coarse = sessions
    lines = fine.events("train")
    counts = [line["tokens"] - before["tokens"] for before, line in zip([{"tokens": 0}, *lines], lines, strict=False)]
    assert [event["step"] for event in coarse.events("train")] == [5, 10]
    for number, event in enumerate(coarse.events("train")):
        part = slice(5 * number, 5 * number + 5)
        for key in ("loss", "nll"):
            total = sum(line[key] * count for line, count in zip(lines[part], counts[part], strict=True))
            assert event[key] == pytest.approx(total / sum(counts[part]))
    assert fine.display.steps == list(range(1, 13))
    assert lines[0].keys() == {
        "event", "step", "epoch", "loss", "nll", "lr", "norm", "tokens", "tokens_per_second", "seconds",
    }  # fmt: skip


def test_the_learning_rate_follows_the_schedule(tmp_path):
    one = Session(tmp_path)
    one.fit()
    expected = [min((step + 1) / 3, 0.5 * (1 + math.cos(math.pi * step / 12))) * 0.01 for step in range(12)]
    assert [event["lr"] for event in one.events("train")] == pytest.approx(expected)


def test_training_lowers_the_loss(tmp_path):
    trainer = dataclasses.replace(TRAINER, steps=40, batch_tokens=64, validate_every=100)
    one = Session(tmp_path, dropout=0.0, trainer=trainer)
    one.fit()
    losses = [event["nll"] for event in one.events("train")]
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5])


def test_a_plan_without_batches_is_refused(tmp_path):
    one = Session(tmp_path, examples=corpus(1))
    one.data = Data(BatchPlan(Lengths.of([]), 16), one.batch)
    with pytest.raises(DataError, match="nothing to train on"):
        one.fit()
    assert one.display.closed == 1


def test_a_position_is_plain_data():
    position = Position(step=3, best=0.1 + 0.2, finished="3 steps")
    assert Position(**dataclasses.asdict(position)) == position
