"""bench/speed.py: commands are watched, what toolkits write is read, medians are compared."""

import json
import runpy
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from bench import kept, page, speed
from bench.measure import measure
from bench.peers import itself
from bench.peers.base import SHAPES, TOOK, Corpus, rate_of
from s2s import app

SCRIPT = """
import subprocess, sys, time
kept = bytearray(80_000_000)
print("first", flush=True)
time.sleep(0.6)
print("second")
"""


def measured(*lines):
    return speed.Measured(0, 10.0, 0, [(float(second), line) for second, line in enumerate(lines, 1)])


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
    assert peer("s2s").sentences_a_second(measured("256 sentences in 1.5 s", "300 sentences in 2.000 s")) == 150.0
    with pytest.raises(ValueError, match="nothing like"):
        peer("JoeyNMT").sentences_a_second(measured("Traceback"))
    # it took from 0.5 to 2.5, and had its turns until 1 and from 2
    turns = replace(measured("", "30 sentences in 2.000 s"), running=lambda at: min(at, 1.0) + max(0.0, at - 2.0))
    turns = replace(turns, lines=[(at + 0.5, line) for at, line in turns.lines])
    assert peer("s2s").sentences_a_second(turns) == 30.0


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
            assert shape.attention is None or made.decoder.options.get("input_feed", True) == shape.feed


def test_half_is_measured_where_there_are_units_for_it(monkeypatch, tmp_path):
    for units in (True, False, None):
        monkeypatch.setattr(itself, "fast_half", lambda units=units: units)
        half = itself.S2SInHalf()
        assert bool(half.shapes) == bool(units)
        assert not half.beams
        command = half.train(SHAPES[0], Corpus(tmp_path), tmp_path, tmp_path / "python")
        assert app.compose(command[4], command[5:]).trainer.precision == "bf16"


def test_a_decoding_counts_only_with_outputs_of_the_asked_length(tmp_path, monkeypatch):
    monkeypatch.setattr(speed, "SENTENCES", 2)
    one, wrote = peer("JoeyNMT"), []
    monkeypatch.setattr(type(one), "decode", lambda *_: ["decode"])

    def run(command, folder, turns):
        assert not (folder / one.output).exists()  # that of a run before
        if wrote:
            (folder / one.output).write_text(wrote.pop(), encoding="utf-8")
        return measured("Generation took 2.0[sec]")

    monkeypatch.setattr(speed, "_run", run)
    (tmp_path / one.output).write_text("a run before")
    for text in (None, f"{'a ' * 15}\n{'a ' * 14}\n", f"{'a ' * 15}\n", f"{'a ' * 15}\n{'b ' * 15}\n"):
        wrote += [text] if text else []
        made = speed.decoding(one, SHAPES[0], Corpus(tmp_path), tmp_path, tmp_path / "python", 5, None)
        assert ("rate" in made) == bool(text and "b" in text)
        assert ("error" in made) != ("rate" in made)


class Sleeper:
    """A toolkit that sleeps: 8 updates of 10 tokens and 20 sentences, a tenth of a second each."""

    shapes, beams, packages, requirements, bare, output = (SHAPES[0].name,), (1,), (), (), (), None

    def __init__(self, name, ends=0):
        self.name = self.trained_by = name
        self.ends = ends

    def train(self, shape, corpus, folder, python):
        return [str(python), "-c", f"{SLEEP}; [print('update', time.sleep(0.1)) for _ in range(8)]; exit({self.ends})"]

    def updates(self, done, folder):
        return [(at, 10) for at, line in done.lines if line.startswith("update")]

    def decode(self, shape, corpus, folder, python, beam):
        return [str(python), "-c", f"{SLEEP}; a = time.time(); time.sleep(2); b = time.time() - a; {TELL}"]

    def sentences_a_second(self, done):
        return rate_of(done, TOOK)


SLEEP, TELL = "import time", "print('20 sentences in', b, 's')"


