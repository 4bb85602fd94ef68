import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s2s.errors import DataError
from s2s.text.sentences import split_sentences, split_text

PIECES = st.sampled_from(
    [
        "a",
        "Word",
        "b. ",
        ". ",
        "! ",
        "?",
        "...",
        " ",
        "\n",
        "\t",
        ", ",
        ";",
        "3.",
        "Dr. ",
        "。",
        "漢字",
        "؟ ",
        "۔",
        "।",
        "नमस्ते",
        *["é", "e\u0301\u0302", "👩\u200d👩\u200d👧", "(", ")", '"', "”", "»", "—", "，", "\u3000", "1,000"],
    ]
)
TEXTS = st.one_of(st.text(), st.lists(PIECES, max_size=60).map("".join))


def stripped(text):
    return [sentence.strip() for sentence in split_sentences(text)]


@pytest.mark.parametrize(
    "sentences",
    [
        ["Hello there.", "How are you?", "Fine!"],
        ['He said "stop."', "Then he left."],
        ["„Warum?“ fragte sie.", "Er schwieg."],
        ["Dr. Smith and J. R. Hartley met Mrs. Jones on 3. May.", "It rained."],
        ["Das gilt z.B. Für alle, d.h. Auch hier.", "Ende."],
        ["Version 1.5.", "It costs 1.000,50 euros.", "That was 1999.", "Then it was over."],
        ["Wait... what is it?", "¿Qué?", "¡No!"],
        ["مرحبا بكم.", "كيف حالك؟", "بخير."],
        ["یہ ایک جملہ ہے۔", "دوسرا جملہ۔"],
        ["यह पहला वाक्य है।", "यह दूसरा है॥"],
        ["first line", "second line"],
        ["One. . . . ! ?", "Two."],
    ],
)
def test_sentences_between_spaces(sentences):
    separator = "\n" if "first line" in sentences else " "
    assert stripped(separator.join(sentences)) == sentences


@pytest.mark.parametrize("text", ["今天下雨。我们回家！", "「行こう。」彼は言った。", "你好？好！"])
def test_cjk_needs_no_space(text):
    assert len(split_sentences(text)) == 2


def test_quoted_mark_does_not_end_the_sentence_around_it():
    assert stripped('"Why?" he asked.') == ['"Why?" he asked.']


@settings(deadline=None)
@given(TEXTS)
def test_sentences_joined_are_the_text(text):
    sentences = split_sentences(text)
    assert "".join(sentences) == text
    assert all(sentences)
    assert all(any(c.isalnum() for c in sentence) for sentence in sentences[1:])


def words(text):
    return len(text.split())


def superadditive(text):
    """A count that is larger for the whole than for its parts together, as a subword model's may be."""
    return len(text) + len(text) ** 2 // 50


@settings(deadline=None)
@given(
    TEXTS,
    st.integers(10, 40),
    st.sampled_from([len, words, superadditive, lambda text: len(text.encode("utf-8", "replace"))]),
)
def test_parts_are_within_the_limit_and_joined_are_the_text(text, limit, count):
    parts = split_text(text, limit, count)
    assert "".join(parts) == text
    assert all(count(part) <= limit for part in parts)
    if count(text) <= limit:
        assert parts == [text]


def test_cuts_at_sentences_then_clauses_then_spaces_then_characters():
    text = "One two three. Four five, six seven, eight nine. Abcdefghijklmnopqrstuvwxyz."
    assert split_text(text, 60, len) == [
        "One two three. ",
        "Four five, six seven, eight nine. ",
        "Abcdefghijklmnopqrstuvwxyz.",
    ]
    assert split_text(text, 22, len)[:4] == [
        "One two three. ",
        "Four five, six seven, ",
        "eight nine. ",
        "Abcdefghijklm",
    ]
    clause = "alpha beta gamma delta, epsilon"
    assert split_text(clause, 16, len) == ["alpha beta ", "gamma delta, ", "epsilon"]
    assert split_text("abcdefghij", 4, len) == ["abc", "def", "ghij"]


def test_exactly_at_the_limit_stays_whole_and_one_more_is_cut():
    text = "One. " * 5 + "Five."
    assert split_text(text, len(text), len) == [text]
    assert len(split_text(text, len(text) - 1, len)) == 6


def test_a_character_is_not_parted_from_its_marks():
    text = "e\u0301\u0302" * 40
    assert all(not re.match("[\u0301\u0302]", part) for part in split_text(text, 10, len))
    family = "👩\u200d👩\u200d👧"
    assert all(part.startswith("👩") and part.endswith("👧") for part in split_text(family * 20, 12, len))


def test_a_character_beyond_the_limit_is_an_error():
    with pytest.raises(DataError, match=r"U\+0061.*at most 0"):
        split_text("aa", 0, len)


@pytest.mark.parametrize(
    "unit",
    [
        "word ",
        "x",
        "。",
        "... x",
        ".)",
        "! ",
        "J. ",
        "a, ",
        "A sentence with seven words in it. ",
        ".",
        "\n",
        "a\u0301",
        " ",
    ],
)
def test_a_megabyte_takes_seconds_at_most(unit):
    text = unit * (1_000_000 // len(unit))
    start = time.process_time()
    parts = split_text(text, 256, len)
    assert time.process_time() - start < 10
    assert "".join(parts) == text
    assert max(map(len, parts)) <= 256
