"""`s2s translate` as a user types it: one record in, one record out, whatever stands in it."""

import gzip
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from itertools import islice
from pathlib import Path

import pytest
import torch

import s2s as package
from s2s.model.seq2seq import start_search
from s2s.search import force
from s2s.text.batching import pad
from s2s.types import EOS

# One step a record where only the number of records matters.
QUICK = ("--beam", "1", "--max-length", "3")


def jsonl(done):
    assert done.code == 0, done.err
    return [json.loads(line) for line in done.lines]


def as_lines(texts):
    return "".join(f"{text}\n" for text in texts)


@pytest.fixture(scope="module")
def plain(s2s, reverse_run, sources):
    """The model's outputs, decoded in the plainest way."""
    done = s2s("translate", reverse_run, stdin=as_lines(sources))
    assert done.code == 0, done.err
    assert len(done.lines) == len(sources)
    return done.lines


def test_the_model_reverses(plain, sources):
    right = sum(text.split() == source.split()[::-1] for text, source in zip(plain, sources, strict=True))
    assert right >= 0.9 * len(sources)


# ---- what comes in


def test_no_lines_in_no_lines_out(s2s, reverse_run):
    done = s2s("translate", reverse_run, stdin=b"")
    assert (done.code, done.out) == (0, "")
    assert done.err == "s2s: <stdin> is empty: nothing to do\n"


def test_blank_stays_blank_and_never_reaches_the_model(s2s, reverse_run, monkeypatch):
    monkeypatch.setattr("s2s.task.generate.search", lambda *_, **__: pytest.fail("the model was called"))
    blank = ["", " ", "\t", "\u00a0", "\u3000", "\u200b", "\r"]
    done = s2s("translate", reverse_run, stdin=as_lines(blank))
    assert (done.code, done.out, done.err) == (0, "\n" * len(blank), "")
    records = jsonl(s2s("translate", reverse_run, "--format", "jsonl", stdin=as_lines(['{"text": " "}', "", " "])))
    assert [record["output"] for record in records] == ["", "", ""]
    assert all(record["flags"] == ["blank"] for record in records)


def test_blank_lines_keep_their_place(s2s, reverse_run, sources, plain):
    done = s2s("translate", reverse_run, stdin=f"{sources[0]}\n\n{sources[1]}\n \n{sources[2]}")
    assert done.lines == [plain[0], "", plain[1], "", plain[2]]


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(lambda text: text.encode().removesuffix(b"\n"), id="no final newline"),
        pytest.param(lambda text: text.replace("\n", "\r\n").encode(), id="CRLF"),
        pytest.param(lambda text: b"\xef\xbb\xbf" + text.encode(), id="BOM"),
        pytest.param(lambda text: text.replace(" ", "\u2028", 1).encode(), id="U+2028"),
        pytest.param(lambda text: text.replace(" ", "\u2029").encode(), id="U+2029"),
        pytest.param(lambda text: text.replace(" ", "\x85").encode(), id="U+0085"),
        pytest.param(lambda text: text.replace(" ", "\x0b").encode(), id="VT"),
        pytest.param(lambda text: text.replace(" ", "\x0c").encode(), id="FF"),
        pytest.param(lambda text: text.replace(" ", "\r").encode(), id="lone CR"),
        pytest.param(lambda text: text.replace(" ", " \x00\x07").encode(), id="NUL and BEL"),
    ],
)
def test_the_same_text_in_other_clothes(s2s, reverse_run, sources, plain, data):
    done = s2s("translate", reverse_run, stdin=data(as_lines(sources[:5])))
    assert (done.code, done.lines) == (0, plain[:5])


def test_control_characters_are_counted(s2s, reverse_run):
    done = s2s("translate", reverse_run, "--format", "text", stdin=b"ba\x00 be\nba be\n")
    assert done.lines[0] == done.lines[1]
    assert "1 cleaned" in done.err


