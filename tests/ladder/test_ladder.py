"""The capability ladder: every mechanism has a row, the rows agree with what was measured, and a few cells are run."""

import json
import re

import ladder
import pytest
from ladder_rows import KEYED, ROWS, Cell
from ladder_tasks import FAIL, PASS, TASKS, climb, configured, data

from s2s.attention import names
from s2s.text.corpus import links
from s2s.types import SPECIALS

PROMISED = {
    *(
        "none",
        "additive",
        "additive_normed",
        "dot",
        "scaled_dot",
        "general",
        "concat",
        "location",
        "local_m",
        "local_p",
    ),
    *("hard", "static", "static_feature", "reader", "key_value", "key_value_predict", "multihead", "monotonic"),
    *("forced_forward", "mocha", "milk", "mma", "forward", "stepwise", "gmm", "dca", "location_aware", "coverage"),
    "temporal",
}
# One of each kind; `python tests/ladder/ladder.py` runs them all.
RUN = [("none", "copy"), ("additive", "reverse"), ("forced_forward", "copy")]
SLOW = [("local_m", "reverse"), ("forced_forward", "reverse"), ("monotonic", "copy")]


@pytest.fixture(scope="module")
def measured():
    path = ladder.DOCS / "ladder.json"
    if not path.is_file():
        pytest.skip("the whole ladder is not measured yet: python tests/ladder/ladder.py")
    return json.loads(path.read_text(encoding="utf-8"))


def test_every_mechanism_has_a_row():
    declared = {row.name for row in ROWS}
    assert set(names()) <= declared, "declare what a new mechanism can learn in tests/ladder/ladder_rows.py"
    assert declared == PROMISED
    assert len(KEYED) == len({row.label for row in ROWS}) == len(ROWS)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.label)
def test_a_row_is_whole(row):
    assert list(row.cells) == list(TASKS)
    assert all(cell.expected in ("pass", "fail", "either") and cell.reason for cell in row.cells.values())
    assert (row.budget == 1) == (not row.budget_reason)
    assert row.budget >= 1
    if row.name in names():
        configured(row.name, row.options, "copy", row.model)


def test_the_docs_hold_every_mechanism_as_declared(measured):
    rows = measured["rows"]
    assert list(rows) == [key for key, row in KEYED.items() if row.name in names()]
    for key, row in rows.items():
        for task, cell in row["cells"].items():
            declared = KEYED[key].cells[task]
            assert Cell(cell["expected"], cell["reason"]) == declared, f"{key}, {task}: measure it again"
            assert ladder.verdict(declared, cell["accuracy"]) is None, f"{key}, {task}: {cell['accuracy']}"
        assert list(row["cells"]) == list(TASKS)
    assert measured["tasks"] == {name: task._asdict() for name, task in TASKS.items()}
    assert (ladder.DOCS / "ladder.md").read_text(encoding="utf-8") == ladder.table(measured)


@pytest.mark.parametrize("task", ["copy", "reverse", "skip", "lookup"])
def test_static_lies_between_none_and_soft(measured, task):
    none, static, soft = (measured["rows"][name]["cells"][task]["accuracy"] for name in ("none", "static", "additive"))
    assert none - 0.1 <= static <= soft - 0.2


def test_a_verdict_can_fail():
    passing, failing, free = Cell("pass", "x"), Cell("fail", "x"), Cell("either", "x")
    assert ladder.verdict(passing, PASS) is None
    assert ladder.verdict(failing, FAIL) is None
    assert all(ladder.verdict(free, value) is None for value in (0.0, (PASS + FAIL) / 2, 1.0))
    assert "declared to pass" in ladder.verdict(passing, FAIL)
    assert "declared to fail" in ladder.verdict(failing, PASS)
    assert all("neither" in ladder.verdict(cell, (PASS + FAIL) / 2) for cell in (passing, failing))


@pytest.mark.parametrize("name", TASKS)
def test_tasks_hold_out_what_is_tested(name):
    examples, task = data(name), TASKS[name]
    held = {tuple(example.source) for example in examples.dev + examples.test}
    assert len(held) == len(examples.dev) + len(examples.test)
    assert not held & {tuple(example.source) for example in examples.train}
    lengths = [len(example.source) for example in examples.train]
    assert lengths == sorted(lengths)
    side = "target" if name == "lookup" else "source"
    assert {len(getattr(example, side)) for example in examples.test} == set(range(task.tested, task.longest + 1))
    for example in examples.test[:20]:
        source = [examples.words[token - len(SPECIALS)] for token in example.source]
        assert [example.source[place] for place, _ in links(task.rule, source)] == example.target


@pytest.mark.parametrize(
    "key, task",
    [*RUN, *(pytest.param(*cell, marks=pytest.mark.slow) for cell in SLOW)],
    ids=lambda value: re.sub(r"\W+", "-", value),
)
def test_a_cell_is_as_declared(key, task):
    row = KEYED[key]
    made = climb(row.name, row.options, task, budget=row.budget, model=row.model)
    assert ladder.verdict(row.cells[task], made.accuracy) is None, made
