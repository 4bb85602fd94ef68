import math
from collections import Counter

import pytest
import torch
from search_toys import TableModel, ToyModel, greedy_ids, same

from s2s.errors import ConfigError
from s2s.search import Constraints, SearchConfig, force, sample
from s2s.search.sampling import _draws
from s2s.types import EOS, StepOutput

# Ordinary tokens 4..8 after anything; PAD and BOS have some probability too, which is never drawn.
PROBABILITIES = torch.tensor([0.1, 0.0, 0.1, 0.08, 0.32, 0.2, 0.12, 0.06, 0.02])


def draw(number, **options):
    """Counts of one sampled token, over many sources."""
    model = TableModel(PROBABILITIES.expand(9, 9))
    config = SearchConfig(beam=1, sample=True, **options)
    found = sample(model.step, (), config, max_lengths=[1] * number)
    return Counter(one.tokens[0] for (one,) in found)


def expect(counts, probabilities):
    """Counts agree with a distribution: every share is within four standard errors."""
    number = sum(counts.values())
    total = sum(probabilities.values())
    assert set(counts) <= set(probabilities)
    for token, probability in probabilities.items():
        share = probability / total
        assert abs(counts[token] / number - share) < 4 * math.sqrt(share * (1 - share) / number) + 1e-9


def test_plain_sampling_follows_the_model():
    expect(draw(4000), {EOS: 0.08, 4: 0.32, 5: 0.2, 6: 0.12, 7: 0.06, 8: 0.02})


def test_temperature_sharpens():
    powers = {token: float(PROBABILITIES[token]) ** 2 for token in (EOS, 4, 5, 6, 7, 8)}
    expect(draw(4000, temperature=0.5), powers)


def test_top_k_support_and_shares():
    expect(draw(3000, top_k=3), {4: 0.32, 5: 0.2, 6: 0.12})
    assert set(draw(200, top_k=1)) == {4}


def test_top_p_support_and_shares():
    # Of 0.8 in all: 0.4, 0.25, 0.15, 0.1, ... The smallest set with at least 0.6 is the first two.
    expect(draw(3000, top_p=0.6), {4: 0.32, 5: 0.2})
    expect(draw(3000, top_p=0.7), {4: 0.32, 5: 0.2, 6: 0.12})
    assert set(draw(200, top_p=1e-9)) == {4}
    expect(draw(3000, top_k=2, top_p=0.99), {4: 0.32, 5: 0.2})


def test_top_p_of_a_large_vocabulary_is_that_of_a_full_sort(monkeypatch):
    draw = torch.Generator().manual_seed(0)
    table = torch.stack([torch.randn(900, generator=draw) * spread for spread in (5.0, 0.1, 2.0)]).softmax(1)

    def step(tokens, state, rows):
        return StepOutput(table[rows].log(), (), None)

    def run(rows, top_p):
        config = SearchConfig(beam=1, sample=True, nbest=40, top_p=top_p)
        found = sample(
            lambda tokens, state, owners: step(tokens, state, torch.tensor(rows)[owners]),
            (),
            config,
            max_lengths=[2] * len(rows),
            indices=rows,
        )
        return [[one.tokens for one in several] for several in found]

    for top_p in (0.3, 0.9):
        short = run([0, 1, 2], top_p)
        assert [run([row], top_p)[0] for row in range(3)] == short
        with monkeypatch.context() as patch:
            patch.setattr("s2s.search.sampling._NUCLEUS", 900)
            assert run([0, 1, 2], top_p) == short
        for row, outputs in enumerate(short):
            allowed = table[row].clone()
            allowed[[0, 1, 2]] = 0
            order = allowed.argsort(descending=True)
            shares = (allowed[order] / allowed.sum()).cumsum(0)
            nucleus = set(order[: int((shares < top_p).sum()) + 1].tolist())
            assert {token for ids in outputs for token in ids} <= nucleus


