"""What bench/speed.py found, as a table, a picture and a page, and compared with what was found before."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bench.kept import told

Runs = Mapping[str, Sequence[Mapping[str, Any]]]  # toolkit, its runs
Found = Mapping[str, Runs]  # row
TOLERANCE = 0.15  # by which part a ratio may fall
YARDSTICK = "yardstick"


def medians(runs: Runs) -> dict[str, float]:
    """The median rate of each toolkit that has one."""
    rates = {name: [run["rate"] for run in own if "rate" in run] for name, own in runs.items()}
    return {name: statistics.median(own) for name, own in rates.items() if own}


def ours(name: str) -> bool:
    """Whether a toolkit is s2s."""
    return name.startswith("s2s")


def fastest(rates: Mapping[str, float], *, own: bool) -> str | None:
    """The fastest way to run s2s, or the fastest other toolkit; the yardstick isn't one."""
    names = [name for name in rates if ours(name) == own and name != YARDSTICK]
    return max(names, key=rates.__getitem__, default=None)


def summary(found: Found) -> str:
    """A line for each row: the best other toolkit, and how many times as fast s2s is, as it is and at its fastest."""
    told = ["| | best other | s2s | times | s2s at its fastest | times |", "|---" * 6 + "|"]
    for row, peers in found.items():
        rates = medians(peers)
        other, own = fastest(rates, own=False), fastest(rates, own=True)
        cells = [f"{rates[other]:,.0f} ({other})" if other else ""]
        for name, shown in (("s2s", ""), (own, f" ({own})")):
            if name in rates:
                cells += [f"{rates[name]:,.0f}{shown}", f"{rates[name] / rates[other]:.2f}" if other else ""]
            else:
                cells += ["", ""]
        told.append(f"| {row} | {' | '.join(cells)} |")
    return "\n".join(told)


def table(found: Found) -> str:
    """A line for each toolkit of each row: median, range, and how many times the best of the others s2s is."""
    told = []
    head = ("median", "range", "peak MB", "first update after s", "other work s", "s2s against the best")
    for row, peers in found.items():
        rates_of = medians(peers)
        best = fastest(rates_of, own=False)
        told += ["", f"| {row} | {' | '.join(head)} |", "|---" * 7 + "|"]
        for name, runs in peers.items():
            if name not in rates_of:
                told.append(f"| {name} | failed |  |  |  |  |  |")
                continue
            good = [run for run in runs if "rate" in run]
            rates = [run["rate"] for run in good]
            first = f"{statistics.median(run['first'] for run in good):.1f}" if "first" in good[0] else ""
            ratio = f"{rates_of[name] / rates_of[best]:.2f}" if ours(name) and best else ""
            spread = f"{min(rates):,.0f} to {max(rates):,.0f}"
            peak, load = (max(run[fact] for run in good) for fact in ("peak_mb", "other"))
            told.append(f"| {name} | {rates_of[name]:,.0f} | {spread} | {peak:,} | {first} | {load:.1f} | {ratio} |")
    return "\n".join(told[1:])


class Verdict(NamedTuple):
    """fallen: what is slower or failed. skipped: what only one result has. held: how many ratios are no lower."""

    fallen: list[str]
    skipped: list[str]
    held: int


def compare(kept: Found, found: Found, tolerance: float) -> Verdict:
    """Ratios of s2s to the best other toolkit that both results have, and to the yardstick, each in its own run."""
    fallen, skipped, held = [], [], 0
    for row in dict.fromkeys([*kept, *found]):
        before, now = medians(kept.get(row, {})), medians(found.get(row, {}))
        shared = {name: rate for name, rate in before.items() if name in now}
        others = [name for name in (fastest(shared, own=False), YARDSTICK) if name in shared]
        for own in filter(ours, dict.fromkeys([*before, *found.get(row, {})])):
            if own not in before or own not in found.get(row, {}):
                skipped.append(f"{row}: {own} was not measured {'now' if own in before else 'then'}")
            elif own not in now:
                fallen.append(f"{row}: {own} failed")
            elif not others:
                skipped.append(f"{row}: {own} has nothing beside it that was measured both then and now")
            else:
                for other in others:
                    was, ratio = before[own] / before[other], now[own] / now[other]
                    if ratio < was * (1 - tolerance):
                        fallen.append(f"{row}: {own} is {ratio:.2f} times as fast as {other}, was {was:.2f} times")
                    else:
                        held += 1
    return Verdict(fallen, skipped, held)


