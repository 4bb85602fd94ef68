"""What bench/speed.py found, as a table, a picture and a page, and compared with what was found before."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Found = Mapping[str, Mapping[str, Sequence[Mapping[str, Any]]]]  # row, toolkit, runs
TOLERANCE = 0.15  # by which a ratio may fall


def medians(runs: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, float]:
    """The median rate of each toolkit that has one."""
    rates = {name: [run["rate"] for run in own if "rate" in run] for name, own in runs.items()}
    return {name: statistics.median(own) for name, own in rates.items() if own}


def ours(name: str) -> bool:
    """Whether a toolkit is s2s."""
    return name.startswith("s2s")


def table(found: Found) -> str:
    """A line for each toolkit of each row: median, range, and how many times the best of the others s2s is."""
    told = []
    for row, peers in found.items():
        rates_of = medians(peers)
        others = [rate for name, rate in rates_of.items() if not ours(name) and name != "yardstick"]
        told += [
            "",
            f"| {row} | median | range | peak MB | first update after s | s2s against the best |",
            "|---" * 6 + "|",
        ]
        for name, runs in peers.items():
            if name not in rates_of:
                told.append(f"| {name} | failed |  |  |  |  |")
                continue
            good = [run for run in runs if "rate" in run]
            rates = [run["rate"] for run in good]
            first = f"{statistics.median(run['first'] for run in good):.1f}" if "first" in good[0] else ""
            ratio = f"{rates_of[name] / max(others):.2f}" if ours(name) and others else ""
            spread = f"{min(rates):,.0f} to {max(rates):,.0f}"
            peak = max(run["peak_mb"] for run in good)
            told.append(f"| {name} | {rates_of[name]:,.0f} | {spread} | {peak:,} | {first} | {ratio} |")
    return "\n".join(told[1:])


def ratios(found: Found) -> dict[tuple[str, str, str], float]:
    """How many times as fast as each other toolkit s2s is: by row, name of s2s and name of the other."""
    made = {}
    for row, peers in found.items():
        rates = medians(peers)
        for own in filter(ours, rates):
            made.update({(row, own, name): rates[own] / rate for name, rate in rates.items() if not ours(name)})
    return made


def fallen(kept: Found, found: Found) -> list[str]:
    """What is slower than it was: each ratio that fell by more than `TOLERANCE`. What one alone has doesn't count."""
    before, now = ratios(kept), ratios(found)
    return [
        f"{row}: {own} is {now[key]:.2f} times as fast as {other}, was {before[key]:.2f} times"
        for key in sorted(before.keys() & now.keys())
        if now[key] < before[key] * (1 - TOLERANCE)
        for row, own, other in [key]
    ]


def page(done: Mapping[str, Any], picture: str) -> str:
    """A result as Markdown; picture: where its picture is."""
    machine = ", ".join(f"{name} {value}" for name, value in done["machine"].items())
    runs = [run for peers in done["found"].values() for own in peers.values() for run in own]
    load = max((run["other"] for run in runs), default=0.0)
    return (
        f"# Speed beside other toolkits, {done['date']}\n\n{machine}. {done['rounds']} rounds, in turns; two threads "
        f"or two workers. Beside a run other work took at most {load} processor seconds. Rates are medians; ratios are "
        f"to the best of the other toolkits (the yardstick, torch's fused LSTM without attention, isn't one).\n\n"
        f"![rates]({picture})\n\n{table(done['found'])}\n"
    )


def draw(found: Found, path: Path) -> None:
    """A picture with a panel for each row: a bar for each toolkit's median, a line from its slowest to its fastest."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    heights = [len(medians(peers)) for peers in found.values()]
    figure, axes = plt.subplots(
        len(found), 1, figsize=(8, 0.3 * sum(heights) + 0.75 * len(found)), height_ratios=heights, layout="constrained"
    )
    for axis, (row, peers) in zip([axes] if len(found) == 1 else axes, found.items(), strict=True):
        ranked = sorted(medians(peers).items(), key=lambda item: item[1])
        for place, (name, median) in enumerate(ranked):
            rates = [run["rate"] for run in peers[name] if "rate" in run]
            axis.barh(place, median, color="#1f5fae" if ours(name) else "#9aa4b0", height=0.7)
            axis.plot([min(rates), max(rates)], [place, place], color="#1c2127", linewidth=1.5)
            axis.text(max(rates), place, f" {median:,.0f}", va="center", fontsize=8)
        axis.set_yticks(range(len(ranked)), [name for name, _ in ranked], fontsize=8)
        axis.set_title(row, loc="left", fontsize=9)
        axis.margins(x=0.12)
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(axis="x", labelsize=8)
    figure.savefig(path, dpi=110)
    plt.close(figure)
