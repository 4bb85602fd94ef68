"""Hard attention: what is drawn, what its estimators of the gradient are worth, and what decoding does."""

import math

import pytest
import torch
from attention_toys import attend, drawn, made

from s2s.attention import build
from s2s.attention.hard import OnePosition
from s2s.attention.normalise import Normaliser
from s2s.errors import ConfigError
from s2s.types import Encoded

CASE = ("hard", 4, 4, {"soft_share": 0.0})
DRAWS = 20_000


def soft_twin(module, **options):
    """Soft attention with the same parameters."""
    twin = build("additive", query_size=4, memory_size=4, **options)
    twin.load_state_dict({k: v for k, v in module.state_dict().items() if k != "baseline"})
    return twin


def repeated(query, encoded, times):
    return query.expand(times, -1, -1), Encoded(*(part.expand(times, *part.shape[1:]) for part in encoded[:3]))


def step(module, query, encoded):
    memory = module.remember(encoded)
    return module(query, memory, module.initial_state(memory))


def toy():
    """One step over three words, and how probable the target token is for a context."""
    query, encoded = drawn(CASE, batch=1, steps=1, length=3, dtype=torch.float64)
    readout = torch.tensor([1.5, -2.0, 0.7, 1.0], dtype=torch.float64)
    return query, encoded, lambda context: torch.nn.functional.logsigmoid(context @ readout)


def sampled_gradients(module, baseline, policy=True):
    """The gradients of DRAWS samples of the toy's loss in the query and the states, (DRAWS, 16)."""
    query, encoded, log_prob = toy()
    torch.manual_seed(2)
    query, encoded = repeated(query, encoded, DRAWS)
    query, states = query.clone().requires_grad_(), encoded.states.clone().requires_grad_()
    output = step(module.train(), query, encoded._replace(states=states))
    found = log_prob(output.context[:, 0])
    loss = -found.sum()
    if policy:
        module.baseline.fill_(baseline)
        loss = loss + module.loss({key: value[:, 0] for key, value in output.aux.items()}, found.detach())
    gradients = torch.autograd.grad(loss, [query, states], allow_unused=True, materialize_grads=True)
    return torch.cat([part.flatten(1) for part in gradients], 1)


def exact_gradient(module):
    """The gradient of the expected loss: a sum over the three words."""
    query, encoded, log_prob = toy()
    query.requires_grad_()
    states = encoded.states.requires_grad_()
    weights = attend(soft_twin(module).double(), query, encoded)[1][0, 0]
    loss = -(weights * log_prob(states[0])).sum()
    return torch.cat([part.flatten() for part in torch.autograd.grad(loss, [query, states])])


def off(gradients, exact):
    """By how many standard errors the mean is off, at worst."""
    error = gradients.std(0) / math.sqrt(len(gradients))
    return ((gradients.mean(0) - exact).abs() / error.clamp_min(1e-12)).max()


def test_reinforce_is_unbiased_with_and_without_a_baseline_which_lowers_the_variance():
    module = made(CASE, dtype=torch.float64)
    exact = exact_gradient(module)
    plain = sampled_gradients(module, 0.0)
    module_mean = module.baseline.item() / 0.1  # the baseline was zero and moved by a tenth
    based = sampled_gradients(module, module_mean)
    assert off(plain, exact) < 3
    assert off(based, exact) < 3
    # in the query, which gets nothing but the policy term
    assert based[:, :4].var(0).sum() < 0.5 * plain[:, :4].var(0).sum()
    # the sample itself carries no gradient to the energies
    assert off(sampled_gradients(module, 0.0, policy=False), exact) > 10


def test_the_reward_is_a_weight_of_the_policy_term():
    once = sampled_gradients(made(CASE, dtype=torch.float64), 0.3)
    none = sampled_gradients(made(("hard", 4, 4, {"soft_share": 0.0, "reward": 0.0}), dtype=torch.float64), 0.3)
    twice = sampled_gradients(made(("hard", 4, 4, {"soft_share": 0.0, "reward": 2.0}), dtype=torch.float64), 0.3)
    torch.testing.assert_close(twice - none, 2 * (once - none))


@pytest.mark.parametrize("noise", [1.0, 0.5])
def test_words_are_drawn_as_often_as_their_weights_say(noise):
    module = made(("hard", 4, 4, {"soft_share": 0.0, "noise": noise})).train()
    query, encoded = drawn(CASE, batch=1, steps=1, length=5, lengths=[4])
    soft = attend(soft_twin(module), query, encoded)[1][0, 0].pow(1 / noise)
    soft = soft / soft.sum()
    torch.manual_seed(0)
    output = step(module, *repeated(query, encoded, DRAWS))
    weights = output.weights[:, 0]
    assert ((weights == 0) | (weights == 1)).all()
    assert (weights.sum(-1) == 1).all()
    error = (soft * (1 - soft) / DRAWS).sqrt()
    assert ((weights.mean(0) - soft).abs() <= 3.5 * error + 1e-9).all()
    values = torch.einsum("ns,sd->nd", weights, encoded.states[0])
    torch.testing.assert_close(output.context[:, 0], values)