def page(results: Mapping[str, Mapping[str, Any]]) -> str:
    """Results by the names of their files as Markdown, in this order. A picture of each stands beside its file."""
    head = (
        "# Speed beside other toolkits\n\nAll toolkits of a result ran in turns, with two threads or two workers. "
        "Rates are medians, ranges are over rounds; ratios are to the best of the other toolkits. The yardstick isn't "
        "one: plain torch at work of the same sizes, without attention where the model is recurrent. Peaks are the "
        "highest, workers included.\n"
    )
    return head + "".join(_section(name, done) for name, done in results.items())


def _section(name: str, done: Mapping[str, Any]) -> str:
    runs = [run for peers in done["found"].values() for own in peers.values() for run in own]
    load = max((run["other"] for run in runs), default=0.0)
    packages = "; ".join(
        f"{peer}: {', '.join(f'{package} {version}' for package, version in own.items())}"
        for peer, own in done.get("versions", {}).items()
    )
    rounds = f"{done['rounds']} round{'s' if done['rounds'] > 1 else ''}"
    return (
        f"\n## {done['machine']['CPU']}, {done['date']}\n\n{told(done['machine'])}. {rounds}; beside a run other work "
        f"took at most {load} processor seconds. Written by `python -m bench.speed show` from {name}, which `python -m "
        f"bench.speed run` made.\n\n{summary(done['found'])}\n\n![rates]({picture(name)})\n\n{table(done['found'])}\n"
        + (profiled(**done["profile"]) if "profile" in done else "")
        + (f"\nVersions: {packages}.\n" if packages else "")
    )


def profiled(date: str, found: Mapping[str, Mapping[str, Any]]) -> str:
    """Where an update's time goes with s2s: a line for each shape."""
    names = [part["name"] for part in next(iter(found.values()))["parts"]]
    lines = [f"| s2s | target tokens/s | at best | an update | {' | '.join(names)} |", "|---" * (4 + len(names)) + "|"]
    for shape, one in found.items():
        speeds = [f"{one['tokens'] / one[what]:,.0f}" for what in ("seconds", "floor")]
        cells = [f"{1e3 * part['seconds']:.0f} / {1e3 * part['floor']:.0f}" for part in (one, *one["parts"])]
        lines.append(f"| {shape} | {' | '.join([*speeds, *cells])} |")
    return (
        f"\nWhere the time goes, in ms, / the fewest that its matrix products and what must be moved need at the rates "
        f"which this machine was seen to reach in a large product and a copy ({date}, `python -m bench.speed "
        f"profile`):\n\n" + "\n".join(lines) + "\n"
    )


def picture(name: str) -> str:
    """The name of the picture of a result."""
    return name.removesuffix(".json") + ".png"


def draw(found: Found, path: Path) -> None:
    """A picture with a panel for each row: a bar for each toolkit's median, a line from its slowest to its fastest.

    Rows of one shape stand side by side.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = {tuple(row.partition(": ")[::2]): peers for row, peers in found.items() if medians(peers)}
    shapes, whats = (list(dict.fromkeys(row[side] for row in shown)) for side in (0, 1))
    heights = [max(len(medians(peers)) for row, peers in shown.items() if row[0] == shape) for shape in shapes]
    figure = Figure(figsize=(4.6 * len(whats), 0.26 * sum(heights) + 0.7 * len(shapes)), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(shapes), len(whats), height_ratios=heights, squeeze=False)
    for axes, shape in zip(panels, shapes, strict=True):
        for axis, what in zip(axes, whats, strict=True):
            if (shape, what) in shown:
                _bars(axis, shown[shape, what])
                axis.set_title(f"{shape}: {what}" if what else shape, loc="left", fontsize=10)
            else:
                axis.set_axis_off()
    figure.savefig(path, facecolor="white", metadata={"Software": "s2s"})


def _bars(axis: Any, peers: Runs) -> None:
    ranked = sorted(medians(peers).items(), key=lambda item: item[1])
    for place, (name, median) in enumerate(ranked):
        rates = [run["rate"] for run in peers[name] if "rate" in run]
        colour = "#1f5fae" if ours(name) else "#dfe3e8" if name == YARDSTICK else "#9aa4b0"
        axis.barh(place, median, color=colour, height=0.7)
        axis.plot([min(rates), max(rates)], [place, place], color="#1c2127", linewidth=1.5, solid_capstyle="butt")
        axis.text(max(rates), place, f" {median:,.0f}", va="center", fontsize=8)
    axis.set_yticks(range(len(ranked)), [name for name, _ in ranked], fontsize=8)
    axis.margins(x=0.14)
    axis.set_xlim(left=0)
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(axis="x", labelsize=8)
    axis.tick_params(axis="y", length=0)
