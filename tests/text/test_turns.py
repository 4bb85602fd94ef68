"""Contexts as sources: marks that no text gives, whole turns left out, nothing lost without a flag."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s2s.text.turns import ABOUT, Turns, clean_turns, join_turns, shorten, split_turns, turn_marks
from s2s.text.vocabulary import Vocabulary, words
from s2s.types import BOS, EOS

PLAIN = Vocabulary("words", ["a", "b", "c", "d", "</s>", "<s>", "user:"])
TURNS = Turns(PLAIN)
A, B, C, D, END, BEGIN, USER = range(4, 11)

contexts = st.lists(st.lists(st.sampled_from(["a", "b", "c", "</s>", "?"]), min_size=1).map(" ".join), min_size=1).map(
    "\n".join
)


def test_marks_say_who_spoke_counted_from_the_last_turn():
    assert TURNS.encode("a b") == [A, B]
    assert TURNS.encode("a\nb") == [BOS, A, EOS, B]
    assert TURNS.encode("a\nb c\nd") == [A, EOS, BOS, B, C, EOS, D]


def test_what_is_typed_is_never_a_mark():
    assert TURNS.encode("<s> a </s>") == [BEGIN, A, END]
    assert TURNS.encode("user: a") == [USER, A]
    assert {BOS, EOS}.isdisjoint(TURNS.encode("<s> </s> assistant: b"))


@given(contexts)
def test_turns_can_be_told_apart_again(text):
    parts = split_turns(TURNS.encode(text))
    assert [PLAIN.decode(part) for part in parts] == [PLAIN.decode(PLAIN.encode(turn)) for turn in text.split("\n")]
    own = [part[:1] == [BOS] for part in parts]
    assert own == [(len(parts) - number) % 2 == 0 for number in range(len(parts))]


@given(contexts, st.integers(1, 12), st.integers(1, 5))
def test_the_newest_whole_turns_are_kept(text, limit, most):
    ids, turns = TURNS.encode(text), text.split("\n")
    kept, left, flags = shorten(text, ids, "turns", limit, most)
    assert len(left) <= limit
    assert text.endswith(kept)
    count = len(kept.split("\n"))
    assert kept.split("\n") == turns[-count:]
    assert left == TURNS.encode(kept)[:limit]
    assert ("turns_dropped" in flags) == (count < len(turns))
    assert ("truncated" in flags) == (len(TURNS.encode(kept)) > limit)
    # as many as fit, and one at least
    assert count <= most
    more = "\n".join(turns[-count - 1 :])
    assert count == min(most, len(turns)) or len(TURNS.encode(more)) > limit
    assert "truncated" not in flags or count == 1


def test_other_policies():
    ids = PLAIN.encode("a b c")
    assert shorten("a b c", ids, "truncate", 2, 1) == ("a b c", ids[:2], {"truncated"})
    for policy in ("split", "merge", "refuse"):
        assert shorten("a b c", ids, policy, 2, 1) == ("a b c", ids, frozenset())


@given(contexts)
def test_words_and_spellings_belong_to_ids(text):
    ids = TURNS.encode(text)
    spelled = TURNS.spelled(text)
    assert len(spelled) == len(ids) == len(TURNS.words(ids))
    shown = TURNS.decode(ids).split(" ")
    for number, word in zip(ids, TURNS.words(ids), strict=True):
        assert (word == -1) == (number in (BOS, EOS))
        if word >= 0:
            assert shown[word] == PLAIN.decode([number])


def test_a_turn_is_segmented_by_itself():
    recipe = words()
    made = Turns(recipe.fit(["a b", "c"]))
    assert made.sample("a b\nc", 0.3, 1) == made.encode("a b\nc")
    assert made.unknown("a x\nc y") == 2
    assert made.size == 7
    assert made.files("source") == recipe.fit(["a b", "c"]).files("source")


def test_what_a_turn_is_about_stands_behind_a_mark():
    assert TURNS.encode(f"a\nb{ABOUT}c d") == [BOS, A, EOS, B, BOS, C, D]
    assert TURNS.spelled(f"a\nb{ABOUT}c d") == ["<s>", "a", "</s>", "b", "<s>", "c", "d"]
    assert clean_turns(f"a{ABOUT}b")[0] == "ab"  # nobody can type it
    kept = shorten(f"a\nb{ABOUT}c d", TURNS.encode(f"a\nb{ABOUT}c d"), "turns", 10, 1)
    assert kept == (f"b{ABOUT}c d", [B, BOS, C, D], {"turns_dropped"})
    assert TURNS.decode(kept[1]) == "b c d"


def test_each_turn_is_cleaned():
    assert clean_turns("a\x00b\r\n\tc\x85d") == ("ab\n\tc d", 2)


def test_marks_of_turns_stand_at_their_ends():
    marks = turn_marks(TURNS)
    assert [number for number, mark in enumerate(marks) if mark & 4] == [EOS]
    assert len(marks) == TURNS.size


@pytest.mark.parametrize("other", [PLAIN, None, 3])
def test_it_equals_nothing_but_its_like(other):
    assert other != TURNS
    assert Turns(Vocabulary("words", list(PLAIN.tokens))) == TURNS
    assert hash(Turns(PLAIN)) == hash(TURNS) != hash(PLAIN)


def test_messages_of_one_sender_are_one_turn():
    said = [("a", "hi"), ("a", "you\n there"), ("b", " "), ("a", "?"), ("b", "yes")]
    assert join_turns(said) == [("a", "hi you there ?"), ("b", "yes")]
    assert join_turns([]) == []
