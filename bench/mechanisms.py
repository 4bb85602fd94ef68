"""Train one recipe with each attention mechanism at the same budget, and keep every result as its run ends.

    python bench/mechanisms.py [NAME ...] [KEY=VALUE ...]

NAME is a file of conf/attention, with options as `local_p:score=additive,window=5`; without names, all of them.
KEY=VALUE changes the recipe for all. What is kept lies in bench/results/<recipe>/<name>: config, scores, log, outputs
and the machine, but neither the model nor references, so that a table can grow by a run at a time:

    s2s compare bench/results/translate/multi30k/* --ref multi30k/test_2016_flickr.de
"""

from __future__ import annotations

import argparse
import datetime
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from s2s.attention import names
from s2s.show.machine import machine_facts

RESULTS = Path(__file__).resolve().parent / "results"
FACTS = ("CPU", "cores", "GPU", "memory", "torch", "Python", "s2s")  # of the machine
KEPT = ("config.yaml", "scores.json", "log.jsonl", "test.hyp")
# one core, and by its own time: a run beside other work gets as much of it as one alone
BUDGET = ("threads=1", "trainer.clock=cpu", "trainer.minutes=20", "trainer.validate_minutes=4", "trainer.log_every=100")


def overrides(name: str) -> list[str]:
    """`local_p:score=additive` as the words of a command line."""
    attention, _, options = name.partition(":")
    return [f"attention={attention}", *(f"attention.{option}" for option in filter(None, options.split(",")))]


def keep(run: Path, folder: Path) -> None:
    """Copy what is kept of a finished run."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in KEPT:
        shutil.copy(run / name, folder)
    machine = machine_facts()
    facts = {**{name: machine[name] for name in FACTS}, "date": datetime.date.today().isoformat()}
    (folder / "machine.json").write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def main(argv: Sequence[str]) -> int:
    """Train what has no result yet. Returns the exit code: 1 if a run failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*", metavar="NAME or KEY=VALUE")
    parser.add_argument("--recipe", default="translate/multi30k")
    parser.add_argument("--again", action="store_true", help="also train those that have a result")
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="DIR", help="where results are kept")
    asked = parser.parse_args(argv)
    changes = [word for word in asked.words if "=" in word.partition(":")[0]]
    wanted = [word for word in asked.words if word not in changes] or names()
    failed = 0
    for name in wanted:
        folder = asked.results / asked.recipe / name.replace(":", "-").replace("=", "-").replace(",", "-")
        if folder.is_dir() and not asked.again:
            print(f"{name}: {folder} is there already", file=sys.stderr)
            continue
        command = [sys.executable, "-m", "s2s", "train", asked.recipe, *BUDGET, *changes, *overrides(name)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode == 130:
            return 130
        if done.returncode:
            failed += 1
            print(f"{name}: failed with exit code {done.returncode}", file=sys.stderr)
            continue
        keep(Path(done.stdout.strip().split("\n")[-1]), folder)
        print(folder, flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
