"""Stop sequences: in pieces or whole, an output ends before the first one, and nothing else is lost."""

from hypothesis import given
from hypothesis import strategies as st

from s2s.serve.stops import Stops, cut

LETTERS = st.text("ab", max_size=12)
SEQUENCES = st.lists(st.text("ab", min_size=1, max_size=4), max_size=3)


def naive(text, sequences):
    ends = [text.index(one) for one in sequences if one in text]
    return text[: min(ends, default=len(text))], bool(ends)


@given(LETTERS, SEQUENCES)
def test_a_text_is_cut_before_the_first_sequence(text, sequences):
    assert cut(text, sequences) == naive(text, sequences)


@given(st.lists(LETTERS, max_size=6), SEQUENCES)
def test_pieces_are_cut_where_the_whole_is_unless_a_later_sequence_ends_first(pieces, sequences):
    stops, written = Stops(sequences), ""
    for piece in pieces:
        written += stops(piece)
        assert not any(one in written for one in sequences)
    written += stops.rest()
    whole, found = naive("".join(pieces), sequences)
    assert stops.found == found
    if len(sequences) <= 1 or not found:
        assert written == whole
    else:
        assert "".join(pieces).startswith(written)


def test_what_can_begin_a_sequence_is_held_back_and_given_at_the_end():
    stops = Stops(["END"])
    assert [stops("a E"), stops("N"), stops("x E"), stops.rest()] == ["a ", "", "ENx ", "E"]
    assert not stops.found
