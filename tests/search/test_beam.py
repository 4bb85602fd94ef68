import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from search_toys import TableModel, ToyModel, enumerate_outputs, greedy_ids, is_sorted, same, uniform

from s2s.errors import ConfigError, RunError
from s2s.search import SearchConfig, beam_search, force, search
from s2s.search.loop import ranked
from s2s.search.penalty import coverage_penalty, length_penalty
from s2s.types import BOS, EOS, PAD, UNK, StepOutput


def run(model, config, limit=5, **options):
    limits = [limit] * model.sources if isinstance(limit, int) else limit
    return beam_search(model.step, model.start(), config, max_lengths=limits, **options)


def test_length_penalty_is_that_of_the_paper():
    assert length_penalty(1, 0.7) == 1.0
    assert length_penalty(7, 1.0) == 2.0
    assert length_penalty(19, 0.5) == 2.0
    assert length_penalty(50, 0.0) == 1.0


def test_coverage_penalty_is_that_of_the_paper():
    coverage = torch.tensor([[0.5, 2.0, 0.25, 0.0]])
    mask = torch.tensor([[True, True, True, False]])
    assert coverage_penalty(coverage, 0.2, mask).item() == pytest.approx(0.2 * math.log(0.5 * 0.25))
    assert math.isfinite(coverage_penalty(coverage, 0.2).item())  # a word never looked at


@pytest.mark.parametrize("alpha", [0.0, 0.6, 1.0, 2.5, -1.0])
@pytest.mark.parametrize("beta", [0.0, 0.4])
@pytest.mark.parametrize("early", [True, False])
def test_a_wide_beam_finds_what_enumeration_finds(alpha, beta, early):
    for seed in range(2):
        model = ToyModel(sources=2, seed=seed, sharpness=1.0)
        config = SearchConfig(
            beam=64, nbest=8, length_penalty=alpha, coverage_penalty=beta, early_finish=early, max_length=5
        )
        lengths = [3, 4]
        found = run(model, config, source_lengths=lengths)
        for source, length in enumerate(lengths):
            expected = enumerate_outputs(model, source, 5, config, length)[:8]
            assert [one.tokens for one in found[source]] == [ids for ids, _ in expected]
            assert [one.score for one in found[source]] == pytest.approx([score for _, score in expected], abs=1e-4)


@pytest.mark.parametrize("alpha", [0.0, 0.6, 1.5, -0.5])
@pytest.mark.parametrize("beta", [0.0, 0.5])
def test_early_finish_and_nbest_never_change_the_output(alpha, beta):
    saved = 0
    for seed in range(6):
        model = ToyModel(sources=3, vocabulary=9, seed=seed)
        config = SearchConfig(beam=5, nbest=5, length_penalty=alpha, coverage_penalty=beta, early_finish=False)
        full = run(model, config, limit=12)
        work = sum(model.rows_run)
        for nbest in (1, 2, 3, 5):
            model.rows_run.clear()
            early = run(model, replace(config, nbest=nbest, early_finish=True), limit=12)
            for whole, some in zip(full, early, strict=True):
                assert same(whole[:nbest], some)
            saved += sum(model.rows_run) < work
    assert saved  # early finish does something


def test_nbest_is_sorted_and_distinct():
    for hypotheses in run(ToyModel(vocabulary=8, seed=5), SearchConfig(beam=6, nbest=6), limit=10):
        finished = [one.score for one in hypotheses if not one.flags]
        assert is_sorted(finished)
        assert len({one.tokens for one in hypotheses}) == 6
        assert not any("unfinished" in one.flags for one in hypotheses[: len(finished)])


@given(st.integers(0, 10**6), st.integers(4, 9), st.integers(1, 6), st.permutations(range(4)), st.floats(-1, 2))
@settings(max_examples=25, deadline=None)
def test_output_is_independent_of_batch_order_and_neighbours(seed, vocabulary, beam, order, alpha):
    vocabulary = max(vocabulary, 5)
    model = ToyModel(sources=4, vocabulary=vocabulary, seed=seed)
    config = SearchConfig(beam=beam, nbest=beam, length_penalty=alpha, max_length=20)
    limits = [9, 4, 7, 1]
    together = run(model, config, limits)
    shuffled = run(model.only(*order), config, [limits[source] for source in order])
    alone = [run(model.only(source), config, [limits[source]])[0] for source in range(4)]
    for place, source in enumerate(order):
        assert same(shuffled[place], together[source])
        assert same(alone[source], together[source])
        assert torch.equal(alone[source][0].weights, together[source][0].weights)


