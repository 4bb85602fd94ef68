"""HTML: markup stays, text is replaced as text."""

import contextlib
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s2s.errors import DataError
from s2s.serve.markup import Page


@pytest.mark.parametrize(
    ("source", "texts"),
    [
        ("", []),
        ("plain", ["plain"]),
        ("<p>one <b>two</b>\n three</p>", ["one", "two", "three"]),
        ("a &amp; b &lt;c&gt; &#233;", ["a & b <c> é"]),
        ("<script>var x = 1 < 2;</script>text<style>p > a {}</style>", ["text"]),
        ("<!-- no --><!DOCTYPE html><?php no ?>yes<br/><img alt='no'>", ["yes"]),
        ("  <p> \n </p>", []),
    ],
)
def test_texts_are_found_and_all_else_stays(source, texts):
    page = Page(source)
    assert page.texts == texts
    assert Page(page.filled(page.texts)).texts == texts
    marked = page.filled([f"[{text}]" for text in texts])
    assert marked.count("[") == source.count("[") + len(texts)
    assert marked.count("<") >= len([c for c in source if c == "<"]) - source.count("&lt;")


def test_blanks_around_a_text_stay():
    assert Page("<p> one <b>two</b>\n</p>").filled(["1", "2"]) == "<p> 1 <b>2</b>\n</p>"


def test_an_output_adds_no_markup():
    hostile = "</p><script>alert(1)</script>&amp;"
    filled = Page("<p>text</p>").filled([hostile])
    assert filled == "<p>&lt;/p&gt;&lt;script&gt;alert(1)&lt;/script&gt;&amp;amp;</p>"
    assert Page(filled).texts == [hostile]


BROKEN = ["<p>", "</p>", "<br>", "<!--", "-->", "<", "&amp;", "&", "a b", "<script>", "<![", "<?", "<a ", "<!a"]


@given(st.lists(st.sampled_from(BROKEN)))
def test_broken_markup_is_taken_or_refused(parts):
    try:
        page = Page("".join(parts))
    except DataError:
        assert "<!" in "".join(parts)
    else:
        page.filled(["x"] * len(page.texts))


@pytest.mark.parametrize("part", [*BROKEN, "<a b='", "</"])
def test_many_of_them_take_no_time(part):
    begun = time.perf_counter()
    with contextlib.suppress(DataError):
        Page(part * (50_000 // len(part)))
    assert time.perf_counter() - begun < 2
