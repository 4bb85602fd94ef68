"""How time and memory grow with the size of the work: a training step, or a search, on random batches.

    python -m bench.growth run [CURVE ...]   # all of it takes about eight minutes; bench/results/growth gets JSON
    python -m bench.growth show              # a page and a picture of the last of it

Each point is a process of its own on one thread. A time is the median of three. Memory is the most that the process
held, less what it had held after the same with next to nothing. Exponents are slopes of log time and log memory over
log size, fitted to the upper half of a curve: 1 where twice the size takes twice as much.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from bench import kept
from s2s.show.machine import peak_memory_mb

Point = TypeVar("Point")
Found = Mapping[str, Sequence[Mapping[str, float]]]  # curve, its points
RESULTS = Path(__file__).resolve().parent / "results" / "growth"
SOURCES = ("additive", "general", "local_m", "local_p", "monotonic", "multihead")
LENGTHS = (10, 30, 100, 300, 1000, 2000)
CURVES: dict[str, tuple[str, Sequence[int]]] = {  # name: what grows, its values
    **{f"source length, {name}": ("length", LENGTHS) for name in SOURCES},
    "vocabulary": ("vocabulary", (2_000, 4_000, 8_000, 16_000, 32_000, 64_000)),
    "width": ("width", (128, 256, 512, 1024)),
    "batch": ("batch", (1, 4, 16, 64, 256, 512)),
    "beam": ("beam", (1, 2, 5, 10, 20)),
}
USUAL = {"length": 20, "vocabulary": 4_000, "width": 128, "batch": 16, "beam": 0}  # beam 0: a training step
LEAST = {"length": 2, "vocabulary": 16, "width": 16, "batch": 1}
TARGET = 20  # tokens
MARKERS = "os^vDPX*"


def upper(points: Sequence[Point]) -> Sequence[Point]:
    """The upper half of a curve, the middle one included; at least two points."""
    return points[min(len(points) // 2, len(points) - 2) :]


def exponent(points: Sequence[tuple[float, float]]) -> float:
    """The slope of log y over log x, by least squares."""
    xs, ys = [math.log(x) for x, _ in points], [math.log(y) for _, y in points]
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


def point(name: str, value: int) -> dict[str, float]:
    """One point of a curve, measured in this process: size, seconds, peak_mb, and held_mb, what the work added."""
    import torch

    torch.set_num_threads(1)
    grows, _ = CURVES[name]
    attention = name.partition(", ")[2] or "additive"
    sizes = {**USUAL, grows: value}
    work({**sizes, **LEAST}, attention)()
    base = peak_memory_mb() or 0.0
    repeat = work(sizes, attention)
    repeat()
    seconds = []
    for _ in range(3):
        began = time.perf_counter()
        repeat()
        seconds.append(time.perf_counter() - began)
    peak = peak_memory_mb() or 0.0
    return {
        "size": value,
        "seconds": statistics.median(seconds),
        "peak_mb": round(peak),
        "held_mb": round(peak - base, 1),
    }


def run(names: Sequence[str]) -> Found:
    """All points of curves, each in a process of its own."""
    found: dict[str, list[dict[str, float]]] = {}
    for name in names:
        for value in CURVES[name][1]:
            command = [sys.executable, "-m", "bench.growth", "point", name, str(value)]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            found.setdefault(name, []).append(json.loads(done.stdout))
            print(f"{name}: {found[name][-1]}", file=sys.stderr, flush=True)
    return found


def keep(found: Found) -> Path:
    """Write curves, of this script or of another, into the result of today, beside the others that it has.

    A curve is named `what grows` or `what grows, variant`; a point needs size, seconds, peak_mb and held_mb.
    """
    stamp = kept.stamp()
    path = kept.place(RESULTS, stamp)
    before: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    others = before["found"] if before.get("machine") == stamp["machine"] else {}
    return kept.write(RESULTS, {**stamp, "found": {**others, **found}})


def table(found: Found) -> str:
    """A line for each curve: milliseconds and memory at its ends, exponents, and from which size they are fitted."""
    head = ("what grows", "from", "to", "ms", "peak MB", "exponent of time", "of memory", "fitted from")
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for name, points in found.items():
        first, last = points[0], points[-1]
        slopes = []
        for what in ("seconds", "held_mb"):
            pairs = upper([(point["size"], point[what]) for point in points])
            slopes.append(f"{exponent(pairs):.2f}" if all(y > 0 for _, y in pairs) else "")
        lines.append(
            f"| {name} | {first['size']:,.0f} | {last['size']:,.0f} | {1000 * first['seconds']:,.0f} to "
            f"{1000 * last['seconds']:,.0f} | {first['peak_mb']:,.0f} to {last['peak_mb']:,.0f} | "
            f"{' | '.join(slopes)} | {upper(points)[0]['size']:,.0f} |"
        )
    return "\n".join(lines)


def draw(found: Found, path: Path) -> None:
    """Time and memory over size, all on logarithmic axes: two panels for each thing that grows."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels: dict[str, list[str]] = {}
    for name in found:
        panels.setdefault(name.partition(",")[0], []).append(name)
    figure = Figure(figsize=(3.0 * len(panels), 5.4), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, len(panels), squeeze=False)
    for (top, bottom), (title, names) in zip(axes.T, panels.items(), strict=True):
        for name, marker in zip(names, MARKERS, strict=False):
            for axis, what, factor in ((top, "seconds", 1000), (bottom, "held_mb", 1)):
                pairs = [(point["size"], factor * point[what]) for point in found[name] if point[what] > 0]
                xs, ys = [x for x, _ in pairs], [y for _, y in pairs]
                axis.loglog(xs, ys, marker=marker, markersize=4, linewidth=1.3, label=name.partition(", ")[2] or None)
        sizes = sorted({point["size"] for name in names for point in found[name]})
        for axis, label in ((top, "ms"), (bottom, "MB held")):
            _scales(axis, sizes)
            axis.set_title(f"{title}: {label}", loc="left", fontsize=10)
        if len(names) > 1:
            top.legend(fontsize=7, frameon=False)
    figure.savefig(path, facecolor="white", metadata={"Software": "s2s"})