def test_one_beam_is_the_argmax_loop():
    for seed in range(20):
        model = ToyModel(sources=4, vocabulary=12, seed=seed)
        for alpha in (0.0, 1.0):
            found = run(model, SearchConfig(beam=1, length_penalty=alpha), limit=10)
            assert [one[0].tokens for one in found] == [greedy_ids(model, source, 10) for source in range(4)]


def test_scores_are_those_of_forced_decoding():
    for config in (SearchConfig(nbest=5), SearchConfig(nbest=5, length_penalty=-0.3, coverage_penalty=0.3)):
        model = ToyModel(sources=3, vocabulary=9, seed=11)
        lengths = [4, 2, 3]
        found = run(model, config, limit=7, source_lengths=lengths)
        flat = [(source, one) for source, several in enumerate(found) for one in several]
        forced = force(
            model.step,
            model.start(),
            [one.tokens for _, one in flat],
            config,
            rows=[source for source, _ in flat],
            source_lengths=[lengths[source] for source, _ in flat],
        )
        for (source, one), other in zip(flat, forced, strict=True):
            assert same([one], [other])
            assert one.log_prob == pytest.approx(other.log_prob, abs=1e-5)
            assert one.token_log_probs == pytest.approx(other.token_log_probs, abs=1e-5)
            assert one.log_prob == pytest.approx(sum(one.token_log_probs))
            assert one.weights.shape == (len(one.tokens), lengths[source])
            assert torch.allclose(one.weights, other.weights, atol=1e-6)


def test_pad_bos_and_unk_are_never_generated():
    table = uniform(6, eos=0.01)
    table[:, [PAD, UNK, BOS]] = 0.6
    for sample in (False, True):
        config = SearchConfig(beam=1 if sample else 3, nbest=3, sample=sample)
        for one in search(TableModel(table).step, (), config, [3])[0]:
            assert not {PAD, UNK, BOS} & set(one.tokens)
    allowed = run(TableModel(table), SearchConfig(allow_unk=True, beam=1))[0][0]
    assert allowed.tokens == (UNK,) * 5


def test_a_model_that_never_ends_stops_at_the_limit():
    for config in (SearchConfig(nbest=2), SearchConfig(beam=1), SearchConfig(early_finish=False)):
        hypotheses = run(TableModel(uniform(7)), config, limit=6)[0]
        assert len(hypotheses) == config.nbest
        for one in hypotheses:
            assert len(one.tokens) == 6
            assert one.flags == {"unfinished"}
            assert one.log_prob == pytest.approx(6 * math.log(1 / 3), abs=1e-5)


def test_a_finished_output_comes_before_likelier_ones_that_were_cut_off():
    first, second = run(TableModel(uniform(5, eos=1e-4)), SearchConfig(beam=2, nbest=2), limit=3)[0]
    assert (first.tokens, first.flags) == ((EOS,), frozenset())
    assert (second.tokens, second.flags) == ((4, 4, 4), {"unfinished"})
    assert first.score < second.score


def test_each_source_has_its_own_limit():
    model = ToyModel(sources=3, seed=1, eos_bias=-50.0)
    found = run(model, SearchConfig(beam=2), [1, 5, 3])
    assert [len(one[0].tokens) for one in found] == [1, 5, 3]


def test_finished_hypotheses_leave_the_batch():
    model = ToyModel(sources=3, seed=1, eos_bias=-50.0)
    run(model, SearchConfig(beam=2), [1, 5, 3])
    assert model.rows_run == [3, 4, 4, 2, 2]
    model = ToyModel(sources=2, seed=1, eos_bias=50.0)
    run(model, SearchConfig(beam=1), 5)
    assert model.rows_run == [2]


def test_a_beam_wider_than_the_vocabulary():
    model = ToyModel(sources=2, vocabulary=6, seed=2)
    wide = run(model, SearchConfig(beam=50, nbest=50), limit=4)
    # 1 + 2 + 4 + 8 finished outputs of at most 4 tokens from 2 ordinary ones, and 2 ** 4 cut off.
    assert [len(one) for one in wide] == [31, 31]
    assert sum("unfinished" in one.flags for one in wide[0]) == 16


