"""bench/corpora.py: one small size through everything, and the page of what was kept."""

import json
import subprocess
import sys

import pytest

from bench import corpora


def test_the_corpus_is_a_function_of_its_size(tmp_path):
    corpora.write_corpus(tmp_path / "one", 40)
    corpora.write_corpus(tmp_path / "other", 40)
    for name, count in (("train", 40), ("dev", corpora.HELD_OUT)):
        source, target = ((tmp_path / f"one/{name}.{side}").read_text().splitlines() for side in ("en", "de"))
        assert len(source) == len(target) == count
        assert (tmp_path / f"other/{name}.en").read_text().splitlines() == source
        for line, other in zip(source, target, strict=True):
            assert 5 <= len(line.split()) <= 25
            assert other.replace("de", "en").split() == line.split()[::-1]


def test_memory_of_processes_that_were_started_counts(tmp_path):
    hold = "import time; x = bytearray(b'1') * 50_000_000; print(flush=True); time.sleep(9)"
    nested = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {hold!r}])"
    with subprocess.Popen([sys.executable, "-c", nested], stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        seen = corpora.anonymous_mb(process.pid)
        process.kill()
    assert 47 < seen < 110


def test_a_command_is_watched_until_it_ends_or_is_enough():
    seconds, memory, output = corpora.watched([sys.executable, "-c", "import time; time.sleep(0.3); print('x')"])
    assert 0.3 <= seconds < 5
    assert memory > 1
    assert output == "x\n"
    seconds, _, _ = corpora.watched([sys.executable, "-c", "import time; time.sleep(30)"], lambda: True)
    assert seconds < 10
    with pytest.raises(SystemExit, match="no such thing"):
        corpora.watched([sys.executable, "-c", "raise ValueError('no such thing')"])


def test_a_size_is_measured_and_its_page_made(tmp_path, monkeypatch):
    monkeypatch.setattr(corpora, "RESULTS", tmp_path / "results")
    with pytest.raises(SystemExit, match="no result yet"):
        corpora.show()
    monkeypatch.setattr(corpora, "WORKERS", 1)
    corpora.main(["run", "600", "--work", str(tmp_path / "work")])
    (kept,) = (tmp_path / "results").glob("*.json")
    (point,) = json.loads(kept.read_text())["points"]
    assert point["pairs"] == 600
    assert all(value > 0 for value in point.values())
    assert corpora.main(["show"]) == 0
    text = (tmp_path / "results" / "README.md").read_text()
    assert text.count("\n| 600 |") == 1
    assert "RssAnon" in text


def test_exponents_are_told_from_three_sizes_on():
    columns = ("files_mb", "prepare_s", "prepare_mb", "pairs_per_second", "epoch_mb", "first_update_s", "train_mb")
    points = [{"pairs": size, **dict.fromkeys(columns, 7.0), "prepare_s": size / 9} for size in (10, 100, 1000)]
    assert corpora.table(points).splitlines()[-1] == "| exponent | 0.00 | 1.00 | 0.00 | 0.00 | 0.00 | 0.00 | 0.00 |"
    assert "exponent" not in corpora.table(points[:2])
