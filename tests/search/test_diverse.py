"""Diverse beam search against a naive one, and what makes it diverse."""

import math
from itertools import combinations

import pytest
import torch
from search_toys import ToyModel, same

from s2s.errors import ConfigError
from s2s.search import Constraints, SearchConfig, beam_search, diverse_beam_search, force, search
from s2s.types import BOS, EOS, PAD, UNK


def run(model, config, limit=6, **options):
    return diverse_beam_search(model.step, model.start(), config, max_lengths=[limit] * model.sources, **options)


def settings(beam, groups, diversity, **options):
    return SearchConfig(beam=beam, beam_groups=groups, diversity=diversity, length_penalty=0.0, **options)


def next_log_probs(model, source, ids):
    """Of what follows `ids`, by stepping through all of it: a list of numbers."""
    state, rows = model.only(source).start(), torch.zeros(1, dtype=torch.int64)
    for token in (BOS, *ids):
        output = model.only(source).step(torch.tensor([token]), state, rows)
        state = output.state
    return output.log_probs[0].tolist()


def naive(model, source, config, limit):
    """All outputs of every beam, one list a beam, straight from section 4 of the paper."""
    width = config.beam // config.beam_groups
    live = [[((), 0.0)] for _ in range(config.beam_groups)]
    done = [[] for _ in live]
    for _ in range(limit):
        taken = [0] * model.vocabulary
        for beam, hypotheses in enumerate(live):
            candidates = []
            for ids, total in hypotheses:
                for token, value in enumerate(next_log_probs(model, source, ids)):
                    if token not in (PAD, BOS, UNK):
                        steered = total + value - config.diversity * taken[token]
                        candidates.append((steered, (*ids, token), total + value))
            chosen = sorted(candidates, reverse=True)[: width - len(done[beam])]
            for _, ids, _ in chosen:
                taken[ids[-1]] += 1
            done[beam] += [(ids, total) for _, ids, total in chosen if ids[-1] == EOS]
            live[beam] = [(ids, total) for _, ids, total in chosen if ids[-1] != EOS]
    return done


@pytest.mark.parametrize(("beam", "groups"), [(2, 2), (6, 2), (6, 3), (8, 4)])
@pytest.mark.parametrize("diversity", [0.3, 2.0])
def test_it_finds_what_the_naive_search_finds(beam, groups, diversity):
    for seed in range(3):
        model = ToyModel(sources=2, vocabulary=8, seed=seed, sharpness=1.0, eos_bias=1.0)
        config = settings(beam, groups, diversity, nbest=beam)
        for source, outputs in enumerate(run(model, config)):
            found = {(one.tokens, round(one.log_prob, 3)) for one in outputs if one.tokens[-1] == EOS}
            expected = {(ids, round(total, 3)) for part in naive(model, source, config, 6) for ids, total in part}
            assert found == expected


def test_without_strength_every_beam_is_a_plain_one_and_the_first_always_is():
    model = ToyModel(sources=3, vocabulary=9, seed=3, eos_bias=1.0)
    plain = beam_search(
        model.step, model.start(), SearchConfig(beam=2, nbest=2, length_penalty=0.0), max_lengths=[6] * 3
    )
    for one, outputs in zip(plain, run(model, settings(6, 3, 1e-9, nbest=6)), strict=True):
        assert [hypothesis.tokens for hypothesis in outputs] == [one[0].tokens] * 3 + [one[1].tokens] * 3
    for one, outputs in zip(plain, run(model, settings(6, 3, 5.0, nbest=6)), strict=True):
        assert {hypothesis.tokens for hypothesis in one} <= {hypothesis.tokens for hypothesis in outputs}


def test_strong_diversity_shares_no_token_at_a_position():
    model = ToyModel(sources=4, vocabulary=12, seed=1, eos_bias=-2.0)
    for outputs in run(model, settings(4, 4, 50.0, nbest=4)):
        assert len(outputs) == 4
        for one, other in combinations(outputs, 2):
            assert all(a != b for a, b in zip(one.tokens, other.tokens, strict=False))


def test_scores_are_the_models_own_and_the_best_comes_first():
    model = ToyModel(sources=3, vocabulary=9, seed=5)
    config = SearchConfig(beam=6, nbest=6, beam_groups=3, diversity=1.5, length_penalty=0.6)
    outputs = run(model, config, source_lengths=[2, 3, 4])
    for source, several in enumerate(outputs):
        ids = [one.tokens for one in several]
        forced = force(model.step, model.start(), ids, config, rows=[source] * len(ids))
        assert [one.score for one in several] == pytest.approx([one.score for one in forced], abs=1e-5)
        best = [one.score for one in several[:3] if "unfinished" not in one.flags]
        assert best == sorted(best, reverse=True)
        assert all(one.weights.shape == (len(one.tokens), source + 2) for one in several)
    for wide, narrow in zip(outputs, run(model, config.__class__(**{**vars(config), "nbest": 1})), strict=True):
        assert wide[0].tokens == narrow[0].tokens


def test_neighbours_and_order_change_nothing():
    model = ToyModel(sources=5, vocabulary=9, seed=2, eos_bias=0.5)
    config = settings(4, 2, 0.8, nbest=4)
    together = run(model, config)
    for source in (4, 0, 2):
        (alone,) = run(model.only(source), config)
        assert same(alone, together[source])


def test_prefixes_and_blocks_hold_in_every_beam():
    model = ToyModel(sources=1, vocabulary=9, seed=4)
    constraints = [Constraints(prefix=(5, 6), banned=((7,),))]
    (outputs,) = run(model, settings(6, 3, 2.0, nbest=6), constraints=constraints)
    assert all(one.tokens[:2] == (5, 6) and 7 not in one.tokens for one in outputs)
    with pytest.raises(ConfigError, match="beam_groups=1"):
        run(model, settings(6, 3, 2.0), constraints=[Constraints(phrases=(((5,),),))])


def test_the_one_call_and_what_is_refused():
    model = ToyModel(sources=2, vocabulary=9, seed=6)
    config = settings(4, 2, 1.0, nbest=2, max_ratio=1.0, max_extra=2)
    found = search(model.step, model.start(), config, [4, 4])
    for one, other in zip(found, run(model, config, source_lengths=[4, 4]), strict=True):
        assert same(one, other)
    for wrong, message in (
        (settings(5, 2, 1.0), "must divide search.beam=5"),
        (settings(4, 2, 0.0), "must be above 0 with several beams"),
        (settings(4, 1, 1.0), "0 with one"),
        (settings(4, 2, math.nan), "search.diversity"),
        (settings(4, 0, 1.0), "search.beam_groups"),
    ):
        with pytest.raises(ConfigError, match=message):
            wrong.check()
