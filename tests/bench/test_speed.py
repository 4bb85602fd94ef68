"""bench/speed.py: commands are watched, what toolkits write is read, medians are compared."""

import json
import sys

import pytest

from bench import page, speed
from bench.measure import measure
from bench.peers.base import SHAPES, Corpus
from s2s import app

SCRIPT = """
import subprocess, sys, time
kept = bytearray(80_000_000)
print("first", flush=True)
time.sleep(0.6)
print("second")
"""


def measured(*lines):
    return speed.Measured(0, 10.0, 0, 0.0, [(float(second), line) for second, line in enumerate(lines, 1)])


def peer(name):
    return next(one for one in speed.PEERS if one.name.startswith(name))


def test_a_command_is_watched(tmp_path):
    done = measure([sys.executable, "-c", SCRIPT], timeout=60, folder=tmp_path)
    assert done.code == 0
    assert [line for _, line in done.lines] == ["first", "second"]
    assert done.lines[1][0] - done.lines[0][0] > 0.4
    assert 80_000_000 < done.peak < 300_000_000


def test_a_command_that_takes_too_long_ends_with_all_below_it():
    code = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(60)'])"
    done = measure([sys.executable, "-c", code], timeout=0.5)
    assert done.code != 0
    assert done.seconds < 20


def test_what_toolkits_write_is_read(tmp_path):
    onmt = "[2026-11-26 10:00:00,000 INFO] Step 3/   30; acc: 1.2; ppl: 9; lr: 0.00100; sents: 64; bsz: 900/ 1011/64; "
    for name in ("OpenNMT", "eole"):
        assert peer(name).updates(measured(onmt, "nothing", onmt), tmp_path) == [(1.0, 1011.0), (3.0, 1011.0)]
    joey = "Epoch 1, Step:  2, Batch Loss: 9.0, Batch Acc: 0.0, Tokens per Sec:  500, Lr: 0.001000"
    assert peer("JoeyNMT").updates(measured(joey, "-", joey), tmp_path) == [(1.0, 0.0), (3.0, 1000.0)]
    assert peer("transformers").updates(measured("update 1 tokens 4000 loss 9.0"), tmp_path) == [(1.0, 4000.0)]
    assert peer("OpenNMT").sentences_a_second(measured("Total translation time (s): 12.800000")) == 40.0
    assert peer("JoeyNMT").sentences_a_second(measured("Generation took 5.12[sec]. (No references given)")) == 100.0
    with pytest.raises(ValueError, match="nothing like"):
        peer("JoeyNMT").sentences_a_second(measured("Traceback"))


def test_tokens_of_our_own_updates_come_from_the_log(tmp_path):
    run = tmp_path / "run" / "bench" / "2026"
    run.mkdir(parents=True)
    events = [{"event": "train", "step": step, "seconds": step / 2, "tokens": 1000 * step} for step in (1, 2, 3)]
    (run / "log.jsonl").write_text("\n".join(json.dumps(event) for event in [{"event": "start"}, *events]))
    done = measured("training the tokenizer", "training, until 3 steps", "step 1/3  loss 8.9")
    assert peer("s2s").updates(done, tmp_path) == [(2.5, 1000), (3.0, 1000), (3.5, 1000)]


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_every_toolkit_has_settings_of_every_shape(shape, tmp_path):
    corpus = Corpus(tmp_path)
    (tmp_path / "vocabulary").write_text("a\nb\n", encoding="utf-8")
    for one in (one for one in speed.PEERS if shape.name in one.shapes and one.name == one.trained_by):
        folder = tmp_path / one.name.split()[0]
        folder.mkdir()
        command = one.train(shape, corpus, folder, speed.python_of(one, tmp_path))
        assert all(isinstance(word, str) for word in command)
        if one.name == "s2s":
            made = app.compose(command[4], command[5:])
            assert made.trainer.steps == shape.updates
            assert made.attention.name == (shape.attention or "multihead")


def test_medians_are_compared_with_the_best_other():
    def runs(*rates):
        return [{"rate": rate, "peak_mb": 10, "first": 2.0} for rate in rates]

    found = {"row": {"s2s": runs(30, 10, 20), "one": runs(8, 9, 10), "two": runs(10, 12, 11), "three": [{"error": []}]}}
    lines = page.table(found).split("\n")
    assert lines[2] == "| s2s | 20 | 10 to 30 | 10 | 2.0 | 1.82 |"
    assert lines[-1].startswith("| three | failed")


def rates(**values):
    return {name: [{"rate": value, "peak_mb": 10, "other": 0.1}] for name, value in values.items()}


def test_the_guard_compares_ratios_in_one_run(tmp_path, monkeypatch, capsys):
    kept = {"train": rates(s2s=200, other=100, yardstick=400), "decode": rates(s2s=50, other=50)}
    same_on_a_slower_machine = {"train": rates(s2s=20, other=10, yardstick=41), "alone": rates(s2s=1)}
    assert page.fallen(kept, same_on_a_slower_machine) == []
    slower = {"train": rates(s2s=80, other=50, yardstick=190), "decode": rates(s2s=44, other=50)}
    assert page.fallen(kept, slower) == ["train: s2s is 1.60 times as fast as other, was 2.00 times",
                                         "train: s2s is 0.42 times as fast as yardstick, was 0.50 times"]  # fmt: skip
    assert page.fallen({}, slower) == []
    monkeypatch.setattr(speed, "RESULTS", tmp_path)
    with pytest.raises(SystemExit, match="no result yet"):
        speed.main(["guard"])
    (tmp_path / "2026-01-01.json").write_text(json.dumps({"found": kept}))
    for found, code in ((slower, 1), (same_on_a_slower_machine, 0)):
        monkeypatch.setattr(speed, "run", lambda *_, found=found: {"found": found})
        assert speed.main(["guard"]) == code
    assert "was 2.00 times" in capsys.readouterr().out


def test_a_page_and_a_picture_come_from_what_was_kept(tmp_path, monkeypatch):
    found = {"train": rates(s2s=200, other=100), "decode": rates(s2s=50) | {"other": [{"error": ["?"], "other": 7.5}]}}
    done = {"date": "2026-01-01", "machine": {"CPU": "a chip", "cores": "2"}, "rounds": 1, "found": found}
    monkeypatch.setattr(speed, "RESULTS", tmp_path)
    (tmp_path / "2026-01-01.json").write_text(json.dumps(done))
    assert speed.main(["show"]) == 0
    text = (tmp_path / "README.md").read_text()
    assert "CPU a chip, cores 2. 1 rounds" in text
    assert "at most 7.5 processor seconds" in text
    assert "| s2s | 200 | 200 to 200 | 10 |  | 2.00 |" in text
    assert (tmp_path / "speed.png").read_bytes().startswith(b"\x89PNG")


def test_a_corpus_is_cut_into_one_vocabulary(tmp_path, monkeypatch):
    monkeypatch.setattr(speed, "VOCABULARY", 20)
    for split in ("train", "val", "test"):
        for language in ("en", "de"):
            (tmp_path / f"{split}.{language}").write_text("ab ac ad ae af bc bd be\n" * 600, encoding="utf-8")
    speed.prepare(tmp_path, tmp_path / "work")
    corpus = Corpus(tmp_path / "work" / "corpus")
    known = set(corpus.vocabulary())
    for split, count in (("train", 600), ("val", 600), ("test", 512)):
        lines = corpus.path(split, "en").read_text(encoding="utf-8").splitlines()
        assert len(lines) == count
        assert set(lines[0].split()) <= known
