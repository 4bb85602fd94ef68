"""Updates at the speed of a GPU: recorded once for each shape of a batch and replayed, without waiting for the device.

What is recorded runs on the same memory each time (`s2s.recording`). So batches are filled up to few shapes, what
differs between updates stands in tensors on the device, and what an update saw stays there until `read` asks for it.
`s2s.train.step.update` is the plain twin: the same weights, up to rounding.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor

from s2s.attention.base import Attention
from s2s.attention.reweight import Reweighted
from s2s.model.seq2seq import Seq2Seq, at_positions
from s2s.recording import MULTIPLE, Recorder, Work, recorded
from s2s.tensors import persistent_buffers
from s2s.text.batching import fill_to_shape
from s2s.train.average import MovingAverage
from s2s.train.loss import smoothed_cross_entropy
from s2s.train.options import OptimConfig, TrainerConfig
from s2s.train.precision import autocast
from s2s.train.step import clip_gradients, copied_targets
from s2s.types import Batch

MAX_GRAPHS = 64  # shapes that are recorded; batches of all others run operation by operation


def obstacle(model: Seq2Seq, config: OptimConfig) -> str:
    """Why updates of this model can't be recorded; empty if they can, as far as is known before one is tried."""
    for name in ("rdrop", "guided_alignment", "scheduled_sampling"):
        if getattr(config, name):
            return f"optim.{name} takes what stands at real target positions alone"
    if model.sentences is not None:
        return "model.hierarchical counts sentences before it goes on"
    for part in model.modules():
        if isinstance(part, Attention) and type(part).loss not in (Attention.loss, Reweighted.loss):
            return f"the loss of {type(part).__name__} is no plain sum over tokens"
    return ""