def test_all_train_and_then_decode_in_turns(tmp_path, monkeypatch):
    monkeypatch.setattr(speed, "TRAIN", 0.3)
    monkeypatch.setattr(speed, "DECODE", 0.3)
    done = speed.run([Sleeper("one"), Sleeper("two"), Sleeper("broken", ends=3)], SHAPES, 1, tmp_path)
    training, decoding = done["found"].values()
    assert list(done["found"]) == ["lstm-additive: tokens/s", "lstm-additive: sentences/s, greedy"]
    assert list(training) == ["one", "two", "broken"]
    assert "error" in training["broken"][0]
    assert list(decoding) == ["one", "two"]  # nothing to decode with
    for name in ("one", "two"):
        assert training[name][0]["rate"] > 0
        assert decoding[name][0]["rate"] > 11  # ten by its own clock, more in turns: it sleeps on while others run
        assert decoding[name][0]["other"] >= 0


def rates(**values):
    return {name: [{"rate": value, "peak_mb": 10, "other": 0.1}] for name, value in values.items()}


def test_medians_are_compared_with_the_best_other():
    def runs(*rates):
        return [{"rate": rate, "peak_mb": 10, "first": 2.0, "other": 0.5} for rate in rates]

    found = {"row": {"s2s": runs(30, 10, 20), "one": runs(8, 9, 10), "two": runs(10, 12, 11), "three": [{"error": []}]}}
    found["row"] |= {"s2s, 2 workers": runs(33), "yardstick": runs(99)}
    lines = page.table(found).split("\n")
    assert lines[2] == "| s2s | 20 | 10 to 30 | 10 | 2.0 | 0.5 | 1.82 |"
    assert lines[5].startswith("| three | failed")
    assert lines[-1].endswith("| 0.5 |  |")  # the yardstick
    found |= {"alone": rates(s2s=5), "theirs": rates(one=4)}
    assert page.summary(found).split("\n")[2:] == [
        "| row | 11 (two) | 20 | 1.82 | 33 (s2s, 2 workers) | 3.00 |",
        "| alone |  | 5 |  | 5 (s2s) |  |",
        "| theirs | 4 (one) |  |  |  |  |",
    ]


KEPT = {"train": rates(s2s=200, other=100, slow=10, yardstick=400), "decode": rates(s2s=50, yardstick=50)}
SLOW_MACHINE = {"train": rates(s2s=20, other=10, slow=9, yardstick=41), "alone": rates(s2s=1)}
SLOWER = {"train": rates(s2s=80, other=50, yardstick=190), "decode": rates(s2s=44, yardstick=50)}


def test_the_guard_compares_ratios_in_one_run():
    held = page.compare(KEPT, SLOW_MACHINE, 0.15)
    assert (held.fallen, held.held) == ([], 2)  # to `other`, not to `slow`, and to the yardstick
    assert held.skipped == ["decode: s2s was not measured now", "alone: s2s was not measured then"]
    fallen = page.compare(KEPT, SLOWER, 0.15)
    assert fallen.fallen == ["train: s2s is 1.60 times as fast as other, was 2.00 times",
                             "train: s2s is 0.42 times as fast as yardstick, was 0.50 times"]  # fmt: skip
    assert fallen.held == 1
    assert page.compare(KEPT, SLOWER, 0.25).fallen == []
    assert page.compare(KEPT, SLOWER, 0.1).fallen[-1].startswith("decode: s2s is 0.88 times")


def test_the_guard_fails_where_s2s_fails():
    broken = {"train": rates(other=10) | {"s2s": [{"error": ["?"]}]}, "decode": rates(s2s=50)}
    verdict = page.compare(KEPT, broken, 0.15)
    assert verdict.fallen == ["train: s2s failed"]
    assert verdict.skipped == ["decode: s2s has nothing beside it that was measured both then and now"]