def test_invalid_utf8_is_an_error_with_its_place_or_is_replaced(s2s, reverse_run):
    data = b"ba be\nba \xff be\nbi\n"
    done = s2s("translate", reverse_run, stdin=data)
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "<stdin>:2: invalid UTF-8 byte 0xff" in done.err
    assert "byte 3 of the line (byte 9 of the file)" in done.err
    assert "--errors replace" in done.err
    done = s2s("translate", reverse_run, "--errors", "replace", stdin=data)
    assert (done.code, len(done.lines)) == (0, 3)
    assert "1 invalid bytes were replaced" in done.err


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        ("ba be bi bo\n".encode("utf-16"), "UTF-16"),
        ("ba be bi bo\n".encode("utf-16-le"), "UTF-16"),
        (gzip.compress(b"ba be\n", mtime=0), "gzip"),
    ],
)
def test_other_formats_are_named(s2s, reverse_run, data, kind):
    done = s2s("translate", reverse_run, stdin=data)
    assert (done.code, done.out) == (2, "")
    assert f"looks like {kind}" in done.err


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('{"text": "\\ud800 ba"}', "surrogate"),
        ('{"text": 3}', "needs the key `text`"),
        ('["ba"]', "needs the key `text`"),
        ('{"text": "ba", "constraint": ["be"]}', "'constraint' is unknown"),
        ('{"text": "ba", "constraints": "be"}', "'constraints' is unknown or of the wrong type"),
        ("ba be", "JSON"),
    ],
)
def test_a_bad_record_is_one_line_with_its_number(s2s, reverse_run, line, told):
    done = s2s("translate", reverse_run, "--format", "jsonl", stdin=f'{{"text": "ba"}}\n{line}\n')
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "<stdin>:2" in done.err
    assert told in done.err


@pytest.mark.parametrize("overlong", ["split", "truncate", "refuse"])
def test_a_line_of_a_megabyte_is_bounded(s2s, reverse_run, overlong):
    began = time.process_time()
    text = f"ba be {'b' * 93} " * 11_000
    done = s2s(
        *("translate", reverse_run, *QUICK, "--overlong", overlong, "--format", "jsonl"),
        stdin=as_lines([json.dumps({"text": text}), '{"text": "ba"}']),
    )
    records = jsonl(done)
    assert len(records) == 2
    assert {"split": "split", "truncate": "truncated", "refuse": "refused"}[overlong] in records[0]["flags"]
    assert time.process_time() - began < 20


def test_the_length_limit_is_exact(s2s, reverse_run):
    words = ["ba", "be", "bi", "bo"] * 6
    exact, above = " ".join(words[:20]), " ".join(words[:21])
    stdin = as_lines([json.dumps({"text": exact}), json.dumps({"text": above})])
    options = ("translate", reverse_run, *QUICK, "--format", "jsonl", "--alignment", "--overlong")
    for overlong, flag in (("split", "split"), ("truncate", "truncated"), ("refuse", "refused")):
        fits, overlong_one = jsonl(s2s(*options, overlong, stdin=stdin))
        assert not {"split", "truncated", "refused"} & set(fits["flags"])
        assert len(fits["source_pieces"]) == 21  # with the end
        assert flag in overlong_one["flags"]
        assert ("error" in overlong_one) == (overlong == "refuse")
    assert overlong_one["output"] == ""
    assert "21 tokens, at most 20" in overlong_one["error"]


def test_truncation_reads_what_fits(s2s, reverse_run):
    words = ["ba", "be", "bi", "bo"] * 6
    cut = s2s("translate", reverse_run, "--overlong", "truncate", stdin=" ".join(words))
    assert cut.lines == s2s("translate", reverse_run, stdin=" ".join(words[:20])).lines
    assert "1 truncated" in cut.err


def test_a_split_text_is_the_join_of_its_parts(s2s, reverse_run, sources):
    parts = [f"{source}。" for source in sources[:8]]  # ends a sentence whatever follows
    long = "".join(parts)
    assert len(long.split()) > 20
    whole = s2s("translate", reverse_run, stdin=long)
    assert whole.lines == [" ".join(s2s("translate", reverse_run, stdin=as_lines(parts)).lines)]


