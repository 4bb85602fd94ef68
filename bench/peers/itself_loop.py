"""Decode a file with s2s: itself_loop.py RUN FILE JSON, where JSON has the settings of `Model.generator` and `workers`.

Loading isn't timed, all else is. Several workers are timed together once each of them is at work; what they may have
begun by then isn't counted.
"""

import json
import os
import sys
import time
from itertools import chain, islice, repeat
from pathlib import Path

import torch

import s2s
from bench.peers.base import FORCED
from s2s.task.request import Request
from s2s.task.workers import generate


def main(run: str, path: str, given: str) -> None:
    settings = {"batch_size": 64, "min_length": FORCED, "max_length": FORCED, **json.loads(given)}
    workers = settings.pop("workers", 1)
    lines = Path(path).read_text(encoding="utf-8").splitlines()
    if workers == 1:
        torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
        generator = s2s.load(run).generator(**settings)
        generator(lines[:64])
        began = time.perf_counter()
        results = generator(lines)
        seconds = time.perf_counter() - began
    else:
        windows = chain.from_iterable(repeat(lines, 5))  # each sorted by itself, as the lines of all others are
        stream = generate([run], map(Request, windows), settings, workers=workers, window=len(lines))
        list(islice(stream, len(lines)))
        began = time.perf_counter()
        results = list(stream)[: -settings["batch_size"] * (workers - 1)]
        seconds = time.perf_counter() - began
    print(f"{len(results)} sentences in {seconds:.3f} s", flush=True)
    found = {len(result.tokens) for result in results}
    assert found == {FORCED}, found


if __name__ == "__main__":
    main(*sys.argv[1:])
