"""`s2s chat`: piped lines, histories as JSON, and a real terminal."""

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time

import pytest


def history(*turns):
    return [{"role": ("user", "assistant")[number % 2], "content": turn} for number, turn in enumerate(turns)]


def test_piped_lines_are_one_conversation_with_a_reply_each(s2s, echo_run):
    done = s2s("chat", echo_run, stdin="ba be\n\nbi bo\n")
    assert done.code == 0
    assert len(done.lines) == 3
    assert done.lines[1] == ""
    assert done.lines[0]
    # the second line is answered in its context, which this model can't read whole
    assert "turns_dropped" in done.err
    assert s2s("chat", echo_run, stdin="").lines == []


def test_each_history_of_json_lines_is_answered(s2s, echo_run):
    records = [
        history("ba be"),
        {"messages": history("ba", "bi", "ba be")},
        {"messages": history("ba be"), "prefix": "du"},
    ]
    stdin = "".join(json.dumps(record) + "\n" for record in records) + "\n"
    done = s2s("chat", echo_run, "--format", "jsonl", stdin=stdin)
    assert done.code == 0
    first, second, third, blank = map(json.loads, done.lines)
    assert first["input"] == "ba be"
    assert second["input"] == "ba\nbi\nba be"
    assert "turns_dropped" in second["flags"]
    assert first["output"] == second["output"]
    assert third["output"].startswith("du")
    assert blank["output"] == ""
    workers = s2s("chat", echo_run, "--format", "jsonl", "--workers", "2", stdin=stdin)
    assert workers.lines == done.lines


@pytest.mark.parametrize(
    "line, told",
    [
        ('{"text": "a"}', "is no conversation"),
        ('"a"', "is no conversation"),
        ("[]", "nothing to reply to"),
        ('[{"role": "user"}]', "message 1"),
        ('[{"role": "assistant", "content": "a"}]', "role assistant"),
        ('{"messages": [{"role": "user", "content": "a"}], "text": 3, "x": 1}', "x"),
        ("[{", "line"),
    ],
)
def test_a_wrong_history_is_named_by_its_line(s2s, echo_run, line, told):
    good = json.dumps(history("ba"))
    done = s2s("chat", echo_run, "--format", "jsonl", stdin=f"{good}\n{line}\n")
    assert done.code == 2
    assert "<stdin>:2" in done.err
    assert told in done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize(
    "option", [("--workers", "2"), ("--nbest", "2"), ("--overlong", "split"), ("--mmi-weight", "0.2")]
)
def test_what_has_no_meaning_is_refused(s2s, echo_run, option):
    done = s2s("chat", echo_run, *option, stdin="a\n")
    assert done.code == 2
    assert option[0] in done.err


def test_a_translation_model_doesnt_chat(s2s, reverse_run):
    done = s2s("chat", reverse_run, stdin="a\n")
    assert done.code == 2
    assert "trained for translation" in done.err
    done = s2s("chat", reverse_run, "--format", "jsonl", stdin=json.dumps(history("a")) + "\n")
    assert done.code == 2
    assert "trained for translation" in done.err


def test_files_say_what_to_avoid(s2s, echo_run, tmp_path):
    plain = s2s("chat", echo_run, stdin="ba be\n").lines[0]
    (tmp_path / "dull").write_text(plain.upper() + "\n")
    (tmp_path / "rude").write_text(plain.split()[0] + "\n")
    assert s2s("chat", echo_run, "--avoid", tmp_path / "dull", stdin="ba be\n").lines[0] != plain
    polite = s2s("chat", echo_run, "--unwanted", tmp_path / "rude", stdin="ba be\n").lines[0]
    assert plain.split()[0] not in polite.split()
    twice = s2s("chat", echo_run, "--fresh", stdin="ba be\nba be\n").lines
    assert twice[0] == plain != twice[1]
    assert s2s("chat", echo_run, "--avoid", tmp_path / "none", stdin="a\n").code == 2


class Terminal:
    """`s2s chat` behind a pseudo-terminal."""

    def __init__(self, *argv, home):
        self.master, slave = pty.openpty()
        environment = {**os.environ, "XDG_STATE_HOME": str(home), "TERM": "xterm-256color", "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "s2s", "chat", *map(str, argv)]
        self.process = subprocess.Popen(
            command, stdin=slave, stdout=slave, stderr=slave, env=environment, start_new_session=True
        )
        os.close(slave)
        self.seen = ""

    def wait_for(self, text, seconds=60):
        end = time.monotonic() + seconds
        while text not in self.seen:
            left = end - time.monotonic()
            assert left > 0, f"no {text!r} in {self.seen!r}"
            if select.select([self.master], [], [], left)[0]:
                try:
                    self.seen += os.read(self.master, 4096).decode(errors="replace")
                except OSError:  # it has left
                    break
        assert text in self.seen, self.seen
        before, _, self.seen = self.seen.partition(text)
        return before

    def type(self, line):
        os.write(self.master, line.encode())


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_a_terminal_with_commands(echo_run, tmp_path):
    shown = Terminal(echo_run, "--threads", "1", home=tmp_path / "state")
    try:
        shown.wait_for("you: ")
        shown.type("/why\n")
        shown.wait_for("there is no reply yet")
        shown.type("ba be\n")
        shown.wait_for("s2s: ")
        first = shown.wait_for("you: ")
        shown.type("/retry\n")
        shown.wait_for("s2s: ")
        assert shown.wait_for("you: ") != first
        shown.type("/why\n")
        why = shown.wait_for("you: ")
        assert "\x1b[" in why  # colours
        assert "%" in why
        time.sleep(0.3)
        shown.process.send_signal(signal.SIGINT)
        shown.type("\n")  # a signal that came before readline waits is seen with the next key
        shown.wait_for("leaves")
        shown.type("/set beam=2 beem=3\n")
        shown.wait_for("unknown search option")
        shown.type("/set beam=2\n/set\n")
        shown.wait_for("beam=2")
        shown.type(f"/save {tmp_path / 'kept.json'}\n")
        shown.wait_for("saved to")
        shown.type(f"/save {tmp_path / 'kept.json'}\n")
        shown.wait_for("there already")
        shown.type("/nonsense\n")
        shown.wait_for("there is no /nonsense")
        shown.type("/reset\n")
        shown.wait_for("forgotten")
        shown.type("/help\n")
        shown.wait_for("/quit")
        shown.wait_for("you: ")  # what is typed before readline waits is a byte like any other, not the end of input
        shown.type("\x04")
        assert shown.process.wait(30) == 0
    finally:
        shown.process.kill()
        os.close(shown.master)
    kept = json.loads((tmp_path / "kept.json").read_text())
    assert [message["role"] for message in kept["messages"]] == ["user", "assistant"]
    typed = tmp_path / "state" / "s2s" / "chat_history"
    assert "ba be" in typed.read_text()
    assert typed.stat().st_mode & 0o077 == 0
