"""bench/turns.py: processes that run one at a time, and what the clock of each says."""

import sys
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import pytest

from bench.measure import measure
from bench.turns import Turns

TICKS = "import time\nfor _ in range(60):\n    print(time.monotonic(), flush=True)\n    time.sleep(0.01)"
# tells the time each 10 ms that it works, in a process below it
TICKING = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {TICKS!r}])"


def test_one_runs_at_a_time_with_all_below_it():
    with Turns(0.2) as turns, ThreadPoolExecutor(3) as pool:
        begun = [
            pool.submit(measure, [sys.executable, "-c", TICKING], timeout=60, turns=turns, environment={})
            for _ in range(3)
        ]
        found = [one.result() for one in begun]
        slices = [turns._ran[pid] for pid in turns._ran]
    assert [one.code for one in found] == [0, 0, 0]
    assert [len(one.lines) for one in found] == [60, 60, 60]
    every = sorted(part for own in slices for part in own)
    assert len(every) > 6
    assert all(before[1] <= after[0] for before, after in pairwise(every))
    # what was told between two turns of a process is none
    ticks = sorted((float(line), number) for number, one in enumerate(found) for _, line in one.lines)
    changes = sum(a[1] != b[1] for a, b in pairwise(ticks))
    assert 2 < changes < 120
    total = sum(end - start for start, end in every)
    assert sum(one.seconds for one in found) == pytest.approx(total, abs=0.05)
    for one in found:
        assert one.running(1e9) == pytest.approx(one.seconds, abs=0.05)
        times = [one.running(since) for since, _ in one.lines]
        assert times == sorted(times)
        assert times[-1] - times[0] < 0.6 * max(since for since, _ in one.lines)


def test_one_that_is_alone_is_hardly_stopped():
    began = time.monotonic()
    with Turns(0.1) as turns:
        done = measure([sys.executable, "-c", TICKING], timeout=60, turns=turns)
    assert done.code == 0
    assert 0.6 < done.seconds <= time.monotonic() - began


def test_one_that_takes_too_long_ends_though_it_is_stopped():
    with Turns(0.2) as turns, ThreadPoolExecutor(2) as pool:
        waiting = [sys.executable, "-c", "import time; time.sleep(60)"]
        begun = [pool.submit(measure, waiting, timeout=1, turns=turns) for _ in range(2)]
        assert [one.result().code for one in begun] == [-9, -9]


def test_what_a_process_leaves_behind_takes_its_turns_until_it_ends():
    code = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {TICKS!r}])"
    with Turns(0.1) as turns, ThreadPoolExecutor(2) as pool:
        begun = [pool.submit(measure, [sys.executable, "-c", code], timeout=60, turns=turns) for _ in range(2)]
        found = [one.result() for one in begun]
    assert [one.code for one in found] == [0, 0]
    assert [len(one.lines) for one in found] == [60, 60]
    ticks = sorted((float(line), number) for number, one in enumerate(found) for _, line in one.lines)
    assert sum(a[1] != b[1] for a, b in pairwise(ticks)) < 60


def test_an_error_ends_all_though_they_are_stopped():
    begun, start = [], time.monotonic()

    def fail():
        with ThreadPoolExecutor(2) as pool, Turns(0.1) as turns:
            waiting = [sys.executable, "-c", "import time; time.sleep(60)"]
            begun.extend(pool.submit(measure, waiting, timeout=60, turns=turns) for _ in range(2))
            time.sleep(0.5)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert [one.result().code for one in begun] == [-9, -9]
    assert time.monotonic() - start < 30
