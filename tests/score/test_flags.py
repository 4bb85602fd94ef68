"""Flags on lines as they occur: what is flagged, and above all what is not."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s2s.score.flags import copied, length_ratio, line_flags, looping, looping_tokens, units

LOOPS = [
    "the man is a man is a man is a man is a man",
    "I don't know. I don't know. I don't know. I don't know.",
    "no no no no no no no no no no",
    "A package for the package for the package for the package for the package",
    "Dieses Paket enthält die Dateien. Dieses Paket enthält die Dateien. Dieses Paket enthält die Dateien.",
    "Es gibt viele , viele , viele , viele , viele , viele , viele , viele Leute",
    "die Straßen" + "straßen" * 6,
    "我不知道我不知道我不知道我不知道我不知道",
    "ฉันไม่รู้" * 4,
    "لا أعرف ماذا أقول لا أعرف ماذا أقول لا أعرف ماذا أقول",
    "я не знаю, я не знаю, я не знаю, я не знаю",
    "a" * 40,
]
GOOD = [
    "",
    "   ",
    "no no no",
    "No, no, no! Not again.",
    "very very very good",
    "ha ha ha ha ha",
    "hahahahahaha",
    "bye bye",
    "Sooooooooo good!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!",
    "----------------------------------------------------------------",
    "Table of contents .................................................. 12",
    "that that is is that that is not is not",
    "Buffalo buffalo Buffalo buffalo buffalo buffalo Buffalo",
    "The dog chased the cat, the cat chased the mouse, and the mouse ran away.",
    "This package is for development. This package is for development.",
    "A man in a red shirt and a woman in a red dress and a boy in a red hat.",
    "1 2 3 4 5 6 7 8 9 10 11 12",
    "https://www.example.org/aaa/bbb/aaa/bbb/index.html?a=1&a=1&a=1",
    "Donaudampfschifffahrtsgesellschaftskapitänsmützenabzeichen",
    "谢谢谢谢谢谢",
    "哈哈哈哈哈哈哈哈哈",
    "人山人海，热热闹闹，高高兴兴。",
    "😂😂😂😂😂😂😂😂😂😂😂😂😂😂😂😂😂😂",
    "بسم الله الرحمن الرحيم",
]


@pytest.mark.parametrize("text", LOOPS)
def test_loops_are_flagged(text):
    assert looping(units(text))
    assert looping(units(text.upper()))
    assert looping(units("Well, it began like this: " + text)) or text.startswith(("我", "ฉ"))


@pytest.mark.parametrize("text", GOOD)
def test_good_lines_are_not(text):
    assert not looping(units(text))


def naive_loop(items, repeats, cover):
    for start in range(len(items)):
        for period in range(1, len(items)):
            gram = items[start : start + period]
            count = 1
            while items[start + count * period : start + (count + 1) * period] == gram:
                count += 1
            whole = count * period
            while start + whole < len(items) and items[start + whole] == gram[whole % period]:
                whole += 1
            if count >= repeats and whole >= cover:
                return True
    return False


def loops_in_noise():
    """Lists of few or many different tokens, some with a loop in their midst."""
    some = st.integers(0, 1) | st.integers(0, 9)
    noise, gram = st.lists(some, max_size=8), st.lists(some, min_size=1, max_size=9)
    return st.builds(lambda a, b, times, c: a + b * times + c, noise, gram, st.integers(0, 9), noise)


@given(loops_in_noise())
def test_looping_tokens_equals_a_naive_search(tokens):
    assert looping_tokens(tokens) == naive_loop(tokens, 3, 16)


def test_looping_is_fast_on_a_huge_line():
    start = time.perf_counter()
    assert looping(units("x " * 300_000))
    assert not looping(units(" ".join(str(number) for number in range(100_000))))
    assert time.perf_counter() - start < 10


COPIES = [
    ("This package contains the documentation.", "This package contains the documentation."),
    ("This package contains the documentation.", "this package contains the documentation"),
    (
        "Two young men are playing football in the park near here.",
        "Two young men are playing football in a park near here.",
    ),
    ("今天天气很好，我们去公园玩。", "今天天气很好，我们去公园玩。"),
    ("القطة تجلس على السجادة الحمراء", "القطة تجلس على السجادة الحمراء"),
    ("Der Hund läuft durch den Schnee", "Der Hund la\u0308uft durch den Schnee"),
]
NO_COPIES = [
    ("Debian GNU/Linux", "Debian GNU/Linux"),
    ("GNU C++ compiler", "GNU C++ compiler"),
    ("Angela Merkel", "Angela Merkel"),
    ("2024-05-01 12:30:59 +0200", "2024-05-01 12:30:59 +0200"),
    ("3.14159", "3.14159"),
    ("東京大学", "東京大学"),
    ("", ""),
    ("  ", "  "),
    ("This package contains the documentation.", ""),
    ("This package contains the documentation.", "Dieses Paket enthält die Dokumentation."),
    ("Perl interface to the GNU Scientific Library", "Perl-Schnittstelle zur GNU Scientific Library"),
    (
        "The company said on Monday that it would close two plants. Workers were told last week.",
        "The company said on Monday that it would close two plants.",
    ),
]


@pytest.mark.parametrize("source,output", COPIES)
def test_copies_are_flagged(source, output):
    assert copied(units(source), units(output))
    assert line_flags(source, output) == ("copied",)


@pytest.mark.parametrize("source,output", NO_COPIES)
def test_translations_and_names_are_not(source, output):
    assert not copied(units(source), units(output))


def test_line_flags():
    loop = "the man is a man is a man is a man is a man"
    assert line_flags("Der Mann lacht.", "The man laughs.") == ()
    assert line_flags("Der Mann lacht.", loop) == ("looping",)
    assert line_flags(loop, loop) == ("copied",)


def test_units():
    assert units("Der HUND, läuft; 3.14 schöne-Tage!") == ["der", "hund", "läuft", "3", "14", "schöne", "tage"]
    assert units("我有 2 本 Python书") == ["我", "有", "2", "本", "python", "书"]
    assert units("हिन्दी भाषा") == ["हिन्दी", "भाषा"]
    assert units("!? \ud800 \x00 \u2028") == []


@given(st.text(st.characters(max_codepoint=127), max_size=60))
def test_units_of_ascii_are_those_of_any_text(text):
    assert units(text) == units(f"{text} é")[:-1]


def test_length_ratio():
    assert length_ratio("a b c d", "a b") == 0.5
    assert length_ratio("", "") == 1
    assert length_ratio("...", "word") == float("inf")
    assert length_ratio("word", " ") == 0


@given(st.text(max_size=60), st.text(max_size=60))
def test_any_text_has_flags(source, output):
    assert set(line_flags(source, output)) <= {"copied", "looping"}
