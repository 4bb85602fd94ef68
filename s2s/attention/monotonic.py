"""Monotonic attention: the source is read from left to right, and each step stops at one position."""

from __future__ import annotations

import copy
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from s2s.attention.align import Aligned, Alignment, grown
from s2s.attention.base import Attention, scored
from s2s.attention.functional import lengths_of
from s2s.attention.options import LARGEST, Options, choice, number, plain_softmax
from s2s.attention.parts import with_parts
from s2s.attention.scan import LinearScan
from s2s.attention.score import ScoreName, make_score
from s2s.errors import UsageError
from s2s.types import State

Estimator = Literal["expected", "straight_through"]

DEFAULT = Options()

# sigmoid of it is exactly 1 in every float type, and of its negative exactly 0
_SURE = 1e4


class MonotonicAlignment(Alignment):
    """From where the last step stopped, go right until a position is selected. Raffel et al. 2017, arXiv 1704.00784.

    p_ij = sigmoid(e_ij + r), one r a head. In training the weights are the probabilities of stopping at j (eq. 8-9):
    a_ij = p_ij q_ij, q_ij = (1 - p_i,j-1) q_i,j-1 + a_i-1,j, with Gaussian noise (`noise`: its standard deviation) on
    the energies, so that they learn to be far from 0. In eval mode it is a hard scan: the first j >= the last one with
    p_ij > 1/2 (algorithm 1), and aux["stopped"] (B, T, H) is 1 where a position was selected, 0 where none was.
    estimator: straight_through trains on the hard scan too, over the noisy energies, with the gradient of the
    probabilities, through all steps before it as well (Bengio et al. 2013, arXiv 1308.3432, section 4).

    preserve: what passes every position stops at the last real one. Without, it is lost: in eval mode a step that
    selects nothing has a zero context, and so have all that follow, as in the authors' code.
    latency_average, latency_variance: weights of two losses, see `delay_loss`; aux["loss"] (B, T) in training.
    State: the last weights (B, H, S), at first all on position 0.
    """

    def __init__(
        self,
        heads: int,
        *,
        bias: float,
        noise: float,
        preserve: bool,
        estimator: Estimator = "expected",
        latency_average: float = 0.0,
        latency_variance: float = 0.0,
    ) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.full((heads,), number("bias", bias, -LARGEST, LARGEST)))
        self.noise = number("noise", noise, 0.0, LARGEST)
        self.preserve = self.sums_to_one = preserve
        self.estimator = choice("estimator", estimator, get_args(Estimator))
        self.latency_average = number("latency_average", latency_average, 0.0, LARGEST)
        self.latency_variance = number("latency_variance", latency_variance, 0.0, LARGEST)

    def initial_state(self, mask: Tensor, heads: int) -> Tensor:
        """All on the first position: (B, H, S) float32."""
        start = torch.zeros(mask.size(0), heads, mask.size(1), device=mask.device)
        start[..., :1] = 1.0
        return start

    def forward(self, energies: Tensor, mask: Tensor, state: State, query: Tensor) -> Aligned:
        """Weights of all steps, one after another."""
        assert isinstance(state, Tensor)
        if not state.size(-1):  # nothing of the source was known before
            state = self.initial_state(mask, energies.size(1))
        previous, real = grown(state, mask.size(1)), mask[:, None, None]
        shifted = energies.to(torch.promote_types(energies.dtype, torch.float32)) + self.bias.view(-1, 1, 1)
        last = torch.arange(mask.size(1), device=mask.device) == lengths_of(mask)[:, None, None, None] - 1
        if not self.training:
            return self._hard((shifted > 0) & real, last, previous, energies)
        if self.noise:
            shifted = shifted + self.noise * torch.randn_like(shifted)
        shifted = shifted.masked_fill(~real, -_SURE)  # never selected, always passed
        if self.preserve:
            shifted = shifted.masked_fill(last, _SURE)
        selected = torch.sigmoid(shifted)
        # log(1 - p) without a difference: exact for the largest energies too
        scans = LinearScan(nn.functional.logsigmoid(-shifted)).unbind(2)
        rows = []
        for p, scan in zip(selected.unbind(2), scans, strict=True):
            moved = p * scan(previous.to(p.dtype))
            if self.estimator == "straight_through":  # the value of the hard scan, the gradient of the expectation
                moved = first_selected(p > 0.5, previous).to(p.dtype) + (moved - moved.detach())
            previous = moved
            rows.append(previous)
        weights = torch.stack(rows, 2) if rows else selected
        aux = {}
        if self.latency_average or self.latency_variance:
            aux["loss"] = delay_loss(weights, mask, self.latency_average, self.latency_variance)
        return Aligned(weights.to(energies.dtype), previous, aux)

    def _hard(self, fires: Tensor, last: Tensor, previous: Tensor, energies: Tensor) -> Aligned:
        """The hard scan. fires: (B, H, T, S) bool; last: (B, 1, 1, S) bool, the last real position."""
        rows, stopped = [], []
        for fired in fires.unbind(2):
            first = first_selected(fired, previous)
            stopped.append(first.any(-1))
            if self.preserve:
                first = torch.where(stopped[-1].unsqueeze(-1), first, last.squeeze(2))
            previous = first.to(previous.dtype)
            rows.append(previous)
        weights = torch.stack(rows, 2) if rows else torch.zeros_like(fires, dtype=previous.dtype)
        found = torch.stack(stopped, 2) if stopped else fires.any(-1)
        return Aligned(weights.to(energies.dtype), previous, {"stopped": found.transpose(1, 2).to(previous.dtype)})


