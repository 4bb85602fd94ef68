"""The learning rate over time."""

import math
import typing
from itertools import pairwise

import pytest

from s2s.train.options import OptimConfig
from s2s.train.schedule import rate

STEPS = 1000


def curve(schedule, *, warmup=100, final=0.1, lr=0.5, steps=STEPS):
    config = OptimConfig(lr=lr, schedule=schedule, warmup=warmup, final=final)
    return [rate(config, step, step / steps) for step in range(steps)]


SCHEDULES = typing.get_args(typing.get_type_hints(OptimConfig)["schedule"])
each = pytest.mark.parametrize("schedule", SCHEDULES)


def test_every_schedule_is_a_curve_of_its_own():
    curves = [curve(schedule) for schedule in SCHEDULES]
    assert {"cosine", "linear", "inverse_sqrt", "constant"} <= set(SCHEDULES)
    for number, one in enumerate(curves):
        for other in curves[:number]:
            assert max(abs(a - b) for a, b in zip(one, other, strict=True)) > 0.02


@each
@pytest.mark.parametrize("warmup", [1, 10, 100, 600])
def test_it_rises_linearly_falls_ever_after_and_never_jumps(schedule, warmup):
    rates = curve(schedule, warmup=warmup)
    top = rates.index(max(rates))
    assert rates[0] == pytest.approx(0.5 / warmup, rel=1e-3)
    assert min(rates) > 0
    assert max(rates) <= 0.5
    assert all(a < b for a, b in pairwise(rates[: top + 1]))
    assert all(a >= b for a, b in pairwise(rates[top:]))
    steepest = 0.5 * max(1 / warmup, math.pi / 2 / STEPS) * 1.001
    assert all(abs(a - b) <= steepest for a, b in pairwise(rates))
    if warmup <= 10:
        assert max(rates) == pytest.approx(0.5, rel=0.02)


@each
def test_without_warm_up_it_starts_at_the_peak(schedule):
    assert curve(schedule, warmup=0)[0] == pytest.approx(0.5)


def test_values_on_the_way():
    assert curve("constant", warmup=4)[:5] == pytest.approx([0.125, 0.25, 0.375, 0.5, 0.5])
    assert curve("inverse_sqrt")[4 * 100 - 1] == pytest.approx(0.25)
    assert curve("linear")[500] == pytest.approx(0.5 * (0.1 + 0.9 * 0.5))
    assert curve("cosine")[500] == pytest.approx(0.5 * (0.1 + 0.9 * 0.5))
    assert curve("cosine")[250] > curve("linear")[250]
    assert curve("cosine")[750] < curve("linear")[750]


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_it_ends_at_final_whatever_the_progress_says(schedule):
    config = OptimConfig(lr=0.5, schedule=schedule, warmup=0, final=0.1)
    assert rate(config, 999, 1.0) == pytest.approx(0.05)
    assert rate(config, 999, 1.7) == pytest.approx(0.05)  # minutes overrun
    assert rate(config, 999, -0.1) == pytest.approx(0.5)
