from __future__ import annotations

from pathlib import Path

import pytest
from debian_toys import stanza, write_release

from s2s.text.corpus import debian_synopsis, describe
from s2s.text.corpus.debian_synopsis import without

LONG = "It reads every file that it is given and says what is in it."


def release(folder: Path, text: str, **sources: str) -> None:
    write_release(folder / "en", dict(sources), text)


def test_description_on_one_line_to_synopsis(tmp_path: Path) -> None:
    release(tmp_path, stanza("foo", "en", "a tool", "One line", "and more.", ".", "  * item"), foo="src")
    (pair,) = debian_synopsis(path=tmp_path, dev=0, test=0).splits["train"]
    assert pair[:3] == ("One line and more. item", "a tool", "foo")


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("Foo is A  Small\nTool. It is small.", "Foo is It is small."),
        ("a small toolbox, no a small tool", "a small toolbox, no"),
        ("C++ (a small tool): fast", "C++ ( ): fast"),
        ("nothing of it", "nothing of it"),
    ],
)
def test_synopsis_is_cut_out_where_it_stands_as_words(text: str, left: str) -> None:
    assert without(text, "a small tool").replace("()", "( )") == left


def test_a_synopsis_of_signs_is_no_pattern() -> None:
    assert without("what a.c is, abc", "a.c") == "what is, abc"
    assert without("(x)* and y", "(x)*") == "and y"


def test_every_drop_has_its_reason(tmp_path: Path) -> None:
    text = "".join(stanza(name, "en", f"reader number {name}", LONG) for name in "abcd")
    text += stanza("e", "en", "old reader - transitional package", LONG)
    text += stanza("f", "en", "old reader", "This is a dummy package that is safe to remove.")
    text += stanza("g", "en", "a synopsis of five words", "Too short.")
    text += stanza("h", "en", "1 2 3", LONG)
    text += stanza("i", "en", "reader number a", LONG)
    text += stanza("j", "en", "a synopsis alone")
    release(tmp_path, text, a="s", b="s", c="s", d="s", e="e", f="f", g="g", h="h", i="i", j="j")
    corpus = debian_synopsis(path=tmp_path, dev=0, test=0)
    counts = corpus.report.splits["train"]
    assert counts.dropped == {
        "more than 3 packages of one source": 1,
        "transitional or dummy package": 2,
        "description shorter than its synopsis": 2,
        "no letters": 1,
        "duplicate": 1,
    }
    assert [pair.origin for pair in corpus.splits["train"]] == ["a", "b", "c"]
    assert counts.read == counts.kept + sum(counts.dropped.values()) == 10
    assert "licence: each package's own" in describe(corpus)


def test_whole_sources_are_held_out_and_boilerplate_leaves_the_test(tmp_path: Path) -> None:
    names = {f"tool{i:03d}": f"src{i // 2:03d}" for i in range(200)}
    own = [f"It has {' '.join('abcdefghij'[int(d)] * 3 for d in name[4:])} inside." for name in names]
    text = ""
    for i, (name, line) in enumerate(zip(names, own, strict=True)):
        text += stanza(name, "en", f"thing of number {i}", line if i % 4 else f"This holds {name} in version {i}.")
    release(tmp_path, text, **names)
    corpus = debian_synopsis(path=tmp_path, dev=0.2, test=0.2)
    sources = {split: {names[pair.origin] for pair in pairs} for split, pairs in corpus.splits.items()}
    assert not sources["train"] & sources["test_raw"]
    assert not sources["train"] & sources["dev"]
    raw, test = corpus.splits["test_raw"], corpus.splits["test"]
    assert test == [pair for pair in raw if not pair.source.startswith("This holds")]
    assert 0 < len(test) < len(raw)
    assert debian_synopsis(path=tmp_path, dev=0.2, test=0.2, seed=2).splits != corpus.splits
