"""Latency: worked examples, naive references, what the papers say of simple policies, SimulEval's values, bad input."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s2s.errors import DataError, UsageError
from s2s.score.latency import (
    NAMES,
    Sentence,
    average_lagging,
    average_proportion,
    check_delays,
    compute,
    differentiable_average_lagging,
    latency,
    length_adaptive_average_lagging,
)


def wait_k(k, source, target):
    """Delays of wait-k: k words are read first, then one for each that is written."""
    return [min(k + step, source) for step in range(target)]


@st.composite
def sentences(draw, equal=False):
    source = draw(st.integers(1, 12))
    target = source if equal else draw(st.integers(1, 14))
    delays = sorted(draw(st.lists(st.integers(0, source), min_size=target, max_size=target)))
    return Sentence(tuple(delays), source, draw(st.integers(1, 14)))


# By hand: 4 source words, 3 output words that were written after 1, 3 and 4 of them. A pace of 4/3.
def test_worked_example():
    delays = (1, 3, 4)
    assert average_proportion(delays, 4) == pytest.approx(8 / 12)
    assert average_lagging(delays, 4) == pytest.approx((1 + (3 - 4 / 3) + (4 - 8 / 3)) / 3)
    # d' = 1, max(3, 7/3) = 3, max(4, 13/3) = 13/3
    assert differentiable_average_lagging(delays, 4) == pytest.approx((1 + (3 - 4 / 3) + (13 / 3 - 8 / 3)) / 3)
    # a reference of 5 words makes the pace 4/5, a shorter one changes nothing
    assert length_adaptive_average_lagging(delays, 4, 5) == pytest.approx((1 + (3 - 4 / 5) + (4 - 8 / 5)) / 3)
    assert length_adaptive_average_lagging(delays, 4, 2) == average_lagging(delays, 4)
    assert average_lagging(delays, 4, 2) == pytest.approx((1 + (3 - 2) + (4 - 4)) / 3)
    assert average_proportion(delays, 4, 2) == pytest.approx(8 / 8)


# AL stops at the first word that was written with the whole source read: words 3 to 5 don't count.
def test_words_after_the_first_that_knows_all_do_not_count_in_al():
    assert average_lagging((1, 4, 4, 4, 4), 4) == pytest.approx((1 + (4 - 4 / 5)) / 2)


# The output ends before the source does: tau of the paper doesn't exist, and all words count.
def test_an_output_that_ends_early():
    assert average_lagging((1, 2), 4) == pytest.approx((1 + (2 - 2)) / 2)


def naive(name, sentence, length):
    """The papers' formulas as they stand, with positions counted from 1."""
    delays, source, reference = sentence
    hypothesis = len(delays)
    target = reference if length == "reference" else hypothesis

    def d(t):
        return delays[t - 1]

    if name == "ap":
        return sum(d(t) for t in range(1, hypothesis + 1)) / source / target
    if name == "dal":

        def minimum(t):  # d'_t
            return d(1) if t == 1 else max(d(t), minimum(t - 1) + source / hypothesis)

        return sum(minimum(t) - (t - 1) * source / hypothesis for t in range(1, hypothesis + 1)) / hypothesis
    if name == "laal":
        target = max(hypothesis, reference)
    complete = [t for t in range(1, hypothesis + 1) if d(t) == source]
    tau = min(complete) if complete else hypothesis
    return sum(d(t) - (t - 1) / (target / source) for t in range(1, tau + 1)) / tau


@pytest.mark.parametrize("length", ["output", "reference"])
@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=60, deadline=None)
@given(sentence=sentences())
def test_naive_reference(name, length, sentence):
    assert latency(name, sentence, length=length) == pytest.approx(naive(name, sentence, length), abs=1e-9)


