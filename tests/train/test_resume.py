"""Runs that are killed or stopped go on as if nothing had happened."""

import dataclasses
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from train_toys import OPTIM, TRAINER, Session, corpus, fingerprint, timeless, tiny

import s2s
from s2s.text.batching import Example, collate
from s2s.train import checkpoint
from s2s.train.loop import Data
from s2s.train.signals import InterruptedRunError

ROOT = Path(s2s.__file__).resolve().parent.parent


class Killed(BaseException):
    """In place of kill -9: nothing of the process gets to run after it."""


def stop_at(session, step, how=None):
    """Let the session's process be killed, or be sent SIGTERM, while it makes the batch of update `step`."""
    batch, done = session.data.batch, []

    def failing(rows, epoch):
        if session.run.position.step == step - 1 and not done:
            done.append(True)
            if how is None:
                raise Killed
            signal.raise_signal(how)
        return batch(rows, epoch)

    session.data = Data(session.data.plan, failing)
    return session


def everything(run):
    """All that a run is, but for its clock."""
    state = {f"model {name}": value for name, value in run.model.named_parameters()}
    tensors, plain = checkpoint.flatten_optimizer(run.optimizer.state_dict())
    state |= {f"optimizer {name}": value for name, value in tensors.items()}
    state |= {f"buffer {name}": value for name, value in run.model.named_buffers() if "scratch" not in name}
    if run.average:
        state |= {f"ema {name}": value for name, value in run.average.state().items()}
    position = dataclasses.asdict(run.position)
    clock = {name: position.pop(name) for name in list(position) if name.endswith("seconds")}
    assert all(value >= 0 for value in clock.values())
    return state | {"rng": torch.get_rng_state()}, plain, position


def assert_same(one, other):
    assert one[1:] == other[1:]
    assert set(one[0]) == set(other[0])
    for name, value in one[0].items():
        assert torch.equal(value, other[0][name]), name


def resampled(session):
    """Examples that are segmented anew in each epoch, as subword sampling does."""

    def batch(rows, epoch):
        draw = [random.Random(f"{row} {epoch}") for row in rows]
        cut = [
            [word for word in session.examples[r].source if d.random() < 0.8] for r, d in zip(rows, draw, strict=True)
        ]
        return collate([Example(ids, session.examples[row].target) for ids, row in zip(cut, rows, strict=True)], rows)

    session.data = Data(session.data.plan, batch)
    return session


SHORT = dataclasses.replace(TRAINER, steps=8, validate_every=3)
VARIANTS = {
    "adamw and a moving average": {},
    "adam, no average": {"optim": dataclasses.replace(OPTIM, name="adam", ema=0.0)},
    "sgd": {"optim": dataclasses.replace(OPTIM, name="sgd", ema=0.0, schedule="inverse_sqrt")},
    "R-Drop": {"optim": dataclasses.replace(OPTIM, rdrop=1.0)},
    "scheduled sampling": {"optim": dataclasses.replace(OPTIM, scheduled_sampling=0.9)},
    "an attention with a baseline": {"extra": True, "optim": dataclasses.replace(OPTIM, scheduled_sampling=0.9)},
    "two batches an update": {"trainer": dataclasses.replace(SHORT, accumulate=2)},
    "validated at each epoch, logged every fourth step": {
        "trainer": dataclasses.replace(SHORT, validate_every=None, log_every=4, save_every=3)
    },
    "segmented anew in each epoch": {"resampled": True},
}


def session(folder, variant, **more):
    options = {"trainer": SHORT, "examples": corpus(14), **VARIANTS[variant]}
    again = options.pop("resampled", False)
    if options.pop("extra", False):
        options["model"] = tiny(0.3, extra=True)
    made = Session(folder, **options, **more)
    return resampled(made) if again else made


