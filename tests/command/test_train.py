"""`s2s train` and `s2s doctor` as a user types them: wrong configs and corpora, run folders, stopping and going on."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from s2s.files import RunLock

# A model that learns nothing, in a moment.
MOMENT = (
    *("threads=1", "device=cpu", "text=words", "encoder.width=8", "decoder.width=8", "model.embedding=8"),
    *("optim.warmup=1", "trainer.batch_tokens=120", "trainer.steps=3", "trainer.log_every=1", "trainer.samples=0"),
    *("trainer.valid_sentences=2", "trainer.max_source=20", "trainer.max_target=20"),
)
GENERATED = ("teach/copy", *MOMENT, "corpus.train=40", "corpus.dev=4", "corpus.test=4")


def events(folder, kind="train"):
    records = [json.loads(line) for line in (Path(folder) / "log.jsonl").read_bytes().split(b"\n") if line]
    return [record for record in records if record["event"] == kind]


def losses(folder):
    return [(event["step"], event["loss"], event["nll"], event["lr"], event["norm"]) for event in events(folder)]


def copied(run, tmp_path):
    return Path(shutil.copytree(run, tmp_path / "a copy", symlinks=True))


def checkpoints(folder):
    return sorted(path.name for path in (Path(folder) / "checkpoints").iterdir())


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode())
    return path


@pytest.fixture
def parallel(tmp_path):
    """Makes data/<name>.en and .de of lines; gives the overrides that train on them."""

    def make(train, dev=None, test=None):
        for name, pairs in (("train", train), ("dev", dev or train[:3]), ("test", test or train[:3])):
            for side, suffix in ((0, "en"), (1, "de")):
                lines = (pair[side] for pair in pairs if pair[side] is not None)
                write(tmp_path / f"data/{name}.{suffix}", "".join(f"{line}\n" for line in lines))
        data = tmp_path / "data"
        splits = (f"corpus.{name}={data / name}" for name in ("train", "dev", "test"))
        return ("corpus=files", *splits, "corpus.source=en", "corpus.target=de")

    return make


WORDS = ("ba", "be", "bi", "bo", "bu", "da", "de", "di", "do", "du")
PAIRS = [(f"one {word} here", f"ein {word} hier") for word in WORDS]


# ---- configs


def test_all_problems_are_listed_before_data_is_looked_for(s2s, tmp_path):
    wrong = ("modle.embedding=8", "trainer.stepz=3", "trainer.steps=yes", "optim.lr=1e-2x", "decoder.width=none")
    files = ("corpus=files", "corpus.train=/no/such/file", "corpus.source=en")
    done = s2s("train", "teach/copy", *wrong, *files, f"output={tmp_path / 'runs'}")
    assert (done.code, done.err.count("\n")) == (2, 1)
    for told in (
        "unknown key `modle.embedding`; did you mean `model.embedding`?",
        "did you mean `trainer.steps`?",
        "wrong value of `trainer.steps`: expected a whole number or null",
        "wrong value of `optim.lr`",
        "wrong value of `decoder.width`",
        "`corpus.target` must be given",
        "override `trainer.stepz=3`",
    ):
        assert told in done.err
    assert "no such file" not in done.err
    assert os.listdir(tmp_path) == []


def test_impossible_combinations_are_listed(s2s, tmp_path):
    wrong = ("attention=dot", "decoder.width=32", "optim.warmup=999", "search.beam=2", "search.nbest=3")
    done = s2s("train", "teach/copy", *wrong, f"output={tmp_path / 'runs'}")
    assert (done.code, done.err.count("\n")) == (2, 1)
    for told in ("a dot score needs", "`optim.warmup` (999 steps)", "search.nbest=3: must be at most search.beam=2"):
        assert told in done.err
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ((), "which recipe?"),
        (("teach/cpy",), "Did you mean `teach/copy`?"),
        (("teach/copy", "attention=aditive"), "Did you mean `additive`?"),
        (("teach/copy", "seed=1,2"), "Add -m to sweep"),
        (("teach/copy", "steps"), "expected KEY=VALUE"),
        (("teach/copy", "--changed-corpus"), "--changed-corpus goes with --resume"),
        (("teach/copy", "--resume", "."), "--resume takes its recipe from the run"),
        (("--resume", "/no/such/run"), "it has no config.yaml"),
        (("--resume", ".", "-m"), "-m makes new runs"),
    ],
)
def test_wrong_words_are_refused_in_one_line(s2s, tmp_path, monkeypatch, words, told):
    monkeypatch.chdir(tmp_path)
    done = s2s("train", *words)
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert told in done.err
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there(s2s, tmp_path):
    done = s2s("train", *GENERATED, "device=cuda", f"output={tmp_path / 'runs'}")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "there is no CUDA device here" in done.err
    assert os.listdir(tmp_path) == []


def test_a_dry_run_tells_memory_and_leaves_nothing(s2s, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = s2s("train", *GENERATED, "--dry-run")
    assert done.code == 0, done.err
    assert "train: 40 pairs" in done.lines
    assert any(line.startswith("largest batch: source (") for line in done.lines)
    assert any(line.startswith("peak memory: ") and "MB" in line for line in done.lines)
    assert os.listdir(tmp_path) == []


# ---- corpora


def test_line_counts_that_differ_are_told_with_the_place(s2s, tmp_path, parallel):
    overrides = parallel([*PAIRS[:4], ("only here, and rather longer than the others", None), *PAIRS[4:]])
    done = s2s("train", "teach/copy", *MOMENT, *overrides, f"output={tmp_path / 'runs'}")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "train.en has 11" in done.err
    assert "train.de has 10" in done.err
    assert "train.en:5: numbers of lines differ" in done.err
    assert not (tmp_path / "runs").exists()
    looked = s2s("doctor", *(override.removeprefix("corpus=") for override in overrides))
    assert (looked.code, looked.err) == (2, done.err)


def test_nothing_left_is_an_error_with_reasons(s2s, tmp_path, parallel):
    overrides = parallel([("a b c", "d e f"), ("", "x"), *PAIRS])
    done = s2s("train", "teach/copy", *MOMENT, *overrides, "corpus.max_words=2", f"output={tmp_path / 'runs'}")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "pairs were dropped" in done.err
    assert "more than 2 words 11 (for example" in done.err
    assert not (tmp_path / "runs").exists()


def test_more_than_half_dropped_stops_unless_allowed(s2s, tmp_path, parallel):
    overrides = parallel([*PAIRS[:3], *[("", "x")] * 4], PAIRS[:2], PAIRS[:2])
    done = s2s("train", "teach/copy", *MOMENT, *overrides, f"output={tmp_path / 'runs'}")
    assert done.code == 2
    assert "4 of 7 pairs were dropped" in done.err
    assert "blank side 4 (for example" in done.err
    assert "corpus.allow_drop=true" in done.err
    done = s2s("train", "teach/copy", *MOMENT, *overrides, "corpus.allow_drop=true", f"output={tmp_path / 'runs'}")
    assert done.code == 0, done.err


def test_identical_sides_and_overlaps_are_warned_of(s2s, tmp_path, parallel):
    overrides = parallel([(text, text) for text, _ in PAIRS])
    done = s2s("train", "teach/copy", *MOMENT, *overrides, f"output={tmp_path / 'runs'}")
    assert done.code == 0, done.err
    assert "warning: train: source and target are identical in 10 of 10 pairs; a wrong file?" in done.err
    assert "warning: 3 of 3 sources of dev also stand in train" in done.err
    looked = s2s("doctor", *(override.removeprefix("corpus=") for override in overrides))
    assert looked.code == 0
    assert "warning: train: source and target are identical in 10 of 10 pairs; a wrong file?" in looked.lines


@pytest.mark.parametrize("text", [("text=words",), ("text=sentencepiece", "text.size=8000"), ("text=characters",)])
def test_a_corpus_of_one_line_works(s2s, tmp_path, parallel, text):
    overrides = parallel([("the only sentence", "der einzige Satz")])
    done = s2s("train", "teach/copy", *MOMENT, *text, *overrides, f"output={tmp_path / 'runs'}")
    assert done.code == 0, done.err
    model = done.out.strip()
    assert len(s2s("translate", model, stdin="the only sentence\nsomething else\n").lines) == 2


def test_a_vocabulary_too_small_for_the_characters_is_told(s2s, tmp_path, parallel):
    overrides = (*parallel(PAIRS), "text=sentencepiece", "text.size=20")
    done = s2s("train", "teach/copy", *MOMENT, *overrides, f"output={tmp_path / 'runs'}")
    assert (done.code, done.err.count("\n")) == (2, 2)  # a note that the tokenizer is trained, and the error
    assert "text.size" in done.err
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("corpus", "content", "told"),
    [
        ("tsv", "a\tb\nc\td\te\n", "train.txt:2: row has 2 tabs; expected 1"),
        ("tsv", "a\tb\nc\n", "train.txt:2: row has 0 tabs; expected 1"),
        ("jsonl", '{"source": "a", "target": "b"}\n{"source": "a", "target": null}\n', "train.txt:2: field 'target'"),
        ("jsonl", '{"source": "a"}\n', "train.txt:1: no field 'target'"),
        ("jsonl", "a\tb\n", "train.txt:1"),
        ("tsv", "", "train.txt: empty file"),
        ("tsv", None, "train.txt: no such file"),
    ],
)
def test_rows_that_cannot_be_read_are_named(s2s, tmp_path, corpus, content, told):
    path = tmp_path / "train.txt"
    if content is not None:
        write(path, content)
    done = s2s("doctor", corpus, f"train={path}", "source=en", "target=de", "dev=0", "test=0")
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert told in done.err


def test_doctor_describes_corpora_and_recipes(s2s):
    for words in (("generated", "train=50", "corpus.dev=5", "test=0"), ("teach/copy", "corpus.train=50")):
        done = s2s("doctor", *words)
        assert done.code == 0, done.err
        assert any(line.split()[:2] == ["train", "50"] for line in done.lines)
        assert done.lines[-1].startswith("fingerprint: ")
    done = s2s("doctor", "generatd")
    assert (done.code, "Did you mean `generated`?" in done.err) == (2, True)
    done = s2s("doctor", "files", "trian=x")
    assert (done.code, "did you mean `corpus.train`?" in done.err) == (2, True)


# ---- sweeps


def test_a_sweep_makes_a_run_of_each_combination(s2s, tmp_path):
    done = s2s("train", "teach/copy", "-m", *GENERATED[1:], "attention=additive,none", "seed=1,2", f"output={tmp_path}")
    assert done.code == 0, done.err
    configs = [(Path(line) / "config.yaml").read_text(encoding="utf-8") for line in done.lines]
    found = [("\nattention:\n  name: none" in text, "\nseed: 2" in text) for text in configs]
    assert found == [(False, False), (False, True), (True, False), (True, True)]
    assert "run 4 of 4: " in done.err
    assert done.err.endswith(f"compare them with: s2s compare {' '.join(done.lines)}\n")
    assert (tmp_path / "teach/copy/latest").resolve() == Path(done.lines[-1]).resolve()


def test_a_run_of_a_sweep_that_fails_stops_no_other(s2s, tmp_path):
    done = s2s("train", *GENERATED, "-m", "corpus.max_length=1,4", "corpus.symbols=6", f"output={tmp_path}")
    assert done.code == 2
    assert "run 1 failed" in done.err
    assert len(done.lines) == 1
    assert "s2s compare" not in done.err  # there is nothing to compare it with
    assert sorted(os.listdir(tmp_path / "teach/copy")) == sorted([Path(done.lines[0]).name, "latest"])
    assert s2s("train", *GENERATED, "-m", "corpus.max_length=4,x", f"output={tmp_path / 'other'}").code == 2
    assert not (tmp_path / "other").exists()


# ---- going on


def test_a_finished_run_says_so_and_stays_as_it_is(s2s, reverse_run, tmp_path):
    run = copied(reverse_run, tmp_path)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    done = s2s("train", "--resume", run)
    assert (done.code, done.out) == (0, f"{run}\n")
    assert "already finished at step 160 (160 steps)" in done.err
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_what_is_learned_may_not_change_and_how_long_may(s2s, reverse_run, tmp_path):
    run = copied(reverse_run, tmp_path)
    kept = checkpoints(run)
    done = s2s("train", "--resume", run, "encoder.width=64", "optim.lr=1e-3", "trainer.steps=170")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "encoder.width: 48 -> 64" in done.err
    assert "optim.lr: 0.01 -> 0.001" in done.err
    assert "trainer.steps" not in done.err
    assert checkpoints(run) == kept
    done = s2s("train", "--resume", run, "trainer.steps=165")
    assert (done.code, done.out) == (0, f"{run}\n")
    assert "going on from step 160" in done.err
    assert "the learning rate now falls towards the new one" in done.err
    assert events(run, "end")[-1]["step"] == 165
    assert len(events(run, "end")) == len(events(run, "test")) == 1
    assert "steps: 165" in (run / "config.yaml").read_text(encoding="utf-8")


def test_two_processes_never_share_a_run_folder(s2s, reverse_run, tmp_path):
    run = copied(reverse_run, tmp_path)
    with RunLock(run):
        done = s2s("train", "--resume", run, "trainer.steps=165")
    assert (done.code, done.err.count("\n")) == (1, 1)
    assert "another process is at work in this run folder" in done.err
    assert str(os.getpid()) in done.err


def test_a_changed_corpus_is_noticed(s2s, tmp_path, parallel):
    overrides = parallel(PAIRS)
    done = s2s("train", "teach/copy", *MOMENT, *overrides, f"output={tmp_path / 'runs'}")
    assert done.code == 0, done.err
    run = done.out.strip()
    parallel([*PAIRS[:-1], ("one other here", "ein anderes hier")])
    kept = checkpoints(run)
    done = s2s("train", "--resume", run, "trainer.steps=5")
    assert (done.code, done.out) == (2, "")
    assert "the corpus has changed since the run began" in done.err
    assert "--changed-corpus" in done.err
    assert checkpoints(run) == kept
    noted = s2s("eval", run)
    assert (noted.code, "isn't what the model was trained on" in noted.err) == (0, True)
    done = s2s("train", "--resume", run, "trainer.steps=5", "--changed-corpus")
    assert done.code == 0, done.err
    assert events(run, "end")[-1]["step"] == 5


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_run_goes_on_exactly(s2s, tmp_path, number):
    recipe = [
        *("teach/reverse", *MOMENT, "corpus.train=100", "corpus.dev=4", "corpus.test=4", "model.dropout=0.2"),
        *("optim.schedule=constant", "optim.ema=0.9", "trainer.log_every=7", "trainer.validate_every=100000"),
    ]
    command = [sys.executable, "-m", "s2s", "train", *recipe, "trainer.steps=100000", f"output={tmp_path / 'stopped'}"]
    running = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=Path(__file__).parents[2], text=True
    )
    log, began = None, time.monotonic()
    while (log is None or log.read_bytes().count(b"\n") < 3) and time.monotonic() - began < 300:
        assert running.poll() is None, running.stderr.read()
        time.sleep(0.05)
        log = next((tmp_path / "stopped").glob("teach/reverse/*/log.jsonl"), None)
    running.send_signal(number)
    out, err = running.communicate(timeout=300)
    assert (running.returncode, out) == (128 + number, "")
    assert f"s2s train --resume {log.parent}" in err
    assert "Traceback" not in err
    step = events(log.parent, "stop")[0]["step"]
    if number == signal.SIGINT:
        return
    more = f"trainer.steps={step + 9}"
    whole = s2s("train", *recipe, more, f"output={tmp_path / 'whole'}")
    assert whole.code == 0, whole.err
    resumed = s2s("train", "--resume", log.parent, more)
    assert resumed.code == 0, resumed.err
    assert losses(log.parent) == losses(whole.out.strip())
    assert len(losses(log.parent)) == (step + 9) // 7
    weights = [Path(folder, "model", "model.safetensors").read_bytes() for folder in (log.parent, whole.out.strip())]
    assert weights[0] == weights[1]
