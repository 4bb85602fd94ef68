"""`s2s compare`: one table of runs, with paired tests against the first."""

import json
import shutil
from pathlib import Path

import pytest
from sacrebleu.metrics import BLEU

from s2s.score.diversity import diversity
from s2s.score.significance import paired_tests


@pytest.fixture
def worse_run(reverse_run, tmp_path):
    """The same run, with every third output spoiled."""
    folder = Path(shutil.copytree(reverse_run, tmp_path / "worse"))
    lines = (folder / "test.hyp").read_text(encoding="utf-8").split("\n")[:-1]
    spoiled = [("ba " * 4).strip() if number % 3 == 0 else line for number, line in enumerate(lines)]
    (folder / "test.hyp").write_text("".join(f"{line}\n" for line in spoiled), encoding="utf-8")
    return folder


def lines(path):
    return path.read_text(encoding="utf-8").split("\n")[:-1]


def test_the_numbers_are_those_of_the_run_folders(s2s, reverse_run, worse_run):
    done = s2s("compare", reverse_run, worse_run, "--samples", "60", "--json")
    assert done.code == 0, done.err
    first, second = json.loads(done.out)
    references = [lines(reverse_run / "test.ref")]
    outputs = [("first", lines(reverse_run / "test.hyp")), ("second", lines(worse_run / "test.hyp"))]
    expected = paired_tests(outputs, references, ["bleu"], samples=60, trials=600)
    ours, theirs = [result for result in expected if result.test == "bootstrap"]
    for row, name, result in ((first, reverse_run, ours), (second, worse_run, theirs)):
        assert row["name"] == str(name)
        assert (row["attention"], row["steps"]) == ("additive", 160)
        score = row["scores"]["bleu"]
        assert (score["value"], score["low"], score["high"]) == (result.score, result.low, result.high)
    hypotheses = lines(worse_run / "test.hyp")
    assert second["scores"]["bleu"]["value"] == pytest.approx(BLEU().corpus_score(hypotheses, references).score)
    assert first["p_values"] == {}
    assert set(second["p_values"]) == {"bleu", "chrf"}
    assert second["p_values"]["bleu"] == {result.test: result.p_value for result in expected if result.p_value}
    assert second["p_values"]["bleu"]["randomisation"] < 0.05
    log = [json.loads(line) for line in lines(reverse_run / "log.jsonl")]
    start, end = log[0], next(event for event in log if event["event"] == "end")
    assert first["parameters"] == start["parameters"]
    assert first["minutes"] == pytest.approx(end["seconds"] / 60)
    speeds = [event["tokens_per_second"] for event in log if event["event"] == "train"]
    assert min(speeds) <= first["training_tokens_per_second"] <= max(speeds)
    assert first["decoding_sentences_per_second"] > 0
    test = next(event for event in log if event["event"] == "test")
    assert first["attention_statistics"] == test["attention"]
    assert first["attention_statistics"]["monotonicity"] < -0.9
    assert first["alignment"] == test["alignment"]
    assert 0 <= first["alignment"]["error_rate"] < 0.6


def test_further_references_count_and_must_be_the_same(s2s, reverse_run, worse_run):
    for folder in (reverse_run, worse_run):
        (folder / "test.ref.2").write_text("".join(f"{line}\n" for line in lines(worse_run / "test.hyp")))
    try:
        done = s2s("compare", worse_run, reverse_run, "--samples", "60", "--json")
        assert json.loads(done.out)[0]["scores"]["bleu"]["value"] == pytest.approx(100)
        assert "nrefs:2" in json.loads(done.out)[0]["scores"]["bleu"]["signature"]
        (worse_run / "test.ref.2").write_text("".join(f"{line} x\n" for line in lines(worse_run / "test.hyp")))
        done = s2s("compare", worse_run, reverse_run, "--samples", "60")
        assert (done.code, "the references of test differ" in done.err) == (2, True)
    finally:
        (reverse_run / "test.ref.2").unlink()


def test_the_table(s2s, reverse_run, worse_run):
    done = s2s("compare", reverse_run, worse_run, "--samples", "40")
    head, first, second, *below = done.lines
    assert head.split()[:4] == ["run", "attention", "parameters", "bleu"]
    assert head.split()[-7:] == ["entropy", "monotone", "AER", "tokens/s", "sentences/s", "minutes", "steps"]
    assert first.split()[:3] == [str(reverse_run), "additive", "47,600"]
    assert first.split()[5:7] == ["-", "-"]
    assert float(second.split()[6]) < 0.05
    assert below[0].startswith(f"p: of the difference to {reverse_run}")
    assert [line.split(":")[0] for line in below[1:]] == ["entropy", "monotone", "AER", "bleu of test", "chrf of test"]
    assert float(first.split()[-6]) < -0.9


def test_the_table_as_markdown(s2s, reverse_run, worse_run):
    plain = s2s("compare", reverse_run, worse_run, "--samples", "40").lines
    done = s2s("compare", reverse_run, worse_run, "--samples", "40", "--format", "markdown")
    head, ruler, first, second, blank, *below = done.lines
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in (head, first, second)]
    assert [" ".join(row).split() for row in cells] == [line.split() for line in plain[:3]]
    assert {len(line.split("|")) for line in (head, ruler, first, second)} == {len(cells[0]) + 2}
    assert (blank, below) == ("", [f"- {line}" for line in plain[3:]])


