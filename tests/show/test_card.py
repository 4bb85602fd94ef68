"""Every mechanism has a whole card, and a fault in one is told with file and line."""

import json

import pytest

from s2s import paths
from s2s.errors import ConfigError, DataError
from s2s.show.card import ENTRIES, Card, Rung, cards, read_card, read_ladder

WHOLE = """# @package attention
# Somebody 2020: in a line
# idea: First sentence.
#   Second one: with a colon.
# equation: a = b
#   c = d
# use: always
# paper: Somebody 2020, arXiv 2001.00001
_target_: s2s.attention.dot
# idea: no part of the header
"""


@pytest.mark.parametrize("name", paths.group_files("attention"))
def test_every_file_of_a_mechanism_has_a_whole_card(name):
    path = paths.group_files("attention")[name]
    card = read_card(path)
    assert (card.name, card.summary) == (name, paths.summary(path))
    assert all(len(getattr(card, entry)) > 5 for entry in ENTRIES)
    assert len(card.idea.split()) > 10
    assert any(sign in card.equation for sign in "=∝")


def test_the_cards_are_those_of_the_folder():
    assert [card.name for card in cards()] == list(paths.group_files("attention"))


def written(tmp_path, text):
    path = tmp_path / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_entries_go_on_in_indented_lines(tmp_path):
    assert read_card(written(tmp_path, WHOLE)) == Card(
        "mine",
        "Somebody 2020: in a line",
        "First sentence. Second one: with a colon.",
        "a = b\nc = d",
        "always",
        "Somebody 2020, arXiv 2001.00001",
    )


@pytest.mark.parametrize(
    "old, new, told",
    [
        ("# use: always\n", "", "the card lacks use"),
        ("# use: always\n", "# use:\n", "the card lacks use"),
        ("# use: always\n", "# usage: always\n", "mine.yaml:7: `usage: always` is no line of a card"),
        ("# use: always\n", "# idea: again\n", "mine.yaml:7: `idea: again` is no line of a card"),
        ("# use: always\n", "# some remark\n", "mine.yaml:7: `some remark` is no line of a card"),
        ("# Somebody 2020: in a line\n", "", "the card lacks its first line"),
        (WHOLE, "_target_: s2s.attention.dot\n", "the card lacks idea, equation, use, paper"),
    ],
)
def test_a_fault_is_told(tmp_path, old, new, told):
    with pytest.raises(ConfigError) as caught:
        read_card(written(tmp_path, WHOLE.replace(old, new)))
    assert told in str(caught.value)


LADDER = {
    "tasks": ["copy", "sort"],
    "rows": {
        "dot": {
            "why": "it can",
            "cells": {
                "sort": {"expected": "fail", "reason": "r", "accuracy": None},
                "copy": {"expected": True, "reason": "", "accuracy": 0.5},
            },
        }
    },
}


def test_a_ladder_is_read_in_the_order_of_its_tasks(tmp_path):
    ladder = read_ladder(written(tmp_path, json.dumps(LADDER)))
    assert list(ladder.of("dot").items()) == [("copy", Rung("pass", "", 0.5)), ("sort", Rung("fail", "r", None))]
    assert (ladder.why, ladder.of("none")) == ({"dot": "it can"}, {})


@pytest.mark.parametrize("text", ["[]", "{}", '{"tasks": 3, "rows": {}}', json.dumps(LADDER).replace("0.5", "99"), "x"])
def test_another_file_is_no_ladder(tmp_path, text):
    with pytest.raises(DataError, match=r"mine\.yaml: is no"):
        read_ladder(written(tmp_path, text))
