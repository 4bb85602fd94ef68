from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from s2s.errors import DataError
from s2s.text.corpus import Pair, describe, files, jsonl, reference_streams, tsv
from s2s.text.corpus.local import _first_suspicious

SAMPLE = Path(__file__).resolve().parents[2] / "data" / "sample"


def write(path: Path, *lines: str) -> Path:
    data = "".join(line + "\n" for line in lines).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def texts(pairs: list[Pair]) -> list[tuple[str, str]]:
    return [(pair.source, pair.target) for pair in pairs]


def test_sample_of_the_project() -> None:
    corpus = files(train=SAMPLE / "train", dev=SAMPLE / "dev", test=SAMPLE / "test", source="en", target="de")
    assert {split: len(pairs) for split, pairs in corpus.splits.items()} == {"train": 20, "dev": 4, "test": 4}
    assert corpus.report.warnings == []
    assert corpus.splits["train"][0].origin.endswith("train.en:1")
    assert len(corpus.files) == 6


def test_two_paths_and_gz(tmp_path: Path) -> None:
    one, other = write(tmp_path / "x.gz", "a", "b"), write(tmp_path / "y", "A", "B")
    corpus = files(train=[one, other], source="en", target="de")
    assert texts(corpus.splits["train"]) == [("a", "A"), ("b", "B")]
    assert list(corpus.splits) == ["train"]
    write(tmp_path / "t.en.gz", "c")
    write(tmp_path / "t.de.gz", "C")
    corpus = files(train=tmp_path / "t", source="en", target="de")
    assert texts(corpus.splits["train"]) == [("c", "C")]


def test_unequal_counts_name_both_and_where_the_files_part(tmp_path: Path) -> None:
    sentences = ["word " * (3 + 7 * (i * i % 5)) for i in range(40)]
    write(tmp_path / "t.en", *sentences)
    write(tmp_path / "t.de", *sentences[:17], *sentences[18:])
    with pytest.raises(DataError) as caught:
        files(train=tmp_path / "t", source="en", target="de")
    message = str(caught.value)
    assert "t.en has 40" in message
    assert "t.de has 39" in message
    assert "t.en:18" in message


def test_first_suspicious_by_brute_force() -> None:
    theirs = [5, 90, 30, 7, 60, 12, 44]
    for gone in range(len(theirs)):
        ours = theirs[:gone] + theirs[gone + 1 :]
        assert _first_suspicious(ours, theirs) == _first_suspicious(theirs, ours) == gone + 1


def test_empty_and_missing_files_are_named(tmp_path: Path) -> None:
    write(tmp_path / "t.en", "a")
    with pytest.raises(DataError, match=r"t\.de: no such file.*t\.de\.gz"):
        files(train=tmp_path / "t", source="en", target="de")
    write(tmp_path / "t.de")
    with pytest.raises(DataError, match=r"t\.de: empty file"):
        files(train=tmp_path / "t", source="en", target="de")


def test_blank_sides_are_dropped_and_counted(tmp_path: Path) -> None:
    write(tmp_path / "t.en", "a", "", "c", "d", "e\x00")
    write(tmp_path / "t.de", "A", "B", "\u3000", "D", "E")
    corpus = files(train=tmp_path / "t", source="en", target="de")
    counts = corpus.report.splits["train"]
    assert texts(corpus.splits["train"]) == [("a", "A"), ("d", "D"), ("e", "E")]
    assert (counts.read, counts.kept, counts.dropped, counts.removed_characters) == (5, 3, {"blank side": 2}, 1)
    assert counts.examples["blank side"].endswith("t.en:2")
    assert "1 control characters" in corpus.report.warnings[0]


def test_more_than_half_dropped_needs_a_word(tmp_path: Path) -> None:
    write(tmp_path / "t.en", "a", "", "", "")
    write(tmp_path / "t.de", "A", "B", "C", "D")
    with pytest.raises(DataError, match=r"3 of 4 pairs were dropped.*blank side 3.*t\.en:2.*allow_drop=true"):
        files(train=tmp_path / "t", source="en", target="de")
    assert len(files(train=tmp_path / "t", source="en", target="de", allow_drop=True).splits["train"]) == 1


def test_all_dropped_says_why(tmp_path: Path) -> None:
    write(tmp_path / "t.en", "a b c")
    write(tmp_path / "t.de", "A")
    with pytest.raises(DataError, match=r"all 1 pairs were dropped.*more than 2 words 1"):
        files(train=tmp_path / "t", source="en", target="de", allow_drop=True, max_words=2)


