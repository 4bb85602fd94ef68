"""HTML: markup stays, text is replaced as text."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s2s.serve.markup import Page


@pytest.mark.parametrize(
    ("source", "texts", "filled"),
    [
        ("", [], ""),
        ("plain", ["plain"], "X"),
        ("<p>one <b>two</b>\n three</p>", ["one", "two", "three"], "<p>X <b>X</b>\n X</p>"),
        ("a &amp; b &lt;c&gt; &#233;", ["a & b <c> é"], "X"),
        (
            "<script>1 < 2;</script>text<style>p > a {}</style>",
            ["text"],
            "<script>1 < 2;</script>X<style>p > a {}</style>",
        ),
        ("<!-- <b>no --><!DOCTYPE html><?no?>yes<br/>", ["yes"], "<!-- <b>no --><!DOCTYPE html><?no?>X<br/>"),
        ("  <p> \n </p>", [], "  <p> \n </p>"),
        ("<a title='1 > 0'>one</a> 1 < 2 <STYLE>no</Style > two", ["one", "1 < 2", "two"], None),
        ("one<!-- <b>no", ["one"], "X<!-- <b>no"),
        ("one<script>no", ["one"], "X<script>no"),
    ],
)
def test_texts_are_found_and_all_else_stays(source, texts, filled):
    page = Page(source)
    assert page.texts == texts
    assert Page(page.filled(page.texts)).texts == texts
    if filled is not None:
        assert page.filled(["X"] * len(texts)) == filled


def test_blanks_around_a_text_stay():
    assert Page("<p> one <b>two</b>\n</p>").filled(["1", "2"]) == "<p> 1 <b>2</b>\n</p>"


def test_an_output_adds_no_markup():
    hostile = "</p><script>alert(1)</script>&amp;"
    filled = Page("<p>text</p>").filled([hostile])
    assert filled == "<p>&lt;/p&gt;&lt;script&gt;alert(1)&lt;/script&gt;&amp;amp;</p>"
    assert Page(filled).texts == [hostile]


BROKEN = ["<p>", "</p>", "<br>", "<!--", "-->", "<", "&amp;", "&", "a b", "<script>", "<![", "<?", "<a ", "<!a"]


@given(st.lists(st.sampled_from(BROKEN)).map("".join))
def test_any_broken_markup_is_taken_and_kept(source):
    page = Page(source)
    filled = page.filled(["x"] * len(page.texts))
    assert len(Page(filled).texts) == len(page.texts)
    if not page.texts:
        assert filled == source


@pytest.mark.parametrize("part", [*BROKEN, "<a b='", "</", "<a '", "<a \"'", "<style"])
def test_many_of_them_take_no_time(part):
    begun = time.perf_counter()
    Page(part * (50_000 // len(part)))
    assert time.perf_counter() - begun < 1