def test_padding_is_never_drawn_though_its_energy_be_the_highest():
    align = OnePosition(Normaliser(), "reinforce", noise=1.0, soft_share=0.0, tau=1.0).train()
    energies = torch.zeros(1000, 2, 3, 4)
    energies[..., 2:] = 1e4
    mask = torch.tensor([True, True, False, False]).expand(1000, 4).clone()
    mask[0] = False
    weights, _, aux = align(energies, mask, (), torch.zeros(1000, 3, 1))
    assert not weights[..., 2:].any()
    assert not weights[0].any()
    assert (weights[1:].sum(-1) == 1).all()
    assert weights[1:, :, :, 0].mean().sub(0.5).abs() < 0.05
    # heads, steps and rows draw by themselves
    assert (weights[:, 0] != weights[:, 1]).any()
    assert aux["log_prob"].shape == aux["entropy"].shape == (1000, 3, 2)
    torch.testing.assert_close(aux["log_prob"][1:], torch.full((999, 3, 2), math.log(0.5)))
    torch.testing.assert_close(aux["entropy"][1:], torch.full((999, 3, 2), math.log(2)))
    assert not aux["log_prob"][0].any()
    assert not aux["entropy"][0].any()


@pytest.mark.parametrize("normaliser", ["softmax", "sparsemax"])
def test_the_log_probability_is_that_of_the_word_that_was_drawn(normaliser):
    module = made(("hard", 4, 4, {"soft_share": 0.0, "normaliser": normaliser})).train()
    query, encoded = drawn(CASE, steps=50, length=6, lengths=[4, 6])
    output = step(module, query, encoded)
    soft = attend(soft_twin(module, normaliser=normaliser), query, encoded)[1]
    taken = (output.weights * soft).sum(-1)
    assert (taken > 0).all()
    torch.testing.assert_close(output.aux["log_prob"][..., 0], taken.log())
    torch.testing.assert_close(output.aux["entropy"][..., 0], torch.special.entr(soft).sum(-1))


def test_a_row_keeps_its_soft_weights_with_probability_soft_share_in_all_its_steps():
    module = made(("hard", 4, 4, {"soft_share": 0.25})).train()
    query, encoded = drawn(CASE, batch=1, steps=4, length=5)
    soft = attend(soft_twin(module), query, encoded)[1]
    query, encoded = repeated(query, encoded, 2000)
    torch.manual_seed(0)
    memory = module.remember(encoded)
    state = module.initial_state(memory)
    first = module(query[:, :1], memory, state)
    rest = module(query[:, 1:], memory, first.state)
    weights = torch.cat([first.weights, rest.weights], 1)
    kept = (weights != 0).all(-1)
    assert torch.equal(kept.any(1), kept.all(1))
    assert kept[:, 0].float().mean().sub(0.25).abs() < 3 * math.sqrt(0.25 * 0.75 / 2000)
    torch.testing.assert_close(weights[kept[:, 0]], soft.expand(int(kept[:, 0].sum()), -1, -1))
    # it has no part in the policy term
    log_prob = torch.cat([first.aux["log_prob"], rest.aux["log_prob"]], 1)[..., 0]
    assert not log_prob[kept].any()
    assert (log_prob[~kept] < 0).all()


def test_the_baseline_is_a_moving_average_that_is_saved_and_survives_a_bad_step():
    module = made(CASE).train()
    taken = torch.full((2, 1), -1.5, requires_grad=True)
    aux = {"log_prob": taken, "entropy": torch.ones(2, 1)}
    added = module.loss(aux, torch.tensor([-1.0, -3.0]))
    assert added == 0
    torch.testing.assert_close(torch.autograd.grad(added, taken)[0], torch.tensor([[1.0], [3.0]]))
    torch.testing.assert_close(module.baseline, torch.tensor(-0.2))
    added = module.loss(aux, torch.tensor([-4.0, -4.0]))
    torch.testing.assert_close(torch.autograd.grad(added, taken)[0], torch.full((2, 1), 4.0 - 0.2))
    torch.testing.assert_close(module.baseline, torch.tensor(0.9 * -0.2 + 0.1 * -4.0))
    before = module.baseline.clone()
    module.loss(aux, torch.tensor([float("nan"), 0.0]))
    module.loss({key: value[:0] for key, value in aux.items()}, torch.zeros(0))
    assert torch.equal(module.baseline, before)
    assert torch.equal(module.state_dict()["baseline"], before)