def padding_multiple(trainer: TrainerConfig) -> int:
    """What lengths are rounded up to a multiple of where updates are recorded."""
    return -(-MULTIPLE // trainer.pad_multiple) * trainer.pad_multiple


def fixed_shape(batch: Batch, budget: int, multiple: int) -> Batch:
    """The batch filled up to one of few shapes: lengths are multiples, rows as many as the budget allows for them.

    budget: target tokens of a batch, padding counted, as in `BatchPlan`.
    """
    source, target = (-(-ids.size(1) // multiple) * multiple for ids in (batch.source, batch.target_in))
    return fill_to_shape(batch, max(batch.source.size(0), budget // max(source, target)), source, target)


def fixed_loss(model: Seq2Seq, batch: Batch, smoothing: float, *, added: bool = True) -> tuple[Tensor, Tensor]:
    """Loss and negative log-likelihood, each (), summed over the target tokens of a batch: as `step.batch_loss`.

    It goes over all B T positions, and padding counts 0, so that no shape depends on the lengths.
    added: whether with what attention adds.
    """
    output = model(batch)
    (rows, length), targets = batch.target_out.shape, batch.target_out.flatten()
    places = torch.arange(length, device=targets.device)
    real = places < batch.target_lengths.unsqueeze(1)
    each = at_positions(output, lambda value: value.flatten(0, 1))
    copied = None
    if model.copy is not None:
        row_of = torch.arange(rows, device=targets.device).unsqueeze(1).expand(-1, length).flatten()
        copied = copied_targets(model.copy, batch, each, row_of, targets)
    found = smoothed_cross_entropy(
        each.features,
        model.output.weight,
        model.output.bias,
        targets,
        smoothing=smoothing,
        copied=copied,
        counts=real.flatten().to(torch.promote_types(each.features.dtype, torch.float32)),
    )
    if not added:
        return found.loss, found.nll
    aux = {
        name: value.masked_fill(~real.view(*real.shape, *[1] * (value.dim() - 2)), 0).flatten(0, 1)
        for name, value in output.aux.items()
    }
    own = model.decoder.loss(aux, found.log_prob.masked_fill(~real.flatten(), 0.0))
    return found.loss if own is None else found.loss + own, found.nll


def _tensors(batch: Batch) -> list[Tensor]:
    """What an update reads of a batch."""
    return [*batch[:5]] if batch.copies is None else [*batch[:5], batch.copies]


class Seen(NamedTuple):
    """What updates saw since the last `read`. Sums over the target tokens of those that were made."""

    loss: float
    nll: float
    tokens: int
    skipped: int  # updates that weren't finite
    bad: int  # of them, how many in a row until now
    longest: int  # of them, the most in a row at any time since
    norm: float  # of the last update's gradient before clipping


class CapturedUpdates:
    """Updates of one model in training. An update is one work for each micro-batch and one that changes the weights.

    A shape is recorded when it comes the second time. From now on the optimiser's learning rate is a tensor, and
    gradients stay where they are. An update that isn't finite leaves weights, persistent buffers, optimiser and average
    as they were, and is counted. bad: updates in a row before the first that weren't finite.
    """

    def __init__(
        self,
        model: Seq2Seq,
        optimizer: torch.optim.Optimizer,
        average: MovingAverage | None,
        optim: OptimConfig,
        trainer: TrainerConfig,
        recorder: Recorder,
        *,
        bad: int = 0,
    ) -> None:
        self.model, self.optimizer, self.average, self.optim, self.trainer = model, optimizer, average, optim, trainer
        self.recorder, self.multiple = recorder, padding_multiple(trainer)
        self.device = device = next(model.parameters()).device
        self._parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self._buffers = list(persistent_buffers(model).values())
        self._before = [buffer.clone() for buffer in self._buffers]
        exact = torch.zeros((), dtype=torch.float64, device=device)
        self._scale, self._tokens, self._blend, self._norm = (exact.clone() for _ in range(4))
        self._rate, self._found_inf = (torch.zeros((), device=device) for _ in range(2))
        self._sums = exact.new_zeros(2)  # loss and nll of this update
        self._totals = exact.new_zeros(3)  # loss, nll and tokens since the last read
        self._bad = torch.tensor([0, bad, 0], device=device)  # skipped, in a row, longest
        self._works: dict[tuple[torch.Size, torch.Size, bool], tuple[Batch, Work]] = {}
        self._met: Counter[tuple[torch.Size, torch.Size, bool]] = Counter()
        self._change: Work | None = None
        self._changes: list[Tensor] = []  # the gradients that it was recorded with
        optimizer.zero_grad(set_to_none=True)
        for group in optimizer.param_groups:
            group["lr"] = self._rate
            group["capturable"] = device.type == "cuda"
        optimizer.found_inf = self._found_inf  # type: ignore[attr-defined]  # fused optimisers heed it
        optimizer._warned_capturable_if_run_uncaptured = True  # it runs so to warm up

    def reserve(self, batch: Batch) -> None:
        """Record the shape of a batch now: the largest one first, so that all others fit into its memory."""
        self._work(self._fixed(batch), added=True, now=True)

    def update(self, batches: Sequence[Batch], *, rate: float, number: int, added: bool = True) -> None:
        """Queue update `number` (from 0) of micro-batches on the host, normalised by all their target tokens.

        Raises CaptureError, with the update not made; then `release` and take the plain one.
        """
        tokens = sum(int(batch.target_lengths.sum()) for batch in batches)  # on the host: nothing is waited for
        self._scale.fill_(1 / max(1, tokens))
        self._tokens.fill_(tokens)
        self._rate.fill_(rate)
        self._blend.fill_(self.average.weight(number) if self.average else 0.0)
        self._sums.zero_()
        if gradients := self._gradients():
            torch._foreach_zero_(gradients)
        for batch in batches:
            self._work(self._fixed(batch), added=added)()
        gradients = self._gradients()
        # a parameter may get its first gradient late, and what is recorded knows only those that were there
        if self._change is None or [id(one) for one in gradients] != [id(one) for one in self._changes]:
            self._change, self._changes = self._record(self._change_weights, self._spoil), gradients
        self._change()
        # a replay goes past torch's counts, by which others know that what they made of a weight is out of date
        torch.autograd.graph.increment_version(self._parameters)

    def read(self) -> Seen:
        """Wait for the device and take what it counted."""
        values = torch.cat([self._totals, self._bad.double(), self._norm.view(1)]).tolist()  # one synchronisation
        self._totals.zero_()
        self._bad[0::2].zero_()
        loss, nll, tokens, skipped, bad, longest, norm = values
        return Seen(loss, nll, round(tokens), round(skipped), round(bad), round(longest), norm)

    def release(self) -> None:
        """Give the model and its optimiser back to the plain update, and the memory of what was recorded."""
        self._works.clear()
        self._change = None
        self._restore_buffers()
        self.optimizer.zero_grad(set_to_none=True)
        del self.optimizer.found_inf  # type: ignore[attr-defined]
        for group in self.optimizer.param_groups:
            group["lr"] = float(self._rate)
            group["capturable"] = False

    def _fixed(self, batch: Batch) -> Batch:
        return fixed_shape(batch, self.trainer.batch_tokens, self.multiple)

    def _gradients(self) -> list[Tensor]:
        return [parameter.grad for parameter in self._parameters if parameter.grad is not None]

    def _work(self, batch: Batch, *, added: bool, now: bool = False) -> Work:
        """What adds the gradients of a batch of fixed shape. now: record it even if it comes the first time."""
        key = (batch.source.shape, batch.target_in.shape, added)
        self._met[key] += 1
        if key not in self._works:
            own = batch.to(self.device)
            work = self._accumulation(own, added)
            if (self._met[key] == 1 or len(self._works) >= MAX_GRAPHS) and not now:
                return work
            self._works[key] = (own, self._record(work))
        own, recorded = self._works[key]
        for here, there in zip(_tensors(own), _tensors(batch), strict=True):
            here.copy_(there.pin_memory() if self.device.type == "cuda" else there, non_blocking=True)
        return recorded

    def _accumulation(self, batch: Batch, added: bool) -> Work:
        def accumulate() -> None:
            # autocast begins and ends within what is recorded, so its cache of converted weights does too
            with autocast(self.device, self.trainer.precision):
                loss, nll = fixed_loss(self.model, batch, self.optim.label_smoothing, added=added)
            (loss * self._scale).backward()  # type: ignore[no-untyped-call]
            self._sums.add_(torch.stack([loss.detach(), nll]))

        return accumulate

    @torch.no_grad()
    def _change_weights(self) -> None:
        norm = clip_gradients(self._parameters, self.optim.clip)
        finite = self._sums[0].isfinite() & norm.isfinite()
        self._found_inf.copy_(~finite)
        self.optimizer.step()
        if self.average:
            self.average.blend(self._blend * finite)
        for buffer, before in zip(self._buffers, self._before, strict=True):
            buffer.copy_(torch.where(finite, buffer, before))
            before.copy_(buffer)
        self._norm.copy_(norm)
        self._totals.add_(torch.cat([self._sums, self._tokens.view(1)]).masked_fill(~finite, 0.0))
        skipped, row, longest = self._bad.unbind()
        row = (row + 1).masked_fill(finite, 0)
        self._bad.copy_(torch.stack([skipped + ~finite, row, torch.maximum(longest, row)]))

    def _spoil(self) -> None:
        """Make the update one that isn't finite, so that trying it changes no weight."""
        self._sums.fill_(torch.nan)

    def _record(self, work: Work, prepare: Work | None = None) -> Work:
        """Record work; whatever its trial runs do is undone. Raises CaptureError."""
        with self._undone():
            if prepare is not None:
                prepare()
            return recorded(self.recorder, work)

    @contextmanager
    def _undone(self) -> Iterator[None]:
        """Afterwards gradients, counts, persistent buffers and random state are what they were before."""
        counts = [self._sums, self._totals, self._bad, self._norm, *self._buffers, *self._before]
        kept = [one.clone() for one in counts]
        gradients = [None if one.grad is None else one.grad.clone() for one in self._parameters]
        cuda = [self.device] if self.device.type == "cuda" else []
        try:
            with torch.random.fork_rng(devices=cuda):
                yield
        finally:
            self._put_back(counts, kept, gradients)

    @torch.no_grad()
    def _put_back(self, counts: list[Tensor], kept: list[Tensor], gradients: list[Tensor | None]) -> None:
        for one, value in zip(counts, kept, strict=True):
            one.copy_(value)
        for parameter, gradient in zip(self._parameters, gradients, strict=True):
            if parameter.grad is not None:
                parameter.grad.zero_() if gradient is None else parameter.grad.copy_(gradient)

    @torch.no_grad()
    def _restore_buffers(self) -> None:
        for buffer, before in zip(self._buffers, self._before, strict=True):
            buffer.copy_(before)
