"""`s2s align`: links of generated corpora, whose true links are known."""

import json

import pytest

from s2s.text.corpus import links


def true_links(rule, source):
    return " ".join(f"{i}-{j}" for i, j in sorted(links(rule, source.split())))


@pytest.fixture
def texts(tmp_path, sources):
    """Files of sources, targets and true links for a rule; a blank pair stands in the middle."""

    def make(rule):
        lines = [*sources[:20], "", *sources[20:]]
        targets = [" ".join(reversed(line.split())) if rule == "reverse" else line for line in lines]
        gold = [true_links(rule, line) for line in lines]
        for name, content in (("src", lines), ("tgt", targets), ("gold", gold)):
            (tmp_path / name).write_text("".join(f"{line}\n" for line in content), encoding="utf-8")
        return "--src", tmp_path / "src", "--tgt", tmp_path / "tgt", "--gold", tmp_path / "gold"

    return make


@pytest.mark.parametrize(("model", "rule"), [("reverse_run", "reverse"), ("copy_run", "copy")])
def test_a_trained_model_finds_the_true_links(s2s, request, texts, sources, tmp_path, model, rule):
    folder = request.getfixturevalue(model)
    done = s2s("align", folder, *texts(rule))
    assert done.code == 0, done.err
    assert len(done.lines) == len(sources) + 1
    assert done.lines[20] == ""
    aer, precision, recall = (float(done.err.split()[place].rstrip(",")) for place in (1, 3, 5))
    assert aer < 0.1
    assert 1 - aer == pytest.approx((precision + recall) / 2, abs=0.05)
    assert set(done.lines) & {true_links(rule, source) for source in sources}
    # links to a file, the comparison as JSON; other batches give the same
    out = tmp_path / "links"
    done_json = s2s("align", folder, *texts(rule), "-o", out, "--json", "--batch-size", "3")
    assert out.read_text(encoding="utf-8") == done.out
    assert json.loads(done_json.out)["error_rate"] == pytest.approx(aer, abs=1e-4)
    assert done_json.err == ""
    # links to standard output: the comparison on stderr
    mixed = s2s("align", folder, *texts(rule), "--json", "--method", "threshold")
    found = json.loads(mixed.err)
    assert found["recall"] > 0.9
    assert found["links"] == sum(len(line.split()) for line in mixed.lines)


def test_the_threshold_says_what_a_link_is(s2s, reverse_run, texts):
    options = ("align", reverse_run, *texts("reverse")[:4], "--method", "threshold", "--threshold")
    counts = [sum(len(line.split()) for line in s2s(*options, x).lines) for x in ("0.001", "0.2", "1")]
    assert counts[0] > counts[1] > counts[2]
    done = s2s(*options, "0")
    assert (done.code, "expected 0 < x <= 1" in done.err) == (2, True)


def test_words_count_as_they_are_typed(s2s, copy_run, tmp_path):
    # U+00B4 is a space and a mark to the tokenizer, and U+00BD three characters: the words stay those between spaces
    for name in ("src", "tgt"):
        (tmp_path / name).write_text("it\u00b4s ba \u00bd be\n", encoding="utf-8")
    done = s2s("align", copy_run, "--src", tmp_path / "src", "--tgt", tmp_path / "tgt")
    linked = [tuple(map(int, link.split("-"))) for link in done.lines[0].split()]
    assert {target for _, target in linked} == {0, 1, 2, 3}
    assert all(source < 4 for source, _ in linked)


def test_unequal_files_are_told_with_both_counts(s2s, reverse_run, tmp_path):
    (tmp_path / "src").write_bytes(b"ba\nbe\n")
    (tmp_path / "tgt").write_bytes(b"ba\n")
    done = s2s("align", reverse_run, "--src", tmp_path / "src", "--tgt", tmp_path / "tgt")
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert f"{tmp_path}/src has 2, {tmp_path}/tgt has 1" in done.err


def test_blank_sides_and_empty_files(s2s, reverse_run, tmp_path):
    (tmp_path / "src").write_bytes(b"ba be\n\n \nbi\n")
    (tmp_path / "tgt").write_bytes("\nba\n\u3000\nbi".encode())
    done = s2s("align", reverse_run, "--src", tmp_path / "src", "--tgt", tmp_path / "tgt")
    assert (done.code, done.lines) == (0, ["", "", "", "0-0"])
    (tmp_path / "none").touch()
    done = s2s("align", reverse_run, "--src", tmp_path / "none", "--tgt", tmp_path / "none")
    assert (done.code, done.out, "is empty" in done.err) == (0, "", True)


def test_gold_must_fit_the_texts(s2s, reverse_run, tmp_path):
    (tmp_path / "src").write_bytes(b"ba be\n")
    for gold, told in (
        ("0-0 1-2", "gold:1: token 2 (1-2) points outside the sentence"),
        ("0:0", "no link"),
        ("0-0\n0-0", "expected 1 lines"),
    ):
        (tmp_path / "gold").write_text(f"{gold}\n", encoding="utf-8")
        files = ("--src", tmp_path / "src", "--tgt", tmp_path / "src", "--gold", tmp_path / "gold")
        done = s2s("align", reverse_run, *files)
        assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
        assert told in done.err


def test_pictures(s2s, reverse_run, tmp_path):
    (tmp_path / "src").write_bytes("ba be 模型\n\nbi\n".encode())
    files = ("--src", tmp_path / "src", "--tgt", tmp_path / "src", "--plot", tmp_path / "new" / "pictures")
    done = s2s("align", reverse_run, *files)
    assert done.code == 0, done.err
    pictures = sorted((tmp_path / "new" / "pictures").iterdir())
    assert [path.name for path in pictures] == ["1.png", "3.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in pictures)


def test_wrong_options(s2s, reverse_run, tmp_path):
    source = tmp_path / "src"
    source.write_bytes(b"ba " * 30)
    files = ("--src", source, "--tgt", source)
    for options, told in (
        ((*files, "-o", source), "the output is the input file"),
        ((*files, "--json"), "--gold"),
        (("--src", "-", "--tgt", "-"), "can be read only once"),
        (files, "pair 1: the pair is too long for the model; expected at most 20"),
        ((*files, "--batch-size", "0"), "--batch-size is out of range"),
        (("--src", source), "the following arguments are required: --tgt"),
    ):
        done = s2s("align", reverse_run, *options)
        assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
        assert told in done.err
    assert source.read_bytes() == b"ba " * 30


def test_a_model_without_weights_says_so(s2s, tmp_path, sources):
    small = ("attention=none", "encoder.width=8", "decoder.width=8", "trainer.steps=2", "optim.warmup=1")
    sizes = ("corpus.train=40", "corpus.dev=2", "corpus.test=2", "trainer.samples=0", "threads=1", "device=cpu")
    model = s2s("train", "teach/copy", *small, *sizes, f"output={tmp_path / 'runs'}").out.strip()
    (tmp_path / "src").write_text(f"{sources[0]}\n", encoding="utf-8")
    done = s2s("align", model, "--src", tmp_path / "src", "--tgt", tmp_path / "src", "-o", tmp_path / "out")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "attention=none has no weights to align by" in done.err
    assert not (tmp_path / "out").exists()
