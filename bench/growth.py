"""How time and memory grow with the size of the work: a training step, or a search, on random batches.

    python -m bench.growth run [CURVE ...]   # five minutes for all; bench/results/growth gets JSON
    python -m bench.growth show              # a page and a picture of the last of it

Each curve is a process of its own on one thread, from its smallest point to its largest, so that the most memory held
so far is that of the point. A time is the median of three. The exponent is the slope of log time over log size, fitted
to the upper half of a curve: 1 where twice the work takes twice the time.
"""

from __future__ import annotations

import argparse
import datetime
import json
import math
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from s2s.show.machine import machine_facts

RESULTS = Path(__file__).resolve().parent / "results" / "growth"
LENGTHS = (10, 30, 100, 300, 1000, 2000)
CURVES: dict[str, tuple[str, Sequence[int]]] = {  # name: what grows, its values
    **{f"source length, {name}": ("length", LENGTHS) for name in ("additive", "general", "local_m", "monotonic")},
    "vocabulary": ("vocabulary", (2_000, 4_000, 8_000, 16_000, 32_000, 64_000)),
    "width": ("width", (128, 256, 512, 1024)),
    "batch": ("batch", (1, 4, 16, 64, 256, 512)),
    "beam": ("beam", (1, 2, 5, 10, 20)),
}
USUAL = {"length": 20, "vocabulary": 4_000, "width": 128, "batch": 16, "beam": 0}  # beam 0: a training step
TARGET = 20  # tokens


