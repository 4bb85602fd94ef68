"""Extracts by hand, and against every window."""

import pytest

from s2s.errors import UsageError
from s2s.score.extracts import extracts
from s2s.score.rouge import rouge_statistics

SOURCES = ["one two three four five six", "short", "", "a b c a b"]
REFERENCES = ["Five, six!", "short text", "nothing", "c a"]


def test_lead_and_oracle_by_hand():
    made = extracts(SOURCES, [REFERENCES], 2)
    assert made["lead"] == ["one two", "short", "", "a b"]
    assert made["oracle"] == ["five six", "short", "", "c a"]


def test_random_is_a_window_and_always_the_same():
    made = extracts(SOURCES * 20, [REFERENCES * 20], 2)["random"]
    assert made == extracts(SOURCES * 20, [REFERENCES * 20], 2)["random"]
    assert made != extracts(SOURCES * 20, [REFERENCES * 20], 2, seed=2)["random"]
    words = SOURCES[0].split()
    assert set(made[::4]) == {" ".join(words[i : i + 2]) for i in range(5)}


def test_no_window_beats_the_oracle():
    made = extracts(SOURCES[:1], [["three one five"], ["six four"]], 3)["oracle"]
    words = SOURCES[0].split()
    windows = [" ".join(words[i : i + 3]) for i in range(4)]
    best = max(rouge_statistics("rouge1", [one], [["three one five"], ["six four"]]).value for one in windows)
    assert rouge_statistics("rouge1", made, [["three one five"], ["six four"]]).value == best


def test_fewer_than_a_word_is_refused():
    with pytest.raises(UsageError, match="at least one word"):
        extracts(["a"], [["a"]], 0)
