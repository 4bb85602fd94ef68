"""Forward and stepwise attention and Gaussian mixtures: how mass moves along the source."""

import math

import pytest
import torch
from attention_toys import REFERENCES, attend, drawn, made

from s2s.attention import build
from s2s.attention.normalise import Normaliser
from s2s.attention.transition import Forward, Stepwise
from s2s.errors import ConfigError
from s2s.types import Encoded

WIDE = ("", 4, 4, {})


def even(name, **options):
    """A mechanism whose energies are all zero."""
    module = made((name, 4, 4, options)).train()
    module.score.vector.data.zero_()
    return module


@pytest.mark.parametrize("steps", [1, 6])
def test_forward_with_even_scores_is_binomial(steps):
    query, encoded = drawn(WIDE, steps=steps, length=9)
    _, weights = attend(even("forward"), query, encoded)
    for i in range(steps):
        wanted = torch.tensor([math.comb(i + 1, j) / 2 ** (i + 1) for j in range(9)])
        torch.testing.assert_close(weights[:, i], wanted.expand(2, -1))


@pytest.mark.parametrize("jump", [1, 2, 4])
def test_forward_reaches_max_jump_positions_a_step_and_no_more(jump):
    query, encoded = drawn(WIDE, steps=4, length=12)
    _, weights = attend(made(("forward", 4, 4, {"max_jump": jump})), query, encoded)
    for i in range(4):
        reach = min(12, jump * (i + 1) + 1)
        assert (weights[:, i, :reach] > 0).all()
        assert not weights[:, i, reach:].any()


def test_forward_is_the_same_in_training_and_in_use():
    query, encoded = drawn(WIDE, lengths=[3, 4])
    module = made(("forward", 4, 4, {"transition_agent": True}))
    torch.testing.assert_close(attend(module.train(), query, encoded), attend(module.eval(), query, encoded))


def agent(bias, **options):
    """Even scores and a transition agent with a constant probability of moving, sigmoid(bias)."""
    module = even("forward", transition_agent=True, **options)
    module.agent.weight.data.zero_()
    module.agent.bias.data.fill_(bias)
    return module


def test_u_is_the_probability_of_moving():
    query, encoded = drawn(WIDE, steps=4, length=8)
    for bias, place in ((40.0, [0, 1, 2, 3]), (-40.0, [0, 0, 0, 0])):
        _, weights = attend(agent(bias), query, encoded)
        torch.testing.assert_close(weights[:, 0, :2], torch.full((2, 2), 0.5))  # u = 1/2 at first
        for i, j in enumerate(place):
            torch.testing.assert_close(weights[:, i, j : j + 2], torch.full((2, 2), 0.5))
    # nothing is lost where u is 1 as exactly as a number can be and the end is reached
    query, encoded = drawn(WIDE, steps=6, length=3)
    _, weights = attend(agent(1e4), query, encoded)
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 6))
    assert weights[:, -1, -1].min() > 0.99


@pytest.mark.parametrize("jump", [1, 3])
def test_an_agent_that_moves_half_the_time_is_plain_forward_attention(jump):
    query, encoded = drawn(WIDE, steps=5, lengths=[3, 4])
    with_agent = made(("forward", 4, 4, {"transition_agent": True, "max_jump": jump}))
    plain = made(("forward", 4, 4, {"max_jump": jump}))
    plain.load_state_dict({k: v for k, v in with_agent.state_dict().items() if not k.startswith("agent")})
    assert not torch.allclose(attend(with_agent, query, encoded)[1], attend(plain, query, encoded)[1])
    with_agent.agent.weight.data.zero_()
    with_agent.agent.bias.data.zero_()
    torch.testing.assert_close(attend(with_agent, query, encoded), attend(plain, query, encoded))


@pytest.mark.parametrize("bias", [-1.5, 0.3, 2.0])
def test_even_forward_with_constant_u_is_stepwise_that_stays_with_one_minus_u(bias):
    query, encoded = drawn(WIDE, steps=4, length=9)  # the end, where stepwise stays, is out of reach
    walk = even("stepwise", noise=0.0, score="additive")
    walk.align.bias.data.fill_(-bias)
    module = agent(bias)
    memory = module.remember(encoded)
    logs, _ = module.initial_state(memory)
    state = (logs, torch.full((2, 1), bias))  # from the first step on
    weights = module(query, memory, state).weights
    torch.testing.assert_close(weights, attend(walk, query, encoded)[1])