# Delays, |x|, length of the reference; AL, LAAL, DAL, AP of simuleval 1.1.4 with the reference's length (its default),
# then AL and AP with --no-use-ref-len.
SIMULEVAL = [
    (
        (0, 0, 0, 1, 1, 3, 5, 8, 8, 9), 11, 26,
        (1.596153846, 1.596153846, 0.09, 0.122377622), (-1.45, 0.318181818),
    ),
    ((10, 11, 12, 13, 13, 13), 13, 23, (10.652173913, 10.652173913, 10.0, 0.240802676), (8.25, 0.923076923)),
    (
        (*range(1, 20), *[19] * 9), 19, 6,
        (-18.5, 3.892857143, 4.822704082, 3.166666667), (3.892857143, 0.678571429),
    ),
    ((14, *[15] * 26), 15, 27, (14.222222222, 14.222222222, 14.427983539, 0.997530864), (14.222222222, 0.997530864)),
    (
        (0, 0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 4, 4, 5, 5, 5, 5, 5, 5, 5, 6, 6, 7, 7, 7, 7, 7, 7, 8, 8), 9, 19,
        (-2.9762309, -0.225806452, 0.552549428, 0.748538012), (-0.225806452, 0.458781362),
    ),
    ((0, 1, 1, 1), 1, 21, (0.476190476, 0.476190476, 0.5625, 0.142857143), (0.375, 0.75)),
]  # fmt: skip


@pytest.mark.parametrize("delays, source, reference, by_reference, by_output", SIMULEVAL)
def test_values_of_simuleval(delays, source, reference, by_reference, by_output):
    sentence = Sentence(delays, source, reference)
    found = [score.value for score in compute([sentence], length="reference")]
    assert found == pytest.approx(by_reference, abs=1e-6)
    assert [score.value for score in compute([sentence], ["al", "ap"])] == pytest.approx(by_output, abs=1e-6)


@pytest.mark.parametrize("length", [1, 2, 7])
def test_wait_k_on_equal_lengths_lags_k(length):
    for k in range(1, length + 1):
        delays = wait_k(k, length, length)
        assert average_lagging(delays, length) == pytest.approx(k)
        assert differentiable_average_lagging(delays, length) == pytest.approx(k)
        assert length_adaptive_average_lagging(delays, length, length) == pytest.approx(k)


@pytest.mark.parametrize("target", [1, 5, 9])
def test_waiting_until_the_end_lags_the_whole_source(target):
    delays = [6] * target
    assert average_proportion(delays, 6) == 1
    assert average_lagging(delays, 6) == 6
    assert differentiable_average_lagging(delays, 6) == pytest.approx(6)
    assert length_adaptive_average_lagging(delays, 6, 5) == 6


# Papi et al. 2022: repeating words lowers AL measured by the reference's pace, not LAAL.
def test_an_output_that_is_too_long_gains_nothing_in_laal():
    honest = Sentence(tuple(wait_k(3, 8, 8)), 8, 8)
    babble = Sentence(tuple(delay for delay in wait_k(3, 8, 8) for _ in range(2)), 8, 8)
    assert latency("al", babble, length="reference") < latency("al", honest, length="reference") - 1
    assert latency("laal", babble) == pytest.approx(latency("laal", honest), abs=0.25)


@settings(max_examples=100, deadline=None)
@given(sentence=sentences(), other=sentences())
def test_orders_and_bounds(sentence, other):
    values = {name: latency(name, sentence) for name in NAMES}
    assert 0 <= values["ap"] <= 1
    assert values["laal"] >= values["al"] - 1e-9
    assert -1e-9 <= values["dal"] <= sentence.source_length + 1e-9
    assert values["al"] <= sentence.source_length
    later = Sentence(
        tuple(max(a, b) for a, b in zip(sentence.delays, _stretch(other, sentence), strict=True)), *sentence[1:]
    )
    for name in ("ap", "dal"):  # AL isn't monotone: a later word may move the cut-off
        assert latency(name, later) >= values[name] - 1e-9


