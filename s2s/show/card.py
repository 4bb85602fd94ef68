"""What is known of a mechanism before any run: the card in its file of `conf/attention/`, and its row of the ladder."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from s2s import paths
from s2s.errors import ConfigError, DataError
from s2s.files import read_json

ENTRIES = ("idea", "equation", "use", "paper")
MAX_LADDER = 1 << 22  # bytes of ladder.json


@dataclass(frozen=True)
class Card:
    """The header comments of a mechanism's file.

    name: of the file. summary: the line that `s2s list` shows. idea: a few sentences for a student. equation: plain
    Unicode text, a line each. use: when to take it and when not. paper: where it comes from.
    """

    name: str
    summary: str
    idea: str
    equation: str
    use: str
    paper: str


def read_card(path: Path) -> Card:
    """The card that a YAML file begins with.

        # the line that `s2s list` shows
        # idea: text, which may go on
        #   in lines that are indented
        # equation: ...
        # use: ...
        # paper: ...

    Raises ConfigError with file and line for an entry that is missing, unknown, doubled or empty.
    """
    where, summary, found, last = f"{path.parent.name}/{path.name}", "", dict[str, list[str]](), ""
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), 1):
        if not line.startswith("#"):
            break
        if line.startswith("# @"):
            continue
        text, entry = line[1:].strip(), re.match(r"# ([a-z]+): *(.*)", line)
        if not (summary or found or (entry and entry[1] in ENTRIES)):
            summary = text
        elif last and line.startswith("#   "):
            found[last].append(text)
        elif entry and entry[1] in ENTRIES and entry[1] not in found:
            last = entry[1]
            found[last] = [entry[2].strip()]
        else:
            raise ConfigError(
                f"`{text[:40]}` is no line of a card",
                where=f"{where}:{number}",
                expected=f"each of {', '.join(ENTRIES)} once, as `# idea: text`",
                hint="A line that goes on with an entry begins with `#` and three spaces",
            )
    missing = [entry for entry in ENTRIES if not any(found.get(entry, ()))]
    if not summary or missing:
        raise ConfigError(
            f"the card lacks {', '.join(missing) or 'its first line'}",
            where=where,
            expected=f"header comments `# what it is in a line`, {', '.join(f'`# {entry}: ...`' for entry in ENTRIES)}",
        )
    texts = {entry: ("\n" if entry == "equation" else " ").join(lines) for entry, lines in found.items()}
    return Card(path.stem, summary, **texts)


def cards() -> list[Card]:
    """The card of every file in `conf/attention/`, sorted by name. Raises ConfigError, see `read_card`."""
    return [read_card(path) for path in paths.group_files("attention").values()]


@dataclass(frozen=True)
class Rung:
    """What a mechanism was expected to reach on a generated task, why, and its accuracy, 0 to 1 (None: not run)."""

    expected: str
    reason: str
    accuracy: float | None


@dataclass(frozen=True)
class Ladder:
    """What tiny models reach on generated tasks. why: mechanism -> reason; rungs: mechanism -> task -> rung."""

    tasks: tuple[str, ...] = ()
    why: dict[str, str] = field(default_factory=dict)
    rungs: dict[str, dict[str, Rung]] = field(default_factory=dict)

    def of(self, name: str) -> dict[str, Rung]:
        """The rungs of a mechanism in the order of the tasks; empty where it has no row."""
        row = self.rungs.get(name, {})
        return {task: row[task] for task in self.tasks if task in row}


def read_ladder(path: Path) -> Ladder:
    """A ladder: {"tasks": [...], "rows": {name: {"why": ..., "cells": {task: {"expected", "reason", "accuracy"}}}}}.

    Raises DataError for a file that can't be read or has another form.
    """
    content = read_json(path, MAX_LADDER)
    try:
        tasks = tuple(str(task) for task in content["tasks"])
        rows = {str(name): row for name, row in content["rows"].items()}
        why = {name: str(row.get("why", "")) for name, row in rows.items()}
        rungs = {name: {str(t): _rung(cell) for t, cell in row["cells"].items()} for name, row in rows.items()}
    except (TypeError, KeyError, AttributeError, ValueError) as error:
        raise DataError(
            f"is no ladder ({type(error).__name__}: {error})",
            where=str(path),
            expected='{"tasks": [...], "rows": {name: {"why", "cells": {task: {"expected", "reason", "accuracy"}}}}}',
        ) from None
    return Ladder(tasks, why, rungs)


def _rung(cell: Any) -> Rung:
    expected, accuracy = cell["expected"], cell.get("accuracy")
    if accuracy is not None and not 0 <= accuracy <= 1:
        raise ValueError(f"accuracy {accuracy} is not between 0 and 1")
    if isinstance(expected, bool):
        expected = "pass" if expected else "fail"
    return Rung(str(expected), str(cell.get("reason", "")), None if accuracy is None else float(accuracy))
