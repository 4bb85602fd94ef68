"""Keywords by mutual information: against a naive count, and read back from files that may be wrong."""

import json
import math
import random

import pytest

from s2s.errors import BundleError
from s2s.text.keywords import Keywords, fit_keywords, parse_keywords, to_keyword, words

rng = random.Random(3)
TOPICS = {"dog": ["bark", "walk"], "rain": ["umbrella", "wet"], "pizza": ["cheese", "oven"]}


def talk(count):
    for _ in range(count):
        topic = rng.choice(list(TOPICS))
        said = ["the", "a", "is", rng.choice(["big", "old", "new"]), topic]
        answer = ["the", "a", "is", rng.choice(["yes", "no"]), *rng.sample(TOPICS[topic], rng.choice([1, 1, 2]))]
        rng.shuffle(said)
        yield " ".join(said), " ".join(answer)


PAIRS = list(talk(400))
MADE = fit_keywords(PAIRS, least=10, common=5)


def test_words_have_no_case_and_no_marks():
    assert words("Don't STOP, it's 5 o'clock -- re-do!") == ["don't", "stop", "it's", "o'clock", "re-do"]
    assert words("Straße_x ü") == ["strasse_x", "ü"]
    assert words("3 ... !") == []
    assert words("你好 مرحبا") == ["你好", "مرحبا"]


def test_values_are_those_of_the_definition():
    for said, keyword in (("dog", "bark"), ("rain", "wet"), ("big", "oven")):
        both = sum(said in a.split() and keyword in b.split() for a, b in PAIRS)
        one, other = sum(said in a.split() for a, _ in PAIRS), sum(keyword in b.split() for _, b in PAIRS)
        value = math.log(both * len(PAIRS) / (one * other))
        if value > 0:
            assert MADE.table[said][keyword] == pytest.approx(value)
        else:
            assert keyword not in MADE.table.get(said, {})


def test_keywords_go_with_the_message_and_common_words_are_none():
    for topic, own in TOPICS.items():
        assert set(MADE.best(f"is the {topic.upper()} old?", 2)) == set(own)
    assert {"the", "a", "is", "yes", "no"}.isdisjoint(MADE.frequent)
    assert MADE.best("xyz", 3) == MADE.frequent[:3]
    assert len(MADE.best("dog", 5)) == len(set(MADE.best("dog", 5))) == 5
    assert Keywords({}, []).best("dog", 3) == []


def test_they_come_back_from_a_bundle():
    again = parse_keywords(MADE.to_bytes(), "x")
    assert again.frequent == MADE.frequent
    assert again.to_bytes() == MADE.to_bytes()
    assert again.best("the dog", 3) == MADE.best("the dog", 3)


def test_a_reply_runs_back_from_a_keyword():
    known = Keywords({}, ["dog", "rain"])
    assert to_keyword("i love my Dog, really", known) == "dog my love i"
    seen = {to_keyword(f"{name} the dog and rain!", known) for name in "abcdefgh"}
    assert {text.split()[0] for text in seen} == {"dog", "rain"}
    assert all(text.split()[-1] in "abcdefgh" for text in seen)
    assert to_keyword("yes", known) == "yes"
    assert to_keyword("?!", known) == "?!"
    assert to_keyword("oh no", known) in ("oh", "no oh")
    assert to_keyword("oh no", known) == to_keyword("oh no", known)


@pytest.mark.parametrize(
    "wrong",
    [
        [],
        {},
        {"format": 2, "frequent": [], "table": {}},
        {"format": 1, "frequent": "a", "table": {}},
        {"format": 1, "frequent": ["a b"], "table": {}},
        {"format": 1, "frequent": ["a\n"], "table": {}},
        {"format": 1, "frequent": [3], "table": {}},
        {"format": 1, "frequent": [], "table": []},
        {"format": 1, "frequent": [], "table": {"a": ["b"]}},
        {"format": 1, "frequent": [], "table": {"a": {"b": "c"}}},
        {"format": 1, "frequent": [], "table": {"a": {"b": True}}},
        {"format": 1, "frequent": [], "table": {"a": {"</s>": 1}}},
        {"format": 1, "frequent": [], "table": {"A": {"b": 1}}},
        {"format": 1, "frequent": [], "table": {"a": {f"b{n}": 1 for n in range(50)}}},
    ],
)
def test_wrong_files_are_refused(wrong):
    with pytest.raises(BundleError, match=r"keywords\.json"):
        parse_keywords(json.dumps(wrong).encode(), "keywords.json")
