"""The aligner: against a plain version of itself, and against corpora whose links are known."""

import math
import random
import time

import numpy as np
import pytest
import torch

from s2s.score.alignment import GoldAlignment, alignment_error_rate
from s2s.text.corpus.synthetic import generated
from s2s.text.corpus.synthetic import links as true_links
from s2s.train import links as room
from s2s.train.links import align_corpus


def as_ids(task, count=400, symbols=60):
    """Pairs of ids of a generated corpus, and their true links."""
    pairs = generated(task=task, symbols=symbols, train=count, dev=0, test=0).splits["train"]
    known = {}

    def ids(text):
        return [known.setdefault(word, 4 + len(known)) for word in text.split()]

    gold = [frozenset(true_links(task, pair.source.split())) for pair in pairs]
    return [(ids(pair.source), ids(pair.target)) for pair in pairs], gold


def error(found, gold):
    return alignment_error_rate([frozenset(one) for one in found], [GoldAlignment(g, g) for g in gold]).error_rate


@pytest.mark.parametrize("task, most", [("copy", 0.0), ("double", 0.0), ("sort", 0.06), ("reverse", 0.08)])
def test_the_links_of_generated_corpora_are_found(task, most):
    """A symbol that stands twice in a sentence is the only doubt: against the diagonal it can't be told apart."""
    pairs, gold = as_ids(task)
    assert error(align_corpus(pairs), gold) <= most
    shuffled = [(one, random.Random(3).sample(other, len(other))) for one, other in pairs]
    assert error(align_corpus(shuffled), gold) > 0.2  # the test can fail


def test_words_are_learned_wherever_they_stand():
    draw = random.Random(1)
    pairs, gold = [], []
    for _ in range(300):
        source = draw.sample(range(4, 34), draw.randint(1, 5))
        order = draw.sample(range(len(source)), len(source))
        pairs.append((source, [source[i] + 30 for i in order]))
        gold.append(frozenset((i, j) for j, i in enumerate(order)))
    assert error(align_corpus(pairs), gold) < 0.03


def test_a_word_without_a_counterpart_may_be_linked_to_none(monkeypatch):
    draw = random.Random(1)
    pairs, extra = [], []
    for number in range(300):
        source = draw.sample(range(4, 34), draw.randint(2, 6))
        target = [word + 30 for word in source]
        if number % 5 == 0:
            extra.append((number, draw.randint(0, len(target))))
            target.insert(extra[-1][1], 99)
        pairs.append((source, target))

    def linked():
        found = align_corpus(pairs)
        for (source, target), links in zip(pairs, found, strict=True):
            assert {(i, j) for i, j in links if target[j] != 99} == {
                (i, target.index(w + 30)) for i, w in enumerate(source)
            }
        return sum(any(j == place for _, j in found[number]) for number, place in extra)

    assert linked() < len(extra) / 2
    monkeypatch.setattr(room, "NULL", 1e-6)
    assert linked() > 0.9 * len(extra)


def test_sides_that_are_empty_have_no_links():
    assert align_corpus([]) == []
    assert align_corpus([([], [5]), ([4], []), ([], [])]) == [[], [], []]
    assert align_corpus([([4], [7]), ([], [7]), ([4], [7])]) == [[(0, 0)], [], [(0, 0)]]


def test_links_come_in_target_order_and_within_their_sentence():
    pairs, _ = as_ids("sort", 200, symbols=15)
    for (source, target), found in zip(pairs, align_corpus(pairs), strict=True):
        assert [target for _, target in found] == sorted(target for _, target in found)
        assert len(set(found)) == len(found)
        assert all(0 <= i < len(source) and 0 <= j < len(target) for i, j in found)


def test_it_is_the_same_again_in_chunks_of_any_size_and_after_other_draws(monkeypatch):
    pairs, _ = as_ids("reverse", 200, symbols=25)
    expected = align_corpus(pairs)
    torch.manual_seed(5)
    assert align_corpus(pairs) == expected
    for size in (1, 200):
        monkeypatch.setattr(room, "_CHUNK", size)
        assert align_corpus(pairs) == expected


def test_the_sides_change_places_and_so_do_the_links():
    pairs, _ = as_ids("reverse", 200, symbols=25)
    turned = align_corpus([(target, source) for source, target in pairs])
    assert [sorted((i, j) for j, i in one) for one in turned] == [sorted(one) for one in align_corpus(pairs)]


