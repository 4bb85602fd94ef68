"""`s2s stream`: words come out while words go in."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from s2s.score.simuleval_log import read_log

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def online(tmp_path_factory, s2s):
    """A run folder of a model that streams; it copies, more or less."""
    from toys import TINY

    output = tmp_path_factory.mktemp("online")
    changes = ("attention=mocha", "attention.bias=0", "encoder.bidirectional=false", "decoder.bridge=zero")
    done = s2s("train", "teach/copy", *TINY, *changes, "optim.lr=1e-2", "trainer.steps=80", f"output={output}")
    assert done.code == 0, done.err
    return Path(done.out.strip())


@pytest.fixture(scope="module")
def sources(online):
    return (online / "test.ref").read_text(encoding="utf-8").split("\n")[:-1][:30]


def test_it_gives_what_greedy_translation_gives(online, sources, s2s):
    lines = ["", sources[0].split()[0], "☃ ☃☃", "   ", *sources]
    data = "\n".join(lines) + "\n"
    streamed, translated = s2s("stream", online, stdin=data), s2s("translate", online, "--beam", "1", stdin=data)
    assert (streamed.code, streamed.lines) == (0, translated.lines)
    assert s2s("stream", online, "--wait-k", "inf", stdin=data).lines == translated.lines
    assert s2s("stream", online, "--wait-k", "2", stdin=data).lines[0] == ""


@pytest.mark.parametrize("end", ["", "\n", "\r\n", " ", "  \n"], ids=["none", "lf", "crlf", "blank", "blanks"])
def test_the_last_line_ends_as_it_likes(online, sources, s2s, end):
    expected = s2s("stream", online, stdin=f"{sources[1]}\n{sources[0]}\n").lines
    assert s2s("stream", online, stdin=f"\ufeff{sources[1]}\r\n{sources[0]}{end}").lines == expected


def test_options_of_the_search_are_those_of_translate(online, sources, s2s):
    text = "".join(f"{source}\n" for source in sources[:12])
    options = ("--no-repeat-ngram", "1", "--eager", "1.5")
    done = s2s("stream", online, *options, stdin=text)
    assert done.code == 0, done.err
    assert done.out == s2s("translate", online, "--beam", "1", *options, stdin=text).out
    assert done.out != s2s("stream", online, stdin=text).out


def test_the_rest_with_a_beam(online, sources, s2s):
    text = "".join(f"{source}\n" for source in sources)
    searched = s2s("stream", online, "--wait-k", "inf", "--beam", "5", stdin=text)
    assert searched.lines == s2s("translate", online, "--beam", "5", stdin=text).lines
    own = s2s(
        "stream",
        online,
        "--beam",
        "5",
        "--format",
        "jsonl",
        stdin="".join(json.dumps({"text": source}) + "\n" for source in sources),
    )
    assert own.code == 0, own.err
    assert s2s("stream", online, "--beam", "0", stdin="a\n").code == 2


def test_words_come_out_before_the_sentence_ends(online, sources):
    source = max(sources, key=lambda line: len(line.split())).split()
    command = [sys.executable, "-m", "s2s", "stream", str(online), "--wait-k", "1"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as process:
        process.stdin.write(f"{' '.join(source[:3])} ".encode())
        process.stdin.flush()
        first = process.stdout.read1(100)  # waits until there is something; the source is still open
        assert first.strip()
        assert b"\n" not in first
        rest, _ = process.communicate(f"{' '.join(source[3:])}\n".encode(), timeout=60)
    assert process.returncode == 0
    assert (first + rest).count(b"\n") == 1
    assert (first + rest).endswith(b"\n")


def test_files_scores_and_the_log(online, sources, s2s, tmp_path):
    (tmp_path / "in").write_text("\n".join([*sources, ""]) + "\n", encoding="utf-8")
    options = ("-i", tmp_path / "in", "--ref", tmp_path / "in", "--log", tmp_path / "log")
    done = s2s("stream", online, *options, "-o", tmp_path / "out")
    assert (done.code, done.out) == (0, "")
    names = [line.split()[0].lower() for line in done.err.splitlines()]
    assert names == ["bleu", "chrf", "al", "laal", "dal", "ap"]
    outputs = (tmp_path / "out").read_text(encoding="utf-8").split("\n")[:-1]
    logged = read_log(tmp_path / "log")
    assert [one.prediction for one in logged] == outputs
    assert [one.source for one in logged] == [one.reference for one in logged] == [*sources, ""]
    told = json.loads(s2s("stream", online, *options, "--json").err)
    assert [score["name"].lower() for score in told] == names
    assert all(score["signature"] for score in told)


def test_json_lines(online, sources, s2s):
    data = "".join(json.dumps({"text": line}) + "\n" for line in [sources[0], " "])
    records = [json.loads(line) for line in s2s("stream", online, "--format", "jsonl", stdin=data).lines]
    assert [record["input"] for record in records] == [sources[0], ""]
    assert len(records[0]["delays"]) == len(records[0]["output"].split())
    assert (records[1]["output"], records[1]["tokens"]) == ("", [])
    cut = s2s("stream", online, "--format", "jsonl", "--max-length", "1", "--wait-k", "1", stdin=data)
    record = json.loads(cut.lines[0])
    assert (len(record["tokens"]), record["flags"]) == (1, ["unfinished"])
    assert "1 unfinished" in cut.err


def test_bytes_that_are_no_text(online, sources, s2s):
    data = f"{sources[0]}\n{sources[1]} ".encode() + b"\xff\n"
    done = s2s("stream", online, stdin=data)
    assert done.code == 2
    assert "<stdin>:2: invalid UTF-8 byte 0xff" in done.err
    replaced = s2s("stream", online, "--errors", "replace", stdin=data)
    assert (replaced.code, len(replaced.lines)) == (0, 2)
    assert "1 invalid bytes were replaced" in replaced.err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--wait-k", "0"), "wait-k is out of range"),
        (("--wait-k", "two"), "--wait-k"),
        (("--json",), "Add --ref FILE"),
        (("--max-length", "0"), "max_length"),
        (("-i", "missing"), "no such file"),
        (("--format", "jsonl"), "is no source"),
    ],
    ids=["zero", "no_number", "json", "length", "file", "record"],
)
def test_what_is_refused(online, s2s, options, message):
    done = s2s("stream", online, *options, stdin='{"words": 1}\n')
    assert done.code == 2
    assert message in done.err
    assert done.err.count("\n") == 1


def test_another_number_of_references(online, sources, s2s, tmp_path):
    (tmp_path / "ref").write_text("a\n", encoding="utf-8")
    done = s2s("stream", online, "--ref", tmp_path / "ref", stdin=f"{sources[0]}\n{sources[1]}\n")
    assert done.code == 2
    assert "expected 2 lines; found 1" in done.err


def test_a_model_that_cannot_stream(reverse_run, s2s):
    done = s2s("stream", reverse_run, stdin="a\n")
    assert done.code == 2
    assert "s2s train translate/multi30k-online" in done.err
    waiting = s2s("stream", reverse_run, "--wait-k", "inf", stdin="ba be\n")
    assert waiting.lines == s2s("translate", reverse_run, "--beam", "1", stdin="ba be\n").lines


def test_from_python(online, sources):
    import s2s

    model = s2s.load(online)
    assert " ".join(model.stream(sources[0].split())) == model.translate(sources[0], beam=1)
