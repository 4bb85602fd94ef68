import math

import pytest

from s2s.errors import ConfigError
from s2s.search import SearchConfig


def test_defaults_have_no_problems():
    assert SearchConfig().problems() == []
    assert SearchConfig(beam=1, sample=True, top_k=10, top_p=0.9, temperature=0.7, nbest=4).problems() == []


@pytest.mark.parametrize(
    "key, values",
    [
        ("beam", [0, -1, 2.0, "5", True, None]),
        ("nbest", [0, 1.5]),
        ("length_penalty", [math.nan, math.inf, "0.6", 11]),
        ("coverage_penalty", [-0.1, math.nan]),
        ("max_length", [0, -3]),
        ("max_ratio", [-1, math.inf]),
        ("max_extra", [-1]),
        ("min_length", [-1]),
        ("no_repeat_ngram", [-1, 2.5]),
        ("top_k", [-1]),
        ("top_p", [0, 0.0, 1.1, -0.5, math.nan]),
        ("temperature", [0, -1, math.nan, math.inf]),
        ("seed", [-1, 2**63]),
        ("sample", [1, "yes"]),
        ("early_finish", ["never"]),
    ],
)
def test_wrong_values_are_named_with_what_is_allowed(key, values):
    for value in values:
        (message,) = SearchConfig(**{key: value}).problems()
        assert message.startswith(f"search.{key}={value!r}: must be ")


@pytest.mark.parametrize(
    "options, keys",
    [
        ({"beam": 2, "nbest": 3}, ["nbest"]),
        ({"min_length": 9, "max_length": 8}, ["min_length"]),
        ({"max_ratio": 0, "max_extra": 0}, ["max_ratio"]),
        ({"sample": True}, ["beam"]),
        ({"top_k": 5, "temperature": 0.5, "top_p": 0.5}, ["top_k", "top_p", "temperature"]),
        ({"beam": 2, "nbest": 3, "min_length": 9, "max_length": 8}, ["min_length", "nbest"]),
    ],
)
def test_impossible_combinations_are_all_listed(options, keys):
    problems = SearchConfig(**options).problems()
    assert [message.split("=")[0] for message in problems] == [f"search.{key}" for key in keys]


def test_check_raises_one_error_with_all_problems():
    with pytest.raises(ConfigError) as caught:
        SearchConfig(beam=0, top_p=2.0, temperature=0.0).check()
    for key in ("search.beam=0", "search.top_p=2.0", "search.temperature=0.0", "search.beam=1"):
        assert key in str(caught.value)
    assert caught.value.exit_code == 2


def test_limit_is_the_smaller_bound_but_leaves_room():
    config = SearchConfig(max_length=20, max_ratio=1.5, max_extra=2)
    assert [config.limit(n) for n in (1, 3, 12, 100)] == [3, 6, 20, 20]
    assert SearchConfig(max_ratio=0.1, max_extra=0).limit(1) == 1
    assert SearchConfig(max_ratio=0.1, max_extra=0, min_length=7).limit(1) == 7