def test_equal_scores_are_ordered_by_the_lower_id():
    table = uniform(12, eos=1 / 9)
    for beam in (1, 2, 3):
        first = run(TableModel(table), SearchConfig(beam=beam, nbest=beam, length_penalty=0.0), limit=1)[0]
        assert [one.tokens[0] for one in first] == [EOS, 4, 5][:beam]
    big = run(TableModel(uniform(3000)), SearchConfig(beam=4, nbest=4), limit=2)[0]
    assert [one.tokens for one in big] == [(4, 4), (4, 5), (4, 6), (4, 7)]


@pytest.mark.parametrize("size", [3, 9, 700, 3001])
def test_candidates_are_ranked_by_value_then_id(size):
    for seed in range(2):
        draw = torch.Generator().manual_seed(seed)
        log_probs = torch.randn(6, size, generator=draw)
        log_probs[1:3] = (log_probs[1:3] * 4).round()  # many equal values
        log_probs[3] = log_probs[3].clamp(max=1.0)  # equal at the top
        log_probs[4, :-2] = -math.inf
        before = log_probs.clone()
        for width in (1, 5, size):
            values, ids = ranked(log_probs, width, None)
            for row in range(6):
                listed = log_probs[row].tolist()
                expected = sorted(range(size), key=lambda token: (-listed[token], token))[:width]
                finite = [token for token in expected if listed[token] > -math.inf]
                assert ids[row, : len(finite)].tolist() == finite
                assert torch.equal(values[row], log_probs[row, expected])
        assert torch.equal(log_probs, before)


def test_an_empty_batch():
    assert beam_search(TableModel(uniform(6)).step, (), SearchConfig(), max_lengths=[]) == []


def test_nan_is_refused_and_a_dead_end_is_an_output():
    def broken(tokens, state, rows):
        return StepOutput(torch.full((len(tokens), 30), math.nan), (), None)

    for config in (SearchConfig(), SearchConfig(beam=1, sample=True), SearchConfig(no_repeat_ngram=2)):
        with pytest.raises(RunError, match="NaN"):
            search(broken, (), config, [4])

    def dead(tokens, state, rows):
        return StepOutput(torch.full((len(tokens), 30), -math.inf), (), None)

    for config in (SearchConfig(), SearchConfig(beam=1, sample=True), SearchConfig(no_repeat_ngram=2)):
        (one,) = search(dead, (), config, [4])[0]
        assert one.tokens == ()
        assert "unfinished" in one.flags
        assert one.log_prob == 0.0


def test_coverage_needs_weights():
    model = ToyModel(weights=False)
    with pytest.raises(ConfigError, match="no attention weights"):
        run(model, SearchConfig(coverage_penalty=0.1))
    with pytest.raises(ConfigError, match="no attention weights"):
        force(model.step, model.start(), [(EOS,)] * 3, SearchConfig(coverage_penalty=0.1))
    assert run(model, SearchConfig())[0][0].weights is None


def test_min_length_counts_the_end_token():
    model = ToyModel(sources=3, seed=4, eos_bias=3.0)
    assert min(len(one[0].tokens) for one in run(model, SearchConfig(), limit=8)) < 5
    for one in run(model, SearchConfig(min_length=5), limit=8):
        assert len(one[0].tokens) >= 5
        assert one[0].flags == frozenset()
    config = SearchConfig(beam=64, nbest=6, min_length=3)
    expected = enumerate_outputs(model, 0, 5, config, allow=lambda ids: len(ids) >= 3)
    assert [one.tokens for one in run(model, config)[0]] == [ids for ids, _ in expected[:6]]


def test_search_uses_the_limits_of_the_configuration():
    model = ToyModel(sources=3, seed=1, eos_bias=-50.0)
    config = SearchConfig(beam=1, max_ratio=1.5, max_extra=1, max_length=6)
    found = search(model.step, model.start(), config, [1, 3, 4])
    assert [len(one[0].tokens) for one in found] == [2, 5, 6]
    assert [one[0].weights.shape[1] for one in found] == [1, 3, 4]
    with pytest.raises(ConfigError, match=r"search\.beam=0"):
        search(model.step, model.start(), SearchConfig(beam=0), [1, 1, 1])