@pytest.mark.parametrize("name", ["softmax", "sigmoid", "sparsemax", "entmax15"])
@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_forward_over_a_long_source_equals_the_plain_recursion(name, scale):
    length, steps = 2000, 60
    energies = scale * torch.randn(1, 1, steps, length, generator=torch.Generator().manual_seed(0))
    energies[..., :100] += 3.0  # so that sparse normalisers leave something where the alignment is
    energies = energies.requires_grad_()
    mask = torch.ones(1, length, dtype=torch.bool)
    align = Forward(Normaliser(name), 2)
    weights, state, _ = align(energies, mask, align.initial_state(mask, 1), torch.zeros(1, steps, 1))
    exact = Normaliser(name)(energies.detach().double(), mask[:, None, None])[0, 0]
    row = torch.zeros(length, dtype=torch.float64)
    row[0] = 1.0
    for i in range(steps):
        padded = torch.nn.functional.pad(row, (2, 0))
        product = (padded[2:] + padded[1:-1] + padded[:-2]) * exact[i]
        row = product / product.sum() if product.any() else row
        torch.testing.assert_close(weights[0, 0, i].double(), row, atol=2e-5, rtol=1e-3)
    (gradient,) = torch.autograd.grad((weights * torch.randn_like(weights)).sum(), energies)
    assert gradient.isfinite().all()
    assert state.isfinite().all()


def test_forward_keeps_what_has_become_too_small_for_a_number():
    energies = torch.zeros(1, 1, 40, 50)
    energies[0, 0, :30, 0] = 100.0  # thirty steps speak for the first position, by e^100 each
    energies[0, 0, 30:, 30] = 1e4
    mask = torch.ones(1, 50, dtype=torch.bool)
    align = Forward(Normaliser(), 1)
    weights, _, _ = align(energies, mask, align.initial_state(mask, 1), torch.zeros(1, 40, 1))
    assert weights[0, 0, 29, 0] == 1.0
    assert weights[0, 0, 30, 30] == 1.0


def test_forward_stays_where_a_sparse_normaliser_leaves_nothing():
    energies = torch.zeros(1, 1, 3, 6)
    energies[0, 0, 1, 5] = 50.0  # all of y, and out of reach
    mask = torch.ones(1, 6, dtype=torch.bool)
    align = Forward(Normaliser("sparsemax"), 1)
    weights, _, _ = align(energies, mask, align.initial_state(mask, 1), torch.zeros(1, 3, 1))
    assert torch.equal(weights[0, 0, 0], weights[0, 0, 1])
    assert not torch.equal(weights[0, 0, 1], weights[0, 0, 2])


def test_stepwise_conserves_mass_and_reaches_one_position_more_each_step():
    query, encoded = drawn(WIDE, steps=9, length=6, lengths=[4, 6])
    _, weights = attend(made(("stepwise", 4, 4, {})).train(), query, encoded)
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 9))
    for i in range(4):
        assert (weights[1, i, : i + 2] > 0).all()
        assert not weights[1, i, i + 2 :].any()


def test_stepwise_in_use_stays_or_moves_by_one_as_the_hard_rule_says():
    case = ("stepwise", 4, 4, {"heads": 2})
    module = made(case, dtype=torch.float64).eval()
    query, encoded = drawn(case, batch=6, steps=9, length=6, lengths=[6, 6, 5, 4, 1, 6], dtype=torch.float64)
    context, weights = attend(module, query, encoded)
    naive_context, naive_weights = REFERENCES["stepwise"](module, query, encoded)
    torch.testing.assert_close(weights, naive_weights)
    torch.testing.assert_close(context, naive_context)
    single = made(("stepwise", 4, 4, {})).eval()
    _, weights = attend(single, query.float(), encoded._replace(states=encoded.states.float()))
    assert set(weights.unique().tolist()) == {0.0, 1.0}
    place = weights.argmax(-1)
    assert set((place[:, 1:] - place[:, :-1]).unique().tolist()) == {0, 1}
    assert set(place[:, 0].tolist()) <= {0, 1}


def test_stepwise_noise_is_for_training():
    query, encoded = drawn(WIDE)
    noisy, quiet = made(("stepwise", 4, 4, {})), made(("stepwise", 4, 4, {"noise": 0.0}))
    assert not torch.allclose(attend(noisy.train(), query, encoded)[1], attend(noisy, query, encoded)[1])
    torch.testing.assert_close(attend(quiet.train(), query, encoded)[1], attend(quiet, query, encoded)[1])
    torch.testing.assert_close(attend(noisy.eval(), query, encoded), attend(quiet.eval(), query, encoded))


def test_sharp_energies_make_stepwise_training_equal_to_its_hard_use():
    energies = 1e3 * torch.randn(3, 2, 20, 12, generator=torch.Generator().manual_seed(0))
    mask = torch.arange(12) < torch.tensor([[12], [7], [1]])
    align, query = Stepwise(2, noise=0.0, bias=0.0), torch.zeros(3, 20, 1)
    soft = align.train()(energies, mask, align.initial_state(mask, 2), query).weights
    hard = align.eval()(energies, mask, align.initial_state(mask, 2), query).weights
    torch.testing.assert_close(soft, hard)


