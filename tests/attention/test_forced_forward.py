"""Forced-forward attention, and the same constraints on any trained attention."""

import copy

import pytest
import torch
from attention_toys import REFERENCES, attend, drawn, made
from references_monotonic import forward_rows

from s2s.attention import build, names
from s2s.attention.align import SoftAlignment
from s2s.attention.base import ScoredAttention
from s2s.attention.constraint import ForwardConstraint, constrain
from s2s.attention.forced_forward import Pointer
from s2s.attention.normalise import Normaliser
from s2s.errors import ConfigError, UsageError
from s2s.types import Encoded

MODES = ["soft", "threshold", "strict", "window"]
DIAGONAL = 20 * torch.eye(4, dtype=torch.float64).expand(1, 1, 4, 4)


def restrained(mode, *, threshold=0.5, back=1, ahead=2, exhausted="last", normaliser="softmax"):
    inner = SoftAlignment(Normaliser(normaliser))
    return ForwardConstraint(inner, mode, threshold=threshold, back=back, ahead=ahead, exhausted=exhausted)


def aligned(align, energies, mask=None, state=None):
    """Weights of energies (B, H, T, S) from the start."""
    mask = torch.ones(energies.size(0), energies.size(3), dtype=torch.bool) if mask is None else mask
    state = align.initial_state(mask, energies.size(1)) if state is None else state
    return align(energies, mask, state, torch.zeros(energies.size(0), energies.size(2), 1))


