import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from search_toys import TableModel, ToyModel, enumerate_outputs, ngrams, same, uniform

from s2s.search import Constraints, SearchConfig, beam_search, force, sample
from s2s.search.constraints import contains
from s2s.search.lexical import Candidate, Phrases, Progress, allocate
from s2s.types import EOS, UNK, StepOutput


def run(model, config, constraints, limit=8, decode=beam_search):
    return decode(model.step, model.start(), config, max_lengths=[limit] * model.sources, constraints=constraints)


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("beam", [1, 4])
def test_no_ngram_occurs_twice(order, beam):
    repeated = 0
    for seed in range(6):
        model = ToyModel(sources=4, vocabulary=9, seed=seed, sharpness=6.0, eos_bias=-4.0)
        free = run(model, SearchConfig(beam=beam), None, 12)
        repeated += sum(len(set(ngrams(one[0].tokens, order))) < len(ngrams(one[0].tokens, order)) for one in free)
        for one in run(model, SearchConfig(beam=beam, no_repeat_ngram=order), None, 12):
            if "fallback" not in one[0].flags:
                grams = ngrams(one[0].tokens, order)
                assert len(set(grams)) == len(grams)
    assert repeated  # the model would repeat itself


def test_no_repeat_equals_enumeration():
    model = ToyModel(sources=1, vocabulary=7, seed=3, eos_bias=-1.0)
    config = SearchConfig(beam=200, nbest=10, no_repeat_ngram=2)
    expected = enumerate_outputs(model, 0, 5, config, allow=lambda ids: len(set(ngrams(ids, 2))) == len(ngrams(ids, 2)))
    assert [one.tokens for one in run(model, config, None, 5)[0]] == [ids for ids, _ in expected[:10]]


def test_prefixes_are_forced_and_scored():
    model = ToyModel(sources=3, vocabulary=9, seed=2, eos_bias=-1.0)
    wanted = [Constraints(prefix=(8, 7, 7)), None, Constraints(prefix=(5,))]
    for config in (SearchConfig(nbest=3), SearchConfig(beam=1), SearchConfig(beam=4, no_repeat_ngram=1)):
        found = run(model, config, wanted)
        for one in found[0]:
            assert one.tokens[:3] == (8, 7, 7)
            assert not {"constraint_unmet", "fallback"} & one.flags
        assert found[2][0].tokens[0] == 5
        free = run(model, config, None)
        assert same(found[1], free[1])  # a neighbour's prefix changes nothing
        forced = force(model.step, model.start(), [several[0].tokens for several in found], config)
        for several, other in zip(found, forced, strict=True):
            assert several[0].score == pytest.approx(other.score, abs=1e-5)


def test_banned_phrases_do_not_appear_and_match_enumeration():
    model = ToyModel(sources=2, vocabulary=6, seed=7, eos_bias=-0.5)
    banned = Constraints(banned=((4, 5), (5, 5, 5), (4, 4, 4, 4)))
    config = SearchConfig(beam=64, nbest=6)
    found = run(model, config, [banned, None], 5)
    expected = enumerate_outputs(model, 0, 5, config, allow=banned.met)
    assert [one.tokens for one in found[0]] == [ids for ids, _ in expected[:6]]
    assert same(found[1], run(model, config, None, 5)[1])
    single = run(model, config, [Constraints(banned=((4,),)), None], 5)
    assert all(4 not in one.tokens for one in single[0])
    assert any(4 in one.tokens for one in single[1])


@given(st.integers(0, 10**6), st.integers(1, 6), st.data())
@settings(max_examples=30, deadline=None)
def test_phrases_appear(seed, beam, data):
    model = ToyModel(sources=3, vocabulary=12, seed=seed)
    token = st.integers(4, 11)
    ids = st.lists(token, min_size=1, max_size=3).map(tuple)
    phrase = st.lists(ids, min_size=1, max_size=2).map(tuple)
    wanted = [
        Constraints(phrases=tuple(data.draw(st.lists(phrase, min_size=1, max_size=3)))),
        None,
        Constraints(phrases=(data.draw(phrase),), banned=((4, 4),)),
    ]
    config = SearchConfig(beam=beam)
    found = run(model, config, wanted, 20)
    for constraints, several in zip(wanted, found, strict=True):
        one = several[0]
        if constraints and not constraints.problems(20, 12):
            assert constraints.met(one.tokens) or "constraint_unmet" in one.flags
            if not constraints.banned:
                assert constraints.met(one.tokens)
                assert "constraint_unmet" not in one.flags
    assert same(found[1], run(model, config, None, 20)[1])
    alone = run(model.only(2), config, [wanted[2]], 20)[0]
    assert same(alone, found[2])


