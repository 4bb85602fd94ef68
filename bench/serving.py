"""How a server answers many clients at once: time against one by one, equal answers, time to the first word.

    python bench/serving.py MODEL [--clients 60] [--rounds 3]

MODEL is a dialogue model. It is served with one thread on a free port, and asked the same messages one by one and all
at once, in turns, with a beam of 5; then for streams of samples, one after the other.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

LIKED = ("dogs", "music", "pizza", "hiking", "movies", "rain", "books")


@contextlib.contextmanager
def server(model: str) -> Iterator[str]:
    """The address of a running server; it ends with the block."""
    command = [sys.executable, "-m", "s2s", "serve", "--port", "0", "--threads", "1", f"model={model}"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            for line in process.stderr:
                if found := re.search(r"http://127\.0\.0\.1:\d+", line):
                    yield found.group()
                    return
            raise SystemExit("the server didn't start")
        finally:
            process.terminate()


def post(address: str, path: str, body: dict[str, Any]) -> Any:
    """A response to read from."""
    data = json.dumps({"model": "model", **body}).encode()
    request = urllib.request.Request(address + path, data, {"Content-Type": "application/json"})
    return urllib.request.urlopen(request, timeout=120)


def answer(address: str, text: str) -> str:
    """The reply to one message."""
    body = {"messages": [{"role": "user", "content": text}], "options": {"beam": 5}}
    with post(address, "/api/generate", body) as response:
        return str(json.loads(response.read())["outputs"][0]["output"])


def first_word(address: str, text: str, seed: int) -> float:
    """Seconds until the first piece of a sampled reply is there."""
    body = {"messages": [{"role": "user", "content": text}], "stream": True, "top_p": 0.6, "seed": seed}
    began = time.monotonic()
    with post(address, "/v1/chat/completions", body) as response:
        for line in response:
            if line.startswith(b"data: {") and json.loads(line[6:])["choices"][0]["delta"].get("content"):
                return time.monotonic() - began
    return time.monotonic() - began


def main(argv: Sequence[str]) -> int:
    """Print a line a round. Returns the exit code: 1 if an answer differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", metavar="MODEL")
    parser.add_argument("--clients", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args(argv)
    said = [f"hello, i am number {n} and i like {LIKED[n % len(LIKED)]}" for n in range(asked.clients)]
    same = True
    with server(asked.model) as address:
        answer(address, said[0])
        for number in range(1, asked.rounds + 1):
            began = time.monotonic()
            alone = [answer(address, text) for text in said]
            between = time.monotonic()
            with ThreadPoolExecutor(asked.clients) as pool:
                together = list(pool.map(lambda text: answer(address, text), said))
            one, many = between - began, time.monotonic() - between
            same &= alone == together
            told = "the same answers" if alone == together else "OTHER ANSWERS"
            print(f"round {number}: one by one {one:.2f} s, at once {many:.2f} s, ratio {one / many:.1f}, {told}")
        waits = [1000 * first_word(address, text, seed) for seed, text in enumerate(said[:20])]
        print(f"first word after {statistics.median(waits):.0f} ms (median), {max(waits):.0f} ms at most")
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
