"""`s2s prepare` as a user types it: the same training from a folder of ids as from the texts."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from s2s.app import compose
from s2s.errors import DataError
from s2s.task import preparing
from s2s.task.prepare import load_corpus, load_tokenizers, prepare
from s2s.task.prepared_folder import PreparedFolder
from s2s.text.corpus.spool import Spool

MOMENT = (
    *("threads=1", "device=cpu", "encoder.width=8", "decoder.width=8", "model.embedding=8", "optim.warmup=1"),
    *("trainer.batch_tokens=120", "trainer.steps=6", "trainer.log_every=1", "trainer.samples=0"),
    *("trainer.valid_sentences=2", "trainer.max_source=20", "trainer.max_target=20", "trainer.minutes=null"),
    *("trainer.validate_minutes=null", "trainer.validate_every=3"),
)
LONG = ("trainer.max_source=60", "trainer.max_target=60")
GENERATED = ("teach/copy", *MOMENT, "corpus.train=100", "corpus.dev=4", "corpus.test=4")


@pytest.fixture
def own(tmp_path):
    """A recipe on files of sentences; some are too long."""
    generator = np.random.default_rng(0)
    for name, count in (("train", 90), ("dev", 5)):
        sizes = generator.integers(1, 30, count)
        lines = [" ".join(f"w{word}" for word in generator.integers(0, 9, size)) for size in sizes]
        for suffix in ("en", "de"):
            (tmp_path / f"{name}.{suffix}").write_text("".join(f"{line}\n" for line in lines))
    files = (f"corpus.train={tmp_path}/train", f"corpus.dev={tmp_path}/dev", "corpus.test=null", "text=words")
    return ("translate/multi30k", *MOMENT, "corpus=files", *files, "corpus.source=en", "corpus.target=de")


def events(folder, kinds=("train", "valid")):
    lines = [json.loads(line) for line in (Path(folder) / "log.jsonl").read_text().splitlines()]
    timed = ("seconds", "tokens_per_second")
    return [{k: v for k, v in line.items() if k not in timed} for line in lines if line["event"] in kinds]


def assert_trains_alike(s2s, tmp_path, words, *more):
    done = s2s("prepare", *words, "-o", tmp_path / "ready", *more)
    assert done.code == 0, done.err
    assert done.lines == [str(tmp_path / "ready")]
    runs = []
    for prepared in ("null", tmp_path / "ready"):
        done = s2s("train", *words, f"prepared={prepared}", f"output={tmp_path / 'runs'}")
        assert done.code == 0, done.err
        runs.append(done.lines[0])
    one, other = map(events, runs)
    assert one == other
    assert len(one) >= 6
    assert events(runs[0], ["start"]) == events(runs[1], ["start"])  # sizes, what was left out, fingerprint
    return runs


@pytest.mark.parametrize(
    "changes",
    [
        ("text=sentencepiece", "text.byte_fallback=false", "text.size=25", "trainer.subword_sample=0.3", *LONG),
        ("trainer.pad_multiple=4", "trainer.accumulate=2", "trainer.lexicon=3"),
        ("copy=pointer", "text.joint=true"),
        ("task.overlong=truncate",),
        ("model.features=[position,frequency]",),
    ],
)
def test_training_is_the_same(s2s, tmp_path, own, changes):
    assert_trains_alike(s2s, tmp_path, (*own, *changes))


def test_training_is_the_same_from_several_processes(s2s, tmp_path, own, monkeypatch):
    monkeypatch.setattr(preparing, "SHARD", 40)
    assert_trains_alike(s2s, tmp_path, own, "--workers=2")


def test_training_is_the_same_of_dialogues_with_keywords(s2s, tmp_path):
    words = ["sun", "moon", "star", "rain", "snow", "wind", "tree", "leaf", "bird", "fish", "stone", "river"]
    lines = []
    for number in range(200):
        one, other = words[number % 12], words[(number * 5 + 1) % 12]
        turns = [f"tell me of the {one}", f"the {one} is near the {other}", f"and the {other}?", f"it sees the {one}"]
        roles = ("user", "assistant")
        lines.append(json.dumps([{"role": roles[i % 2], "content": turn} for i, turn in enumerate(turns)]))
    (tmp_path / "talk.jsonl").write_text("".join(f"{line}\n" for line in lines))
    corpus = (
        "corpus=dialogues",
        f"corpus.train={tmp_path}/talk.jsonl",
        "corpus.test=0",
        "corpus.dev=0.3",
        "task.topics=1",
    )
    words = ("chat/chitchat", *MOMENT, *corpus, "text=words", "text.joint=true", "task.overlong=turns")
    runs = assert_trains_alike(s2s, tmp_path, words)
    assert (tmp_path / "ready" / "keywords.json").is_file()
    assert (Path(runs[1]) / "model" / "keywords.json").is_file()


def test_a_run_goes_on_from_texts_or_ids(s2s, tmp_path):
    assert s2s("prepare", *GENERATED, "-o", tmp_path / "ready").code == 0
    words = (*GENERATED, "optim.schedule=constant", f"output={tmp_path / 'runs'}")
    whole, half = (s2s("train", *words, f"trainer.steps={steps}").lines[0] for steps in (6, 3))
    done = s2s("train", "--resume", half, "trainer.steps=6", f"prepared={tmp_path / 'ready'}")
    assert done.code == 0, done.err
    assert events(half, ["train"]) == events(whole, ["train"])


def test_a_run_is_scored_from_the_prepared_corpus(s2s, tmp_path):
    assert s2s("prepare", *GENERATED, "-o", tmp_path / "ready").code == 0
    run = s2s("train", *GENERATED, f"prepared={tmp_path / 'ready'}", f"output={tmp_path / 'runs'}").lines[0]
    assert s2s("eval", run, "--split", "dev").code == 0
    assert s2s("eval", run, "--split", "train").code == 0  # its texts are kept too
    shutil.rmtree(tmp_path / "ready")
    done = s2s("eval", run)
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "is no prepared corpus" in done.err


def test_texts_and_ids_of_train_stay_in_their_files(s2s, tmp_path, own):
    assert s2s("prepare", *own, "-o", tmp_path / "ready").code == 0
    config = compose(own[0], [*own[1:], f"prepared={tmp_path / 'ready'}"])
    corpus = load_corpus(config)
    data = prepare(config, corpus, load_tokenizers(config, corpus))
    assert isinstance(corpus.splits["train"], Spool)
    assert isinstance(data.train.numbers, np.memmap)
    assert 0 < len(data.train) == len(data.pairs) == 90 - data.too_long["train"] < 90
    for example, pair in zip(data.train, data.pairs, strict=True):
        assert list(example.source) == data.source.encode(pair.source)
        assert list(example.target) == data.target.encode(pair.target)


def test_what_was_begun_is_finished(s2s, tmp_path, own, monkeypatch):
    monkeypatch.setattr(preparing, "SHARD", 30)
    made, encode = [], preparing._encode_shard

    def stopping(number, path):
        if number == 2:
            raise KeyboardInterrupt
        made.append(number)
        encode(number, path)

    monkeypatch.setattr(preparing, "_encode_shard", stopping)
    done = s2s("prepare", *own, "-o", tmp_path / "ready")
    assert done.code == 130
    assert not (tmp_path / "ready").exists()
    (shard,) = (tmp_path / "ready.partial" / "shards").glob("000001.safetensors")
    shard.write_bytes(shard.read_bytes()[:-1] + b"?")  # a page that never came to the disk
    monkeypatch.setattr(preparing, "_encode_shard", lambda number, path: made.append(number) or encode(number, path))
    done = s2s("prepare", *own, "-o", tmp_path / "ready")
    assert done.code == 0, done.err
    assert "1 of 3 shards are there" in done.err
    assert made == [0, 1, 1, 2]
    assert not (tmp_path / "ready.partial").exists()
    assert s2s("prepare", *own, "-o", tmp_path / "at once").code == 0
    for path in (tmp_path / "at once").iterdir():
        assert path.read_bytes() == (tmp_path / "ready" / path.name).read_bytes(), path.name


def test_other_texts_begin_anew(s2s, tmp_path, own, monkeypatch):
    monkeypatch.setattr(preparing, "_encode_shard", lambda number, path: preparing.write_atomic(path, b"") or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        preparing.prepare_folder(compose(own[0], own[1:]), tmp_path / "ready")
    monkeypatch.undo()
    text = (tmp_path / "train.en").read_text()
    (tmp_path / "train.en").write_text(text.replace("w1", "w2"))
    assert s2s("prepare", *own, "-o", tmp_path / "ready").code == 0
    (tokenizer,) = (tmp_path / "ready").glob("source.json")
    assert "w1" not in tokenizer.read_text()


def test_what_is_prepared_is_left_alone(s2s, tmp_path, own):
    assert s2s("prepare", *own, "-o", tmp_path / "ready").code == 0
    before = (tmp_path / "ready" / "train.safetensors").stat().st_mtime_ns
    done = s2s("prepare", *own, "-o", tmp_path / "ready")
    assert done.code == 0
    assert "is prepared already" in done.err
    assert (tmp_path / "ready" / "train.safetensors").stat().st_mtime_ns == before
    with (tmp_path / "train.en").open("a") as file:
        file.write("one more\n")
    done = s2s("prepare", *own, "-o", tmp_path / "ready")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "train.en has changed" in done.err


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (("text.size=9",), "another text.size"),
        (("trainer.max_source=10",), "another trainer.max_source; expected 20; found 10"),
        (("corpus.lowercase=true",), "another corpus.lowercase"),
        (("text=characters",), "another text."),
        (("optim.guided_alignment=1", "trainer.links=auto"), "set `prepared` to null"),
    ],
)
def test_a_run_that_wants_something_else_is_refused(s2s, tmp_path, own, changes, told):
    assert s2s("prepare", *own, "-o", tmp_path / "ready").code == 0
    done = s2s("train", *own, *changes, f"prepared={tmp_path / 'ready'}", f"output={tmp_path / 'runs'}")
    assert (done.code, done.out, done.err.splitlines()[-1].count(told)) == (2, "", 1), done.err
    assert not (tmp_path / "runs").exists()


def test_what_cannot_be_prepared_is_refused(s2s, tmp_path, own):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    for words, told in (
        (("-o", tmp_path / "full"), "holds something else"),
        (("-o", tmp_path / "train.en"), "holds something else"),
        (("-o", tmp_path / "new", "--workers=0"), "--workers is out of range"),
        (("-o", tmp_path / "new", f"prepared={tmp_path}"), "prepared already"),
        (("-o", tmp_path / "new", "optim.guided_alignment=1", "trainer.links=auto"), "trainer.links"),
        (("-o", tmp_path / "new", "trainer.max_target=2"), "longer than the limits"),
        (("-o", tmp_path / "new", "corpus.dev=null"), "no dev pairs"),
    ):
        done = s2s("prepare", *own, *words)
        assert done.code == 2, done.err
        assert told in done.err.splitlines()[-1]
        assert not (tmp_path / "new").exists()


def test_the_lock_of_another_process(s2s, tmp_path, own):
    with preparing.RunLock(tmp_path / "ready.partial"):
        done = s2s("prepare", *own, "-o", tmp_path / "ready")
    assert done.code == 1
    assert "another process is at work" in done.err


def test_damage_is_found(s2s, tmp_path, own):
    assert s2s("prepare", *own, "-o", tmp_path / "ready").code == 0
    done = s2s("verify", tmp_path / "ready")
    assert done.code == 0
    assert done.out.startswith("ok: ")
    ids = tmp_path / "ready" / "train.safetensors"
    content = ids.read_bytes()
    ids.write_bytes(content[:-1] + b"?")
    done = s2s("verify", tmp_path / "ready")
    assert done.code == 2
    assert "train.safetensors: was changed or damaged" in done.out
    ids.write_bytes(content[:-1])
    with pytest.raises(DataError, match=r"train\.safetensors: is damaged"):
        PreparedFolder(tmp_path / "ready")
    ids.unlink()
    done = s2s("train", *own, f"prepared={tmp_path / 'ready'}", f"output={tmp_path / 'runs'}")
    assert done.code == 2
    assert "no such file" in done.err
    ids.write_bytes(content)
    (tmp_path / "ready" / "more").touch()
    assert "more: is not listed" in s2s("verify", tmp_path / "ready").out
    facts = tmp_path / "ready" / "config.json"
    facts.write_bytes(facts.read_bytes().replace(b'"too_long"', b'"too_lang"'))
    done = s2s("train", *own, f"prepared={tmp_path / 'ready'}", f"output={tmp_path / 'runs'}")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "config.json: was changed or damaged" in done.err
