import math

import pytest
import torch
from search_toys import TableModel, ToyModel, same, uniform

from s2s.errors import UsageError
from s2s.search import SearchConfig, beam_search, ensemble, force
from s2s.types import EOS, StepOutput


def test_force_by_hand():
    table = torch.full((6, 6), 1e-6)
    table[2, 4], table[4, 5], table[5, EOS] = 0.5, 0.25, 0.125
    one, cut, empty = force(
        TableModel(table).step, (), [(4, 5, EOS), (4,), ()], SearchConfig(length_penalty=1.0), rows=[0, 0, 0]
    )
    assert one.token_log_probs == pytest.approx([math.log(0.5), math.log(0.25), math.log(0.125)])
    assert one.log_prob == pytest.approx(math.log(1 / 64))
    assert one.score == pytest.approx(math.log(1 / 64) / (8 / 6))
    assert (one.flags, cut.flags, empty.flags) == (frozenset(), {"unfinished"}, {"unfinished"})
    assert cut.log_prob == pytest.approx(math.log(0.5))
    assert empty.tokens == ()


def test_force_is_independent_of_order_and_neighbours():
    model = ToyModel(sources=3, vocabulary=8, seed=1)
    targets = [(4, 5, 6, EOS), (7,), (5, 5, EOS), (4, EOS)]
    rows = [2, 0, 1, 2]
    together = force(model.step, model.start(), targets, rows=rows, source_lengths=[4, 2, 3, 4])
    for index, target in enumerate(targets):
        (alone,) = force(model.only(rows[index]).step, model.only(rows[index]).start(), [target])
        assert same([alone], [together[index]])
        assert together[index].weights.shape == (len(target), [4, 2, 3, 4][index])
    backwards = force(model.step, model.start(), targets[::-1], rows=rows[::-1], source_lengths=[4, 3, 2, 4])
    assert same(backwards[::-1], together)


def test_force_refuses_ids_outside_the_vocabulary():
    for token in (6, -1):
        with pytest.raises(UsageError, match="outside the vocabulary"):
            force(TableModel(uniform(6, eos=0.1)).step, (), [(4, token)])
    assert force(TableModel(uniform(6)).step, (), []) == []


def test_an_ensemble_of_identical_models_is_the_model():
    model = ToyModel(sources=3, vocabulary=9, seed=6)
    config = SearchConfig(beam=4, nbest=4, coverage_penalty=0.2)
    limits = [8, 5, 8]
    alone = beam_search(model.step, model.start(), config, max_lengths=limits)
    twins = ensemble([model.step] * 3)
    found = beam_search(twins, (model.start(),) * 3, config, max_lengths=limits)
    for several, others in zip(alone, found, strict=True):
        assert same(several, others)
        assert torch.allclose(several[0].weights, others[0].weights, atol=1e-6)


def test_an_ensemble_averages_probabilities_and_weights():
    models = [ToyModel(sources=2, vocabulary=7, seed=seed) for seed in range(3)]
    state = tuple(model.start() for model in models)
    tokens, rows = torch.tensor([2, 2]), torch.tensor([0, 1])
    joint = ensemble([model.step for model in models])(tokens, state, rows)
    outputs = [model.step(tokens, model.start(), rows) for model in models]
    mean = torch.stack([output.log_probs.exp() for output in outputs]).mean(0)
    assert torch.allclose(joint.log_probs.exp(), mean, atol=1e-6)
    assert torch.allclose(joint.weights, torch.stack([output.weights for output in outputs]).mean(0))
    assert len(joint.state) == 3


def test_members_without_weights_are_left_out_of_the_mean():
    some, none = ToyModel(seed=1), ToyModel(seed=2, weights=False)
    tokens, rows = torch.tensor([2, 2, 2]), torch.arange(3)
    output = ensemble([some.step, none.step])(tokens, (some.start(), none.start()), rows)
    assert torch.allclose(output.weights, some.step(tokens, some.start(), rows).weights)
    assert ensemble([none.step])(tokens, (none.start(),), rows).weights is None
    wide = ToyModel(seed=3, positions=9)
    assert ensemble([some.step, wide.step])(tokens, (some.start(), wide.start()), rows).weights is None


def test_an_ensemble_keeps_impossible_tokens_impossible():
    def step(tokens, state, rows):
        return StepOutput(torch.tensor([[-math.inf, -math.inf, -math.inf, 0.0]]).expand(len(tokens), 4), (), None)

    output = ensemble([step, step])(torch.tensor([2]), ((), ()), torch.tensor([0]))
    assert output.log_probs.tolist() == [[-math.inf, -math.inf, -math.inf, 0.0]]


def test_an_ensemble_that_cannot_be():
    with pytest.raises(UsageError, match="at least one"):
        ensemble([])
    models = [ToyModel(sources=1, vocabulary=size) for size in (7, 8)]
    joint = ensemble([model.step for model in models])
    one = torch.tensor([2])
    with pytest.raises(UsageError, match="different vocabularies"):
        joint(one, tuple(model.start() for model in models), one * 0)
    with pytest.raises(UsageError, match="tuple of its members"):
        joint(one, (models[0].start(),), one * 0)
