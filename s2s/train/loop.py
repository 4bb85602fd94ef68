"""The training loop: one readable `fit`.

What is decoded and scored on dev is the caller's business (`validate`), and so is what a better model is kept as
(`keep_best`): this room knows neither search nor files of models, only checkpoints of itself.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from s2s.errors import DataError, RunError
from s2s.model.seq2seq import Seq2Seq
from s2s.recording import CaptureError
from s2s.tensors import persistent_buffers
from s2s.text.plan import BatchPlan, Epoch
from s2s.train import checkpoint
from s2s.train.average import MovingAverage, mean
from s2s.train.display import Display
from s2s.train.graph import CapturedUpdates
from s2s.train.log import RunLog
from s2s.train.options import OptimConfig, TrainerConfig
from s2s.train.profile import Profiler, part
from s2s.train.recorded import go_plain, record_updates, settle
from s2s.train.schedule import rate, sampling_share
from s2s.train.signals import InterruptedRunError, StopRequest, stop_request
from s2s.train.step import make_optimizer, update
from s2s.types import Batch

LOWER_IS_BETTER = ("loss", "ter", "generic")


@dataclass
class Position:
    """Where a run stands: all of it that is neither weights, optimiser nor random state."""

    step: int = 0
    epoch: int = 0
    batch: int = 0  # batches of the epoch that are done
    tokens: int = 0  # target tokens trained on, padding never counted
    seconds: float = 0.0  # of training by `trainer.clock`, validation included, over all sessions
    training_seconds: float = 0.0  # the same without validation and saving
    loss_sum: float = 0.0  # over the target tokens since the last log line, with nll_sum
    nll_sum: float = 0.0
    loss_tokens: int = 0
    bad_steps: int = 0  # in a row
    skipped: int = 0  # in all
    validated: int = 0  # step, epoch and seconds at the last validation
    validated_epoch: int = 0
    validated_seconds: float = 0.0
    best: float | None = None
    best_step: int = 0
    worse: int = 0  # validations since the best
    finished: str = ""  # why the run ended; empty while it goes on


@dataclass(frozen=True)
class Data:
    """What is trained on. batch: (rows, epoch) to a batch, so that a segmentation can be drawn anew each epoch."""

    plan: BatchPlan
    batch: Callable[[Sequence[int], int], Batch]


class Run:
    """A model in training, with all that a checkpoint holds."""

    def __init__(
        self,
        model: Seq2Seq,
        optim: OptimConfig,
        trainer: TrainerConfig,
        *,
        seed: int,
        meta: Mapping[str, Any],
        profile: bool = False,
    ) -> None:
        """profile: look at where the time of some updates goes, see `s2s.train.profile`."""
        self.model, self.optim, self.trainer, self.meta = model, optim, trainer, dict(meta)
        self.optimizer = make_optimizer(model, optim)
        self.average = MovingAverage(model, optim.ema) if optim.ema else None
        self.position = Position()
        self.captured: CapturedUpdates | None = None  # makes the updates where they are recorded
        self.device = next(model.parameters()).device
        self.profiler = Profiler(model, optim, trainer.precision) if profile else None
        torch.manual_seed(seed)

    def averaged(self) -> AbstractContextManager[None]:
        """Inside, the model has the weights that are validated and kept: the moving average, if there is one."""
        return self.average.applied() if self.average else nullcontext()

    def save(self, folder: Path) -> None:
        """Write a checkpoint."""
        tensors, plain = checkpoint.flatten_optimizer(self.optimizer.state_dict())
        groups: dict[str, dict[str, torch.Tensor]] = {
            "model": dict(self.model.named_parameters()),
            "optimizer": tensors,
            "rng": {"cpu": torch.get_rng_state()},
        }
        if self.device.type == "cuda":
            groups["rng"]["cuda"] = torch.cuda.get_rng_state(self.device)
        if buffers := persistent_buffers(self.model):
            groups["buffers"] = buffers
        if self.average:
            groups["ema"] = self.average.state()
        meta = {**self.meta, "position": dataclasses.asdict(self.position), "optimizer": plain}
        checkpoint.save(folder, self.position.step, tensors=groups, meta=meta)
        checkpoint.prune(folder, max(self.trainer.keep, self.optim.average))

    def load(self, path: Path) -> None:
        """Go on from a checkpoint of the same configuration, exactly."""
        groups, meta = checkpoint.load(path)
        self._write(groups["model"])
        for name, buffer in persistent_buffers(self.model).items():
            buffer.copy_(groups["buffers"][name])
        self.optimizer.load_state_dict(checkpoint.unflatten_optimizer(groups["optimizer"], meta["optimizer"]))
        if self.average:
            self.average.load(groups["ema"])
        self.position = Position(**meta["position"])
        torch.set_rng_state(groups["rng"]["cpu"])
        if self.device.type == "cuda" and "cuda" in groups["rng"]:
            torch.cuda.set_rng_state(groups["rng"]["cuda"], self.device)

    @torch.no_grad()
    def _write(self, values: Mapping[str, torch.Tensor]) -> None:
        for name, parameter in self.model.named_parameters():
            parameter.copy_(values[name])

    def average_checkpoints(self, folder: Path) -> None:
        """Put the mean of the last `optim.average` checkpoints into the model."""
        paths = sorted(path for path in folder.glob("step-*"))[-self.optim.average :]
        self._write(mean([checkpoint.load(path)[0]["model"] for path in paths]))


def fit(
    run: Run,
    data: Data,
    folder: Path,
    *,
    log: RunLog,
    display: Display,
    validate: Callable[[], dict[str, float]],
    keep_best: Callable[[dict[str, float]], None],
) -> Position:
    """Train until the first limit is reached, and leave the best model with `keep_best`.

    folder: of the checkpoints. validate: scores of the model as it stands; called in eval mode with the averaged
    weights. keep_best: called at once after a validation that was better than all before. A run that is over already
    returns at once. Raises RunError after `max_bad_steps` updates in a row that weren't finite,
    InterruptedRunError (with a checkpoint written) on SIGTERM or Ctrl-C, DataError for a plan without batches. What a
    stopped run left undone at its last step, a validation or its end, is done first when it goes on.
    """
    position, trainer = run.position, run.trainer
    timed = trainer.minutes is not None and trainer.clock == "wall"  # what is left of another clock isn't foreseeable
    minutes = max(0.0, trainer.minutes - position.seconds / 60) if trainer.minutes and timed else None
    display.start("training", total=trainer.steps, minutes=minutes, done=position.step)
    clock = _Clock(position, trainer.clock)
    begun = position.step
    try:
        with stop_request() as stop:
            data = dataclasses.replace(data, plan=record_updates(run, data, log, display))
            batches = _batches(data, position)
            while True:
                position.finished = position.finished or _limit(run, len(batches))
                if _validation_due(trainer, position):
                    settle(run, log, display)
                    _validate(run, folder, validate, keep_best, log, display, clock)
                elif trainer.save_every and position.step > begun and position.step % trainer.save_every == 0:
                    settle(run, log, display)
                    run.save(folder)
                clock.stop()
                _heed(stop, run, folder, log, display)
                if position.finished:
                    break
                rows = batches[position.batch : position.batch + trainer.accumulate]
                with run.profiler.update() if run.profiler else nullcontext():
                    _train_step(run, data, rows, len(batches), log, display, clock)
                if position.batch >= len(batches):
                    position.epoch, position.batch = position.epoch + 1, 0
                    batches = _batches(data, position)
                _heed(stop, run, folder, log, display)
            if run.optim.average > 1 and position.step and not position.finished.startswith("patience"):
                run.average_checkpoints(folder)
                _validate(run, folder, validate, keep_best, log, display, clock, save=False)
                _heed(stop, run, folder, log, display, save=False)
    finally:
        display.close()
    log.write("end", step=position.step, reason=position.finished, seconds=position.seconds, skipped=position.skipped)
    return position


class _Clock:
    """Seconds of a run over all its sessions, and where its speed was last logged."""

    def __init__(self, position: Position, kind: str) -> None:
        self.read = time.process_time if kind == "cpu" else time.monotonic
        self.position, self.mark = position, self.read()
        self.logged = (position.tokens, position.training_seconds)

    def stop(self, training: bool = False) -> None:
        """Take in the time since the last call."""
        now = self.read()
        self.position.seconds += now - self.mark
        self.position.training_seconds += (now - self.mark) if training else 0.0
        self.mark = now


def _batches(data: Data, position: Position) -> Epoch:
    """The batches of the epoch."""
    batches = data.plan.epoch(position.epoch)
    if not batches:
        raise DataError("there is nothing to train on: the plan has no batches")
    return batches


def _validation_due(trainer: TrainerConfig, position: Position) -> bool:
    """At the end of the run, and by steps, by minutes or at the end of an epoch; never twice at one step."""
    if position.step == position.validated:
        return False
    if position.finished:
        return True
    if trainer.validate_every:
        return position.step % trainer.validate_every == 0
    if trainer.validate_minutes:
        return position.seconds - position.validated_seconds >= 60 * trainer.validate_minutes
    return position.epoch != position.validated_epoch


def _heed(stop: StopRequest, run: Run, folder: Path, log: RunLog, display: Display, *, save: bool = True) -> None:
    """Save and raise InterruptedRunError if a signal asked for it."""
    if stop.number:
        if save:
            settle(run, log, display)
            run.save(folder)
        log.write("stop", step=run.position.step, signal=stop.number)
        raise InterruptedRunError(
            f"stopped at step {run.position.step}, checkpoint written",
            stop.number,
            f"Go on with: s2s train --resume {folder.parent}",
        )


def _progress(run: Run, batches: int) -> float:
    """Share of the run that is over, by the limit that is nearest."""
    position, trainer = run.position, run.trainer
    shares = [0.0]
    if trainer.steps:
        shares.append(position.step / trainer.steps)
    if trainer.epochs:
        shares.append((position.epoch + position.batch / max(1, batches)) / trainer.epochs)
    if trainer.minutes:
        shares.append(position.seconds / (60 * trainer.minutes))
    return max(shares)


def _limit(run: Run, batches: int) -> str:
    """Which limit the run has reached, or nothing."""
    position, trainer = run.position, run.trainer
    if trainer.steps and position.step >= trainer.steps:
        return f"{trainer.steps} steps"
    if trainer.epochs and position.epoch + position.batch / max(1, batches) >= trainer.epochs:
        return f"{trainer.epochs:g} epochs"
    if trainer.minutes and position.seconds >= 60 * trainer.minutes:
        return f"{trainer.minutes:g} minutes"
    return ""


def _train_step(
    run: Run,
    data: Data,
    rows: Sequence[tuple[int, ...]],
    batches: int,
    log: RunLog,
    display: Display,
    clock: _Clock,
) -> None:
    position, trainer = run.position, run.trainer
    run.model.train()
    with part("data"):
        examples = [data.batch(one, position.epoch) for one in rows]
    progress = _progress(run, batches)
    learning_rate = rate(run.optim, position.step, progress)
    added = progress >= run.optim.attention_loss_from
    made = None
    if run.captured is not None:
        try:
            run.captured.update(examples, rate=learning_rate, number=position.step, added=added)
        except CaptureError as error:
            go_plain(run, str(error), log, display)
    if run.captured is None:
        made = update(
            run.model,
            examples,
            run.optimizer,
            run.optim,
            rate=learning_rate,
            precision=trainer.precision,
            sampling=sampling_share(run.optim, progress),
            added=added,
        )
    position.batch += len(rows)
    position.step += 1
    norm = made.norm if made else settle(run, log, display) if position.step % trainer.log_every == 0 else None
    if made and made.finite:
        position.bad_steps = 0
        position.tokens += made.tokens
        if run.profiler:
            run.profiler.saw(made.tokens)
        if run.average:
            with part("optimizer"):
                run.average.update(position.step - 1)
        position.loss_sum += made.loss * made.tokens
        position.nll_sum += made.nll * made.tokens
        position.loss_tokens += made.tokens
    elif made:
        _skip(run, [row for one in examples for row in one.rows], made.loss, made.norm, log, display)
    clock.stop(training=True)
    if position.step % trainer.log_every == 0 and position.loss_tokens:
        tokens, seconds = clock.logged
        speed = (position.tokens - tokens) / max(1e-9, position.training_seconds - seconds)
        loss, nll = position.loss_sum / position.loss_tokens, position.nll_sum / position.loss_tokens
        log.write(
            "train",
            step=position.step,
            epoch=position.epoch,
            loss=loss,
            nll=nll,
            lr=learning_rate,
            norm=norm,
            tokens=position.tokens,
            tokens_per_second=speed,
            seconds=position.seconds,
        )
        display.step(position.step, loss=loss, tokens_per_second=speed, lr=learning_rate)
        position.loss_sum, position.nll_sum, position.loss_tokens = 0.0, 0.0, 0
        clock.logged = (position.tokens, position.training_seconds)


def _skip(run: Run, rows: list[int], loss: float, norm: float, log: RunLog, display: Display) -> None:
    position = run.position
    position.bad_steps += 1
    position.skipped += 1
    what = "loss" if not math.isfinite(loss) else "gradient"
    log.write("skip", step=position.step, reason=f"{what} is not finite", loss=loss, norm=norm, rows=rows)
    display.note(f"step {position.step} skipped: its {what} is not finite (examples {rows[:5]}...)")
    if position.bad_steps >= run.trainer.max_bad_steps:
        raise RunError(
            f"{position.bad_steps} updates in a row had a {what} that is not finite",
            where=f"step {position.step}, epoch {position.epoch}",
            found=f"the last batch holds the training examples {rows[:20]}",
            hint="The best model so far is kept. Try a smaller optim.lr or optim.clip, or look at these examples",
        )


def _validate(
    run: Run,
    folder: Path,
    validate: Callable[[], dict[str, float]],
    keep_best: Callable[[dict[str, float]], None],
    log: RunLog,
    display: Display,
    clock: _Clock,
    *,
    save: bool = True,
) -> None:
    position = run.position
    run.model.eval()
    with run.averaged(), torch.no_grad():
        scores = validate()
        # the first that isn't the loss
        metric: str = run.trainer.metric or next((name for name in scores if name not in ("loss", "ppl")), "loss")
        value = scores.get(metric)
        if value is None:
            raise RunError(f"validation gave no `{metric}`", found=", ".join(scores), hint="Set trainer.metric")
        better = math.isfinite(value) and (
            position.best is None or (value < position.best if metric in LOWER_IS_BETTER else value > position.best)
        )
        if better:
            position.best, position.best_step, position.worse = value, position.step, 0
            keep_best(scores)
        else:
            position.worse += 1
    if run.trainer.patience and position.worse >= run.trainer.patience and not position.finished:
        position.finished = f"patience: {position.worse} validations without a better {metric}"
    clock.stop()
    position.validated, position.validated_epoch = position.step, position.epoch
    position.validated_seconds = position.seconds
    log.write("valid", step=position.step, epoch=position.epoch, seconds=position.seconds, best=better, **scores)
    display.valid(position.step, scores, best=better)
    if save:
        run.save(folder)