def test_scores_of_diversity_have_no_interval_and_no_p(s2s, worse_run, tmp_path):
    other = Path(shutil.copytree(worse_run, tmp_path / "other"))
    for folder in (worse_run, other):
        scores = json.loads((folder / "scores.json").read_text())
        scores["test"] = [{"name": "distinct2", "value": 0.0}, {"name": "bleu", "value": 0.0}]
        (folder / "scores.json").write_text(json.dumps(scores))
    done = s2s("compare", worse_run, other, "--samples", "40")
    assert done.code == 0, done.err
    head, _, second, *_ = done.lines
    assert head.split()[3] == "distinct2"
    value = diversity("distinct2", lines(other / "test.hyp")).value
    assert second.split()[3:7] == [f"{value:.2f}", "-", "-", "-"]
    assert second.split()[9:11] == ["1.0000", "1.0000"]  # of BLEU


def test_a_run_against_itself_is_no_better(s2s, reverse_run, tmp_path):
    other = tmp_path / "same"
    other.symlink_to(reverse_run)
    done = s2s("compare", reverse_run, other, "--samples", "40", "--json")
    assert json.loads(done.out)[1]["p_values"]["bleu"] == {"bootstrap": 1.0, "randomisation": 1.0}


def test_what_is_missing_is_a_dash(s2s, reverse_run, tmp_path):
    young = tmp_path / "young"
    young.mkdir()
    shutil.copy(reverse_run / "config.yaml", young)
    done = s2s("compare", young, reverse_run)
    assert done.code == 0, done.err
    _, first, second, *below = done.lines
    assert first.split() == [str(young), "additive", *["-"] * 16]
    assert "additive" in second
    assert f"{young} has no test.hyp and test.ref" in done.err
    assert not any(line.startswith("p:") for line in below)
    done = s2s("compare", young, reverse_run, "--split", "dev")
    assert (done.code, "no run has scores of the split dev" in done.err) == (0, True)


def test_results_kept_without_model_and_references_compare_as_the_runs_do(s2s, reverse_run, worse_run, tmp_path):
    kept = [tmp_path / "kept" / run.name for run in (reverse_run, worse_run)]
    for run, folder in zip((reverse_run, worse_run), kept, strict=True):
        folder.mkdir(parents=True)
        for name in ("config.yaml", "log.jsonl", "scores.json", "test.hyp"):
            shutil.copy(run / name, folder)
    whole = json.loads(s2s("compare", reverse_run, worse_run, "--samples", "40", "--json").out)
    words = ("--samples", "40", "--json", "--ref", reverse_run / "test.ref")
    done = s2s("compare", *kept, *words)
    assert done.code == 0, done.err
    assert [{**row, "name": ""} for row in json.loads(done.out)] == [{**row, "name": ""} for row in whole]
    assert json.loads(s2s("compare", *kept, "--json").out)[1]["p_values"] == {}
    for content, told in ((b"a: [", "is no YAML"), (b" " * (1 << 20) + b"a: 1", "is too big")):
        (kept[1] / "config.yaml").write_bytes(content)
        done = s2s("compare", *kept, *words)
        assert (done.code, told in done.err, done.err.count("\n")) == (2, True, 1)
    done = s2s("compare", reverse_run, kept[0], "--ref", tmp_path / "none")
    assert (done.code, "there is no such file" in done.err) == (2, True)


def test_other_references_are_refused(s2s, reverse_run, copy_run):
    done = s2s("compare", reverse_run, copy_run)
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert f"{copy_run}/test.ref:1: the references of test differ" in done.err


def test_fewer_references_and_fewer_outputs_are_refused(s2s, reverse_run, worse_run):
    references = lines(worse_run / "test.ref")
    (worse_run / "test.hyp").write_text("".join(f"{line}\n" for line in references[:-1]), encoding="utf-8")
    done = s2s("compare", reverse_run, worse_run)
    assert (done.code, "expected 60 lines as in test.ref; found 59" in done.err) == (2, True)
    (worse_run / "test.ref").write_text("".join(f"{line}\n" for line in references[:-1]), encoding="utf-8")
    done = s2s("compare", reverse_run, worse_run)
    assert (done.code, "found 59 lines, other ones from line 60 on" in done.err) == (2, True)


def test_wrong_words(s2s, reverse_run, tmp_path):
    for words, told in (
        ((reverse_run,), "at least 2 run folders"),
        ((reverse_run, tmp_path), "is no run folder"),
        ((reverse_run, tmp_path / "none"), "is no run folder"),
        ((reverse_run, reverse_run), "two systems have the same name"),
        ((reverse_run, f"{reverse_run}/", "--samples", "3"), "at least 40"),
        ((reverse_run, reverse_run, "--json", "--format", "markdown"), "not allowed with argument"),
    ):
        done = s2s("compare", *words)
        assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
        assert told in done.err
