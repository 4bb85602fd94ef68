"""Decode a file with s2s: itself_loop.py RUN FILE ENGINE PRECISION BEAM. Loading isn't timed, all else is."""

import os
import sys
import time
from pathlib import Path

import torch

import s2s

run, path, engine, precision, beam = sys.argv[1:]
THREADS, FORCED = int(os.environ["OMP_NUM_THREADS"]), 15
torch.set_num_threads(THREADS)
lines = Path(path).read_text(encoding="utf-8").splitlines()
search = {"beam": int(beam), "min_length": FORCED, "max_length": FORCED}
generator = s2s.load(run).generator(engine=engine, precision=precision, batch_size=64, **search)
generator(lines[:64])
began = time.perf_counter()
results = generator(lines)
seconds = time.perf_counter() - began
assert {len(result.tokens) for result in results} == {FORCED}, {len(result.tokens) for result in results}
print(f"{len(lines) / seconds:.1f} sentences/s")