def test_phrase_search_with_a_wide_beam_matches_enumeration():
    for seed in range(5):
        model = ToyModel(sources=1, vocabulary=6, seed=seed, eos_bias=-0.5, sharpness=1.0)
        wanted = Constraints(phrases=(((4, 5), (5, 5)), ((4,),)))
        config = SearchConfig(beam=64, nbest=4)
        found = run(model, config, [wanted], 5)[0]
        expected = enumerate_outputs(model, 0, 5, config, allow=wanted.met)
        assert [one.tokens for one in found] == [ids for ids, _ in expected[:4]]
        assert [one.score for one in found] == pytest.approx([score for _, score in expected[:4]], abs=1e-4)


def test_a_phrase_is_placed_where_the_model_likes_it():
    # 4 -> 5 -> 6 -> EOS is near certain, and 7 is likeliest after 6: not at the start, though it could stand there.
    table = torch.full((8, 8), 1e-4)
    for last, token in ((2, 4), (4, 5), (5, 6), (6, EOS), (7, EOS)):
        table[last, token] = 0.97
    table[6, 7] = 0.02
    one = run(TableModel(table), SearchConfig(beam=4), [Constraints(phrases=(((7,),),))])[0][0]
    assert one.tokens == (4, 5, 6, 7, EOS)


def test_progress_of_phrases():
    phrases = Phrases([[(5, 5, 6)], [(7,), (8, 9)]])
    progress = Progress()
    assert phrases.next_tokens(progress) == {5, 7, 8}
    for token, bank in ((5, 1), (5, 2), (5, 2), (4, 0), (8, 1), (9, 2), (5, 3), (5, 4), (6, 5)):
        progress = phrases.advance(progress, token)
        assert phrases.bank(progress) == bank
    assert phrases.complete(progress)
    assert phrases.next_tokens(progress) == set()


def test_slots_go_to_every_bank_the_fullest_first():
    phrases = Phrases([[(4,)], [(5,)]])
    states = [Progress(), Progress(frozenset({0})), Progress(frozenset({0, 1}))]
    candidates = [Candidate(slot, 9, 0.0, -bank - slot / 10, states[bank]) for bank in range(3) for slot in range(4)]
    for slots, counts in ((1, [0, 0, 1]), (2, [0, 1, 1]), (5, [1, 2, 2]), (12, [4, 4, 4])):
        chosen = allocate(phrases, candidates, slots)
        assert [sum(one.progress == state for one in chosen) for state in states] == counts
    few = [one for one in candidates if one.progress != states[2]] + candidates[-1:]
    assert len(allocate(phrases, few, 7)) == 7  # what one bank can't fill goes to the others


def test_constraints_that_cannot_be_met_are_named():
    assert Constraints((4, 5), (((6, 7), (8,)),), ((9,),)).problems(5, 10) == []
    cases = [
        (Constraints(prefix=(4, 5, 6)), "prefix has 3 tokens, but the output only 3"),
        (Constraints(phrases=(((4, 5, 6), (4, 5, 7)),)), "phrase 1 has 3 tokens"),
        (Constraints(phrases=(((4,),), ((UNK,),))), "phrase 2 has a token that is no ordinary token"),
        (Constraints(phrases=(((99,),),)), "phrase 1 has a token that is no ordinary token"),
        (Constraints(prefix=(4, EOS)), "prefix has a token that is no ordinary token"),
        (Constraints(phrases=((),)), "phrase 1 is empty"),
        (Constraints(phrases=(((),),)), "phrase 1 is empty"),
        (Constraints(phrases=(((4, 5),),), banned=((5,),)), "phrase 1 contains a banned phrase"),
        (Constraints(prefix=(4,), banned=((4,),)), "prefix contains a banned phrase"),
        (Constraints(banned=((99,),)), "banned phrase is empty or"),
        (Constraints(banned=((),)), "banned phrase is empty or"),
    ]
    for constraints, message in cases:
        (problem,) = constraints.problems(3, 10)
        assert message in problem
        # In a batch that source alone is flagged, and is searched without its constraints.
        model = ToyModel(sources=2, vocabulary=10, seed=1)
        for decode, config in ((beam_search, SearchConfig()), (sample, SearchConfig(beam=1, sample=True))):
            if decode is sample and constraints.phrases:
                continue
            free = run(model, config, None, 3, decode)
            found = run(model, config, [constraints, None], 3, decode)
            assert found[0][0].tokens == free[0][0].tokens
            assert found[0][0].flags == free[0][0].flags | {"constraint_unmet"}
            assert same(found[1], free[1])