def exponent(points: Sequence[tuple[float, float]]) -> float:
    """The slope of log y over log x, by least squares over the upper half of the points (at least two)."""
    upper = points[min(len(points) // 2, len(points) - 2) :]
    xs, ys = [math.log(x) for x, _ in upper], [math.log(y) for _, y in upper]
    x, y = statistics.fmean(xs), statistics.fmean(ys)
    return sum((a - x) * (b - y) for a, b in zip(xs, ys, strict=True)) / sum((a - x) ** 2 for a in xs)


def work(sizes: Mapping[str, int], attention: str) -> Callable[[], object]:
    """What one point does again and again."""
    import torch

    from s2s.app import compose
    from s2s.model.seq2seq import start_search
    from s2s.search import SearchConfig, beam_search
    from s2s.task.trained import build_model
    from s2s.text.batching import Example, collate
    from s2s.train.step import make_optimizer, update

    torch.manual_seed(1)
    width, rows = sizes["width"], sizes["batch"]
    changes = [f"attention={attention}", f"model.embedding={width}", f"encoder.width={width}", f"decoder.width={width}"]
    config = compose("translate/multi30k", changes)
    model = build_model(config, sizes["vocabulary"], sizes["vocabulary"])
    source, target = (
        torch.randint(4, sizes["vocabulary"], (rows, length - 1)).tolist() for length in (sizes["length"], TARGET)
    )
    batch = collate([Example(*pair) for pair in zip(source, target, strict=True)], range(rows))
    if not sizes["beam"]:
        optimizer = make_optimizer(model, config.optim)
        return lambda: update(model, [batch], optimizer, config.optim, rate=1e-3)
    model.eval().requires_grad_(False)
    search = SearchConfig(beam=sizes["beam"], min_length=TARGET, max_length=TARGET)

    def decode() -> object:
        with torch.no_grad():
            step, start = start_search(model, batch.source, batch.source_lengths, need_weights=False)
            return beam_search(step, start, search, max_lengths=[TARGET] * rows)

    return decode


def curve(name: str, values: Sequence[int] | None = None) -> list[dict[str, float]]:
    """The points of one curve, measured in this process: size, seconds, peak_mb."""
    import torch

    torch.set_num_threads(1)
    grows, usual = CURVES[name]
    attention = name.partition(", ")[2] or "additive"
    points = []
    for value in values or usual:
        repeat = work({**USUAL, grows: value}, attention)
        repeat()
        seconds = []
        for _ in range(3):
            began = time.perf_counter()
            repeat()
            seconds.append(time.perf_counter() - began)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
        points.append({"size": value, "seconds": statistics.median(seconds), "peak_mb": round(peak)})
    return points


def run(names: Sequence[str]) -> dict[str, Any]:
    """All curves, each in a process of its own."""
    found = {}
    for name in names:
        command = [sys.executable, "-m", "bench.growth", "curve", name]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found[name] = json.loads(done.stdout)
        print(f"{name}: {found[name]}", file=sys.stderr, flush=True)
    machine = machine_facts()
    facts = {name: machine[name] for name in ("CPU", "torch", "Python", "s2s")}
    return {"date": datetime.date.today().isoformat(), "machine": facts, "found": found}


def table(found: Mapping[str, Sequence[Mapping[str, float]]]) -> str:
    """A line for each curve: milliseconds and memory at its ends, and the exponent of time."""
    lines = ["| what grows | from | to | ms | peak MB | exponent of time |", "|---" * 6 + "|"]
    for name, points in found.items():
        first, last = points[0], points[-1]
        slope = exponent([(point["size"], point["seconds"]) for point in points])
        lines.append(
            f"| {name} | {first['size']:,.0f} | {last['size']:,.0f} | {1000 * first['seconds']:,.0f} to "
            f"{1000 * last['seconds']:,.0f} | {first['peak_mb']:,.0f} to {last['peak_mb']:,.0f} | {slope:.2f} |"
        )
    return "\n".join(lines)


def draw(found: Mapping[str, Sequence[Mapping[str, float]]], path: Path) -> None:
    """Time over size, both on logarithmic axes: one panel for each thing that grows."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    panels: dict[str, list[str]] = {}
    for name in found:
        panels.setdefault(name.partition(",")[0], []).append(name)
    figure, axes = plt.subplots(1, len(panels), figsize=(3.2 * len(panels), 3), layout="constrained", squeeze=False)
    for axis, (title, names) in zip(axes[0], panels.items(), strict=True):
        for name, marker in zip(names, "os^Dv", strict=False):
            xs, ys = zip(*((point["size"], 1000 * point["seconds"]) for point in found[name]), strict=True)
            axis.loglog(xs, ys, marker=marker, markersize=4, label=name.partition(", ")[2] or None)
        axis.set_title(title, fontsize=10)
        axis.set_ylabel("ms")
        axis.grid(alpha=0.3)
        if len(names) > 1:
            axis.legend(fontsize=8)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def show() -> None:
    """The page and the picture of the result that was kept last."""
    kept = sorted(RESULTS.glob("*.json"))
    if not kept:
        raise SystemExit(f"{RESULTS} has no result yet: python -m bench.growth run")
    done = json.loads(kept[-1].read_text(encoding="utf-8"))
    draw(done["found"], RESULTS / "growth.png")
    machine = ", ".join(f"{name} {value}" for name, value in done["machine"].items())
    usual = ", ".join(f"{name} {value:,}" for name, value in USUAL.items() if name != "beam")
    (RESULTS / "README.md").write_text(
        f"# How cost grows, {done['date']}\n\n{machine}; one thread. An update, or for beams a search, of the "
        f"recurrent model of translate/multi30k with {usual} and {TARGET} target tokens, but for what grows. The "
        f"exponent is of the upper half of a curve.\n\n![time over size](growth.png)\n\n{table(done['found'])}\n",
        encoding="utf-8",
    )


def main(argv: Sequence[str]) -> int:
    """Do what the words say."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=("run", "show", "curve"))
    parser.add_argument("curves", nargs="*", choices=[[], *CURVES], metavar="CURVE")
    asked = parser.parse_args(argv)
    if asked.task == "show":
        show()
    elif asked.task == "curve":
        print(json.dumps(curve(asked.curves[0])))
    else:
        done = run(asked.curves or list(CURVES))
        RESULTS.mkdir(parents=True, exist_ok=True)
        (RESULTS / f"{done['date']}.json").write_text(json.dumps(done, indent=1) + "\n", encoding="utf-8")
        print(table(done["found"]))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
