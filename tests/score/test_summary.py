"""Statistics of summaries by hand."""

import pytest

from s2s.score.summary import summary_statistics, unsupported


def test_by_hand():
    found = summary_statistics(["The cat sat on the mat today"], ["the cat sat, the cat ran"])
    # the, cat, sat, the, cat are old and ran is new; of 5 bigrams `sat the` and `cat ran` are new
    assert found.novel == {1: pytest.approx(1 / 6), 2: pytest.approx(2 / 5), 3: pytest.approx(3 / 4)}
    assert found.copied == pytest.approx(3 / 6)  # `the cat sat`
    assert found.compression == pytest.approx(7 / 6)
    assert found.repeated == pytest.approx(1 / 5)  # `the cat`
    assert found.unsupported == 0.0


def test_an_extract_has_nothing_new_and_nothing_has_no_shares():
    found = summary_statistics(["a b c d e"], ["b c d"])
    assert (found.novel, found.copied, found.repeated) == ({1: 0.0, 2: 0.0, 3: 0.0}, 1.0, 0.0)
    empty = summary_statistics(["a b"], [""])
    assert (empty.novel[1], empty.copied, empty.compression, empty.repeated) == (None, None, None, None)
    assert summary_statistics([], []).unsupported is None


@pytest.mark.parametrize(
    ("source", "output", "found"),
    [
        ("Version 3.2 by Ann Lee", "new version 3.2 by Lee", []),
        ("Version 3.2 by Ann Lee", "new version 3.3 by Bob", ["3.3", "Bob"]),
        ("in 1999 and 99", "sold 1999 times, 99 and 199", ["199"]),
        ("a tool", "Tool for all. Perhaps not for Zürich", ["Zürich"]),
        ("the gnome desktop", "part of GNOME", []),
        ("text", "see README and ReadMe", ["README", "ReadMe"]),
        ("x", "", []),
    ],
)
def test_numbers_and_names_that_the_source_lacks(source, output, found):
    assert unsupported(source, output) == found
