"""Results that are kept: a JSON file of a day in a folder of bench/results, each with the machine it was taken on."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from s2s.show.machine import machine_facts

FACTS = ("CPU", "torch", "Python", "s2s")  # of the machine


def stamp(facts: Sequence[str] = FACTS) -> dict[str, Any]:
    """Date and machine of a result that is taken now."""
    machine = machine_facts()
    return {"date": datetime.date.today().isoformat(), "machine": {name: machine[name] for name in facts}}


def write(results: Path, done: Mapping[str, Any]) -> Path:
    """Keep a result with its stamp."""
    path = results / f"{done['date']}.json"
    results.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(done, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


def last(results: Path, script: str) -> dict[str, Any]:
    """The result that was kept last. script: the module that makes one."""
    kept = sorted(results.glob("*.json"))
    if not kept:
        raise SystemExit(f"{results} has no result yet: python -m {script} run")
    found: dict[str, Any] = json.loads(kept[-1].read_text(encoding="utf-8"))
    return found


def told(machine: Mapping[str, str]) -> str:
    """The facts of a machine in a line."""
    return ", ".join(f"{name} {value}" for name, value in machine.items())
