"""Averages of weights: exponential over the run, or plain over the last checkpoints."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class MovingAverage:
    """Exponential moving average of a model's parameters (Polyak & Juditsky 1992).

    The decay of update n is min(decay, (1 + n) / (10 + n)), so that the first random weights are soon forgotten.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
        self.shadow = [parameter.detach().clone() for parameter in self.parameters]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after update `step` (from 0)."""
        torch._foreach_lerp_(self.shadow, [p.detach() for p in self.parameters], self.weight(step))

    def weight(self, step: int) -> float:
        """What the weights after update `step` (from 0) count in the average: 1 - its decay."""
        return 1 - min(self.decay, (1 + step) / (10 + step))

    @torch.no_grad()
    def blend(self, weight: Tensor) -> None:
        """`update` with the `weight` (), known only on the device; 0 changes nothing."""
        steps = torch._foreach_sub([p.detach() for p in self.parameters], self.shadow)
        torch._foreach_mul_(steps, weight.to(steps[0].dtype))
        torch._foreach_add_(self.shadow, steps)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Inside, the model has the averaged weights."""
        kept = [parameter.detach().clone() for parameter in self.parameters]
        self._write(self.shadow)
        try:
            yield
        finally:
            self._write(kept)

    def state(self) -> dict[str, Tensor]:
        """The averages by parameter name."""
        return dict(zip(self.names, self.shadow, strict=True))

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Go on from `state`."""
        for name, tensor in zip(self.names, self.shadow, strict=True):
            tensor.copy_(state[name])

    @torch.no_grad()
    def _write(self, values: Sequence[Tensor]) -> None:
        for parameter, value in zip(self.parameters, values, strict=True):
            parameter.copy_(value)


def mean(states: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The plain mean of several weights with the same names, in float64 and back."""
    return {
        name: torch.stack([state[name].double() for state in states]).mean(0).to(first.dtype)
        for name, first in states[0].items()
    }
