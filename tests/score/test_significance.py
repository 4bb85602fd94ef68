"""Paired tests: agreement with sacrebleu, and what a test of significance has to say about known cases."""

import random

import numpy as np
import pytest
from sacrebleu.metrics import BLEU, CHRF, TER
from sacrebleu.significance import PairedTest

from s2s.errors import DataError, UsageError
from s2s.score.metrics import bleu
from s2s.score.resampling import p_value
from s2s.score.significance import paired_tests

WORDS = ["the", "a", "cat", "dog", "house", "sees", "runs", "in", "on", "red", "green", "tree", "old", "man", "and"]
RNG = random.Random(0)
REFERENCES = [" ".join(RNG.choices(WORDS, k=RNG.randint(5, 14))) + "." for _ in range(80)]


def system(noise: float, seed: int) -> list[str]:
    """Hypotheses for REFERENCES in which a share of the words is dropped."""
    rng = random.Random(seed)
    return [" ".join(word for word in line.split() if rng.random() >= noise) for line in REFERENCES]


A, B, C = system(0.2, 1), system(0.24, 2), system(0.45, 3)


def by_test(results, system_name):
    return {(row.test, row.metric): row for row in results if row.system == system_name}


@pytest.mark.parametrize("name,metric", [("bleu", BLEU), ("chrf", CHRF), ("ter", TER)])
def test_both_tests_are_sacrebleus(name, metric, monkeypatch):
    monkeypatch.setenv("SACREBLEU_SEED", "77")
    systems = [("A", A), ("B", B), ("C", C)]
    found = paired_tests(systems, [REFERENCES], [name], seed=77, samples=300, trials=700)
    for test, kind, draws in (("bootstrap", "bs", 300), ("randomisation", "ar", 700)):
        signatures, expected = PairedTest(systems, {"m": metric()}, [REFERENCES], test_type=kind, n_samples=draws)()
        [label] = signatures
        rows = [row for row in found if row.test == test]
        assert [row.system for row in rows] == expected["System"]
        for row, theirs in zip(rows, expected[label], strict=True):
            assert row.score == pytest.approx(theirs.score, abs=1e-9)
            assert row.signature == str(signatures[label])
            if theirs.p_value is None:
                assert row.p_value is None
            elif name == "ter":
                # Edits are whole numbers, so some shuffles tie with the observed difference; sacrebleu leaves them out.
                assert theirs.p_value - 0.5 / draws < row.p_value < theirs.p_value + 0.02
            else:
                assert row.p_value == pytest.approx(theirs.p_value, abs=0.5 / draws)
            if kind == "bs":
                assert row.mean == pytest.approx(theirs.mean, abs=1e-3)
                assert (row.high - row.low) / 2 == pytest.approx(theirs.ci, abs=1e-3)
            else:
                assert (row.mean, row.low, row.high) == (None, None, None)


def test_a_clearly_better_system_and_an_identical_one():
    results = paired_tests([("base", C), ("better", A), ("same", list(C))], [REFERENCES], ["bleu", "chrf"], trials=2000)
    assert len(results) == 2 * 2 * 3
    for row in by_test(results, "better").values():
        assert row.p_value < 0.05
    for row in by_test(results, "same").values():
        assert row.p_value == 1.0
    for row in by_test(results, "base").values():
        assert row.p_value is None


def test_one_changed_line_is_no_evidence():
    changed = [*A[:-1], "something else altogether"]
    for row in by_test(paired_tests([("A", A), ("B", changed)], [REFERENCES]), "B").values():
        assert row.score != bleu(A, [REFERENCES]).value
        assert row.p_value > 0.05


def test_null_systems_are_rarely_significant():
    """Two systems of the same quality: over many pairs about 5 % fall below 0.05."""
    below = {"bootstrap": 0, "randomisation": 0}
    for seed in range(30):
        pair = [("A", system(0.25, 100 + seed)), ("B", system(0.25, 200 + seed))]
        for row in paired_tests(pair, [REFERENCES], samples=100, trials=100):
            below[row.test] += row.p_value is not None and row.p_value < 0.05
    assert max(below.values()) <= 6


def test_deterministic_by_seed_and_symmetric_in_the_pair():
    options = {"samples": 200, "trials": 200}
    pair = [("A", A), ("B", B)]
    first = paired_tests(pair, [REFERENCES], seed=0, **options)
    assert first == paired_tests(pair, [REFERENCES], seed=0, **options)
    assert [row.p_value for row in first] != [
        row.p_value for row in paired_tests(pair, [REFERENCES], seed=1, **options)
    ]
    turned = paired_tests(pair[::-1], [REFERENCES], seed=0, **options)
    assert [row.p_value for row in first if row.p_value] == pytest.approx(
        [row.p_value for row in turned if row.p_value], abs=0.02
    )


def test_order_of_the_lines_of_all_does_not_change_the_verdict():
    turned = [("A", A[::-1]), ("C", C[::-1])]
    for row in by_test(paired_tests(turned, [REFERENCES[::-1]], trials=500), "C").values():
        assert row.p_value < 0.05


def test_several_references_and_rouge():
    rows = paired_tests([("A", A), ("C", C)], [REFERENCES, B], ["rouge1", "ter"], samples=60, trials=60)
    assert {row.metric for row in rows} == {"rouge1", "ter"}
    assert all("nrefs:2" in row.signature for row in rows)
    assert {row.higher_is_better for row in rows if row.metric == "ter"} == {False}


def test_p_value_counts_ties_as_not_less():
    assert p_value(np.zeros(99), 0.0) == 1.0
    assert p_value(np.zeros(99), 0.1) == 0.01
    assert p_value(np.array([1.0, 2.0, 3.0]), 2.0) == 0.75


def test_bad_calls():
    with pytest.raises(UsageError, match="at least 2; found 1"):
        paired_tests([("A", A)], [REFERENCES])
    with pytest.raises(UsageError, match="same name: A"):
        paired_tests([("A", A), ("A", B)], [REFERENCES])
    with pytest.raises(UsageError, match="unknown metric"):
        paired_tests([("A", A), ("B", B)], [REFERENCES], ["blue"])
    with pytest.raises(UsageError, match="samples"):
        paired_tests([("A", A), ("B", B)], [REFERENCES], trials=3)
    with pytest.raises(DataError, match="expected 79 lines; found 80"):
        paired_tests([("A", A), ("B", B[:-1])], [REFERENCES])
