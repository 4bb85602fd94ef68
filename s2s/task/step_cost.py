"""What one decoder step costs with each attention, measured side by side in a moment on this machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

import torch

from s2s import attention
from s2s.attention import self_attention
from s2s.errors import S2SError
from s2s.model.decoder import recurrent_decoder
from s2s.model.embedding import Embedding
from s2s.types import BOS, Encoded

BATCH, SOURCE, WIDTH = 32, 20, 256
BASE = "dot"  # what the others are compared with


@dataclass(frozen=True)
class StepCost:
    """Of one mechanism, at its default options.

    step: processor time of a decoder step, as a multiple of a step with `dot`. alone: the same of the attention without
    the rest of the decoder. microseconds: of the attention alone. All are medians. parameters: of the attention.
    weights: whether it gives weights (B, T, S).
    """

    step: float
    alone: float
    microseconds: float
    parameters: int
    weights: bool


@torch.no_grad()
def step_costs(names: Sequence[str], *, repeats: int = 40) -> dict[str, StepCost | S2SError]:
    """The cost of a step for each name of `conf/attention/`; an error where it can't be built in this size.

    A step is the forward pass of an LSTM decoder by one token, for BATCH sources of SOURCE tokens at width WIDTH, in
    float32 on the CPU with one thread. All mechanisms take turns, so that a busy machine slows them alike.
    """
    threads, generator_state = torch.get_num_threads(), torch.get_rng_state()
    torch.set_num_threads(1)
    try:
        torch.manual_seed(0)
        found: dict[str, StepCost | S2SError] = {}
        made: dict[str, _Steps] = {}
        for name in dict.fromkeys([BASE, *names]):
            try:
                made[name] = _steps(name)
            except S2SError as error:
                found[name] = error
        timed: dict[str, list[tuple[float, float]]] = {name: [] for name in made}
        for _ in range(repeats):
            for name, steps in made.items():
                timed[name].append((_timed(steps.whole), _timed(steps.alone)))
    finally:
        torch.set_num_threads(threads)
        torch.set_rng_state(generator_state)
    medians = {name: [median(values) for values in zip(*pairs, strict=True)] for name, pairs in timed.items()}
    for name, steps in made.items():
        step, alone = (own / base for own, base in zip(medians[name], medians[BASE], strict=True))
        found[name] = StepCost(step, alone, 1e6 * medians[name][1], steps.parameters, steps.weights)
    return {name: found[name] for name in names}


@dataclass(frozen=True)
class _Steps:
    whole: Callable[[], object]
    alone: Callable[[], object]
    parameters: int
    weights: bool


def _steps(name: str) -> _Steps:
    """A decoder with this attention, called once so that its state is that of a decoder under way."""
    built = attention.build(name, query_size=WIDTH, memory_size=WIDTH).eval()
    decoder = recurrent_decoder(
        Embedding(BOS + 1, WIDTH), lambda _: built, self_attention.none, WIDTH, WIDTH, 0.0, width=WIDTH
    ).eval()
    mask = torch.ones(BATCH, SOURCE, dtype=torch.bool)
    encoded = Encoded(torch.randn(BATCH, SOURCE, WIDTH), torch.randn(BATCH, WIDTH), mask)
    memory = built.remember(encoded)
    tokens, query = torch.full((BATCH, 1), BOS), torch.randn(BATCH, 1, WIDTH)
    first = decoder(tokens, memory, decoder.initial_state(encoded, memory), need_weights=True)
    asked = built(query, memory, built.initial_state(memory))
    return _Steps(
        lambda: decoder(tokens, memory, first.state, need_weights=False),
        lambda: built(query, memory, asked.state, need_weights=False),
        sum(parameter.numel() for parameter in built.parameters()),
        first.weights is not None,
    )


def _timed(call: Callable[[], object]) -> float:
    """Seconds of processor time: what else runs on the machine hardly counts."""
    began = time.thread_time()
    call()
    return time.thread_time() - began