def test_the_guard_tells_its_verdict(tmp_path, monkeypatch, capsys):
    def done(found, chip="a chip"):
        return {"date": "2026-01-01", "machine": {"CPU": chip, "cores": "2", "torch": "2.13.0"}, "found": found}

    monkeypatch.setattr(speed, "RESULTS", tmp_path)
    with pytest.raises(SystemExit, match="no result yet"):
        speed.main(["guard"])
    (tmp_path / "2026-01-01.json").write_text(json.dumps(done(KEPT)))
    for found, words, code, told in (
        (SLOWER, [], 1, "was 2.00 times"),
        (SLOWER, ["--tolerance", "0.25"], 0, "as fast as on 2026-01-01: 3 ratios"),
        (SLOW_MACHINE, [], 0, "2 ratios"),
        ({}, [], 1, "nothing to compare"),
    ):
        monkeypatch.setattr(speed, "run", lambda *_, found=found: done(found, "another chip"))
        assert speed.main(["guard", *words]) == code
        out, err = capsys.readouterr()
        assert told in out
        assert "kept with CPU a chip, now another chip" in err


def test_a_page_and_a_picture_come_from_what_was_kept(tmp_path, monkeypatch):
    found = {
        "lstm: tokens/s": rates(s2s=200, other=100),
        "lstm: sentences/s, greedy": rates(s2s=50) | {"other": [{"error": ["?"], "other": 7.5}]},
        "transformer: tokens/s": rates(yardstick=9),
        "failed: tokens/s": {"s2s": [{"error": ["?"], "other": 0.0}]},
    }
    done = {"date": "2026-01-01", "machine": {"CPU": "a chip", "cores": "2"}, "rounds": 1, "found": found}
    done["versions"] = {"s2s": {"s2s": "0.1.0", "torch": "2.13.0"}, "other": {"its-package": "7"}}
    monkeypatch.setattr(speed, "RESULTS", tmp_path)
    older = {**done, "date": "2025-12-31", "found": {"lstm: tokens/s": rates(s2s=300)}}
    other = {**older, "machine": {"CPU": "Another (R) chip"}}
    names = [kept.write(tmp_path, one).name for one in (done, older, other)]
    assert names == ["2026-01-01-a-chip.json", "2025-12-31-a-chip.json", "2025-12-31-another-r-chip.json"]
    assert speed.main(["show"]) == 0
    text = (tmp_path / "README.md").read_text()
    assert [line for line in text.splitlines() if line.startswith("## ")] == [
        "## a chip, 2026-01-01",
        "## Another (R) chip, 2025-12-31",
    ]
    assert "CPU a chip, cores 2. 1 round;" in text
    assert "at most 7.5 processor seconds" in text
    assert "| s2s | 200 | 200 to 200 | 10 |  | 0.1 | 2.00 |" in text
    assert "s2s: s2s 0.1.0, torch 2.13.0; other: its-package 7." in text
    for name in ("2026-01-01-a-chip.png", "2025-12-31-another-r-chip.png"):
        assert f"]({name})" in text
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
    assert kept.last(tmp_path, "bench.speed", "Another (R) chip") == other
    assert kept.last(tmp_path, "bench.speed", "none of these") == done


def test_what_is_not_installed_is_left_out(tmp_path, capsys):
    (own,) = [one for one in speed.PEERS if one.name == "s2s"]
    assert set(speed.versions(own, tmp_path)) == {"s2s", "torch"}
    done = speed.run([peer("eole"), peer("JoeyNMT")], SHAPES, 1, tmp_path)
    assert (done["found"], done["versions"]) == ({}, {})
    assert "JoeyNMT 2.3.0: not installed, left out" in capsys.readouterr().err


def test_what_was_found_is_kept_after_each_round(tmp_path, monkeypatch):
    rates_found, rounds = iter(range(2)), []
    monkeypatch.setattr(speed, "training", lambda *given: {"rate": next(rates_found)})
    monkeypatch.setattr(speed, "versions", lambda *given: {})
    own = peer("s2s")
    monkeypatch.setattr(own, "beams", ())
    speed.run([own], SHAPES[:1], 2, tmp_path, lambda done: rounds.append(json.loads(json.dumps(done))))
    row = f"{SHAPES[0].name}: tokens/s"
    assert all(run["other"] >= 0 for done in rounds for run in done["found"][row]["s2s"])
    assert [(done["rounds"], [run["rate"] for run in done["found"][row]["s2s"]]) for done in rounds] == [
        (1, [0]),
        (2, [0, 1]),
    ]


