"""`s2s serve`: starts, says where, stops when told; what can't be served is told before anything is loaded."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from s2s.command.serve import listen
from s2s.serve.models import load_models

ROOT = Path(__file__).parents[2]


def ask(address, path, body=None, key=None):
    headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {key}"} if key else {})}
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(address + path, data, headers), timeout=30) as answer:
        return json.load(answer)


def test_it_serves_several_models_with_a_key_and_stops_when_told(reverse_run, copy_run, s2s, sources):
    command = [sys.executable, "-m", "s2s", "serve", "--port", "0", "--threads", "1", reverse_run, f"copy={copy_run}"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "S2S_API_KEY": "sesame"}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    try:
        told = process.stderr.readline()
        assert "serving teach/reverse, copy at http://127.0.0.1:" in told
        address = re.search(r"http://\S+", told)[0]
        with pytest.raises(urllib.error.HTTPError, match="401"):
            ask(address, "/api/models")
        assert [one["name"] for one in ask(address, "/api/models", key="sesame")["models"]] == ["teach/reverse", "copy"]
        body = {"model": "teach/reverse", "text": sources[0]}
        (made,) = ask(address, "/api/generate", body, key="sesame")["outputs"]
        assert [made["output"]] == s2s("translate", reverse_run, stdin=sources[0]).lines
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
        assert process.stderr.read() == "s2s: stopped\n"
    finally:
        process.kill()
        process.communicate()


def test_no_part_of_an_answer_waits_for_an_acknowledgement():
    with listen("127.0.0.1", 0) as listening, socket.create_connection(listening.getsockname()):
        accepted, _ = listening.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_names_are_the_recipes_or_given(reverse_run, copy_run):
    assert list(load_models([str(reverse_run), f"one={reverse_run}"])) == ["teach/reverse", "one"]
    odd = reverse_run.parent / "a=b"
    odd.symlink_to(reverse_run)
    assert list(load_models([str(odd)])) == ["teach/reverse"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["{run}", "{run}"], "two models are named teach/reverse"),
        (["nowhere"], "nowhere"),
        (["{run}", "--max-body", "0"], "--max-body is out of range"),
        (["{run}", "--max-waiting", "0"], "--max-waiting is out of range"),
        (["{run}", "--api-key", " "], "an empty API key"),
        (["{run}", "--port", "99999"], "can't listen"),
        (["{run}", "--host", "nowhere.invalid"], "can't listen"),
        (["{run}", "--port", "{taken}"], "can't listen"),
    ],
)
def test_what_cannot_be_served_is_told(s2s, reverse_run, arguments, told):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        given = [one.format(run=reverse_run, taken=port) for one in arguments]
        done = s2s("serve", *given, *([] if "--port" in given else ["--port", "0"]))
    assert done.code in (1, 2)
    assert done.err.count("\n") == 1
    assert told in done.err


def test_a_missing_extra_is_told(s2s, reverse_run, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    done = s2s("serve", reverse_run)
    assert done.code == 2
    assert 'pip install "s2s[serve]"' in done.err
