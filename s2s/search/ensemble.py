"""Several models that search as one."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from s2s.errors import UsageError
from s2s.types import State, StepFunction, StepOutput


def ensemble(steps: Sequence[StepFunction]) -> StepFunction:
    """One step function that averages the probabilities of several with the same vocabulary.

    Its state is the tuple of theirs, in this order. Weights are averaged over those that give them, if these agree in
    shape (models that split the source differently don't; then there are none).
    Raises UsageError without steps or, at the first step, if the vocabularies differ in size.
    """
    members = list(steps)
    if not members:
        raise UsageError("an ensemble needs at least one model", expected="1 or more", found="0")

    def step(tokens: Tensor, state: State, rows: Tensor) -> StepOutput:
        if isinstance(state, Tensor) or len(state) != len(members):
            raise UsageError("the state of an ensemble is a tuple of its members' states", expected=str(len(members)))
        outputs = [member(tokens, part, rows) for member, part in zip(members, state, strict=True)]
        sizes = [output.log_probs.shape[1] for output in outputs]
        if len(set(sizes)) > 1:
            raise UsageError("the models of an ensemble have different vocabularies", found=f"sizes {sizes}")
        log_probs = torch.stack([output.log_probs for output in outputs]).logsumexp(0) - math.log(len(outputs))
        weights = [output.weights for output in outputs if output.weights is not None]
        agree = len({tuple(one.shape) for one in weights}) == 1
        mean = torch.stack(weights).mean(0) if agree else None
        return StepOutput(log_probs, tuple(output.state for output in outputs), mean)

    return step