def test_an_alternative_outside_the_vocabulary_is_left_out():
    one = run(ToyModel(sources=1, vocabulary=9), SearchConfig(), [Constraints(phrases=(((99,), (8, 8)),))])[0][0]
    assert contains(one.tokens, (8, 8))
    assert "constraint_unmet" not in one.flags


def test_phrases_that_do_not_fit_together_are_best_effort():
    wanted = Constraints(phrases=(((4, 5),), ((6, 7),), ((8, 4),)))
    assert wanted.problems(4, 9) == []
    found = run(ToyModel(sources=1, vocabulary=9), SearchConfig(nbest=3), [wanted], 4)[0]
    assert found
    assert all({"constraint_unmet", "unfinished"} <= one.flags for one in found)


def test_where_all_candidates_are_ruled_out_the_blocks_are_lifted():
    # Two ordinary tokens and no EOS: bigrams run out after five tokens.
    model = TableModel(uniform(6), sources=1)
    for config, decode in (
        (SearchConfig(beam=1, no_repeat_ngram=2), beam_search),
        (SearchConfig(beam=4, nbest=4, no_repeat_ngram=2), beam_search),
        (SearchConfig(beam=1, nbest=3, sample=True, no_repeat_ngram=2), sample),
    ):
        for one in run(model, config, None, 12, decode)[0]:
            assert one.flags == {"unfinished", "fallback"}
            assert len(one.tokens) == 12
            assert one.log_prob == pytest.approx(12 * -0.6931472, abs=1e-4)
    ban_all = Constraints(banned=((4,), (5,)))
    model = TableModel(uniform(6), sources=1)
    (one,) = run(model, SearchConfig(beam=2), [ban_all], 3)[0]
    assert one.flags == {"unfinished", "fallback", "constraint_unmet"}
    with_end = TableModel(uniform(6, eos=0.2))
    (one,) = run(with_end, SearchConfig(beam=2), [ban_all], 3)[0]
    assert (one.tokens, one.flags) == ((EOS,), frozenset())


def test_a_source_with_an_output_needs_no_fallback():
    table = torch.full((6, 6), 0.0)
    table[2, EOS], table[2, 4], table[4, 5], table[5, 5] = 0.3, 0.7, 1.0, 1.0
    found = run(TableModel(table), SearchConfig(beam=2, nbest=2), [Constraints(banned=((4, 5),))], 6)[0]
    assert [(one.tokens, one.flags) for one in found] == [((EOS,), frozenset())]


def test_fallback_stays_with_its_source():
    model = ToyModel(sources=3, vocabulary=6, seed=2)
    wanted = [None, Constraints(banned=((4,), (5,))), None]
    config = SearchConfig(beam=3, nbest=2, min_length=3)
    found = run(model, config, wanted)
    assert all("fallback" in one.flags for one in found[1])
    free = run(model, config, None)
    assert same(found[0], free[0])
    assert same(found[2], free[2])


def test_blocks_do_not_change_the_models_log_probabilities():
    table = uniform(6, eos=0.2).log()

    def step(tokens, state, rows):
        output = torch.index_select(table, 0, tokens)
        seen.append((output, output.clone()))
        return StepOutput(output, (), None)

    seen = []
    config = SearchConfig(beam=3, min_length=3, no_repeat_ngram=2)
    beam_search(step, (), config, max_lengths=[6], constraints=[Constraints(prefix=(4,), banned=((5, 5),))])
    assert seen
    assert all(torch.equal(left, right) for left, right in seen)
