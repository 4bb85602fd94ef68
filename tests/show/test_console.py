"""The training display: what lines say, that they are rare, and that it never breaks a run."""

import io
import re

import pytest

from s2s.show.console import duration, one_line, progress, scores_line


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def run(display, clock, steps=100, seconds=1.0):
    display.start("translate/debian-en-de", total=200, minutes=5)
    for step in range(1, steps + 1):
        clock.now += seconds
        display.step(step, loss=7.0 / step, tokens_per_second=3412.4, lr=0.001)
    display.valid(steps, {"loss": 2.5, "bleu": 12.345}, best=True)
    display.step(steps + 1, loss=0.5, tokens_per_second=3000)
    display.note("a note")
    display.close()
    display.close()


def test_plain_lines():
    stream, clock = io.StringIO(), Clock()
    run(progress(True, stream=stream, every=10, clock=clock), clock)
    lines = stream.getvalue().split("\n")
    assert lines[0] == "translate/debian-en-de, until 200 steps or 5 minutes"
    assert lines[1] == "step 1/200  loss 7.000  tokens/s 3,412  left 3:19  lr 0.001  elapsed 0:01"
    assert lines[-4:] == [
        "dev at step 100: loss 2.500, BLEU 12.35 (best so far)",
        "a note",
        "stopped at step 101 after 1:40: loss 0.500, dev loss 2.500, BLEU 12.35",
        "",
    ]
    steps = [int(m[1]) for m in re.finditer(r"^step (\d+)/", stream.getvalue(), re.M)]
    assert steps == [1, 11, 21, 31, 41, 51, 61, 71, 81, 91]
    assert "\x1b" not in stream.getvalue()


def test_time_left_is_that_of_the_nearer_limit():
    for total, minutes, left in (
        (1000, None, "left 16:30"),
        (1000, 1, "left 0:50"),
        (20, 10, "left 0:10"),
        (None, None, None),
    ):
        stream, clock = io.StringIO(), Clock()
        display = progress(True, stream=stream, clock=clock)
        display.start("r", total=total, minutes=minutes)
        clock.now += 10
        display.step(10, loss=1.0, tokens_per_second=1.0)
        last = stream.getvalue().rstrip("\n").split("\n")[-1]
        assert last.endswith(f"tokens/s 1  {left}  elapsed 0:10" if left else "tokens/s 1  elapsed 0:10")


def test_a_resumed_run_counts_its_own_steps_for_the_time_left():
    stream, clock = io.StringIO(), Clock()
    display = progress(True, stream=stream, clock=clock)
    display.start("r", total=1100, done=1000)
    clock.now += 10
    display.step(1010, loss=1.0, tokens_per_second=1.0)
    assert "from step 1,000" in stream.getvalue()
    assert stream.getvalue().endswith("left 1:30  elapsed 0:10\n")


def test_plain_is_chosen_where_there_is_no_terminal(monkeypatch, capsys):
    display = progress()
    display.start("r")
    display.step(1, loss=1.0, tokens_per_second=5.0)
    display.close()
    out, err = capsys.readouterr()
    assert out == ""
    assert "step 1  loss 1.000  tokens/s 5" in err


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self):
        return True


def test_live_line_on_a_terminal_and_the_cursor_comes_back(monkeypatch, capsys):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "200")
    stream, clock = Terminal(), Clock()
    run(progress(stream=stream, clock=clock), clock, steps=3)
    text = stream.getvalue()
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text)
    assert "loss 7.000" in plain
    assert "tokens/s 3,412" in plain
    assert "dev at step 3: loss 2.500, BLEU 12.35 (best so far)" in plain
    assert "stopped at step 4" in plain
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h") == 1
    assert capsys.readouterr().out == ""


def test_a_dumb_terminal_gets_lines(monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    stream = Terminal()
    progress(stream=stream).start("r")
    assert stream.getvalue() == "r\n"


@pytest.mark.parametrize("plain", [True, False])
def test_notes_are_text_not_markup_or_control_sequences(plain):
    stream = Terminal()
    display = progress(plain, stream=stream)
    display.note("[bold]x[/nope] \x1b]0;title\x07 a\r\nb [link=file:///x]")
    assert "[bold]x[/nope] \ufffd]0;title\ufffd a b [link=file:///x]" in stream.getvalue()


@pytest.mark.parametrize("plain", [True, False])
def test_a_stream_that_went_away_does_not_stop_training(plain):
    class Gone(Terminal):
        def write(self, text):
            raise OSError(5, "Input/output error")

    clock = Clock()
    run(progress(plain, stream=Gone(), clock=clock), clock)


@pytest.mark.parametrize("plain", [True, False])
def test_close_before_anything_happened(plain):
    display = progress(plain, stream=Terminal())
    display.close()
    display.step(1, loss=1.0, tokens_per_second=1.0)
    display.note("late")
    display.close()


def test_duration():
    shown = [duration(s) for s in (-5, 0, 59.6, 185, 3600, 7385, 200_000)]
    assert shown == ["0:00", "0:00", "1:00", "3:05", "1:00:00", "2:03:05", "2 d 07:33"]


def test_scores_line_and_one_line():
    assert (
        scores_line({"loss": 1.23456, "ppl": 3.4567, "bleu": 20.0, "chrf": 1.0})
        == "loss 1.235, ppl 3.46, BLEU 20.00, chrF 1.00"
    )
    assert one_line("a\u2028b\u00a0c 机器\x1b[31m") == "a b c 机器\ufffd[31m"