@pytest.mark.parametrize("temperature", [1e-4, 1e-300])
def test_a_cold_temperature_is_greedy(temperature):
    for seed in range(5):
        model = ToyModel(sources=4, vocabulary=12, seed=seed)
        config = SearchConfig(beam=1, sample=True, temperature=temperature)
        found = sample(model.step, model.start(), config, max_lengths=[8] * 4)
        assert [one.tokens for (one,) in found] == [greedy_ids(model, source, 8) for source in range(4)]


@pytest.mark.parametrize("options", [{}, {"top_k": 4}, {"top_p": 0.8, "temperature": 1.3}])
def test_draws_depend_on_seed_and_index_alone(options):
    model = ToyModel(sources=4, vocabulary=15, seed=3, sharpness=1.0, eos_bias=-1.0)
    config = SearchConfig(beam=1, sample=True, nbest=2, length_penalty=0.0, **options)

    def run(sources, config=config, shift=0):
        part = model.only(*sources)
        limits = [[20, 9, 17, 30][source] for source in sources]
        indices = [source + shift for source in sources]
        return sample(part.step, part.start(), config, max_lengths=limits, indices=indices)

    together = run([0, 1, 2, 3])
    for order in ([3, 1, 0, 2], [2], [1, 3]):
        for place, found in zip(order, run(order), strict=True):
            assert same(found, together[place])
    assert all(same(a, b) for a, b in zip(run([0, 1, 2, 3]), together, strict=True))
    other = SearchConfig(beam=1, sample=True, nbest=2, length_penalty=0.0, seed=2, **options)
    assert any(not same(a, b) for a, b in zip(run([0, 1, 2, 3], other), together, strict=True))
    assert any(not same(a, b) for a, b in zip(run([0, 1, 2, 3], shift=7), together, strict=True))


def test_samples_of_one_source_differ_and_scores_are_the_models():
    model = ToyModel(sources=2, vocabulary=15, seed=3, sharpness=1.0)
    config = SearchConfig(beam=1, sample=True, nbest=6, temperature=1.5)
    found = sample(model.step, model.start(), config, max_lengths=[10, 10], source_lengths=[2, 4])
    for source, several in enumerate(found):
        assert len(several) == 6
        assert len({one.tokens for one in several}) > 1
        forced = force(
            model.step,
            model.start(),
            [one.tokens for one in several],
            config,
            rows=[source] * 6,
            source_lengths=[[2, 4][source]] * 6,
        )
        assert same(several, forced)
        assert all(torch.allclose(a.weights, b.weights, atol=1e-6) for a, b in zip(several, forced, strict=True))


def test_more_samples_begin_with_the_same_ones():
    model = ToyModel(sources=1, vocabulary=15, seed=3, sharpness=1.0)
    few, many = (
        sample(model.step, model.start(), SearchConfig(beam=1, sample=True, nbest=nbest), max_lengths=[10])[0]
        for nbest in (2, 5)
    )
    assert {one.tokens for one in few} <= {one.tokens for one in many}


def test_a_longer_draw_begins_with_a_shorter_one():
    longest = _draws(1, 5, 0, 300)
    for length in (1, 7, 15, 16, 17, 64, 200):
        assert torch.equal(_draws(1, 5, 0, length), longest[:length])


def test_sampling_keeps_prefixes_and_bans_and_refuses_phrases():
    model = ToyModel(sources=2, vocabulary=9, seed=1, sharpness=1.0)
    config = SearchConfig(beam=1, sample=True, nbest=5, no_repeat_ngram=2)
    wanted = [Constraints(prefix=(8, 8)), Constraints(banned=((5,),))]
    found = sample(model.step, model.start(), config, max_lengths=[12, 12], constraints=wanted)
    assert all(one.tokens[:2] == (8, 8) for one in found[0])
    assert all(5 not in one.tokens for one in found[1])
    with pytest.raises(ConfigError, match="can't be sampled"):
        sample(model.step, model.start(), config, max_lengths=[9, 9], constraints=[None, Constraints((), (((4,),),))])
