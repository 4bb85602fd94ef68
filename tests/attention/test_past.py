"""Mechanisms that remember what they attended: location-aware, coverage, dynamic convolution, temporal."""

import math

import pytest
import torch
from attention_toys import attend, drawn, made

from s2s.attention import build
from s2s.attention.align import begun, grown
from s2s.attention.normalise import Normaliser
from s2s.attention.past import windows
from s2s.attention.temporal import Temporal
from s2s.errors import ConfigError
from s2s.types import Encoded

SQUARE = ("", 4, 4, {})
REMEMBERING = ["forward", "stepwise", "location_aware", "coverage", "dca", "temporal"]


def plain(module, options=None):
    """Additive attention with the same score."""
    made_plain = made(("additive", 4, 4, options or {}))
    made_plain.load_state_dict({k: v for k, v in module.state_dict().items() if not k.startswith("past.")})
    return made_plain


@pytest.mark.parametrize(
    "name, options",
    [
        ("location_aware", {}),
        ("location_aware", {"past": "cumulative", "heads": 2, "normaliser": "sparsemax"}),
        ("coverage", {}),
        ("coverage", {"kind": "linguistic", "heads": 2}),
        ("coverage", {"kind": "neural", "heads": 2}),
    ],
)
def test_without_its_own_weights_it_is_additive(name, options):
    module = made((name, 4, 4, options))
    query, encoded = drawn(SQUARE, steps=5, lengths=[3, 4])
    shared = {key: value for key, value in options.items() if key in ("heads", "normaliser")}
    assert not torch.allclose(attend(module, query, encoded)[1], attend(plain(module, shared), query, encoded)[1])
    module.past.weight.data.zero_()
    torch.testing.assert_close(attend(module, query, encoded), attend(plain(module, shared), query, encoded))


def test_temporal_with_one_step_is_additive():
    module = made(("temporal", 4, 4, {}))
    query, encoded = drawn(SQUARE, steps=2, lengths=[3, 4])
    _, weights = attend(module, query, encoded)
    _, unchanged = attend(plain(module), query, encoded)
    torch.testing.assert_close(weights[:, 0], unchanged[:, 0])
    assert not torch.allclose(weights[:, 1], unchanged[:, 1])


def test_what_the_filters_see_moves_with_the_alignment():
    past = made(("location_aware", 4, 4, {"kernel": 5})).past
    row = torch.zeros(1, 1, 20)
    row[..., 8:10] = torch.tensor([0.3, 0.7])
    here, _ = past.look(row, None)
    there, _ = past.look(row.roll(4, -1), None)
    torch.testing.assert_close(there, here.roll(4, 2))
    assert not here[:, :, :6].any()  # two positions to each side and no more
    assert here[:, :, 6:12].any(-1).all()
    assert not here[:, :, 12:].any()


def test_a_kernel_longer_than_the_source():
    module = made(("location_aware", 4, 4, {"kernel": 201}))
    query, encoded = drawn(SQUARE, steps=5)
    context, weights = attend(module, query, encoded)
    assert context.isfinite().all()
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 5))
    short = made(("location_aware", 4, 4, {"kernel": 7}))
    short.load_state_dict({**module.state_dict(), "past.filters": module.past.filters[:, 97:104]})
    torch.testing.assert_close(attend(short, query, encoded)[1], weights)  # the rest sees beyond the ends


def test_cumulative_filters_see_the_sum_of_all_alignments():
    module = made(("location_aware", 4, 4, {"past": "cumulative"}))
    query, encoded = drawn(SQUARE, steps=5, lengths=[3, 4])
    memory = module.remember(encoded)
    output = module(query, memory, module.initial_state(memory))
    start = torch.zeros(2, 1, 4)
    start[..., 0] = 1.0
    torch.testing.assert_close(output.state, start + output.weights.sum(1, keepdim=True))
    last = made(("location_aware", 4, 4, {}))(query, memory, module.initial_state(memory))
    torch.testing.assert_close(last.state, last.weights[:, -1:])


def test_windows_by_hand():
    row = torch.tensor([[1.0, 2.0, 3.0]])
    assert windows(row, 3, 1).tolist() == [[[0, 1, 2], [1, 2, 3], [2, 3, 0]]]
    assert windows(row, 2, 1).tolist() == [[[0, 1], [1, 2], [2, 3]]]
    assert windows(row[:, :0], 3, 1).shape == (1, 0, 3)