def plain_step(pairs, table, null, tension, side):
    """One iteration of EM in the paper's own terms, word by word. side: which one is made, 1 the target, 0 the source.

    table: (given, made) -> probability. Returns the new table and null, and (tension) -> expected log-prior.
    """
    counts, nulls, seen = {}, dict.fromkeys(null, 0.0), []
    for pair in pairs:
        made, given = pair[side], pair[1 - side]
        for j, word in enumerate(made):
            near = [-abs((i + 0.5) / len(given) - (j + 0.5) / len(made)) for i in range(len(given))]
            prior = [math.exp(tension * h) for h in near]
            joint = [(1 - 0.08) * p / sum(prior) * table[g, word] for p, g in zip(prior, given, strict=True)]
            none = 0.08 * null[word]
            total = sum(joint) + none
            for g, share in zip(given, joint, strict=True):
                counts[g, word] = counts.get((g, word), 0.0) + share / total
            nulls[word] += none / total
            seen.append((near, [share / total for share in joint]))

    def digamma(x):
        return float(torch.digamma(torch.tensor(x, dtype=torch.float64)))

    def row(word):
        return [value for (g, _), value in counts.items() if g == word]

    new = {
        key: math.exp(digamma(value + 0.01) - digamma(sum(row(key[0])) + 0.01 * len(row(key[0]))))
        for key, value in counts.items()
    }
    size = max(null) + 1
    rest = digamma(sum(nulls.values()) + 0.01 * size)

    def likelihood(x):
        return sum(
            share * (x * h - math.log(sum(math.exp(x * other) for other in near)))
            for near, shares in seen
            for h, share in zip(near, shares, strict=True)
        )

    return new, {word: math.exp(digamma(value + 0.01) - rest) for word, value in nulls.items()}, likelihood


@pytest.mark.parametrize("side", [1, 0])
def test_an_iteration_is_that_of_the_plain_version(side):
    draw = random.Random(0)

    def sentence():
        return [draw.randrange(4, 9) for _ in range(draw.randint(1, 5))]

    pairs = [(sentence(), sentence()) for _ in range(12)]
    chunks, entries = room._cells(pairs)
    made = room._Direction(entries[:, 1 - side], entries[:, side], 1 + side)
    words = {word for pair in pairs for word in pair[side]}
    table = {(g, w): 1 / 9 for pair in pairs for g in pair[1 - side] for w in pair[side]}
    null = dict.fromkeys(words, 1 / 9)
    assert made.words == max(words) + 1 == 9
    for _ in range(3):
        table, null, likelihood = plain_step(pairs, table, null, made.tension, side)
        made.improve(chunks)
        for number, (source, target) in enumerate(entries.tolist()):
            key = (target, source) if side == 0 else (source, target)
            assert made.table[number] == pytest.approx(table[key], rel=1e-9)
        for word, value in null.items():
            assert made.null[word] == pytest.approx(value, rel=1e-9)
        best = max(np.linspace(0, room.MAX_TENSION, 401), key=likelihood)
        assert made.tension == pytest.approx(best, abs=0.1)


def test_growing_by_hand():
    def cells(text):
        return np.array([[[c == "x" for c in row] for row in text.split()]])

    one, other = cells("x.... .x... ..x.. ...x. ...x."), cells("x.... ..... .x... ..... ....x")
    # (0, 0) is in both; (1, 1) touches it; then (2, 1) and (2, 2) touch (1, 1), and so on down the diagonal
    assert room._grown(one, other).astype(int).tolist() == cells("x.... .x... .xx.. ...x. ...xx").astype(int).tolist()
    # nothing in both: nothing to grow from
    assert not room._grown(cells("x. .."), cells(".. .x")).any()
    # a row and a column that are taken: no new link
    assert room._grown(cells("xx xx"), cells("x. .x")).sum() == 2
    # what touches nothing stays out
    assert room._grown(cells("x.. ... ..x"), cells("x.. ... ...")).sum() == 1


def test_it_is_fast_enough_for_a_real_corpus():
    draw = np.random.default_rng(0)
    pairs = [(s := np.minimum(draw.zipf(1.3, int(draw.integers(8, 19))), 8000).tolist(), s[::-1]) for _ in range(2900)]
    began = time.process_time()
    align_corpus(pairs)
    assert time.process_time() - began < 5  # a tenth of the pairs of Multi30k, in a tenth of a minute at most