def first_selected(fires: Tensor, previous: Tensor) -> Tensor:
    """True at the first of `fires` that isn't before the last position. All (B, H, S); previous: one 1, or zeros."""
    reached = fires & (previous.cumsum(-1) > 0.5)
    return reached & (reached.cumsum(-1) == 1)


def hasten(module: nn.Module, shift: float) -> nn.Module:
    """A copy of a trained model, or of one attention, with `shift` added to every r: above 0 it stops earlier.

    The copy shares all other parameters. Raises UsageError for a model without a monotonic attention.
    """

    def earlier(part: nn.Module) -> nn.Module | None:
        if not isinstance(part, MonotonicAlignment):
            return None
        copied = copy.copy(part)
        bias = nn.Parameter(part.bias.detach() + shift, requires_grad=False)
        copied._parameters = {**part._parameters, "bias": bias}
        return copied

    found = with_parts(module, earlier)
    if found is module:
        raise UsageError(
            "the model has no attention that decides where to stop",
            where="search.eager",
            expected="0, or attention=monotonic, mocha, milk or mma",
            found=f"{shift:g}",
        )
    return found


def delay_loss(weights: Tensor, mask: Tensor, average: float, variance: float) -> Tensor:
    """What late and uneven reading costs at each step: (B, T). Ma et al. 2020, arXiv 1909.12406, section 3.3.

    A head's expected delay is g = sum_j (j + 1) a_j of weights (B, H, T, S), where mass that is lost counts as the
    whole source. average: weight of the mean of g over the heads, weighted by softmax(g) so that the slowest count
    most. variance: weight of its variance over the heads. g is divided by the source's length there, so both are at
    most 1 whatever the source (the paper's average goes through a lagging metric of the whole target instead).
    """
    length = lengths_of(mask).clamp_min(1)[:, None, None].to(weights.dtype)
    places = torch.arange(1, mask.size(1) + 1, device=mask.device, dtype=weights.dtype)
    delays = (weights * places).sum(-1) + (1 - weights.sum(-1)) * length
    shares = delays / length
    slowest = (torch.softmax(delays, 1) * shares).sum(1)
    return average * slowest + variance * shares.var(1, correction=0)


def monotonic(
    query_size: int,
    memory_size: int,
    *,
    score: ScoreName = "additive_normed",
    bias: float = 0.0,
    noise: float = 1.0,
    preserve: bool = True,
    estimator: Estimator = "expected",
    latency_average: float = 0.0,
    options: Options = DEFAULT,
) -> Attention:
    """Hard monotonic attention (Raffel et al. 2017, arXiv 1704.00784).

    bias: what r starts at. At 0 a step passes one position on average before training, for a text is about as long as
    its translation; the paper's -4 (54 positions) is for the long memories of speech. latency_average: weight of a loss
    on the share of the source that was read at each step, see `delay_loss`. The rest: see `MonotonicAlignment`. Raises
    ConfigError.
    """
    plain_softmax("monotonic", options)
    align = MonotonicAlignment(
        options.heads,
        bias=bias,
        noise=noise,
        preserve=preserve,
        estimator=estimator,
        latency_average=latency_average,
    )
    return scored(query_size, memory_size, options, lambda q, k: make_score(score, q, k, heads=options.heads), align)
