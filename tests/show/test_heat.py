"""The warmest words are those that were looked at most."""

from s2s.show.heat import heat
from s2s.types import Result

LOOKED = Result(
    "a b\nc",
    "x y",
    0.0,
    0.0,
    pieces=("▁x", "▁y", "</s>"),
    source_pieces=("<s>", "▁a", "▁b", "</s>", "▁c", "</s>"),
    alignment=((0.0, 0.9, 0.1, 0.0, 0.0, 0.0), (0.0, 0.1, 0.4, 0.0, 0.5, 0.0), (0.0, 0.0, 0.0, 0.0, 0.1, 0.9)),
)


def test_turns_stand_on_lines_of_their_own_and_marks_are_not_shown():
    lines = heat(LOOKED).plain.split("\n")
    assert lines[:2] == [" a b", " c"]
    assert not any("<s>" in line for line in lines)


def test_warmth_goes_with_weight():
    shown = heat(LOOKED)
    styles = {shown.plain[span.start : span.end].strip(): span.style for span in shown.spans}

    def green(word):
        return int(styles[word].rpartition("#")[2][2:4], 16)

    assert green("a") < green("c") < green("b")


def test_each_written_word_tells_where_it_looked():
    rows = [line.split() for line in heat(LOOKED).plain.split("\n") if "%" in line]
    assert rows == [["x", "90%", "a"], ["y", "50%", "c"]]


def test_without_weights_or_with_even_ones_nothing_is_warm():
    assert heat(Result("a", "b", 0.0, 0.0)).plain == ""
    even = Result("a", "b", 0.0, 0.0, pieces=("b",), source_pieces=("a", "</s>"), alignment=((0.5, 0.5),))
    assert not [span for span in heat(even).spans if span.style]