def test_coverage_adds_up_and_its_loss_lies_between_none_and_all():
    module = made(("coverage", 4, 4, {"loss_weight": 0.5, "heads": 2})).train()
    query, encoded = drawn(SQUARE, steps=6, lengths=[3, 4])
    memory = module.remember(encoded)
    state, covered = module.initial_state(memory), torch.zeros(2, 2, 4)
    for step, part in enumerate(query.split(1, 1)):
        output = module(part, memory, state)
        heads = output.aux["heads"][:, 0]
        torch.testing.assert_close(output.aux["loss"][:, 0], 0.5 * torch.minimum(heads, covered).sum(-1).mean(1))
        assert (output.aux["loss"] >= 0).all()
        assert (output.aux["loss"] <= 0.5 + 1e-6).all()
        assert bool(output.aux["loss"].any()) == (step > 0)
        state, covered = output.state, covered + heads
        torch.testing.assert_close(state, covered)
        torch.testing.assert_close(covered.sum(-1), torch.full((2, 2), step + 1.0))
    whole = module(query, memory, module.initial_state(memory))
    assert whole.aux["loss"].shape == (2, 6)
    torch.testing.assert_close(whole.aux["loss"][:, -1:], output.aux["loss"])
    torch.testing.assert_close(module.loss(whole.aux, query), whole.aux["loss"].sum())


def test_the_coverage_loss_is_all_for_a_repeated_position_and_nothing_without_weight():
    module = made(("coverage", 4, 4, {"loss_weight": 1.0}))
    query, encoded = drawn(SQUARE, steps=3, length=1)
    memory = module.remember(encoded)
    torch.testing.assert_close(
        module(query, memory, module.initial_state(memory)).aux["loss"], torch.tensor([[0.0, 1, 1]] * 2)
    )
    without = made(("coverage", 4, 4, {}))
    assert not without(query, memory, without.initial_state(memory)).aux


def test_the_coverage_loss_drives_weights_apart():
    module = made(("coverage", 4, 4, {"loss_weight": 1.0}), dtype=torch.float64)
    query, encoded = drawn(SQUARE, steps=4, dtype=torch.float64)
    memory = module.remember(encoded)
    loss = module(query, memory, module.initial_state(memory)).aux["loss"].sum()
    parameters = [p for p in module.parameters() if p.requires_grad]
    gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
    with torch.no_grad():
        for parameter, gradient in zip(parameters, gradients, strict=True):
            if gradient is not None:
                parameter -= 0.05 * gradient
    memory = module.remember(encoded)
    assert module(query, memory, module.initial_state(memory)).aux["loss"].sum() < loss


def test_fertility_is_how_much_a_position_takes_until_it_is_covered():
    module = made(("coverage", 4, 4, {"kind": "linguistic", "fertility": 3.0}))
    module.past.fertility.weight.data.zero_()  # sigmoid(0): half of three words
    query, encoded = drawn(SQUARE, steps=5)
    memory = module.remember(encoded)
    output = module(query, memory, module.initial_state(memory))
    torch.testing.assert_close(output.state, output.weights.sum(1, keepdim=True) / 1.5)


def test_the_prior_of_dynamic_convolution_moves_forward_by_one_on_average():
    module = build("dca", query_size=4, memory_size=4)
    prior = module.past.prior.flip(0)
    assert len(prior) == 11
    torch.testing.assert_close(prior.sum(), torch.tensor(1.0))
    torch.testing.assert_close((prior * torch.arange(11)).sum(), torch.tensor(1.0))
    assert (prior > 0).all()
    other = build("dca", query_size=4, memory_size=4, prior_length=5, alpha=2.0, beta=2.0).past.prior
    torch.testing.assert_close(
        other, torch.tensor([1.0, 1.6, 1.8, 1.6, 1.0]) / 7
    )  # symmetric: C(4, k) B(k+2, 6-k) / B(2, 2)
    assert "past.prior" not in module.state_dict()


def test_dynamic_convolution_reaches_ten_positions_ahead_at_first():
    module = made(("dca", 4, 4, {}))
    query, encoded = drawn(SQUARE, steps=3, length=30)
    module.score.vector.data.zero_()  # the prior alone
    _, weights = attend(module, query, encoded)
    torch.testing.assert_close(weights[:, 0, :11], module.past.prior.flip(0).expand(2, -1), atol=1e-4, rtol=0)
    assert weights[:, 0, 11:].max() < 2e-6
    assert weights[:, 0, 11:].min() > 0
    assert weights[:, 2, 11:21].min() > 1e-5


def test_dynamic_convolution_is_blind_to_the_source_and_asks_the_query():
    module = made(("dca", 4, 4, {}))
    query, encoded = drawn(SQUARE, steps=3, length=9)
    other = encoded._replace(states=torch.randn_like(encoded.states))
    assert torch.equal(attend(module, query, encoded)[1], attend(module, query, other)[1])
    assert not torch.allclose(attend(module, query, encoded)[1], attend(module, 2 * query, encoded)[1])
    module.past.dynamic.weight.data.zero_()
    assert torch.equal(attend(module, query, encoded)[1], attend(module, 2 * query, encoded)[1])