@pytest.mark.parametrize("model", ["reverse_run", "copy_run"])
def test_odd_texts_give_a_record_each(s2s, request, model):
    texts = ["x", "b", "😀", "ж", "م", "👩‍👩‍👧", "</s>", "<s> <pad> <unk>", "2⃣", "e\u0301", "\ufffd", "-", "--beam"]
    done = s2s("translate", request.getfixturevalue(model), *QUICK, stdin=as_lines(texts))
    assert (done.code, len(done.lines)) == (0, len(texts))


def test_special_symbols_typed_by_a_user_are_text(s2s, copy_run, reverse_run):
    stdin = as_lines([json.dumps({"text": text}) for text in ("ba </s> be", "<s>", "<pad>")])
    options = ("--format", "jsonl", "--alignment", *QUICK)
    for record in jsonl(s2s("translate", copy_run, *options, stdin=stdin)):
        *pieces, end = record["source_pieces"]
        assert end == "</s>"
        assert not {"</s>", "<s>", "<pad>", "<unk>"} & set(pieces)
        spelled = "".join(chr(int(piece[3:5], 16)) if piece.startswith("<0x") else piece for piece in pieces)
        assert spelled.replace("▁", " ").strip() == record["input"]
    pieces = [record["source_pieces"] for record in jsonl(s2s("translate", reverse_run, *options, stdin=stdin))]
    assert pieces == [["ba", "<unk>", "be", "</s>"], ["<unk>", "</s>"], ["<unk>", "</s>"]]


def test_composed_and_decomposed_are_the_same(s2s, copy_run):
    done = s2s("translate", copy_run, *QUICK, stdin="b\u00e9\nbe\u0301\n")
    assert done.lines[0] == done.lines[1]


@pytest.mark.parametrize("text", ["a" * 10_000, "ba " * 10_000, "." * 10_000, "😀" * 3_000])
def test_repeats_are_bounded(s2s, copy_run, text):
    began = time.process_time()
    done = s2s("translate", copy_run, *QUICK, stdin=text)
    assert (done.code, len(done.lines)) == (0, 1)
    assert time.process_time() - began < 10


# ---- where it goes


def test_the_output_is_made_whole_and_its_folder_too(s2s, reverse_run, sources, plain, tmp_path):
    source, target = tmp_path / "in.txt", tmp_path / "new" / "folder" / "out.txt"
    source.write_text(as_lines(sources), encoding="utf-8")
    done = s2s("translate", reverse_run, "-i", source, "-o", target)
    assert (done.code, done.out) == (0, "")
    assert target.read_bytes() == as_lines(plain).encode()
    assert os.listdir(target.parent) == ["out.txt"]


def test_the_input_is_never_overwritten(s2s, reverse_run, tmp_path):
    source, link = tmp_path / "in.txt", tmp_path / "link.txt"
    source.write_bytes(b"ba be\n")
    link.symlink_to(source)
    for output in (source, link, tmp_path / "." / "in.txt"):
        done = s2s("translate", reverse_run, "-i", source, "-o", output)
        assert (done.code, done.err.count("\n")) == (2, 1)
        assert "the output is the input file" in done.err
    assert source.read_bytes() == b"ba be\n"


def test_a_wrong_output_fails_before_decoding(s2s, reverse_run, tmp_path, monkeypatch):
    monkeypatch.setattr("s2s.task.generate.search", lambda *_, **__: pytest.fail("the model was called"))
    (tmp_path / "file").write_bytes(b"kept")
    for output in (tmp_path, tmp_path / "file" / "below", "/proc/no/such"):
        done = s2s("translate", reverse_run, "-o", output, stdin=b"ba be\n")
        assert (done.code, done.err.count("\n")) == (2, 1)
        assert str(output) in done.err
    assert os.listdir(tmp_path) == ["file"]


def test_a_failure_leaves_the_old_output(s2s, reverse_run, tmp_path):
    target = tmp_path / "out.txt"
    target.write_bytes(b"of yesterday\n")
    done = s2s("translate", reverse_run, "-o", target, stdin=b"ba\n\xff\n")
    assert done.code == 2
    assert target.read_bytes() == b"of yesterday\n"
    assert os.listdir(tmp_path) == ["out.txt"]


