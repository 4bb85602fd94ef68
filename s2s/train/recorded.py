"""What a run does with recorded updates: begin to, take in what they saw, and go on without them."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from s2s.errors import RunError
from s2s.recording import CaptureError, recorder
from s2s.text.plan import BatchPlan
from s2s.train.display import Display
from s2s.train.graph import CapturedUpdates, obstacle
from s2s.train.log import RunLog

if TYPE_CHECKING:
    from s2s.train.loop import Data, Run


def record_updates(run: Run, data: Data, log: RunLog, display: Display) -> BatchPlan:
    """Let updates be recorded where that is possible; the plan of few shapes then. What prevents it is shown."""
    made = recorder(run.device) if run.trainer.graphs == "auto" else None
    if made is None:
        return data.plan
    if reason := "profile=true looks into each of them" if run.profiler else obstacle(run.model, run.optim):
        go_plain(run, reason, log, display)
        return data.plan
    run.captured = CapturedUpdates(
        run.model, run.optimizer, run.average, run.optim, run.trainer, made, bad=run.position.bad_steps
    )
    plan = dataclasses.replace(data.plan, pad_multiple=run.captured.multiple)
    if len(plan.lengths) and not run.position.finished:
        try:
            run.captured.reserve(data.batch(plan.largest(), run.position.epoch))
        except CaptureError as error:
            go_plain(run, str(error), log, display)
    return plan


def go_plain(run: Run, reason: str, log: RunLog, display: Display) -> None:
    """Make updates operation by operation from here on, and say why."""
    if run.captured is not None:
        settle(run, log, display)
        run.captured.release()
        run.captured = None
    log.write("graphs", step=run.position.step, off=reason)
    display.note(f"updates run without CUDA graphs: {reason}")


def settle(run: Run, log: RunLog, display: Display) -> float | None:
    """Take in what recorded updates saw since the last time; the norm of the last gradient."""
    if run.captured is None:
        return None
    position, seen = run.position, run.captured.read()
    position.tokens += seen.tokens
    position.loss_sum += seen.loss
    position.nll_sum += seen.nll
    position.loss_tokens += seen.tokens
    position.skipped += seen.skipped
    position.bad_steps = seen.bad
    if seen.skipped:
        log.write("skip", step=position.step, reason="loss or gradient is not finite", updates=seen.skipped)
        display.note(f"{seen.skipped} updates until step {position.step} skipped: their loss or gradient is not finite")
    if seen.longest >= run.trainer.max_bad_steps:
        raise RunError(
            f"{seen.longest} updates in a row had a loss or gradient that is not finite",
            where=f"step {position.step}, epoch {position.epoch}",
            hint="The best model so far is kept. Try a smaller optim.lr or optim.clip, or trainer.graphs=off, which "
            "tells the examples",
        )
    return seen.norm
