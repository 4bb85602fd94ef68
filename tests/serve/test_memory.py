"""Ten thousand requests leave nothing behind."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from serve_toys import client

ROOT = Path(__file__).parents[2]
MORE = 8_000_000  # bytes that it may grow by: what the allocator keeps


def resident(process):
    return 1024 * int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8"))[1])


def requests(asking, texts, count):
    """All kinds of requests, some of them wrong."""
    for number in range(count):
        text = f"{texts[number % len(texts)]} {number}"
        chat = {
            "model": "talk",
            "messages": [{"role": "user", "content": text}],
            "temperature": 0,
            "stream": number % 2 == 0,
        }
        asked = [
            ("/api/generate", {"model": "reverse", "text": text, "details": True, "options": {"nbest": 3}}),
            ("/v1/chat/completions", {**chat, "temperature": 0}),
            ("/translate", {"q": f"<b>{text}</b>", "source": "symbols", "target": "symbols", "format": "html"}),
            ("/api/generate", {"model": f"unknown {number}", "text": text}),
            (f"/nothing/{number}", {}),
        ]
        path, body = asked[number % len(asked)]
        assert asking.post(path, json=body).status_code in (200, 404)


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="memory is read from /proc")
def test_memory_stays_flat(reverse_run, talk_run, sources):
    command = [sys.executable, "-m", "s2s", "serve", "--port", "0", "--threads", "1"]
    models = [f"reverse={reverse_run}", f"talk={talk_run}"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([*command, *models], stderr=subprocess.PIPE, text=True, env=environment)
    try:
        with client(re.search(r"http://\S+", process.stderr.readline())[0]) as asking:
            requests(asking, sources, 1500)
            before = resident(process)
            requests(asking, sources, 10_000)
            grown = resident(process) - before
            assert grown < MORE, grown
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate()
