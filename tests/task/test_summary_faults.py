"""Bad input of summaries: nothing is lost, and what is wrong is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from s2s.errors import DataError
from s2s.score.extracts import extracts
from s2s.score.summary import summary_statistics
from s2s.task.model import load
from s2s.text.corpus import jsonl, reference_streams, tsv


def test_a_line_of_five_megabytes(reverse_run, s2s, tmp_path: Path) -> None:
    line = "ba be bi bo bu " * (5_000_000 // 15)
    (tmp_path / "in").write_text(f"bo bu\n{line}\nbe\n", encoding="utf-8")
    for policy, flag in (("truncate", "truncated"), ("refuse", "refused")):
        options = ("--overlong", policy, "--format", "jsonl")
        done = s2s("summarise", reverse_run, *options, stdin=f'{{"text": "bo"}}\n{json.dumps({"text": line})}\n')
        assert done.code == 0, done.err
        records = [json.loads(record) for record in done.lines]
        assert len(records) == 2
        assert flag in records[1]["flags"]
        assert flag in done.err
    done = s2s("summarise", reverse_run, "--overlong", "truncate", "-i", tmp_path / "in")
    assert (done.code, len(done.lines)) == (0, 3)
    assert "1 truncated" in done.err


@pytest.mark.parametrize("text", ["https://example.org/a/b?c=d#e", "http://a.example http://b.example/x"])
def test_a_source_of_nothing_but_links(reverse_run, text: str) -> None:
    result = load(reverse_run).summarise(text, details=True)
    assert result.input == text
    found = summary_statistics([text], [result.text])
    assert found.compression is None or found.compression >= 0
    assert extracts([text], [["the web"]], 8) == {name: [text] for name in ("lead", "random", "oracle")}


def test_a_summary_that_is_longer_than_its_source() -> None:
    found = summary_statistics(["a b"], ["a b c d"])
    assert found.compression == 0.5
    assert extracts(["a b"], [["a b c d"]], 8) == {name: ["a b"] for name in ("lead", "random", "oracle")}


def test_a_field_that_is_missing_far_down(tmp_path: Path) -> None:
    rows = [{"text": f"long text {n}", "summary": f"short {n}"} for n in range(1, 2001)]
    del rows[1233]["summary"]
    (tmp_path / "x.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    with pytest.raises(DataError, match=r"x\.jsonl:1234: no field 'summary'"):
        jsonl(train=tmp_path / "x.jsonl", source="en", target="en", source_field="text", target_field="summary")


def test_references_that_differ_in_number(tmp_path: Path, s2s) -> None:
    rows = [{"source": f"long {n}", "target": "a", "refs": ["a", "b", "c"][: n % 4]} for n in range(8)]
    (tmp_path / "x.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    corpus = jsonl(train=tmp_path / "x.jsonl", source="en", target="en", references_field="refs")
    streams = reference_streams(corpus.splits["train"])
    assert [len(stream) for stream in streams] == [8, 8, 8]
    assert [stream[2] for stream in streams] == ["a", "b", "a"]
    assert [stream[0] for stream in streams] == ["a", "a", "a"]
    for name, lines in (("out", 3), ("one", 3), ("two", 2)):
        (tmp_path / name).write_text("a b\n" * lines, encoding="utf-8")
    done = s2s("score", tmp_path / "out", tmp_path / "one", tmp_path / "two", "-m", "rouge1")
    assert done.code == 2
    assert str(tmp_path / "two") in done.err


def test_summaries_that_are_their_sources(tmp_path: Path) -> None:
    (tmp_path / "x.tsv").write_text("".join(f"same {n}\tsame {n}\n" for n in range(9)), encoding="utf-8")
    corpus = tsv(train=tmp_path / "x.tsv", source="en", target="en")
    assert any("identical in 9 of 9 pairs" in warning for warning in corpus.report.warnings)
