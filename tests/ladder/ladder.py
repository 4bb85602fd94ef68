"""Run the capability ladder and write docs/ladder.json and docs/ladder.md.

    python tests/ladder/ladder.py [NAME ...] [--task TASK ...]

Without names, everything (about half an hour on one core); with names, the rows of those mechanisms, the others stay as
they are. Each cell is kept as soon as it is measured. Exit code 1 if a cell isn't as it was declared.
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
from pathlib import Path
from typing import Any

import torch
from ladder_rows import KEYED, Cell, Row
from ladder_tasks import BATCH, FAIL, MODEL, PASS, RAMP, SEED, TASKS, TESTED, climb

from s2s.attention import names
from s2s.show.machine import machine_facts

DOCS = Path(__file__).resolve().parents[2] / "docs"
MARKS = {"pass": "yes", "fail": "no", "either": "(either)"}


def verdict(cell: Cell, accuracy: float) -> str | None:
    """What is wrong with a measured cell, or None."""
    if cell.expected == "either":
        return None
    if PASS > accuracy > FAIL:
        return f"neither passed (at least {PASS}) nor failed (at most {FAIL})"
    return None if (accuracy >= PASS) == (cell.expected == "pass") else f"declared to {cell.expected}"


def settings() -> dict[str, Any]:
    """On what and how the cells are measured."""
    facts = machine_facts()
    return {
        "command": "python tests/ladder/ladder.py",
        "date": datetime.date.today().isoformat(),
        "device": f"{facts['CPU']}, one thread, float32",
        "torch": facts["torch"],
        "pass": PASS,
        "fail": FAIL,
        "seed": SEED,
        "batch": BATCH,
        "ramp": RAMP,
        "tested": TESTED,
        "model": " ".join(MODEL),
    }


def measure(row: Row, task: str) -> dict[str, Any]:
    """One cell, measured, as it stands in the JSON file."""
    made = climb(row.name, row.options, task, budget=row.budget, model=row.model)
    cell = row.cells[task]
    return {
        "expected": cell.expected,
        "reason": cell.reason,
        "accuracy": round(made.accuracy, 3),
        "exact": round(made.exact, 3),
        "updates": made.updates,
        "seconds": round(made.seconds, 1),
    }


def table(ladder: dict[str, Any]) -> str:
    """The ladder as Markdown."""
    how, tasks = ladder["settings"], ladder["tasks"]
    lines = [
        "# What each mechanism can learn",
        "",
        "Tiny models on generated tasks, one mechanism apart. What each should learn and what not was declared"
        f" beforehand, with the reasons below. A number is the share of right words on {how['tested']} unseen sources,"
        f" decoded greedily: **bold** = passed, as declared (at least {how['pass']}), plain = failed, as declared"
        f" (at most {how['fail']}), *slanted* = either was allowed.",
        "",
        "| mechanism | " + " | ".join(tasks) + " |",
        "|---|" + "---|" * len(tasks),
    ]
    for row in ladder["rows"].values():
        shown = [_number(row["cells"][task]) for task in tasks]
        lines.append(f"| `{row['label']}` | " + " | ".join(shown) + " |")
    lines += ["", "## The tasks", "", "No symbol stands twice in a source.", ""]
    for task, facts in tasks.items():
        span = f"{facts['tested']} to {facts['longest']} {'pairs' if task == 'lookup' else 'symbols'}"
        lines.append(f"- **{task}**: {facts['says']}; {span} of {facts['symbols']}, at most {facts['updates']} updates")
    lines += ["", "## Why", ""]
    for row in ladder["rows"].values():
        lines += [f"**`{row['label']}`** {row['why']}", ""]
        if row["budget"] != 1:
            lines += [f"- {row['budget']} times the updates: {row['budget_reason']}"]
        if row["model"]:
            lines += [f"- with {' '.join(row['model'])}"]
        lines += [
            f"- {task}: {MARKS[row['cells'][task]['expected']]}, {row['cells'][task]['reason']}" for task in tasks
        ]
        lines.append("")
    seconds = sorted(cell["seconds"] for row in ladder["rows"].values() for cell in row["cells"].values())
    lines += [
        "## How it was measured",
        "",
        f"`{how['command']}`, {how['date']}, {how['device']}, torch {how['torch']}, seed {how['seed']};"
        f" {sum(seconds) / 60:.0f} minutes in all, {seconds[len(seconds) // 2]:.0f} s for the median cell.",
        f"Model: `{how['model']}`.",
        "The encoder runs in one direction and is narrow, so that neither its last state nor its state at a place can"
        " carry the source past the attention. The decoder feeds nothing back: each query is made of the words written"
        f" so far and the encoder's last state. Batches of {how['batch']}; sources grow to full length in the first"
        f" {how['ramp']:.0%} of the updates. Training stops early when a dev set is nearly right.",
        "",
    ]
    return "\n".join(lines)


def _number(cell: dict[str, Any]) -> str:
    number = f"{cell['accuracy']:.2f}"
    return {"pass": f"**{number}**", "either": f"*{number}*"}.get(cell["expected"], number)


def write(ladder: dict[str, Any]) -> None:
    """Both files; the table only once every row is whole."""
    DOCS.mkdir(exist_ok=True)
    (DOCS / "ladder.json").write_text(json.dumps(ladder, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    if all(set(row["cells"]) == set(TASKS) for row in ladder["rows"].values()):
        (DOCS / "ladder.md").write_text(table(ladder), encoding="utf-8")


def main(argv: list[str]) -> int:
    """Measure what is asked for. Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="mechanisms, or labels of rows; default: all")
    parser.add_argument("--task", nargs="+", choices=list(TASKS), default=list(TASKS))
    asked = parser.parse_args(argv)
    torch.set_num_threads(1)
    try:
        old = json.loads((DOCS / "ladder.json").read_text(encoding="utf-8"))["rows"]
    except FileNotFoundError:
        old = {}
    known = set(names())
    wanted = {key: row for key, row in KEYED.items() if row.name in known}
    rows = {
        key: {
            "name": row.name,
            "label": row.label,
            "options": dict(row.options),
            "why": row.why,
            "model": list(row.model),
            "budget": row.budget,
            "budget_reason": row.budget_reason,
            "cells": old.get(key, {}).get("cells", {}),
        }
        for key, row in wanted.items()
    }
    ladder = {"settings": settings(), "tasks": {name: task._asdict() for name, task in TASKS.items()}, "rows": rows}
    wrong = 0
    for key, row in wanted.items():
        if asked.names and not {row.name, row.label} & set(asked.names):
            continue
        for task in asked.task:
            cell = measure(row, task)
            measured = {**rows[key]["cells"], task: cell}
            rows[key]["cells"] = {name: measured[name] for name in TASKS if name in measured}
            write(ladder)
            problem = verdict(row.cells[task], cell["accuracy"])
            wrong += problem is not None
            print(
                f"{row.label:28s} {task:8s} {cell['accuracy']:.3f} {cell['updates']:4d} updates"
                f" {cell['seconds']:5.1f} s  {problem or 'as declared'}",
                flush=True,
            )
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
