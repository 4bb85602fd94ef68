"""Links, the alignment error rate and attention statistics, against hand-computed values and naive code."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from s2s.errors import DataError, UsageError
from s2s.score.alignment import (
    GoldAlignment,
    alignment_error_rate,
    format_links,
    links_from_weights,
    merge_links,
    parse_alignment,
    parse_links,
    word_of_piece,
)
from s2s.score.attention_statistics import attention_statistics, entropy, monotonicity

LINKS = st.frozensets(st.tuples(st.integers(0, 4), st.integers(0, 4)), max_size=8)


def test_parse_links():
    gold = parse_links("0-0  1p2\t10-3")
    assert gold.sure == {(0, 0), (10, 3)}
    assert gold.possible == {(0, 0), (1, 2), (10, 3)}
    assert parse_links("") == GoldAlignment(frozenset(), frozenset())
    assert parse_links(" \t") == GoldAlignment(frozenset(), frozenset())
    assert parse_links("0-0 0p0").sure == {(0, 0)}


@pytest.mark.parametrize("token", ["1:2", "1-", "-1-2", "a-b", "1-2-3", "0--1", "1P2", "٣-٣", "1.0-2", "9999999999-1"])
def test_a_bad_token_is_named_with_its_line(token):
    with pytest.raises(DataError) as caught:
        parse_alignment(["0-0", f"0-0 {token} 1-1"], name="gold.txt")
    assert "gold.txt:2: token 2" in str(caught.value)
    assert repr(token) in str(caught.value)


def test_links_outside_the_sentence_and_unequal_counts():
    assert parse_alignment(["2-1"], sizes=[(3, 2)])[0].sure == {(2, 1)}
    for line in ("3-1", "2-2", "0p2"):
        with pytest.raises(DataError, match=r"alignment:1: token 1 .*outside.*source below 3 and target below 2"):
            parse_alignment([line], sizes=[(3, 2)])
    with pytest.raises(DataError, match="expected 2 lines; found 1"):
        parse_alignment(["0-0"], sizes=[(1, 1), (1, 1)])


@given(LINKS)
def test_format_and_parse_are_inverse(links):
    assert parse_links(format_links(links)).sure == links


def test_format_sorts_by_number():
    assert format_links({(10, 0), (2, 1), (2, 0)}) == "2-0 2-1 10-0"
    assert format_links([]) == ""


def test_links_from_weights():
    weights = torch.tensor([[0.1, 0.7, 0.2], [0.4, 0.2, 0.4], [0.0, 0.0, 0.0]], requires_grad=True)
    assert links_from_weights(weights) == {(1, 0), (0, 1)}
    assert links_from_weights(weights, method="threshold", threshold=0.3) == {(1, 0), (0, 1), (2, 1)}
    assert links_from_weights(weights.detach().bfloat16()) == {(1, 0), (0, 1)}
    assert links_from_weights(((0.0, 1.0),)) == {(1, 0)}
    assert (
        links_from_weights(torch.zeros(0, 3))
        == links_from_weights(torch.zeros(2, 0))
        == links_from_weights([])
        == set()
    )


def test_bad_weights_and_methods():
    for bad in ([[float("nan"), 1.0]], [[float("inf")]], [[-0.1, 1.1]]):
        with pytest.raises(DataError, match="bad number"):
            links_from_weights(bad)
    with pytest.raises(DataError, match="no matrix"):
        links_from_weights(torch.ones(1, 2, 3))
    with pytest.raises(UsageError, match="argmax or threshold"):
        links_from_weights([[1.0]], method="grow")
    for threshold in (0.0, 1.5, float("nan")):
        with pytest.raises(UsageError, match="threshold"):
            links_from_weights([[1.0]], method="threshold", threshold=threshold)


def test_pieces_to_words():
    assert word_of_piece(["▁The", "▁pack", "age", "▁", "<0xF0>", "<0x9F>", ".", "</s>"]) == [0, 1, 1, 2, 2, 2, 2, None]
    assert word_of_piece(["un", "able", "▁to"]) == [0, 0, 1]
    assert word_of_piece([]) == []


def test_merge_links():
    source, target = [0, 1, 1, None], [0, 0, 1, None]
    assert merge_links({(0, 0), (1, 2), (2, 2), (2, 1), (3, 0), (0, 3)}, source, target) == {(0, 0), (1, 1), (1, 0)}
    links = frozenset({(0, 1), (2, 2)})
    assert merge_links(links, range(4), range(4)) == links


def test_error_rate_of_hand_computed_cases():
    gold = parse_links("0-0 1-1 2p1 2-2")  # |S| = 3, |P| = 4
    perfect = alignment_error_rate([gold.sure], [gold])
    assert (perfect.error_rate, perfect.precision, perfect.recall) == (0, 1, 1)
    # Possible links cost nothing.
    assert alignment_error_rate([gold.possible], [gold]).error_rate == 0
    # A = {0-0, 2p1, 3-3}: |A∩S| = 1, |A∩P| = 2, AER = 1 - 3/6.
    score = alignment_error_rate([frozenset({(0, 0), (2, 1), (3, 3)})], [gold])
    assert score.error_rate == pytest.approx(0.5)
    assert score.precision == pytest.approx(2 / 3)
    assert score.recall == pytest.approx(1 / 3)
    assert (score.links, score.sure_links, score.possible_links) == (3, 3, 4)
    assert alignment_error_rate([frozenset({(9, 9)})], [gold]).error_rate == 1


def test_error_rate_sums_over_the_corpus_and_knows_empty_sentences():
    gold = parse_alignment(["0-0", "0-0 1-1 2-2", ""])
    hypotheses = [frozenset(), frozenset({(0, 0), (1, 1), (2, 2)}), frozenset()]
    assert alignment_error_rate(hypotheses, gold).error_rate == pytest.approx(1 - 6 / 7)
    empty = alignment_error_rate([], [])
    assert (empty.error_rate, empty.precision, empty.recall) == (0, 1, 1)
    assert alignment_error_rate([frozenset({(0, 0)})], [parse_links("0p0")]).error_rate == 0
    with pytest.raises(DataError, match="expected 1; found 0"):
        alignment_error_rate([], [parse_links("0-0")])


@given(st.lists(st.tuples(LINKS, LINKS, LINKS), max_size=4))
def test_error_rate_equals_a_naive_count(sentences):
    hypotheses = [found for found, _, _ in sentences]
    gold = [GoldAlignment(sure, possible | sure) for _, sure, possible in sentences]
    a = s = hit_s = hit_p = 0
    for found, reference in zip(hypotheses, gold, strict=True):
        for link in itertools.product(range(5), repeat=2):
            a += link in found
            s += link in reference.sure
            hit_s += link in found and link in reference.sure
            hit_p += link in found and link in reference.possible
    score = alignment_error_rate(hypotheses, gold)
    assert score.error_rate == pytest.approx(1 - (hit_s + hit_p) / (a + s) if a + s else 0)
    assert 0 <= score.error_rate <= 1


def test_entropy():
    rows = entropy([[1.0, 0.0, 0.0, 0.0], [0.25, 0.25, 0.25, 0.25], [0.5, 0.0, 0.5, 0.0], [0.1, 0.1, 0.0, 0.0]])
    assert rows == pytest.approx([0, math.log(4), math.log(2), math.log(2)])
    assert np.isnan(entropy([[0.0, 0.0], [1.0, 0.0]])).tolist() == [True, False]


@given(st.lists(st.integers(0, 6), min_size=2, max_size=12))
def test_monotonicity_equals_a_naive_count(positions):
    pairs = list(itertools.combinations(positions, 2))
    back = sum(later < earlier for earlier, later in pairs)
    assert monotonicity(np.eye(7)[positions]) == pytest.approx(1 - 2 * back / len(pairs))


def test_monotonicity_of_known_cases():
    assert monotonicity(np.eye(5)) == 1
    assert monotonicity(np.eye(5)[::-1]) == -1
    assert monotonicity([[0.9, 0.1], [0.9, 0.1]]) == 1
    assert monotonicity([[1.0, 0.0]]) is None
    assert monotonicity([[1.0, 0.0], [0.0, 0.0]]) is None


def test_statistics_of_a_corpus():
    found = attention_statistics([np.eye(4), np.eye(4)[::-1], np.full((1, 4), 0.25), [[1.0]]])
    assert found.entropy == pytest.approx(math.log(4) / 10)
    assert found.relative_entropy == pytest.approx(1 / 9)
    assert found.monotonicity == 0
    assert (found.rows, found.sentences) == (10, 2)
    nothing = attention_statistics([])
    assert (nothing.entropy, nothing.relative_entropy, nothing.monotonicity, nothing.rows) == (None, None, None, 0)
