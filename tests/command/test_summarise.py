"""`s2s summarise` as a user types it: lines, whole files, folders."""

import json

import pytest


def test_lines_are_the_same_as_those_of_translate(s2s, reverse_run):
    text = "ba be bi\n\nbo bu\n"
    done = s2s("summarise", reverse_run, stdin=text)
    assert done.code == 0
    assert done.out == s2s("translate", reverse_run, stdin=text).out == s2s("summarize", reverse_run, stdin=text).out
    assert len(done.lines) == 3


def test_a_document_is_one_text_whatever_its_lines(s2s, reverse_run, tmp_path):
    (tmp_path / "a.txt").write_text("ba be\n\n  bi\r\n", encoding="utf-8")
    (tmp_path / "b.txt").write_text("bo bu", encoding="utf-8")
    whole = s2s("translate", reverse_run, stdin="ba be bi\nbo bu\n").out
    assert s2s("summarise", reverse_run, "--document", tmp_path / "a.txt", tmp_path / "b.txt").out == whole
    done = s2s("summarise", reverse_run, "--document", tmp_path, "--format", "jsonl")
    assert [json.loads(line)["input"] for line in done.lines] == ["ba be bi", "bo bu"]
    assert done.err == f"s2s: {tmp_path / 'a.txt'}\ns2s: {tmp_path / 'b.txt'}\n"


def test_an_empty_document_is_a_blank_line(s2s, reverse_run, tmp_path):
    (tmp_path / "empty.txt").write_text("", encoding="utf-8")
    (tmp_path / "next.txt").write_text("bo bu\n", encoding="utf-8")
    done = s2s("summarise", reverse_run, "--document", tmp_path / "empty.txt", tmp_path / "next.txt")
    assert done.code == 0
    assert done.lines[0] == ""
    assert done.lines[1]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda folder: ["--document", folder / "none.txt"], "there is no such file or folder"),
        (lambda folder: ["--document", folder], "the folder has no files"),
        (lambda folder: ["--document", folder, "-i", folder / "x"], "--document takes the place of -i"),
        (lambda folder: ["--overlong", "fold"], "invalid choice: 'fold'"),
    ],
)
def test_what_is_no_document(s2s, reverse_run, tmp_path, make, words):
    done = s2s("summarise", reverse_run, *make(tmp_path), stdin="")
    assert done.code == 2
    assert words in done.err
    assert done.out == ""


def test_the_style_of_a_title(s2s, reverse_run):
    plain = s2s("summarise", reverse_run, stdin="ba be\n").lines
    titled = s2s("summarise", reverse_run, "--title", stdin="ba be\n").lines
    assert plain[0][0].islower()
    assert titled == [plain[0][0].upper() + plain[0][1:]]