def energies_of(*shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def close(a, b, atol=1e-12):
    torch.testing.assert_close(a, b, atol=atol, rtol=atol)


# --- strict: the pointer


def test_no_word_is_used_twice_in_expectation_and_mass_is_kept_until_words_run_out():
    weights = aligned(Pointer("zero"), energies_of(3, 2, 9, 6)).weights
    assert (weights.sum(2) <= 1 + 1e-12).all()
    assert (weights.sum(-1).diff(dim=2) <= 1e-12).all()  # only what is exhausted is lost
    kept = aligned(Pointer("last"), energies_of(3, 2, 9, 6)).weights
    close(kept.sum(-1), torch.ones(3, 2, 9, dtype=torch.float64))
    close(kept[..., :-1], weights[..., :-1])
    assert not weights[:, :, 6:].any()  # after S steps every way has ended
    close(kept[:, :, 6:, -1], torch.ones(3, 2, 3, dtype=torch.float64))
    assert not weights[:, :, 2, :2].any()  # the third step can't be before the third word


def test_it_is_the_mean_over_sampled_pointers():
    energies = energies_of(1, 1, 3, 4)
    expected = aligned(Pointer("zero"), energies).weights[0, 0]
    generator, draws = torch.Generator().manual_seed(0), 20_000
    counts = torch.zeros(3, 4, dtype=torch.float64)
    place = torch.full((draws,), -1)
    for t in range(3):
        behind = torch.arange(4) > place.unsqueeze(1)
        alive = behind.any(1)
        odds = energies[0, 0, t].exp() * behind + ~alive.unsqueeze(1)
        place = torch.where(alive, torch.multinomial(odds, 1, generator=generator).squeeze(1), 4)
        counts[t] += torch.bincount(place, minlength=5)[:4]
    error = (expected * (1 - expected) / draws).sqrt() + 1e-9
    assert ((counts / draws - expected).abs() < 4 * error).all()


def test_decoding_takes_the_likeliest_word_behind_the_last_one():
    case = ("forced_forward", 4, 4, {"heads": 2})
    module = made(case, dtype=torch.float64).eval()
    query, encoded = drawn(case, batch=3, steps=9, length=7, lengths=[7, 4, 1], dtype=torch.float64)
    encoded.mask[0, 2] = False
    for exhausted in ("last", "zero"):
        module.align.exhausted = exhausted
        context, weights = attend(module, query, encoded)
        expected, expected_weights = REFERENCES["forced_forward"](module, query, encoded)
        close(weights, expected_weights)
        close(context, expected)
    assert (weights.sum(1) <= 1 + 1e-12).all()
    assert not weights[:, 7:].any()
    assert not weights[2, 1:].any()


def test_great_energies_in_training_are_the_pointer_of_decoding():
    energies = 1e3 * energies_of(3, 2, 8, 6, dtype=torch.float32)
    for exhausted in ("last", "zero"):
        align = Pointer(exhausted)
        expected = aligned(align.train(), energies).weights
        close(aligned(align.eval(), energies).weights, expected, 1e-5)


@pytest.mark.parametrize("training", [True, False])
def test_strict_copies_a_diagonal_and_can_t_go_back(training):
    align = Pointer("zero").train(training)
    close(aligned(align, DIAGONAL).weights[0, 0], torch.eye(4, dtype=torch.float64), 1e-7)
    backwards = aligned(align, DIAGONAL.flip(3)).weights[0, 0]
    close(backwards[0], torch.eye(4, dtype=torch.float64)[3], 1e-7)
    assert backwards[1:].sum() < 1e-7  # the last word is used up: nothing is left


def test_strict_on_a_long_source_is_finite_and_exact():
    energies = energies_of(1, 1, 3, 2000, dtype=torch.float32).requires_grad_()
    with torch.autograd.set_detect_anomaly(True):
        weights = aligned(Pointer("last"), energies).weights
        gradient = torch.autograd.grad((weights * torch.arange(2000)).sum(), energies)[0]
    assert gradient.isfinite().all()
    exact = energies[0, 0].detach().double()
    pointer = torch.zeros(2001, dtype=torch.float64)
    pointer[0] = 1.0
    for t in range(3):
        powers = exact[t].exp()
        left = powers.flip(0).cumsum(0).flip(0)
        moved = powers * (pointer[:2000] / left).cumsum(0)
        found = moved.clone()
        found[-1] += pointer[2000]
        torch.testing.assert_close(weights[0, 0, t].double(), found, atol=1e-9, rtol=2e-4)
        pointer = torch.cat([torch.zeros(1, dtype=torch.float64), found])


def test_a_state_of_a_shorter_source_goes_on():
    align, energies = Pointer("last").eval(), energies_of(1, 2, 2, 5)
    energies[..., 3:] -= 20  # the first step stays within what is known
    mask = torch.ones(1, 5, dtype=torch.bool)
    first = align(energies[:, :, :1, :3], mask[:, :3], align.initial_state(mask[:, :3], 2), energies)
    second = aligned(align, energies[:, :, 1:], state=first.state)
    close(second.weights, aligned(align, energies).weights[:, :, 1:])


# --- soft and threshold


def test_soft_starts_as_a_softmax_and_then_spares_what_was_used():
    energies = energies_of(2, 2, 3, 5)
    weights = aligned(restrained("soft"), energies).weights
    close(weights[:, :, 0], energies[:, :, 0].softmax(-1))
    second = energies[:, :, 1].exp() * (1 - weights[:, :, 0])
    close(weights[:, :, 1], second / second.sum(-1, keepdim=True))
    close(weights.sum(-1), torch.ones(2, 2, 3, dtype=torch.float64))


def test_soft_is_differentiable_through_what_was_used():
    energies = energies_of(1, 1, 2, 4).requires_grad_()
    gradient = torch.autograd.grad(aligned(restrained("soft"), energies).weights[0, 0, 1, 0], energies)[0]
    assert gradient[0, 0, 0].abs().sum() > 0.01  # the first step's energies matter to the second step


@pytest.mark.parametrize("mode", ["soft", "threshold"])
def test_words_may_come_in_any_order_if_none_comes_twice(mode):
    energies = DIAGONAL.flip(3)
    close(aligned(restrained(mode), energies).weights[0, 0], torch.eye(4, dtype=torch.float64).flip(1), 1e-3)


@pytest.mark.parametrize("threshold", [0.5, 1.0])
def test_a_used_word_is_out_of_reach(threshold):
    energies = 1e5 * energies_of(1, 2, 4, 4)  # the same word would win again and again
    energies = energies[:, :, :1].expand(1, 2, 4, 4)
    weights = aligned(restrained("threshold", threshold=threshold), energies).weights
    assert torch.equal(weights.sum(2), torch.ones(1, 2, 4, dtype=torch.float64))


def test_the_threshold_says_what_is_used_up():
    energies = torch.zeros(1, 1, 3, 2)  # a half each, then one each: all is used up
    for threshold, expected in (
        (0.4, [[0.5, 0.5], [1.0, 0.0], [1.0, 0.0]]),
        (0.6, [[0.5, 0.5], [0.5, 0.5], [1.0, 0.0]]),
    ):
        assert aligned(restrained("threshold", threshold=threshold), energies).weights[0, 0].tolist() == expected
    zero = aligned(restrained("threshold", threshold=0.4, exhausted="zero"), energies).weights[0, 0]
    assert zero.tolist() == [[0.5, 0.5], [0.0, 0.0], [0.0, 0.0]]


# --- the constraints, whatever they are put on


@pytest.mark.parametrize("normaliser", ["softmax", "sparsemax", "sigmoid"])
@pytest.mark.parametrize("exhausted", ["last", "zero"])
@pytest.mark.parametrize("mode", MODES)
def test_constraints_are_their_definition(mode, exhausted, normaliser):
    align = restrained(mode, threshold=0.3, exhausted=exhausted, normaliser=normaliser)
    mask = torch.arange(6) < torch.tensor([6, 3]).unsqueeze(1)
    mask[0, 0] = False
    energies = 2 * energies_of(2, 2, 8, 6)
    weights = aligned(align, energies, mask).weights
    for b in range(2):
        for h in range(2):
            rows = [{j: e[j] for j in range(6) if mask[b, j]} for e in energies[b, h]]
            for t, row in enumerate(forward_rows(align, rows, 6, None)):
                close(
                    weights[b, h, t], torch.stack([torch.as_tensor(row.get(j, 0.0)).double() for j in range(6)]), 1e-9
                )


def test_a_window_moves_with_the_weights():
    weights = aligned(restrained("window", back=0, ahead=2), DIAGONAL).weights[0, 0]
    close(weights, torch.eye(4, dtype=torch.float64), 1e-7)
    stuck = aligned(restrained("window", back=0, ahead=1), DIAGONAL).weights[0, 0]
    close(stuck[:, 0], torch.ones(4, dtype=torch.float64))
    far = DIAGONAL.flip(3)
    assert not aligned(restrained("window", back=0, ahead=2), far).weights[0, 0, 0, 2:].any()
    assert aligned(restrained("window", back=3, ahead=9), far).weights[0, 0].argmax(-1).tolist() == [3, 2, 1, 0]


@pytest.mark.parametrize("mode", MODES)
def test_a_constraint_goes_on_when_the_source_grows(mode):
    align, energies = restrained(mode), energies_of(1, 2, 2, 5)
    mask = torch.ones(1, 5, dtype=torch.bool)
    first = align(energies[:, :, :1, :3], mask[:, :3], align.initial_state(mask[:, :3], 2), energies)
    second = aligned(align, energies[:, :, 1:], state=first.state)
    assert second.weights.sum() > 1.9
    assert second.state[1].shape == (1, 2, 5)


CONSTRAINABLE = [
    "additive",
    "scaled_dot",
    "location",
    "multihead",
    "key_value",
    "key_value_predict",
    "local_p",
]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", CONSTRAINABLE)
def test_any_scored_attention_can_be_constrained_and_keeps_its_promises(name, mode):
    case = (name, 4, 4, {})
    module = made(case).eval()
    query, encoded = drawn(case, batch=2, steps=6, length=7, lengths=[7, 5])
    before = attend(module, query, encoded)
    forced = constrain(module, mode, back=1, ahead=2)
    context, weights = attend(forced, query, encoded)
    for chunks in ([1] * 6, [2, 4]):
        parts = attend(forced, query, encoded, chunks=chunks)
        close(parts[0], context, 1e-5)
        close(parts[1], weights, 1e-5)
    assert not torch.allclose(weights, before[1], atol=1e-3)
    alone = Encoded(*(part[1:] for part in encoded[:3]))
    close(attend(forced, query[1:], alone)[1][0], weights[1], 1e-6)
    after = attend(module, query, encoded)  # the one it was made from doesn't change
    assert torch.equal(after[0], before[0])
    assert torch.equal(after[1], before[1])
    own = {id(parameter) for parameter in module.parameters()}
    assert {id(parameter) for parameter in forced.parameters()} == own
    if name == "additive" and mode == "strict":
        assert (weights[:, :3].argmax(-1).diff(dim=1) > 0).all()


@pytest.mark.parametrize("name", sorted(set(names()) - set(CONSTRAINABLE)))
def test_what_can_t_be_constrained_is_refused_with_the_reason(name):
    module = build(name, query_size=4, memory_size=4).eval()
    scored = isinstance(module, ScoredAttention)
    if (
        scored
        and type(module).attend is ScoredAttention.attend
        and module.align.initial_state(torch.ones(1, 1) > 0, 1) == ()
    ):
        assert constrain(module, "strict") is not module
        return
    with pytest.raises(UsageError, match="goes by its own past" if scored else "no energies"):
        constrain(module, "strict")


def test_it_can_t_be_constrained_twice_and_a_model_needs_an_attention():
    with pytest.raises(UsageError, match="goes by its own past"):
        constrain(constrain(build("additive", query_size=4, memory_size=4), "soft"), "strict")
    with pytest.raises(UsageError, match="no attention"):
        constrain(torch.nn.Linear(2, 2), "strict")


def test_every_attention_of_a_model_is_constrained_in_a_copy():
    layers = torch.nn.ModuleList(build("multihead", query_size=4, memory_size=4) for _ in range(2))
    model = torch.nn.Sequential(torch.nn.Linear(4, 4), layers).eval()
    origin = copy.copy(model._modules)
    forced = constrain(model, "strict", exhausted="zero")
    assert model._modules == origin
    assert forced[0] is model[0]
    for one, other in zip(forced[1], model[1], strict=True):
        assert isinstance(one.align, ForwardConstraint)
        assert isinstance(other.align, SoftAlignment)
        assert not one.sums_to_one
        assert not one.align.training


# --- options


@pytest.mark.parametrize(
    "options",
    [
        {"mode": "hard"},
        {"exhausted": "none"},
        {"threshold": 0.0, "mode": "threshold"},
        {"threshold": 1.5, "mode": "threshold"},
        {"threshold": 0.7},
        {"exhausted": "zero", "mode": "soft"},
        {"normaliser": "sparsemax"},
        {"temperature": 2.0},
    ],
    ids=str,
)
def test_options_out_of_range_or_without_a_meaning_are_refused(options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        build("forced_forward", query_size=4, memory_size=4, **options)


def test_sums_to_one_follows_what_an_exhausted_source_gives():
    for options, expected in (
        ({}, True),
        ({"exhausted": "zero"}, False),
        ({"mode": "soft"}, True),
        ({"mode": "threshold"}, True),
        ({"mode": "threshold", "exhausted": "zero"}, False),
    ):
        assert build("forced_forward", query_size=4, memory_size=4, **options).sums_to_one == expected
