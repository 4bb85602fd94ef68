"""Distinct-n, entropy-n and generic replies against naive counts; what can't be resampled isn't."""

import math
import random

import pytest
import sacrebleu

from s2s.errors import DataError, UsageError
from s2s.score.dialogue import dialogue_statistics, perplexity_a_word, repeats
from s2s.score.diversity import DIVERSITY, diversity
from s2s.score.metrics import Scoring, compute, metric_names
from s2s.score.significance import paired_tests

rng = random.Random(5)
OUTPUTS = [" ".join(rng.choice("abcdefg") for _ in range(rng.randint(0, 7))) for _ in range(300)]
REFERENCES = [[" ".join(rng.choice("abcdefg") for _ in range(rng.randint(1, 7))) for _ in range(300)]]


def grams(order):
    found = []
    for text in OUTPUTS:
        words = text.split()
        for start in range(len(words) - order + 1):
            found.append(tuple(words[start : start + order]))
    return found


@pytest.mark.parametrize("order", [1, 2, 3])
def test_values_are_those_of_naive_counts(order):
    found = grams(order)
    assert diversity(f"distinct{order}", OUTPUTS).value == pytest.approx(100 * len(set(found)) / len(found))
    shares = [found.count(gram) / len(found) for gram in set(found)]
    assert diversity(f"entropy{order}", OUTPUTS).value == pytest.approx(-sum(p * math.log(p) for p in shares))


def test_a_uniform_distribution_has_the_log_of_its_size():
    assert diversity("entropy1", ["a b c d"]).value == pytest.approx(math.log(4))
    assert diversity("entropy1", ["a a", "a"]).value == 0
    assert diversity("distinct1", ["A a!", "a"]).value == pytest.approx(100 / 3)


def test_replies_that_many_get_are_generic():
    said = ["I don't know.", "i don't know", *(f"reply {n}" for n in range(398))]
    assert diversity("generic", said).value == pytest.approx(0.5)  # two of four hundred are one in 200
    assert diversity("generic", said[1:]).value == 0
    assert diversity("generic", [*said, *(f"more {n}" for n in range(300))]).value == 0
    assert diversity("generic", ["", " ", "x"]).value == pytest.approx(200 / 3)
    assert diversity("generic", ["x"]).value == 0


@pytest.mark.parametrize("name", DIVERSITY)
def test_every_script_counts_and_nothing_is_undefined(name):
    for outputs in ([""], ["", "!?"], ["a"], ["你好吗", "สวัสดี", "مرحبا بك"]):
        score = diversity(name, outputs)
        assert math.isfinite(score.value)
        assert score.low is None
        assert f"lines:{len(outputs)}" in score.signature
    assert diversity("distinct1", ["你好你"]).value == pytest.approx(200 / 3)
    with pytest.raises(DataError):
        diversity(name, [])


def test_they_stand_beside_the_others_without_intervals():
    scores = compute(["dialogue"], OUTPUTS, REFERENCES, intervals=True)
    assert [score.name for score in scores] == metric_names(["dialogue"])
    for score in scores:
        assert (score.low is None) == (score.name in DIVERSITY)
    assert [score.higher_is_better for score in scores if score.name == "generic"] == [False]
    with pytest.raises(UsageError):
        metric_names(["distinct", "distinct1"])
    with pytest.raises(DataError):
        compute(["distinct1"], OUTPUTS, [REFERENCES[0][1:]])


def test_short_bleu_is_that_of_sacrebleu():
    for order in (1, 2):
        (score,) = compute([f"bleu{order}"], OUTPUTS, REFERENCES, Scoring(lowercase=True))
        wanted = sacrebleu.BLEU(max_ngram_order=order, lowercase=True).corpus_score(OUTPUTS, REFERENCES)
        assert score.value == pytest.approx(wanted.score)
        assert score.signature.endswith(f"|order:{order}")


def test_paired_tests_leave_them_untested():
    found = paired_tests(
        [("a", OUTPUTS), ("b", OUTPUTS[::-1])], REFERENCES, ["bleu1", "distinct2"], samples=50, trials=50
    )
    by_metric = {(one.metric, one.system, one.test): one for one in found}
    assert by_metric["bleu1", "b", "bootstrap"].p_value is not None
    for test in ("bootstrap", "randomisation"):
        one = by_metric["distinct2", "b", test]
        assert one.p_value is None
        assert one.score == diversity("distinct2", OUTPUTS).value


def test_statistics_of_replies():
    contexts = ["hi\nyes sure\nreally?", "a", "x\nno\ny\nmaybe\nz"]
    replies = ["Yes, sure!", "the dog and the dog and the dog", "no"]
    found = dialogue_statistics(contexts, replies, keywords=["sure", "dogs", ""])
    assert found.words == pytest.approx((2 + 8 + 1) / 3)
    assert found.repeating == pytest.approx(1 / 3)
    assert found.said_before == pytest.approx(2 / 3)
    assert found.keywords == 0.5
    assert dialogue_statistics(["a"], ["b"]).keywords is None
    for wrong in (["sure"], ["sure", "dogs", "", "no"]):
        with pytest.raises(ValueError, match="zip"):
            dialogue_statistics(contexts, replies, keywords=wrong)
    assert dialogue_statistics(contexts, ["the other's hi", "x", "x"]).said_before == 0
    assert repeats(["a", "b", "c", "a", "b", "c"])
    assert not repeats(["a", "b", "a", "b"])
    assert not repeats([])


def test_perplexity_counts_words_not_tokens():
    assert perplexity_a_word(-10 * math.log(7), ["a b c", "d e f g h"]) == pytest.approx(7)
    assert perplexity_a_word(-1e9, ["a"]) == math.exp(700)