def test_one_line_corpus_and_lowercase(tmp_path: Path) -> None:
    write(tmp_path / "t.en", "Hello World")
    write(tmp_path / "t.de", "Hallo WELT")
    corpus = files(train=tmp_path / "t", source="en", target="de", lowercase=True)
    assert texts(corpus.splits["train"]) == [("hello world", "hallo welt")]


def test_share_held_out_keeps_equal_sources_together(tmp_path: Path) -> None:
    write(tmp_path / "t.en", *(str(i % 100) for i in range(400)))
    write(tmp_path / "t.de", *(f"x {i}" for i in range(400)))
    corpus = files(train=tmp_path / "t", dev=0.2, test=0.1, source="en", target="de")
    sources = {split: {pair.source for pair in pairs} for split, pairs in corpus.splits.items()}
    assert sum(len(pairs) for pairs in corpus.splits.values()) == 400
    assert not sources["train"] & sources["dev"]
    assert not sources["train"] & sources["test"]
    assert 8 <= len(sources["dev"]) <= 34
    again = files(train=tmp_path / "t", dev=0.2, test=0.1, source="en", target="de")
    assert again.fingerprint() == corpus.fingerprint()
    assert again.splits == corpus.splits
    assert files(train=tmp_path / "t", dev=0.2, test=0.1, source="en", target="de", seed=2).splits != corpus.splits


def test_impossible_shares(tmp_path: Path) -> None:
    write(tmp_path / "t.en", "a")
    write(tmp_path / "t.de", "A")
    with pytest.raises(DataError, match=r"dev \+ test < 1"):
        files(train=tmp_path / "t", dev=0.6, test=0.5, source="en", target="de")
    with pytest.raises(DataError, match=r"files dev: there are no pairs.*larger"):
        files(train=tmp_path / "t", dev=0.0001, source="en", target="de")
    assert list(files(train=tmp_path / "t", dev=0, test=0, source="en", target="de").splits) == ["train"]


def test_warnings_for_overlap_and_identical_sides(tmp_path: Path) -> None:
    write(tmp_path / "t.en", "a", "b", "c")
    write(tmp_path / "t.de", "a", "b", "C")
    write(tmp_path / "d.en", "a", "x")
    write(tmp_path / "d.de", "Ä", "X")
    corpus = files(train=tmp_path / "t", dev=tmp_path / "d", source="en", target="de")
    assert any("1 of 2 sources of dev also stand in train" in warning for warning in corpus.report.warnings)
    assert any("identical in 2 of 3" in warning for warning in corpus.report.warnings)


def test_invalid_utf8_can_be_replaced(tmp_path: Path) -> None:
    (tmp_path / "t.en").write_bytes(b"a\xff\n")
    write(tmp_path / "t.de", "A")
    with pytest.raises(DataError, match=r"t\.en:1: invalid UTF-8"):
        files(train=tmp_path / "t", source="en", target="de")
    corpus = files(train=tmp_path / "t", source="en", target="de", errors="replace")
    assert corpus.splits["train"][0].source == "a\ufffd"


def test_file_fingerprints_notice_a_change(tmp_path: Path) -> None:
    write(tmp_path / "t.en", "a")
    write(tmp_path / "t.de", "A")
    before = files(train=tmp_path / "t", source="en", target="de")
    write(tmp_path / "t.de", "B")
    after = files(train=tmp_path / "t", source="en", target="de")
    changed = {name for name in before.files if before.files[name] != after.files[name]}
    assert changed == {str(tmp_path / "t.de")}
    assert before.fingerprint() != after.fingerprint()


