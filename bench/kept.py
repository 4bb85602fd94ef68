"""Results that are kept: a JSON file of a day and a processor in a folder of bench/results."""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from s2s.show.machine import machine_facts

FACTS = ("CPU", "torch", "Python", "s2s")  # of the machine


def stamp(facts: Sequence[str] = FACTS) -> dict[str, Any]:
    """Date and machine of a result that is taken now."""
    machine = machine_facts()
    return {"date": datetime.date.today().isoformat(), "machine": {name: machine[name] for name in facts}}


def place(results: Path, stamp: Mapping[str, Any], fact: str = "CPU") -> Path:
    """Where a result with this stamp is kept: in a file of its day and processor; fact: what names that."""
    chip = re.sub(r"[\W_]+", "-", stamp["machine"][fact].lower()).strip("-")
    return results / f"{stamp['date']}-{chip}.json"


def write(results: Path, done: Mapping[str, Any], fact: str = "CPU") -> Path:
    """Keep a result with its stamp."""
    path = place(results, done, fact)
    results.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(done, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


def newest(results: Path, script: str, fact: str = "CPU") -> dict[str, dict[str, Any]]:
    """The last result of each processor by the name of its file, the newest last. script: the module that makes one."""
    of_chip: dict[str, tuple[str, dict[str, Any]]] = {}
    for path in sorted(results.glob("*.json")):
        done: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        of_chip[done["machine"][fact]] = path.name, done
    if not of_chip:
        raise SystemExit(f"{results} has no result yet: python -m {script} run")
    return dict(sorted(of_chip.values(), key=lambda one: one[0]))


def last(results: Path, script: str, chip: str | None = None) -> dict[str, Any]:
    """The result that was kept last, of a processor if there is one of it."""
    found = list(newest(results, script).values())
    return next((done for done in found if done["machine"]["CPU"] == chip), found[-1])


def told(machine: Mapping[str, str]) -> str:
    """The facts of a machine in a line."""
    return ", ".join(f"{name} {value}" for name, value in machine.items())