def _stretch(other, sentence):
    """Delays for `sentence` made of those of another one."""
    delays = (*other.delays, *[sentence.source_length] * len(sentence.delays))[: len(sentence.delays)]
    return [min(delay, sentence.source_length) for delay in delays]


def test_a_corpus_scores_the_mean_and_says_what_it_left_out():
    corpus = [
        Sentence((1, 2, 3), 3, 4),
        Sentence((), 3, 2),  # nothing was written
        Sentence((3, 3), 3, 2),
        Sentence((0, 0), 0, 2),  # written from nothing
        Sentence((), 0, 0),
    ]
    scores = compute(corpus)
    assert [score.name for score in scores] == list(NAMES)
    for score in scores:
        expected = (latency(score.name, corpus[0]) + latency(score.name, corpus[2])) / 2
        assert score.value == pytest.approx(expected)
        assert score.details == {"sentences": 2, "left_out": 3}
        assert not score.higher_is_better
        assert (score.low, score.high) == (None, None)


def test_signatures_say_what_was_measured():
    corpus = [Sentence((1, 2, 3), 3, 4)]
    signatures = {length: [s.signature for s in compute(corpus, length=length)] for length in ("output", "reference")}
    assert [signature.split("|")[1] for signature in signatures["output"]] == [
        "length:output", "length:longer", "length:output", "length:output",
    ]  # fmt: skip
    assert [signature.split("|")[1] for signature in signatures["reference"]] == [
        "length:reference", "length:longer", "length:output", "length:reference",
    ]  # fmt: skip
    assert all(signature.startswith("unit:word|") and "version:s2s-" in signature for signature in signatures["output"])
    assert [score.name for score in compute(corpus, ["dal", "al"])] == ["dal", "al"]


@pytest.mark.parametrize(
    "delays, source, message",
    [
        ((1, 3, 2), 4, "word 3.*at least 3; found 2"),
        ((-1, 2), 4, "word 1.*at least 0; found -1"),
        ((1, 5), 4, "word 2.*past the end.*at most 4; found 5"),
        ((1, float("nan")), 4, "word 2.*found nan"),
    ],
    ids=["falling", "negative", "past the end", "nan"],
)
def test_delays_that_can_not_be(delays, source, message):
    with pytest.raises(DataError, match=message):
        check_delays(delays, source)
    with pytest.raises(DataError, match=f"sentence 2: .*{message}"):
        compute([Sentence((1,), 1, 1), Sentence(delays, source, 1)])
    for name in NAMES:
        with pytest.raises(DataError, match=message):
            latency(name, Sentence(delays, source, 1))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("sentence", [Sentence((), 3, 2), Sentence((0,), 0, 2), Sentence((), 0, 0)])
def test_without_words_a_sentence_has_no_latency(name, sentence):
    with pytest.raises(DataError, match="at least one source word and one output word"):
        latency(name, sentence)
    with pytest.raises(DataError, match=r"no latency to measure.*found 1 sentences"):
        compute([sentence], [name])


def test_a_reference_that_is_needed():
    missing = Sentence((1, 2), 2)
    assert [score.name for score in compute([missing], ["al", "dal", "ap"])] == ["al", "dal", "ap"]
    with pytest.raises(DataError, match="sentence 1: laal needs the length of the reference"):
        compute([missing])
    with pytest.raises(DataError, match="ap needs the length of the reference"):
        compute([missing], ["ap"], length="reference")
    with pytest.raises(DataError, match=r"sentence 1: .*reference without words"):
        compute([Sentence((1, 2), 2, 0)], ["al"], length="reference")


def test_unknown_names():
    corpus = [Sentence((1,), 1, 1)]
    with pytest.raises(UsageError, match=r"unknown latency 'lal'.*Did you mean laal\?"):
        compute(corpus, ["lal"])
    with pytest.raises(UsageError, match=r"unknown length 'words'.*output or reference"):
        compute(corpus, length="words")
    with pytest.raises(DataError, match="found 0 sentences"):
        compute([])