def test_tsv_with_and_without_header(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tsv", "id\ten\tde", "1\ta\tA", "2\tb\tB")
    corpus = tsv(train=path, source="en", target="de", source_column="en", target_column="de")
    assert texts(corpus.splits["train"]) == [("a", "A"), ("b", "B")]
    corpus = tsv(train=path, source="de", target="en", source_column=2, target_column=1)
    assert texts(corpus.splits["train"]) == [("de", "en"), ("A", "a"), ("B", "b")]


def test_tsv_bad_rows_name_file_and_line(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tsv", "a\tA", "b\tB\textra", "c\tC")
    with pytest.raises(DataError, match=r"a\.tsv:2: row has 2 tabs; expected 1"):
        tsv(train=path, source="en", target="de")
    path = write(tmp_path / "a.tsv", "a\tA", "b")
    with pytest.raises(DataError, match=r"a\.tsv:2: row has 0 tabs"):
        tsv(train=path, source="en", target="de")


def test_tsv_columns(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tsv", "en\ten\tde", "a\tb\tA")
    with pytest.raises(DataError, match=r"a\.tsv:1: column 'en' stands there more than once"):
        tsv(train=path, source="en", target="de", source_column="en", target_column="de")
    with pytest.raises(DataError, match=r"no column 'fr'.*en, en, de"):
        tsv(train=path, source="en", target="fr", source_column="de", target_column="fr")
    with pytest.raises(DataError, match="no column 3"):
        tsv(train=path, source="en", target="fr", source_column=0, target_column=3)


def test_tsv_blank_row_is_a_dropped_pair(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tsv", "a\tA", "", "c\tC")
    corpus = tsv(train=path, source="en", target="de")
    assert corpus.report.splits["train"].dropped == {"blank side": 1}


def test_jsonl_fields(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", json.dumps({"translation": {"en": "a\nb", "de": "Ä"}}))
    corpus = jsonl(train=path, source="en", target="de", source_field="translation.en", target_field="translation.de")
    assert texts(corpus.splits["train"]) == [("a b", "Ä")]


@pytest.mark.parametrize(
    "line, message",
    [
        ('{"source": "b"}', "no field 'target'; found fields source"),
        ('{"source": "b", "target": null}', "field 'target' is no text; expected a string; found null"),
        ('{"source": "b", "target": 3}', "found int"),
        ('{"source": "a", "source": "b", "target": "c"}', "'source' stands twice"),
        ('["a", "b"]', "not an object"),
        ("{oops", "no JSON"),
        ('{"source": "\\ud800", "target": "c"}', "surrogate"),
        ("[" * 100_000, "nested|JSON"),
    ],
)
def test_jsonl_bad_lines_name_row_and_field(tmp_path: Path, line: str, message: str) -> None:
    path = write(tmp_path / "a.jsonl", '{"source": "a", "target": "A"}', line)
    with pytest.raises(DataError, match=rf"a\.jsonl:2: .*({message})"):
        jsonl(train=path, source="en", target="de")


def test_several_references_of_unequal_number(tmp_path: Path) -> None:
    records = [
        {"source": "a", "target": "Eins", "refs": ["Eins", "One\u0000", " "]},
        {"source": "b", "target": "Zwei", "refs": []},
        {"source": "c", "target": "Drei"},
        {"source": "d", "target": "Vier", "refs": None},
    ]
    path = write(tmp_path / "x.jsonl", *(json.dumps(record) for record in records))
    options = {"train": path, "source": "en", "target": "de", "references_field": "refs"}
    pairs = jsonl(**options, lowercase=True).splits["train"]  # type: ignore[arg-type]
    assert pairs[0].references == ("eins", "one")
    assert reference_streams(pairs) == [["eins", "zwei", "drei", "vier"], ["one", "zwei", "drei", "vier"]]
    assert reference_streams(pairs[1:]) == [["zwei", "drei", "vier"]]
    plain = jsonl(train=path, source="en", target="de")
    assert all(pair.references == () for pair in plain.splits["train"])
    assert plain.fingerprint() != jsonl(**options).fingerprint()  # type: ignore[arg-type]
    write(path, '{"source": "a", "target": "b", "refs": ["c", 1]}')
    with pytest.raises(DataError, match=r"x\.jsonl:1: field 'refs' is no list of texts.*found \['c', 1\]"):
        jsonl(**options)  # type: ignore[arg-type]


def test_jsonl_blank_line_is_a_dropped_pair(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", '{"source": "a", "target": "A"}', "")
    assert jsonl(train=path, source="en", target="de").report.splits["train"].dropped == {"blank side": 1}
    with pytest.raises(DataError, match="empty file"):
        jsonl(train=write(tmp_path / "b.jsonl"), source="en", target="de")


def test_describe_shows_sizes_drops_and_warnings(tmp_path: Path) -> None:
    write(tmp_path / "t.en", "a a a", "", "b")
    write(tmp_path / "t.de", "A", "B", "b")
    text = describe(files(train=tmp_path / "t", source="en", target="de"))
    rows = [line.split() for line in text.split("\n")]
    assert ["train", "2", "4", "3", "3", "3", "2", "1", "1", "1"] in rows
    assert any(row[:6] == ["train", "3", "2", "1", "blank", "side"] for row in rows)
    assert "t.en:2" in text
    assert "no warnings" in text
    assert "licence: not stated" in text