@pytest.mark.parametrize("bias, place", [(30.0, 0), (-30.0, 3)])
def test_the_bias_says_where_stepwise_starts(bias, place):
    query, encoded = drawn(WIDE, steps=3)
    module = build("stepwise", query_size=4, memory_size=4, bias=bias, noise=0.0)
    _, weights = attend(module, query, encoded)
    torch.testing.assert_close(weights[:, 2, place], torch.ones(2))


@pytest.mark.parametrize("name", ["forward", "stepwise", "gmm"])
def test_positions_that_are_masked_are_stepped_over(name):
    module = made((name, 4, 4, {}), dtype=torch.float64).eval()
    query, encoded = drawn(WIDE, steps=6, length=7, dtype=torch.float64)
    kept = torch.tensor([1, 2, 5, 6])
    mask = torch.zeros(2, 7, dtype=torch.bool)
    mask[:, kept] = True
    context, weights = attend(module, query, encoded._replace(mask=mask))
    compact, dense = attend(module, query, Encoded(encoded.states[:, kept], encoded.final, mask[:, kept]))
    torch.testing.assert_close(weights[:, :, kept], dense)
    torch.testing.assert_close(context, compact)
    assert not weights[:, :, [0, 3, 4]].any()


VERSIONS = pytest.mark.parametrize("version", ["V0", "V1", "V2"])


@VERSIONS
def test_means_of_a_mixture_only_move_forward_and_see_no_content(version):
    module = made(("gmm", 4, 4, {"version": version})).eval()
    query, encoded = drawn(WIDE, steps=6, length=9)
    memory = module.remember(encoded)
    state = module.initial_state(memory)
    for part in query.split(1, 1):
        after = module(part, memory, state).state
        assert (after > state).all()
        state = after
    other = encoded._replace(states=encoded.states[:, torch.randperm(9)])
    assert torch.equal(attend(module, query, encoded)[1], attend(module, query, other)[1])
    assert not torch.allclose(attend(module, query, encoded)[0], attend(module, query, other)[0])


@VERSIONS
@pytest.mark.parametrize("delta, sigma", [(1.0, 1.0), (0.25, 4.0)])
def test_a_mixture_starts_with_the_step_and_the_width_that_are_asked_for(version, delta, sigma):
    module = build("gmm", query_size=4, memory_size=4, version=version, delta=delta, sigma=sigma, components=3)
    module.output.weight.data.zero_()
    _, step, width = module.mixture(torch.randn(2, 5, 4))
    torch.testing.assert_close(step, torch.full((2, 5, 3), delta))
    torch.testing.assert_close(width, torch.full((2, 5, 3), sigma))


def test_a_narrow_mixture_that_moves_by_one_reads_word_after_word():
    module = build("gmm", query_size=4, memory_size=4, sigma=0.2)
    module.output.weight.data.zero_()
    query, encoded = drawn(WIDE, steps=5, length=5)
    torch.testing.assert_close(attend(module, query, encoded)[1], torch.eye(5).expand(2, 5, 5), atol=1e-4, rtol=0)


@VERSIONS
def test_a_mixture_of_any_size_stays_finite_and_sums_to_at_most_one(version):
    module = made(("gmm", 4, 4, {"version": version}))
    query, encoded = drawn(WIDE, steps=50, length=300)
    query, states = (1e4 * query).requires_grad_(), encoded.states.requires_grad_()
    context, weights = attend(module, query, encoded._replace(states=states))
    assert (weights.sum(-1) <= 1 + 1e-5).all()
    for gradient in torch.autograd.grad(context.square().sum(), [query, states, *module.parameters()]):
        assert gradient.isfinite().all()


@VERSIONS
def test_a_mixture_over_a_long_source_equals_itself_in_double_precision(version):
    module = made(("gmm", 4, 4, {"version": version}), dtype=torch.float64)
    query, encoded = drawn(WIDE, batch=1, steps=1000, length=2000, dtype=torch.float64)
    _, exact = attend(module, query, encoded)
    _, weights = attend(module.float(), query.float(), encoded._replace(states=encoded.states.float()))
    torch.testing.assert_close(weights.double(), exact, atol=2e-3, rtol=0)


@pytest.mark.parametrize(
    "name, options",
    [
        ("forward", {"max_jump": 0}),
        ("forward", {"score": "location"}),
        ("stepwise", {"normaliser": "sparsemax"}),
        ("stepwise", {"temperature": 2.0}),
        ("stepwise", {"noise": -1.0}),
        ("stepwise", {"bias": math.inf}),
        ("gmm", {"version": "V3"}),
        ("gmm", {"components": 0}),
        ("gmm", {"delta": 0.0}),
        ("gmm", {"sigma": 0.0}),
        ("gmm", {"heads": 2}),
        ("gmm", {"dropout": 1.0}),
    ],
)
def test_options_out_of_range_are_refused_by_name(name, options):
    with pytest.raises(ConfigError) as caught:
        build(name, query_size=4, memory_size=4, **options)
    assert next(iter(options)) in str(caught.value)