def _scales(axis: Any, sizes: Sequence[float]) -> None:
    """Ticks at the sizes, and at 1, 2 and 5 times powers of ten, over a decade at least."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

    axis.set_xticks(sizes, [f"{size:g}" if size < 10_000 else f"{size / 1000:g}k" for size in sizes])
    axis.xaxis.set_minor_locator(NullLocator())
    low, high = axis.get_ylim()
    if high < 10 * low:
        middle = math.sqrt(low * high)
        axis.set_ylim(middle / math.sqrt(10), middle * math.sqrt(10))
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axis.yaxis.set_minor_formatter(NullFormatter())
    axis.grid(which="major", color="#e4e7ec", linewidth=0.6)
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(labelsize=7)


def show() -> None:
    """The page and the picture of the result that was kept last."""
    name, done = list(kept.newest(RESULTS, "bench.growth").items())[-1]
    draw(done["found"], RESULTS / "growth.png")
    machine = kept.told(done["machine"])
    usual = ", ".join(f"{name} {value:,}" for name, value in USUAL.items() if name != "beam")
    (RESULTS / "README.md").write_text(
        f"# How cost grows, {done['date']}\n\n{machine}; one thread. An update, or for beams a search, of the "
        f"recurrent model of translate/multi30k with {usual} and {TARGET} target tokens, but for what grows. "
        f"Times are medians of three; MB held is what the work added to the memory of a process of its own. Exponents "
        f"are fitted by least squares to the upper half of a curve, on logarithmic scales.\n\n"
        f"Written by `python -m bench.growth show` from {name}, which `python -m bench.growth run` made."
        f"\n\n![time and memory over size](growth.png)\n\n{table(done['found'])}\n",
        encoding="utf-8",
    )


def main(argv: Sequence[str]) -> int:
    """Do what the words say."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=("run", "show", "point"))
    parser.add_argument("words", nargs="*", metavar="CURVE")
    asked = parser.parse_args(argv)
    if asked.task == "show":
        show()
    elif asked.task == "point":
        print(json.dumps(point(asked.words[0], int(asked.words[1]))))
    else:
        if unknown := [word for word in asked.words if word not in CURVES]:
            parser.error(f"no curve {unknown[0]!r}; there are: {'; '.join(CURVES)}")
        found = run(asked.words or list(CURVES))
        print(table(found), keep(found), sep="\n\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
