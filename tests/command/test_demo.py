"""`s2s demo`: trains once, then uses what is there; without apt-get it takes a corpus that comes by pip."""

import itertools
import json
import os
import zipfile

import pytest

from s2s import cli
from s2s.command import demo

SMALL = [
    "threads=1",
    "trainer.steps=2",
    "optim.warmup=1",
    "trainer.samples=2",
    "corpus.train=60",
    "corpus.dev=6",
    "corpus.test=8",
]


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    return tmp_path


def test_it_trains_shows_and_the_second_call_uses_what_is_there(elsewhere, capfd):
    assert cli.main(["demo", "teach/copy", *SMALL]) == 0
    first = capfd.readouterr()
    assert "training teach/copy" in first.err
    runs = sorted(path.name for path in (elsewhere / "runs/teach/copy").iterdir())
    assert len(runs) == 2
    assert runs[-1] == "latest"
    assert cli.main(["demo", "teach/copy", *SMALL]) == 0
    second = capfd.readouterr()
    assert "is there already" in second.err
    assert sorted(path.name for path in (elsewhere / "runs/teach/copy").iterdir()) == runs
    shown = second.out
    assert shown in first.out
    assert "2 translations of the test split" in shown
    reference = (elsewhere / "runs/teach/copy/latest/test.ref").read_text(encoding="utf-8").split("\n")[0]
    assert reference.split()[0] in shown
    assert "test: bleu " in shown
    for name in ("report.html", "attention", "scores.json", "model"):
        assert f"  runs/teach/copy/{runs[0]}/{name}  " in shown
        assert (elsewhere / "runs/teach/copy" / runs[0] / name).exists()
    assert "translate runs/teach/copy/latest" in shown
    assert f"train teach/copy {' '.join(SMALL)} attention=general" in shown
    assert f"compare runs/teach/copy/{runs[0]} runs/teach/copy/latest" in shown


def test_what_stands_in_a_corpus_is_no_markup(elsewhere, capfd):
    lines = {f"word{i} [bold]x[/bold]\x1b[31m": f"wort{i} [red]\x1b[0m" for i in range(40)}
    (elsewhere / "t.tsv").write_text("".join(f"{a}\t{b}\n" for a, b in lines.items()), encoding="utf-8", newline="\n")
    changes = ["corpus=tsv", "corpus.train=t.tsv", "corpus.source=en", "corpus.target=de", "corpus.dev=0.2"]
    changes += ["corpus.test=0.2", "trainer.steps=1", "optim.warmup=0", "trainer.samples=2", "threads=1", "name=own"]
    assert cli.main(["demo", "teach/copy", *changes]) == 0
    out = capfd.readouterr().out
    assert "[bold]x[/bold]" in out.replace("\n", "")
    assert "\x1b[31m" not in out


def write_wheel(path):
    with zipfile.ZipFile(path, "w") as archive:
        for number, (one, other) in enumerate(itertools.product("abcdefghi", repeat=2)):
            for language, text in (("en", f"Turn on {one}{other}"), ("de", f"{one}{other} anschalten")):
                name = f"homeassistant/components/part{number}/translations/{language}.json"
                archive.writestr(name, json.dumps({"a": text, "b": f"{text} {other}{one}"}))
    return path


def test_without_apt_it_says_so_and_takes_a_corpus_that_comes_by_pip(elsewhere, monkeypatch, capfd):
    monkeypatch.setenv("PATH", str(elsewhere / "empty"))
    wheel = write_wheel(elsewhere / "w.whl")
    changes = [f"corpus.path={wheel}", "text=words", "text.joint=true", "trainer.steps=2"]
    changes += ["optim.warmup=1", "threads=1", "trainer.samples=2", "trainer.valid_sentences=4"]
    assert cli.main(["demo", "translate/debian-en-de", *changes]) == 0
    told = capfd.readouterr()
    assert "needs apt-get, which is not on this system" in told.err
    assert "generated need no apt" in told.err
    assert "`catalogs`" in told.err
    assert (elsewhere / "runs/translate/catalogs-en-de/latest/model").is_dir()
    assert [path.name for path in (elsewhere / "runs/translate").iterdir()] == ["catalogs-en-de"]
    assert "corpus=catalogs corpus.max_words=15 name=translate/catalogs-en-de attention=general" in told.out


def test_another_wrong_corpus_is_an_error(elsewhere, capfd):
    changes = ["corpus=tsv", "corpus.train=missing.tsv", "corpus.source=en", "corpus.target=de"]
    assert cli.main(["demo", "translate/debian-en-de", *changes]) == 2
    assert "catalogs" not in capfd.readouterr().err


def test_the_command_is_named_as_the_user_must_type_it(elsewhere, monkeypatch):
    folder = elsewhere / ".venv/bin"
    folder.mkdir(parents=True)
    (folder / "s2s").write_text("#!/bin/sh\n", encoding="utf-8")
    (folder / "s2s").chmod(0o755)
    monkeypatch.setattr("sys.executable", str(folder / "python"))
    monkeypatch.setenv("PATH", "/nowhere")
    assert demo.command() == os.path.join(".venv", "bin", "s2s")
    monkeypatch.setenv("PATH", str(folder))
    assert demo.command() == "s2s"
    (folder / "s2s").unlink()
    assert demo.command().endswith("python -m s2s")