def test_a_pipe_is_written_to_and_not_replaced(s2s, reverse_run, plain, sources, tmp_path):
    pipe, read = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()))
    reader.start()
    assert s2s("translate", reverse_run, "-o", pipe, stdin=as_lines(sources[:3])).code == 0
    reader.join(30)
    assert read == [as_lines(plain[:3]).encode()]
    assert pipe.is_fifo()


def test_missing_input_and_missing_model(s2s, reverse_run, tmp_path):
    done = s2s("translate", reverse_run, "-i", tmp_path / "none.txt")
    assert (done.code, "no such file" in done.err) == (2, True)
    done = s2s("translate", tmp_path / "none")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "expected a run folder or a bundle folder" in done.err


def test_head_ends_it_quietly(reverse_run, tmp_path):
    # Blank lines fill the pipe without any decoding.
    (tmp_path / "in.txt").write_bytes(b"ba be\n" + b"\n" * 300_000)
    command = [sys.executable, "-m", "s2s", "translate", str(reverse_run), "-i", str(tmp_path / "in.txt")]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=Path(__file__).parents[2])
    assert running.stdout.readline().strip()
    running.stdout.close()
    assert running.stderr.read() == b""
    assert running.wait(60) == 0


def test_ctrl_c_is_130(s2s, reverse_run, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("s2s.task.generate.search", interrupt)
    done = s2s("translate", reverse_run, stdin=b"ba\n")
    assert (done.code, done.err) == (130, "s2s: error: interrupted\n")


# ---- what comes out


def test_records_carry_ids_whose_forced_score_is_theirs(s2s, reverse_run, sources, plain):
    stdin = as_lines(json.dumps({"text": source}) for source in sources[:6])
    records = jsonl(s2s("translate", reverse_run, "--format", "jsonl", "--nbest", "3", "--alignment", stdin=stdin))
    model = package.load(reverse_run, device="cpu").trained[0]
    for record, source, text in zip(records, sources, plain, strict=False):
        assert (record["input"], record["output"]) == (source, text)
        assert record["nbest"][0]["output"] == text
        assert [one["score"] for one in record["nbest"]] == sorted((o["score"] for o in record["nbest"]), reverse=True)
        step, state = start_search(model.model, *pad([[*model.source.encode(source), EOS]]))
        for one in record["nbest"]:
            (forced,) = force(step, state, [one["tokens"]], model.config.search)
            assert one["score"] == pytest.approx(forced.score, abs=1e-5)
            assert one["log_prob"] == pytest.approx(forced.log_prob, abs=1e-5)
            assert model.target.decode(one["tokens"]) == one["output"]
        assert record["source_pieces"] == [*source.split(), "</s>"]
        assert record["pieces"] == [*text.split(), "</s>"]
        assert [len(row) for row in record["alignment"]] == [len(record["source_pieces"])] * len(record["pieces"])
        assert all(sum(row) == pytest.approx(1, abs=1e-3) for row in record["alignment"])


def test_nbest_text_is_as_many_lines_a_record(s2s, reverse_run, sources):
    done = s2s("translate", reverse_run, "--nbest", "3", stdin=f"{sources[0]}\n\n{sources[1]}\n")
    assert len(done.lines) == 9
    assert done.lines[3:6] == ["", "", ""]
    assert done.lines[0] == s2s("translate", reverse_run, stdin=sources[0]).lines[0]
    assert len(set(done.lines[:3])) == 3


@pytest.mark.parametrize("options", [("--batch-size", "1"), ("--batch-size", "7"), ("--threads", "2")])
def test_batches_and_threads_change_nothing(s2s, reverse_run, sources, plain, options):
    before = torch.get_num_threads()
    try:
        assert s2s("translate", reverse_run, *options, stdin=as_lines(sources)).lines == plain
    finally:
        torch.set_num_threads(before)


def test_order_and_neighbours_change_nothing(s2s, reverse_run, sources, plain):
    backwards = s2s("translate", reverse_run, stdin=as_lines(reversed(sources)))
    assert backwards.lines == plain[::-1]
    beside = s2s("translate", reverse_run, stdin=as_lines(f"{source}\nx\nba " + "be " * 19 for source in sources[:10]))
    assert beside.lines[::3] == plain[:10]


@pytest.mark.parametrize("window", [4096, 16], ids=["one_window", "several"])
def test_workers_change_nothing(s2s, reverse_run, sources, monkeypatch, window):
    monkeypatch.setattr("s2s.task.workers.read_window", lambda source, _: list(islice(source, window)))
    # so small batches that both have something to do
    options = ("translate", reverse_run, "--format", "jsonl", "--sample", "--seed", "5", "--batch-size", "4")
    stdin = as_lines([*(json.dumps({"text": source}) for source in sources), ""])
    alone, together = s2s(*options, stdin=stdin), s2s(*options, "--workers", "2", stdin=stdin)
    assert [record["tokens"] for record in jsonl(together)] == [record["tokens"] for record in jsonl(alone)]


def test_an_ensemble_of_a_model_with_itself_is_the_model(s2s, reverse_run, copy_run, sources, plain):
    done = s2s("translate", reverse_run, "--ensemble", reverse_run / "model", reverse_run, stdin=as_lines(sources))
    assert done.lines == plain
    done = s2s("translate", reverse_run, "--ensemble", copy_run, stdin=as_lines(sources))
    assert (done.code, "must share their tokenizers" in done.err) == (2, True)


def test_sampling_depends_on_seed_and_line_alone(s2s, reverse_run, sources):
    options = ("translate", reverse_run, "--sample", "--temperature", "2", "--seed")
    first = s2s(*options, "7", stdin=as_lines(sources)).lines
    assert s2s(*options, "7", "--batch-size", "3", stdin=as_lines(sources)).lines == first
    assert s2s(*options, "7", stdin=as_lines(sources[:5])).lines == first[:5]
    assert s2s(*options, "8", stdin=as_lines(sources)).lines != first
    assert len(set(s2s(*options, "7", stdin=as_lines([sources[0]] * 9)).lines)) > 1


def test_prefix_constraint_and_ban_hold_for_the_text(s2s, reverse_run, sources, plain):
    some, outputs = sources[:8], plain[:8]
    started = s2s("translate", reverse_run, "--prefix", "bi bi", stdin=as_lines(some))
    assert all(line.startswith("bi bi") for line in started.lines)
    forced = s2s("translate", reverse_run, "--constraint", "be bu", "--constraint", "da", stdin=as_lines(some))
    assert all("be bu" in line and "da" in line.split() for line in forced.lines)
    word = outputs[0].split()[0]
    banned = s2s("translate", reverse_run, "--ban", word, stdin=as_lines(some))
    assert all(word not in line.split() for line in banned.lines)
    assert banned.lines[0] != outputs[0]
    for done in (started, forced, banned):
        assert "constraint_unmet" not in done.err


def test_a_record_has_constraints_of_its_own(s2s, reverse_run, sources, plain):
    asked = [{"prefix": "du"}, {"constraints": ["bu"]}, {"banned": [plain[2].split()[0]]}, {}]
    stdin = as_lines(json.dumps({"text": source, **more}) for source, more in zip(sources, asked, strict=False))
    prefixed, forced, banned, free = jsonl(s2s("translate", reverse_run, "--format", "jsonl", stdin=stdin))
    assert prefixed["output"].split()[0] == "du"
    assert "bu" in forced["output"].split()
    assert plain[2].split()[0] not in banned["output"].split()
    assert free["output"] == plain[3]


def test_an_impossible_constraint_concerns_its_line_only(s2s, reverse_run, sources, plain):
    impossible = [{"constraints": ["zzz"]}, {"constraints": ["ba " * 300]}, {"constraints": ["be"], "banned": ["be"]}]
    records = [{"text": source, **more} for source, more in zip(sources, [*impossible, {}], strict=False)]
    found = jsonl(s2s("translate", reverse_run, "--format", "jsonl", stdin=as_lines(map(json.dumps, records))))
    assert ["constraint_unmet" in record["flags"] for record in found] == [True, True, True, False]
    assert ["error" in record for record in found] == [True, True, True, False]  # which says why
    assert found[3]["output"] == plain[3]
    done = s2s("translate", reverse_run, "--constraint", "zzz", stdin=as_lines(sources[:2]))
    assert (done.code, len(done.lines)) == (0, 2)
    assert "2 constraint_unmet" in done.err


def test_outputs_that_are_cut_or_cornered_are_flagged(s2s, reverse_run, sources):
    stdin = as_lines(sources[:4])
    done = s2s("translate", reverse_run, "--beam", "1", "--max-length", "1", stdin=stdin)
    assert (done.code, "4 unfinished" in done.err) == (0, True)
    done = s2s("translate", reverse_run, "--no-repeat-ngram", "1", "--min-length", "18", stdin=stdin)
    assert (done.code, "4 fallback" in done.err) == (0, True)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--beam", "0"), "search.beam=0: must be an integer from 1"),
        (("--beam", "2", "--nbest", "5"), "search.nbest=5: must be at most search.beam=2"),
        (("--nbest", "0"), "search.nbest=0"),
        (("--temperature", "0"), "search.temperature=0.0: must be a number above 0"),
        (("--temperature", "-1"), "search.temperature=-1.0"),
        (("--temperature", "nan"), "search.temperature=nan"),
        (("--top-p", "0"), "search.top_p=0.0"),
        (("--top-p", "1.5"), "search.top_p=1.5"),
        (("--top-k", "-1"), "search.top_k=-1"),
        (("--length-penalty", "inf"), "search.length_penalty=inf"),
        (("--min-length", "9", "--max-length", "8"), "search.min_length=9: must not exceed search.max_length=8"),
        (("--sample", "--beam", "4"), "search.beam=4: must be 1 with search.sample=true"),
        (("--sample", "--seed", "-1"), "search.seed=-1"),
        (("--beam", "many"), "invalid int value: 'many'"),
        (("--batch-size", "0"), "--batch-size is out of range"),
        (("--workers", "0"), "--workers is out of range"),
        (("--threads", "0"), "--threads is out of range"),
        (("--overlong", "drop"), "invalid choice: 'drop'"),
        (("--errors", "ignore"), "invalid choice: 'ignore'"),
        (("--alignment",), "--format jsonl"),
        (("--nosuch",), "unrecognized arguments: --nosuch"),
    ],
)
def test_wrong_options_are_refused_in_one_line(s2s, reverse_run, options, told):
    done = s2s("translate", reverse_run, *options, stdin=b"ba\n")
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert told in done.err


