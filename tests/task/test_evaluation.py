"""What evaluation says of the attention: statistics of the outputs' alignments, and the error against known links."""

import dataclasses

import pytest

import s2s
from s2s.score.alignment import GoldAlignment, alignment_error_rate
from s2s.score.attention_statistics import attention_statistics
from s2s.task.align import align
from s2s.task.evaluate import evaluate
from s2s.text.corpus import Pair


@pytest.fixture(scope="module")
def model(reverse_run):
    return s2s.load(reverse_run, device="cpu")


@pytest.fixture(scope="module")
def pairs(sources):
    return [Pair(source, " ".join(reversed(source.split())), "") for source in sources]


def test_the_statistics_are_those_of_the_outputs(model, pairs):
    task = model.trained[0].config.task
    done = evaluate(model.generator(alignment=True), pairs, task)
    results = model.generator(alignment=True)([pair.source for pair in pairs])
    rows = [result.alignment[:-1] for result in results]  # all outputs end in an end of sentence
    assert done.attention == attention_statistics(rows)
    assert done.attention.rows == sum(len(result.text.split()) for result in results)
    assert done.attention.monotonicity < -0.9  # it reverses
    assert all(result.alignment is None for result in done.results)
    assert [result.text for result in done.results] == [result.text for result in results]


def test_the_error_is_that_of_forced_references(model, pairs):
    task = model.trained[0].config.task
    done = evaluate(model.generator(alignment=True), pairs, task)
    gold = []
    for pair in pairs:
        length = len(pair.source.split())
        own = frozenset((length - 1 - place, place) for place in range(length))
        gold.append(GoldAlignment(own, own))
    found = align(model.trained[0], [(pair.source, pair.target) for pair in pairs])
    assert done.alignment == alignment_error_rate([frozenset(one.links) for one in found], gold)
    assert done.alignment.error_rate < 0.6
    assert done.facts()["alignment"]["error_rate"] == done.alignment.error_rate


def test_without_alignments_nothing_is_looked_at(model, pairs):
    done = evaluate(model.generator(), pairs, model.trained[0].config.task)
    assert (done.attention, done.alignment) == (None, None)
    nothing = dict.fromkeys(("attention", "alignment", "summary", "dialogue"))
    assert done.facts() == {"sentences_per_second": done.speed, **nothing}


def test_another_corpus_and_pairs_that_are_too_long_have_no_error(model, pairs, monkeypatch):
    trained = model.trained[0]
    long = Pair("ba " * 30, "ba " * 30, "")
    done = evaluate(model.generator(alignment=True), [pairs[0], long], trained.config.task)
    assert done.attention is not None
    assert done.alignment is None
    node = dataclasses.replace(trained.config.corpus, name="files")
    other = dataclasses.replace(trained, config=dataclasses.replace(trained.config, corpus=node))
    generator = model.generator(alignment=True)
    generator.models = [other]
    assert evaluate(generator, pairs[:2], trained.config.task).alignment is None
