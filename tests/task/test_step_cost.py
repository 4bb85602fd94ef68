"""Timing of a decoder step: of every mechanism, on one thread, without a trace."""

import torch

from s2s import attention, registry
from s2s.errors import ConfigError
from s2s.task import step_cost
from s2s.task.step_cost import StepCost, step_costs


def test_every_mechanism_can_be_timed():
    names = registry.group_names("attention")
    found = step_costs(names, repeats=1)
    assert list(found) == names
    assert {name: cost for name, cost in found.items() if not isinstance(cost, StepCost)} == {}
    for name, cost in found.items():
        built = attention.build(name, query_size=step_cost.WIDTH, memory_size=step_cost.WIDTH)
        assert cost.parameters == sum(parameter.numel() for parameter in built.parameters())
        assert min(cost.step, cost.alone, cost.microseconds) > 0
    assert (found["dot"].step, found["dot"].alone, found["dot"].weights) == (1, 1, True)
    assert not found["none"].weights


def test_it_leaves_threads_and_random_numbers_as_they_were(monkeypatch):
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    seen = []
    steps = step_cost._steps
    monkeypatch.setattr(step_cost, "_steps", lambda name: seen.append(torch.get_num_threads()) or steps(name))
    torch.set_num_threads(2)
    try:
        assert list(step_costs(["none"], repeats=1)) == ["none"]
        assert (torch.get_num_threads(), set(seen)) == (2, {1})
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(torch.get_rng_state(), state)


def test_one_that_cant_be_built_says_why(monkeypatch):
    steps = step_cost._steps

    def refuse(name):
        if name == "none":
            raise ConfigError("not in this size")
        return steps(name)

    monkeypatch.setattr(step_cost, "_steps", refuse)
    found = step_costs(["none", "dot"], repeats=1)
    assert str(found["none"]) == "not in this size"
    assert found["dot"].step == 1


def test_a_slower_attention_costs_more(monkeypatch):
    times = iter([1.0, 0.5, 3.0, 2.0])  # whole step and attention alone, of dot and then of general
    monkeypatch.setattr(step_cost, "_timed", lambda call: next(times))
    cost = step_costs(["general"], repeats=1)["general"]
    assert (cost.step, cost.alone, cost.microseconds) == (3.0, 4.0, 2e6)
