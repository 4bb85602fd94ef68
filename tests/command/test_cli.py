"""The `s2s` command itself: help, words between options, exit codes, one line an error."""

import subprocess
import sys
from pathlib import Path

import pytest

from s2s import cli
from s2s.errors import RunError
from s2s.types import OVERLONG

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("command", sorted(cli.COMMANDS))
def test_every_command_has_help(s2s, command):
    done = s2s(command, "--help")
    assert done.code == 0
    assert done.out.startswith(f"usage: s2s {command} ")
    assert "--debug" in done.out


@pytest.mark.parametrize(
    "command, task", [("translate", "translation"), ("summarise", "summarisation"), ("chat", "dialogue")]
)
def test_what_a_task_does_with_long_texts_can_be_asked_for(command, task):
    for policy in OVERLONG[task]:
        assert cli.command_parser(command).parse_args(["MODEL", "--overlong", policy]).overlong == policy


def test_help_and_version(s2s):
    done = s2s("--help")
    assert done.code == 0
    assert all(name in done.out for name in cli.COMMANDS)
    assert s2s("--version").out == "s2s 0.1.0\n"


@pytest.mark.parametrize("words", [(), ("translat",), ("--nosuch",), ("--debug", "list")])
def test_what_is_no_command_is_refused_in_one_line(s2s, words):
    done = s2s(*words)
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert done.err.startswith("s2s: error: ")


def test_options_may_stand_between_words():
    parser = cli.command_parser("train")
    for words in (
        ["teach/copy", "-m", "seed=1,2", "name=x"],
        ["-m", "teach/copy", "seed=1,2", "name=x"],
        ["teach/copy", "seed=1,2", "-m", "name=x"],
    ):
        args = parser.parse_intermixed_args(words)
        assert (args.recipe, args.overrides, args.multirun) == ("teach/copy", ["seed=1,2", "name=x"], True)


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (RunError("the disk\nis full"), 1, "s2s: error: the disk is full\n"),
        (ValueError("two\nlines"), 1, "s2s: error: ValueError: two lines. For a traceback add --debug\n"),
        (MemoryError(), 1, "s2s: error: out of memory; take a smaller --batch-size"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), 1, "s2s: error: out of memory; "),
        (KeyboardInterrupt(), 130, "s2s: error: interrupted\n"),
    ],
)
def test_every_failure_is_one_line_and_an_exit_code(s2s, monkeypatch, error, code, told):
    def fail(_):
        raise error

    monkeypatch.setattr("s2s.command.list.run", fail)
    done = s2s("list")
    assert (done.code, done.err[: len(told)]) == (code, told)
    assert done.err.count("\n") == 1


def test_debug_shows_the_traceback(s2s, monkeypatch):
    monkeypatch.setattr("s2s.command.list.run", lambda _: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        s2s("list", "--debug")


def test_help_is_light():
    code = (
        "import sys; from s2s.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "print([name for name in ('torch', 'hydra', 'numpy', 'matplotlib', 'sacrebleu') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.split("\n")[-2] == "[]"


def test_list_names_everything(s2s):
    done = s2s("list")
    assert done.code == 0
    for name in ("teach/copy", "translate/debian-en-de", "additive", "generated", "intra_decoder", "transformer"):
        assert any(line.startswith(f"{name} ") for line in done.lines)
    assert all(line.split(None, 1)[1:] for line in done.lines if line and not line.endswith(":"))
    assert (
        s2s("list", "attention").lines
        == done.lines[done.lines.index("attention:") + 1 : done.lines.index("self_attention:") - 1]
    )