@pytest.mark.parametrize("scale", [1.0, 50.0])
def test_temporal_equals_its_definition_over_a_long_target_and_source(scale):
    energies = scale * torch.randn(1, 1, 200, 2000, generator=torch.Generator().manual_seed(0))
    energies = energies.requires_grad_()
    mask = torch.arange(2000).unsqueeze(0) < 1990
    align = Temporal(Normaliser())
    weights, state, _ = align(energies, mask, align.initial_state(mask, 1), torch.zeros(1, 200, 1))
    exact = energies.detach().double()[0, 0, :, :1990]
    total = None
    for i in range(200):
        logits = exact[i] if total is None else exact[i] - total
        total = exact[i] if total is None else torch.stack([total, exact[i]]).logsumexp(0)
        wanted = torch.softmax(logits, -1)
        torch.testing.assert_close(weights[0, 0, i, :1990].double(), wanted, atol=1e-5, rtol=1e-3)
    torch.testing.assert_close(state[0, 0, :1990].double(), total, atol=1e-4, rtol=1e-5)
    (gradient,) = torch.autograd.grad((weights * torch.randn_like(weights)).sum(), energies)
    assert gradient.isfinite().all()
    assert not gradient[..., 1990:].any()


def test_temporal_attention_leaves_what_it_has_attended():
    energies = torch.tensor([0.0, 3.0, 0.0]).repeat(1, 1, 3, 1)
    mask = torch.ones(1, 3, dtype=torch.bool)
    align = Temporal(Normaliser())
    weights, _, _ = align(energies, mask, align.initial_state(mask, 1), torch.zeros(1, 3, 1))
    assert weights[0, 0, 0, 1] > 0.9
    torch.testing.assert_close(weights[0, 0, 1], torch.full((3,), 1 / 3))  # exp(e) / exp(e)


@pytest.mark.parametrize("name", REMEMBERING)
@pytest.mark.parametrize("known", [0, 2])
def test_a_state_of_a_shorter_source_goes_on_with_the_longer_one(name, known):
    module = made((name, 4, 4, {}), dtype=torch.float64).eval()
    query, encoded = drawn(SQUARE, steps=4, length=6, dtype=torch.float64)
    first, rest = (
        Encoded(encoded.states[:, part], encoded.final, encoded.mask[:, part])
        for part in (slice(known), slice(known, None))
    )
    memory = module.remember(first)
    early = module(query[:, :2], memory, module.initial_state(memory))
    late = module(query[:, 2:], module.extend(memory, rest), early.state)
    torch.testing.assert_close(late.weights.sum(-1), torch.ones(2, 2, dtype=torch.float64))
    if not known:  # nothing was known: it starts now
        whole = module.remember(encoded)
        fresh = module(query[:, 2:], whole, module.initial_state(whole))
        torch.testing.assert_close(late.weights, fresh.weights)
    else:  # as if the rest had been there and masked
        mask = encoded.mask & (torch.arange(6) < known)
        padded = module.remember(encoded._replace(mask=mask))
        before = module(query[:, :2], padded, module.initial_state(padded))
        if name == "temporal":  # energies of masked positions belong to nobody
            state = torch.where(mask.unsqueeze(1), before.state, module.initial_state(padded).to(before.state))
        else:
            state = before.state
        after = module(query[:, 2:], module.remember(encoded), state)
        torch.testing.assert_close(late.weights, after.weights)


def test_the_first_alignment_is_on_the_first_real_position():
    mask = torch.tensor([[False, True, True], [False, False, False], [True, True, True]])
    row = torch.zeros(3, 1, 2)
    row[2, 0, 1] = 0.25
    assert begun(row, mask).squeeze(1).tolist() == [[0, 1, 0], [0, 0, 0], [0, 0.25, 0]]
    assert begun(grown(row - 9, 2), mask[:, :2], -9.0, 0.0).squeeze(1).tolist() == [[-9, 0], [-9, -9], [-9, -8.75]]
    assert grown(row, 4, 7.0)[2, 0].tolist() == [0, 0.25, 7, 7]


@pytest.mark.parametrize(
    "name, options",
    [
        ("location_aware", {"kernel": 4}),
        ("location_aware", {"kernel": -1}),
        ("location_aware", {"filters": 0}),
        ("location_aware", {"past": "next"}),
        ("location_aware", {"size": 0}),
        ("location_aware", {"heads": 3}),
        ("dca", {"kernel": 20}),
        ("dca", {"prior_length": 0}),
        ("dca", {"alpha": 0.0}),
        ("dca", {"beta": math.nan}),
        ("dca", {"kv": "project"}),
        ("coverage", {"kind": "visual"}),
        ("coverage", {"loss_weight": -1.0}),
        ("coverage", {"loss_weight": 1.0, "kind": "neural"}),
        ("coverage", {"fertility": 1.0}),
        ("coverage", {"fertility": 0.0, "kind": "linguistic"}),
        ("coverage", {"units": 3, "kind": "linguistic"}),
        ("coverage", {"units": 0, "kind": "neural"}),
        ("temporal", {"score": "location"}),
    ],
)
def test_options_out_of_range_are_refused_by_name(name, options):
    with pytest.raises(ConfigError) as caught:
        build(name, query_size=4, memory_size=4, **options)
    assert next(iter(options)) in str(caught.value)
