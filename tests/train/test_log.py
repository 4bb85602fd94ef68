"""log.jsonl: whole events only, and one run however often it was killed."""

import json
import math

import pytest

from s2s.errors import UsageError
from s2s.train import log as room
from s2s.train.log import RunLog, read_log


def written(path, *events):
    log = RunLog(path)
    for event, values in events:
        log.write(event, **values)
    return log


RUN = [
    ("start", {"step": 0, "pairs": {"train": 3}}),
    ("train", {"step": 1, "loss": 2.5}),
    ("valid", {"step": 2, "loss": 2.0, "note": "größer ü"}),
    ("train", {"step": 3, "loss": 1.5}),
    ("end", {"step": 3, "reason": "3 steps"}),
]


def test_events_come_back_as_they_were_written(tmp_path):
    written(tmp_path / "log.jsonl", *RUN)
    assert read_log(tmp_path / "log.jsonl") == [{"event": event, **values} for event, values in RUN]
    lines = (tmp_path / "log.jsonl").read_bytes().split(b"\n")
    assert len(lines) == len(RUN) + 1
    assert "größer ü".encode() in lines[2]  # readable, not escaped
    assert b"\r" not in b"".join(lines)


def test_a_log_that_is_not_there_is_empty(tmp_path):
    assert read_log(tmp_path / "log.jsonl") == []


def test_numbers_that_json_has_not_become_null(tmp_path):
    written(tmp_path / "log", ("train", {"loss": math.nan, "norm": math.inf, "step": 1, "tokens": 10**30}))
    text = (tmp_path / "log").read_text()
    assert "NaN" not in text
    assert "Infinity" not in text
    assert json.loads(text) == {"event": "train", "loss": None, "norm": None, "step": 1, "tokens": 10**30}


def test_a_line_cut_off_at_any_byte_is_left_out_and_rewound(tmp_path):
    path = tmp_path / "log.jsonl"
    written(path, *RUN[:3])
    whole = path.read_bytes()
    start = whole.rstrip(b"\n").rfind(b"\n") + 1
    for cut in range(start, len(whole) - 1):
        path.write_bytes(whole[:cut])
        assert [event["step"] for event in read_log(path)] == [0, 1]
        log = RunLog(path)
        log.rewind(5)
        log.write("train", step=9)
        assert [event["step"] for event in read_log(path)] == [0, 1, 9]
    path.write_bytes(whole[:-1])  # only the newline is missing
    assert [event["step"] for event in read_log(path)] == [0, 1, 2]


@pytest.mark.parametrize("step, kept", [(0, 1), (1, 2), (2, 3), (3, 4), (9, 4)])
def test_rewind_drops_what_came_after_a_checkpoint_and_the_end(tmp_path, step, kept):
    log = written(tmp_path / "log", *RUN)
    log.rewind(step)
    assert read_log(log.path) == [{"event": event, **values} for event, values in RUN[:kept]]


def test_rewind_of_no_log_makes_an_empty_one(tmp_path):
    log = RunLog(tmp_path / "log")
    log.rewind(3)
    assert read_log(log.path) == []


def test_tensorboard_gets_the_same_numbers(tmp_path, monkeypatch):
    scalars = []

    class Writer:
        def add_scalar(self, name, value, step):
            scalars.append((name, value, step))

        def close(self):
            scalars.append("closed")

    monkeypatch.setattr(room, "_tensorboard", lambda folder: Writer())
    log = RunLog(tmp_path / "log", tensorboard=tmp_path)
    log.write("train", step=4, loss=1.5, epoch=0)
    log.write("note", text="no step")
    log.close()
    assert scalars == [("train/loss", 1.5, 4), "closed"]


def test_tensorboard_that_is_not_installed_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "torch.utils.tensorboard", None)
    with pytest.raises(UsageError, match=r"trainer.tensorboard=true.*pip install 's2s\[tensorboard\]'"):
        RunLog(tmp_path / "log", tensorboard=tmp_path)


def test_the_speed_is_the_median_of_the_lines_that_have_one(tmp_path):
    speeds = [{"tokens_per_second": value} for value in (100.0, 1.0, 300.0, None)]
    assert room.training_speed([*speeds, {"event": "valid"}]) == 100.0
    assert room.training_speed([]) is None