def test_all_wrong_options_are_listed(s2s, reverse_run):
    done = s2s("translate", reverse_run, "--beam", "0", "--top-p", "2", "--temperature", "0", stdin=b"ba\n")
    assert all(key in done.err for key in ("search.beam", "search.top_p", "search.temperature"))


def test_a_beam_above_the_vocabulary_works(s2s, reverse_run, sources, plain):
    done = s2s("translate", reverse_run, "--beam", "40", "--max-length", "8", stdin=sources[0])
    assert done.lines == plain[:1]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there(s2s, reverse_run):
    done = s2s("translate", reverse_run, "--device", "cuda", stdin=b"ba\n")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "there is no CUDA device here" in done.err


def test_a_bundle_works_from_anywhere(s2s, reverse_run, sources, plain, tmp_path, monkeypatch):
    place = tmp_path / "my models (ä 模型)" / "de luxe"
    shutil.copytree(reverse_run / "model", place)
    for path in (*place.iterdir(), place, place.parent):
        path.chmod(0o555 if path.is_dir() else 0o444)
    monkeypatch.chdir(place.parent)
    try:
        assert s2s("translate", "de luxe", stdin=as_lines(sources[:3])).lines == plain[:3]
        assert s2s("translate", place, stdin=as_lines(sources[:3])).lines == plain[:3]
        assert s2s("verify", place).code == 0
    finally:
        for path in (place.parent, place):
            path.chmod(0o755)