def test_entropy_is_raised_in_proportion_to_its_weight():
    found = []
    for weight in (0.0, 0.5, 1.0):
        module = made(("hard", 4, 4, {"entropy": weight, "reward": 0.0, "soft_share": 0.0})).train()
        query, encoded = drawn(CASE)
        query.requires_grad_()
        output = step(module, query, encoded)
        loss = module.loss({k: v.flatten(0, 1) for k, v in output.aux.items()}, torch.zeros(6))
        found.append(torch.autograd.grad(loss, query)[0])
        if weight:
            torch.testing.assert_close(loss, -weight * output.aux["entropy"].sum())
    assert not found[0].any()
    assert found[2].any()
    torch.testing.assert_close(2 * found[1], found[2])


def test_straight_through_is_hard_forward_and_soft_backward():
    module = made(("hard", 4, 4, {"estimator": "straight_through", "soft_share": 0.0})).train()
    query, encoded = drawn(CASE, steps=9, length=5, lengths=[3, 5])
    query.requires_grad_()
    weights = attend(module, query, encoded)[1]
    soft = attend(soft_twin(module), query, encoded)[1]
    torch.testing.assert_close(weights.round(), weights)
    assert not torch.allclose(weights, soft)
    direction = torch.randn_like(soft)
    one, other = (torch.autograd.grad((w * direction).sum(), query)[0] for w in (weights, soft))
    torch.testing.assert_close(one, other)
    assert module.loss(step(module, query, encoded).aux, torch.zeros(2)) is None  # no policy term


def test_gumbel_weights_get_hard_as_tau_falls_and_are_hardest_at_words_drawn_as_often_as_soft_weights_say():
    query, encoded = drawn(CASE, batch=1, steps=1, length=4)
    sharpness = []
    for tau in (0.01, 1.0, 10.0):
        options = {"estimator": "gumbel", "soft_share": 0.0, "tau": tau}
        module = made(("hard", 4, 4, options)).train()
        torch.manual_seed(0)
        output = step(module, *repeated(query, encoded, DRAWS))
        soft = attend(soft_twin(module), query, encoded)[1][0, 0]
        best = torch.nn.functional.one_hot(output.weights[:, 0].argmax(-1), 4).float().mean(0)
        assert ((best - soft).abs() <= 3.5 * (soft * (1 - soft) / DRAWS).sqrt()).all()
        sharpness.append(output.weights.amax(-1).mean().item())
        assert "log_prob" not in output.aux
    assert sharpness[0] > 0.97 > sharpness[1] > sharpness[2]


def test_decoding_takes_the_best_word_says_nothing_and_never_moves_the_baseline():
    module = made(("hard", 4, 4, {})).eval()
    query, encoded = drawn(CASE, steps=9, length=5, lengths=[3, 5])
    output = step(module, query, encoded)
    soft = attend(soft_twin(module), query, encoded)[1]
    assert torch.equal(output.weights.argmax(-1), soft.argmax(-1))
    assert (output.weights.sort(-1).values == torch.tensor([0.0, 0, 0, 0, 1])).all()
    assert torch.equal(output.context, step(module, query, encoded).context)
    assert output.aux == {}
    assert module.loss(output.aux, torch.zeros(4)) is None
    # soft attention that is cold enough does the same
    torch.testing.assert_close(attend(soft_twin(module, temperature=1e-4), query, encoded)[1], output.weights)


@pytest.mark.parametrize("training", [True, False])
def test_with_one_word_hard_is_soft(training):
    module = made(("hard", 4, 4, {})).train(training)
    query, encoded = drawn(CASE, steps=9, length=1)
    torch.testing.assert_close(attend(module, query, encoded), attend(soft_twin(module), query, encoded))


def test_the_defaults_draw_in_training_without_a_nan_on_the_way():
    module = made(("hard", 4, 4, {"heads": 2, "entropy": 0.1})).train()
    query, encoded = drawn(CASE, batch=3, steps=5, lengths=[0, 2, 4])
    states = encoded.states.requires_grad_()
    with torch.autograd.set_detect_anomaly(True):
        output = step(module, query, encoded)
        added = module.loss({k: v.flatten(0, 1) for k, v in output.aux.items()}, -torch.rand(15))
        (output.context.sum() + added).backward()
    assert not states.grad[0].any()
    assert states.grad[1:].any()
    assert all(parameter.grad.isfinite().all() for parameter in module.parameters())


@pytest.mark.parametrize(
    ("option", "value"),
    [("noise", 1.5), ("noise", -0.1), ("soft_share", 2.0), ("tau", 0.0), ("reward", -1.0), ("entropy", -0.5)],
)
def test_values_out_of_range_are_refused(option, value):
    with pytest.raises(ConfigError, match=rf"attention\.{option}.*found {value}"):
        build("hard", query_size=4, memory_size=4, **{option: value})


def test_an_unknown_estimator_is_refused():
    with pytest.raises(ConfigError, match=r"estimator.*reinforce.*found .?magic"):
        build("hard", query_size=4, memory_size=4, estimator="magic")