@pytest.mark.parametrize(
    "variant, how",
    [*((variant, None) for variant in VARIANTS), *((variant, signal.SIGTERM) for variant in list(VARIANTS)[::5])],
    ids=lambda value: value if isinstance(value, str) else "stopped" if value else "killed",
)
def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(tmp_path, variant, how):
    whole = session(tmp_path / "whole", variant)
    whole.folder.mkdir()
    whole.fit()
    expected = everything(whole.run)
    assert whole.run.position.step == 8
    assert whole.run.position.epoch >= 1, "the run must cross the end of an epoch"

    folder = tmp_path / "parts"
    folder.mkdir()
    kept = []
    resume = None
    for last in (2, 5, 8, None):  # the first is killed before it saved anything, and so begins again
        one = session(folder, variant, resume=resume)
        if resume is None:
            one.log.path.unlink(missing_ok=True)
        began = one.run.position.step
        assert last is None or began < last
        if last is None:
            one.fit()
            found = everything(one.run)
        else:
            with pytest.raises(Killed if how is None else InterruptedRunError):
                stop_at(one, last, how).fit()
            if how is not None:
                assert checkpoint.latest(one.checkpoints).name == f"step-{last:08d}"
            elif one.log.path.exists():  # the killed process was in the middle of a line
                with open(one.log.path, "ab") as file:
                    file.write('{"event": "train", "step": 9, "note": "ä'.encode()[:-1])
        kept = [entry for entry in kept if entry[0] <= began] + one.kept
        resume = checkpoint.latest(one.checkpoints)
        torch.manual_seed(99)  # another process has another random state
    assert began > 0

    assert_same(found, expected)
    assert timeless(e for e in one.events() if e["event"] != "stop") == timeless(whole.events())
    assert kept == whole.kept
    assert len(one.events("stop")) == (0 if how is None else 3)


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_the_random_state_is_resumed(tmp_path, ema):
    one = Session(tmp_path, optim=dataclasses.replace(OPTIM, ema=ema), trainer=dataclasses.replace(TRAINER, steps=5))
    one.fit()
    expected = torch.rand(3)
    other = Session(tmp_path, optim=dataclasses.replace(OPTIM, ema=ema))
    assert not torch.equal(torch.rand(3), expected)
    other.run.load(checkpoint.latest(one.checkpoints))
    assert torch.equal(torch.rand(3), expected)


def test_sigterm_at_the_last_step_leaves_the_last_validation_to_the_resumed_run(tmp_path):
    trainer = dataclasses.replace(TRAINER, steps=4, validate_every=100)
    with pytest.raises(InterruptedRunError):
        stop_at(one := Session(tmp_path, trainer=trainer), 4, signal.SIGTERM).fit()
    assert not one.kept
    other = Session(tmp_path, trainer=trainer, resume=checkpoint.latest(one.checkpoints))
    position = other.fit()
    assert (position.step, position.finished) == (4, "4 steps")
    assert [step for step, *_ in other.kept] == [4]
    assert [event["step"] for event in other.events("train")] == [1, 2, 3, 4]


@pytest.mark.parametrize("number, code", [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_during_validation_is_heeded(tmp_path, number, code):
    one = Session(tmp_path)
    one.scores = lambda _: signal.raise_signal(number) or {"loss": 1.0}
    with pytest.raises(InterruptedRunError, match=r"stopped at step 5.*s2s train --resume") as raised:
        one.fit()
    assert raised.value.exit_code == code
    assert checkpoint.latest(one.checkpoints).name == "step-00000005"
    assert one.display.closed == 1
    assert signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler)
    other = Session(tmp_path, resume=checkpoint.latest(one.checkpoints))
    other.fit()
    assert [event["step"] for event in other.events("valid")] == [5, 10, 12]  # the one at 5 was done once


def test_a_signal_in_the_last_validation_is_not_forgotten(tmp_path):
    one = Session(tmp_path, trainer=dataclasses.replace(TRAINER, steps=5))
    one.scores = lambda _: signal.raise_signal(signal.SIGTERM) or {"loss": 1.0}
    with pytest.raises(InterruptedRunError):
        one.fit()
    assert not one.events("end")
    other = Session(tmp_path, trainer=dataclasses.replace(TRAINER, steps=5), resume=checkpoint.latest(one.checkpoints))
    assert other.fit().finished == "5 steps"
    assert (other.validations, len(other.events("train"))) == (0, 5)


def test_a_second_signal_ends_the_process_at_once():
    code = """
import signal, sys
from s2s.train.signals import stop_request
with stop_request() as stop:
    signal.raise_signal(signal.SIGTERM)
    print(stop.number, flush=True)
    signal.raise_signal(signal.SIGINT)
    print("still here", flush=True)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (130, "15\n", "")


def test_a_finished_run_is_not_trained_or_saved_again(tmp_path):
    Session(tmp_path).fit()
    path = checkpoint.latest(tmp_path / "checkpoints")
    stamp = (path / "manifest.json").stat().st_mtime_ns
    again = Session(tmp_path, resume=path)
    before = fingerprint(again.run.model)
    position = again.fit()
    assert (position.step, position.finished, again.validations) == (12, "12 steps", 0)
    assert fingerprint(again.run.model) == before
    assert (path / "manifest.json").stat().st_mtime_ns == stamp
    assert checkpoint.latest(tmp_path / "checkpoints") == path
