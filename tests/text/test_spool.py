"""Pairs in a file, and sequences whose items are made when they are asked for."""

import pickle

import pytest

from s2s.errors import DataError
from s2s.text.corpus.base import Pair, make_corpus, train_kept_by, warn
from s2s.text.corpus.spool import Spool, open_spool, spool
from s2s.text.lazy import Chained, Mapped

PAIRS = [
    Pair("a b", "A", "f:1"),
    Pair("turn one\nturn two", '\u2028\x85 "quoted" \\ 😀', "f:2", ("one", "two")),
    Pair("", "", "f:3"),
]


def test_pairs_come_back_as_they_were(tmp_path):
    kept = spool(iter(PAIRS), tmp_path / "x.jsonl", tmp_path / "x.lines")
    assert list(kept) == PAIRS == [kept[0], kept[1], kept[-1]]
    assert kept[1:] == PAIRS[1:]
    assert len(kept) == 3
    assert (tmp_path / "x.jsonl").read_bytes().count(b"\n") == 3
    assert list(open_spool(tmp_path / "x.jsonl", tmp_path / "x.lines")) == PAIRS
    with pytest.raises(IndexError):
        kept[3]


def test_many_pairs(tmp_path):
    """More than are written together."""
    pairs = [Pair(str(number), "", "") for number in range(70_000)]
    kept = spool(pairs, tmp_path / "x.jsonl", tmp_path / "x.lines")
    assert len(kept) == 70_000
    for place in (0, 65_534, 65_535, 65_536, 69_999):
        assert kept[place].source == str(place)


def test_no_pairs(tmp_path):
    kept = spool([], tmp_path / "x.jsonl", tmp_path / "x.lines")
    assert len(kept) == 0
    assert list(kept) == []


@pytest.mark.parametrize("line", [b"[1, 2, 3]\n", b"{}\n", b'["a"]\n', b"\xff\n", b"7\n", b'["a", "b", "c", null]\n'])
def test_damaged_lines_are_named(tmp_path, line):
    kept = spool(PAIRS, tmp_path / "x.jsonl", tmp_path / "x.lines")
    starts = kept.starts.copy()
    lines = (tmp_path / "x.jsonl").read_bytes().split(b"\n")
    (tmp_path / "y.jsonl").write_bytes(lines[0] + b"\n" + line)
    starts[2] = starts[1] + len(line)
    with pytest.raises(DataError, match=r"y.jsonl:2: is damaged"):
        list(Spool(tmp_path / "y.jsonl", starts[:3]))
    with pytest.raises(DataError, match="doesn't end where its index says"):
        Spool(tmp_path / "y.jsonl", starts)


def test_a_corpus_keeps_train_where_it_is_told(tmp_path):
    def made():
        splits = {"train": iter(PAIRS), "dev": [PAIRS[0]]}
        corpus = make_corpus(
            "x", ("a", "b"), splits, max_words=None, lowercase=False, allow_drop=False, facts={}, files={}
        )
        warn(corpus)
        return corpus

    with train_kept_by(lambda pairs: spool(pairs, tmp_path / "x.jsonl", tmp_path / "x.lines")):
        mapped = made()
    memory = made()
    assert isinstance(mapped.splits["train"], Spool)
    assert isinstance(mapped.splits["dev"], list)
    assert list(mapped.splits["train"]) == memory.splits["train"]
    assert mapped.fingerprint() == memory.fingerprint()
    assert mapped.report == memory.report
    assert "1 of 1 sources of dev also stand in train" in memory.report.warnings


def test_sequences_of_others():
    numbers = [1, 2, 3]
    doubled = Mapped(lambda number: 2 * number, numbers)
    assert list(doubled) == [2, 4, 6] == [doubled[0], doubled[1], doubled[-1]]
    both = Chained(numbers, doubled, [])
    assert list(both) == [1, 2, 3, 2, 4, 6] == [both[place] for place in range(6)]
    assert both[2:5] == [3, 2, 4]
    assert both[::-1] == [6, 4, 2, 3, 2, 1]
    with pytest.raises(IndexError):
        both[6]
    assert pickle.loads(pickle.dumps(Chained([1], [2])))[1] == 2