@pytest.mark.parametrize("shape", [SHAPES[0], SHAPES[-1]], ids=lambda shape: shape.name)
def test_the_yardstick_trains_and_decodes(shape, tmp_path, monkeypatch, capsys):
    (tmp_path / "vocabulary").write_text("".join(f"{piece}\n" for piece in "abcdefgh"), encoding="utf-8")
    for name in ("train.en", "train.de", "test.en"):
        (tmp_path / name).write_text("a b c\nd e\n" * 40, encoding="utf-8")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    yardstick, corpus, python = peer("yardstick"), Corpus(tmp_path), Path(sys.executable)

    def run(command):
        monkeypatch.setattr(sys, "argv", command[1:])
        runpy.run_path(command[1])
        return measured(*capsys.readouterr().out.splitlines())

    updates = yardstick.updates(run(yardstick.train(replace(shape, updates=2), corpus, tmp_path, python)), tmp_path)
    assert sum(count for _, count in updates) == 40 * 4 + 40 * 3  # with EOS
    assert len(updates) == (2 if shape.attention else 1)  # 64 sentences, or 4,096 tokens
    assert yardstick.sentences_a_second(run(yardstick.decode(shape, corpus, tmp_path, python, 2))) > 0


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


PART = {"operations": 1.0, "bytes": 1.0}
PROFILE = {"tokens": 900.0, "seconds": 0.5, "floor": 0.3, "parts": [
    {"name": "attention", "seconds": 0.2, "floor": 0.1, **PART},
    {"name": "backward", "seconds": 0.3, "floor": 0.2, **PART},
]}  # fmt: skip


def test_a_profile_is_added_to_the_last_result_of_this_processor(tmp_path, monkeypatch):
    stamp = kept.stamp(speed.FACTS)
    monkeypatch.setattr(speed, "RESULTS", tmp_path)
    kept.write(tmp_path, {**stamp, "machine": {"CPU": "another"}, "found": KEPT, "rounds": 1})
    with pytest.raises(SystemExit, match="no result of this processor"):
        speed.main(["profile"])
    kept.write(tmp_path, {**stamp, "found": KEPT, "rounds": 1})
    commands = []

    def run(command, folder):
        commands.append(command)
        (folder / "run" / "1").mkdir(parents=True)
        (folder / "run" / "1" / "log.jsonl").touch()
        (folder / "run" / "1" / "profile.json").write_text(json.dumps(PROFILE))
        return measured("done")

    monkeypatch.setattr(speed, "_run", run)
    assert speed.main(["profile", "--shapes", "transformer", "--work", str(tmp_path / "work")]) == 0
    (command,) = commands
    made = app.compose(command[4], command[5:])
    assert made.profile
    assert made.trainer.steps == 26  # all that a profile looks at
    found = kept.last(tmp_path, "bench.speed", stamp["machine"]["CPU"])
    assert (found["found"], found["profile"]["found"]) == (KEPT, {"transformer": PROFILE})
    assert speed.main(["show"]) == 0
    lines = (tmp_path / "README.md").read_text().splitlines()
    assert "| s2s | target tokens/s | at best | an update | attention | backward |" in lines
    assert "| transformer | 1,800 | 3,000 | 500 / 300 | 200 / 100 | 300 / 200 |" in lines


def test_a_profile_that_fails_says_why(tmp_path, monkeypatch):
    monkeypatch.setattr(speed, "_run", lambda *_: replace(measured("no corpus"), code=2))
    with pytest.raises(SystemExit, match="no corpus"):
        speed.profiles(SHAPES[:1], tmp_path)
