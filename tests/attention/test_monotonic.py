"""Monotonic attentions: their equivalences, their hard decoding, long sources, latency."""

import pytest
import torch
from attention_toys import REFERENCES, attend, drawn, made, rows_of
from references_monotonic import expected_stops, looking_back

from s2s.attention import build
from s2s.attention.chunk import look_back
from s2s.attention.functional import masked_softmax
from s2s.attention.monotonic import MonotonicAlignment, delay_loss
from s2s.errors import ConfigError
from s2s.types import Encoded

FAMILY = ["monotonic", "mocha", "milk", "mma"]
QUIET = {"noise": 0.0}


def alignment(heads=1, *, preserve=True, bias=-2.0, noise=0.0, **losses):
    return MonotonicAlignment(heads, bias=bias, noise=noise, preserve=preserve, **losses)


def aligned(align, energies, mask=None, state=None):
    """Weights of energies (B, H, T, S) from the start."""
    mask = torch.ones(energies.size(0), energies.size(3), dtype=torch.bool) if mask is None else mask
    state = align.initial_state(mask, energies.size(1)) if state is None else state
    return align(energies, mask, state, torch.zeros(energies.size(0), energies.size(2), 1))


def energies_of(*shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def close(a, b, atol=1e-12):
    torch.testing.assert_close(a, b, atol=atol, rtol=atol)


@pytest.mark.parametrize("preserve", [True, False])
def test_the_parallel_closed_form_agrees_where_it_is_valid(preserve):
    align, energies = alignment(preserve=preserve).double(), energies_of(2, 1, 5, 8)
    p = torch.sigmoid(energies - 2)
    if preserve:
        p[..., -1] = 1.0
    previous = torch.zeros(2, 1, 8, dtype=torch.float64)
    previous[..., 0] = 1.0
    for t, weights in enumerate(aligned(align, energies).weights.unbind(2)):
        left = torch.cat([torch.ones(2, 1, 1), (1 - p[:, :, t, :-1]).cumprod(-1)], -1)
        previous = p[:, :, t] * left * (previous / left).cumsum(-1)
        close(weights, previous)


def test_mass_falls_without_preservation_and_the_distribution_only_moves_to_the_right():
    energies = energies_of(3, 2, 9, 12)
    lost = aligned(alignment(2, preserve=False).double(), energies).weights
    assert (lost.sum(-1).diff(dim=2) < 0).all()
    kept = aligned(alignment(2).double(), energies).weights
    close(kept.sum(-1), torch.ones(3, 2, 9, dtype=torch.float64))
    for weights in (lost, kept):
        assert (weights.cumsum(-1).diff(dim=2) <= 1e-12).all()


@pytest.mark.parametrize("preserve", [True, False])
def test_great_energies_in_training_are_the_hard_scan_of_decoding(preserve):
    energies = energies_of(4, 2, 7, 9, dtype=torch.float32)
    energies = 1e3 * (energies + 0.2 * energies.sign())  # none is near 0
    mask = torch.arange(9) < torch.tensor([9, 5, 1, 8]).unsqueeze(1)
    mask[3, 2] = False
    align = alignment(2, preserve=preserve, bias=0.0)
    expected = aligned(align.train(), energies, mask).weights
    hard = aligned(align.eval(), energies, mask).weights
    assert torch.equal(hard, expected)
    assert ((hard == 0) | (hard == 1)).all()


@pytest.mark.parametrize(
    "case",
    [
        ("monotonic", 4, 4, {**QUIET, "heads": 2}),
        ("monotonic", 4, 4, {**QUIET, "preserve": False}),
        ("mocha", 4, 4, {**QUIET, "chunk": 2}),
        ("milk", 4, 4, {**QUIET, "heads": 2, "preserve": False}),
        ("mma", 4, 4, {**QUIET, "kind": "chunk", "chunk": 3}),
    ],
    ids=str,
)
def test_decoding_is_a_hard_scan(case):
    module = made(case, dtype=torch.float64).eval()
    with torch.no_grad():
        module.align.bias.add_(0.5)
    query, encoded = drawn(case, batch=3, steps=9, length=7, lengths=[7, 4, 1], dtype=torch.float64)
    encoded.mask[0, 2] = False
    query = 3 * query
    context, weights = attend(module, query, encoded)
    expected, expected_weights = REFERENCES[case[0]](module, query, encoded)
    close(weights, expected_weights)
    close(context, expected)


def test_it_says_whether_a_position_was_selected():
    energies = torch.full((1, 1, 4, 3), -1.0)
    energies[0, 0, 0, 0] = energies[0, 0, 1, 1] = 1.0
    for preserve, third in ((True, [0.0, 0.0, 1.0]), (False, [0.0, 0.0, 0.0])):
        found = aligned(alignment(bias=0.0, preserve=preserve).eval(), energies)
        assert found.aux["stopped"][0, :, 0].tolist() == [1.0, 1.0, 0.0, 0.0]
        assert found.weights[0, 0].tolist() == [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], third, third]
    assert "stopped" not in aligned(alignment().train(), energies).aux


def test_what_passed_the_last_position_is_lost_for_good_without_preservation():
    energies = torch.full((1, 1, 3, 3), 1.0)
    energies[:, :, 0] = -1.0
    assert not aligned(alignment(bias=0.0, preserve=False).eval(), energies).weights.any()
    assert aligned(alignment(bias=0.0).eval(), energies).weights[0, 0, 1].tolist() == [0.0, 0.0, 1.0]


def test_a_step_that_found_nothing_goes_on_where_it_was_when_the_source_grows():
    align, energies = alignment(bias=0.0).eval(), torch.full((1, 1, 2, 5), -1.0)
    energies[0, 0, 0, 1] = energies[0, 0, 1, 3] = 1.0
    first = aligned(align, energies[:, :, :1, :3])
    short = aligned(align, energies[:, :, 1:, :3], state=first.state)
    assert not short.aux["stopped"].any()
    again = aligned(align, energies[:, :, 1:], state=first.state)
    assert again.aux["stopped"].all()
    assert torch.equal(again.weights, aligned(align, energies).weights[:, :, 1:])
    nothing = align.initial_state(torch.ones(1, 0, dtype=torch.bool), 1)
    assert torch.equal(aligned(align, energies, state=nothing).weights, aligned(align, energies).weights)


@pytest.mark.parametrize("length", [2000])
def test_a_long_source_is_finite_and_exact(length):
    align, energies = alignment(preserve=False), energies_of(1, 1, 2, length, dtype=torch.float32)
    energies = energies.clone().requires_grad_()
    with torch.autograd.set_detect_anomaly(True):
        weights = aligned(align, energies).weights
        gradient = torch.autograd.grad((weights * torch.arange(length)).sum(), energies)[0]
    assert gradient.isfinite().all()
    previous = {0: 1.0}
    exact = alignment(preserve=False).double()
    for t in range(2):
        row = dict(enumerate(energies[0, 0, t].detach().double()))
        previous = expected_stops(exact, row, 0, previous, length)
        found = torch.stack(list(previous.values())).float()
        torch.testing.assert_close(weights[0, 0, t], found, atol=1e-9, rtol=1e-5)


def test_noise_is_for_training_alone():
    align, energies = alignment(noise=1.0), energies_of(1, 1, 3, 4)
    drawn_once, drawn_again = (aligned(align.train(), energies).weights for _ in range(2))
    assert not torch.equal(drawn_once, drawn_again)
    assert torch.equal(aligned(align.eval(), energies).weights, aligned(align, energies).weights)


@pytest.mark.parametrize("preserve", [True, False])
def test_straight_through_trains_on_what_decoding_does(preserve):
    align = alignment(2, preserve=preserve, bias=-0.5, estimator="straight_through").double()
    mask = torch.tensor([[True] * 6, [True, False, True, True, False, False], [False] * 6])
    energies = energies_of(3, 2, 7, 6)
    trained = aligned(align.train(), energies, mask)
    decoded = aligned(align.eval(), energies, mask)
    close(trained.weights, decoded.weights)
    close(trained.state.double(), decoded.state.double())
    assert not trained.weights[2].any()
    noisy = alignment(2, preserve=preserve, bias=-0.5, noise=2.0, estimator="straight_through").double()
    one, other = (aligned(noisy.train(), energies, mask).weights.detach() for _ in range(2))
    assert not torch.equal(one, other)
    close(one, one.round())  # still hard
    assert (one.round().cumsum(-1).diff(dim=2) <= 0).all()  # never back, and what is lost stays lost
    assert not one[1, ..., 4:].any()


def test_straight_through_has_the_gradient_of_the_probabilities_and_decodes_as_ever():
    energies, factor = energies_of(2, 1, 1, 5).requires_grad_(), energies_of(2, 1, 1, 5, seed=1)
    drawn, expected = (alignment(estimator=name).double() for name in ("straight_through", "expected"))
    gradients = [
        torch.autograd.grad((aligned(a, energies).weights * factor).sum(), energies)[0] for a in (drawn, expected)
    ]
    close(*gradients)
    assert gradients[0].abs().sum() > 0.1
    later = energies_of(2, 1, 4, 5).requires_grad_()  # the last step's weights depend on the first's energies
    (gradient,) = torch.autograd.grad((aligned(drawn, later).weights[:, :, -1] * factor[:, :, 0]).sum(), later)
    assert gradient[:, :, 0].any()
    assert torch.equal(aligned(drawn.eval(), energies).weights, aligned(expected.eval(), energies).weights)
    assert not aligned(drawn.train(), energies, torch.zeros(2, 5, dtype=torch.bool)).weights.any()


@pytest.mark.parametrize("name", ["monotonic", "mocha", "milk", "mma"])
def test_the_estimator_is_chosen_by_a_word(name):
    assert build(name, query_size=4, memory_size=4).align.estimator == "expected"
    assert build(name, query_size=4, memory_size=4, estimator="straight_through").align.estimator == "straight_through"
    with pytest.raises(ConfigError, match="one of expected, straight_through"):
        build(name, query_size=4, memory_size=4, estimator="reinforce")


def test_the_bias_starts_where_it_is_told_and_is_one_a_head():
    module = build("mma", query_size=8, memory_size=8, bias=-3.0)
    assert module.align.bias.tolist() == [-3.0] * 4
    energies = torch.zeros(1, 2, 1, 6)
    align = alignment(2, preserve=False)
    with torch.no_grad():
        align.bias.copy_(torch.tensor([-8.0, 8.0]))
    weights = aligned(align, energies).weights[0, :, 0]
    assert weights[0].sum() < 0.01
    assert weights[1, 0] > 0.99


# --- the second softmax


def stops_and_energies(length=6, seed=0, scale=1.0):
    stops = aligned(alignment(2).double(), energies_of(2, 2, 4, length, seed=seed)).weights
    return stops, scale * energies_of(2, 2, 4, length, seed=seed + 1)


@pytest.mark.parametrize("window", [1, 2, 3, 6, 9, None])
def test_the_second_softmax_is_its_definition(window):
    stops, energies = stops_and_energies()
    mask = torch.ones(2, 6, dtype=torch.bool)
    mask[0, 2], mask[1, 4:] = False, False
    stops = stops * mask[:, None, None]
    found = look_back(stops, energies, mask, window)
    for b in range(2):
        for h in range(2):
            for t in range(4):
                real = [j for j in range(6) if mask[b, j]]
                rows = ({j: row[b, h, t, j] for j in real} for row in (stops, energies))
                for j, weight in looking_back(*rows, window or 100).items():
                    close(found[b, h, t, j], torch.as_tensor(weight))
    assert not found.transpose(1, 3)[~mask].any()


@pytest.mark.parametrize("window", [1, 3, None])
@pytest.mark.parametrize("scale", [1.0, 1e3])
def test_all_mass_is_spread_and_none_is_made(window, scale):
    stops, energies = stops_and_energies(scale=scale)
    mask = torch.ones(2, 6, dtype=torch.bool)
    found = look_back(stops, energies, mask, window)
    close(found.sum(-1), stops.sum(-1), 1e-10)
    single = look_back(stops.float(), energies.float(), mask, window)
    torch.testing.assert_close(single.double(), found, atol=1e-3 if scale > 1 else 1e-6, rtol=0)


def test_one_position_is_monotonic_and_the_whole_source_is_infinite():
    stops, energies = stops_and_energies()
    mask = torch.ones(2, 6, dtype=torch.bool)
    close(look_back(stops, energies, mask, 1), stops)
    infinite = look_back(stops, energies, mask, None)
    for window in (6, 7, 100):
        close(look_back(stops, energies, mask, window), infinite)
    assert not torch.allclose(look_back(stops, energies, mask, 5), infinite)


def test_a_stop_at_the_end_is_a_plain_softmax():
    _, energies = stops_and_energies()
    stops, mask = torch.zeros_like(energies), torch.ones(2, 6, dtype=torch.bool)
    stops[..., -1] = 1.0
    close(look_back(stops, energies, mask, None), masked_softmax(energies, mask[:, None, None]))
    # in decoding: a softmax up to where it stops, over so many positions
    stops = torch.roll(stops, -1, -1)
    close(look_back(stops, energies, mask, None)[..., :5], energies[..., :5].softmax(-1))
    close(look_back(stops, energies, mask, 2)[..., 3:5], energies[..., 3:5].softmax(-1))


@pytest.mark.parametrize("window", [3, None])
def test_the_second_softmax_of_a_long_source(window):
    stops = torch.full((1, 1, 1, 2000), 1 / 2000, requires_grad=True)
    energies = (30 * energies_of(1, 1, 1, 2000, dtype=torch.float32)).requires_grad_()
    mask = torch.ones(1, 2000, dtype=torch.bool)
    with torch.autograd.set_detect_anomaly(True):
        found = look_back(stops, energies, mask, window)
        gradients = torch.autograd.grad(found.square().sum(), (stops, energies))
    assert all(part.isfinite().all() for part in gradients)
    exact = look_back(stops.detach().double(), energies.detach().double(), mask, window)
    torch.testing.assert_close(found.double(), exact, atol=1e-8, rtol=1e-3)


def same_parameters(first, second, names):
    """Copy what both have under these names."""
    own, other = dict(first.named_parameters()), dict(second.named_parameters())
    with torch.no_grad():
        for name, origin in names.items():
            own[name].copy_(other[origin])


@pytest.mark.parametrize("training", [True, False])
def test_modules_are_equivalent_too(training):
    plain = made(("monotonic", 4, 4, {**QUIET, "heads": 2}), dtype=torch.float64).train(training)
    query, encoded = drawn(("", 4, 4), steps=5, length=6, lengths=[6, 4], dtype=torch.float64)
    expected = attend(plain, query, encoded)
    narrow = made(("mocha", 4, 4, {**QUIET, "heads": 2, "chunk": 1}), seed=1, dtype=torch.float64).train(training)
    same_parameters(narrow, plain, {name: name for name, _ in plain.named_parameters()})
    wide, infinite = (
        made((name, 4, 4, {**QUIET, **options}), seed=1, dtype=torch.float64).train(training)
        for name, options in (("mocha", {"chunk": 6}), ("milk", {}))
    )
    for one, other in (
        (attend(narrow, query, encoded), expected),
        tuple(attend(m, query, encoded) for m in (wide, infinite)),
    ):
        close(one[0], other[0])
        close(one[1], other[1])


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    "kind, name, more", [("hard", "monotonic", {}), ("infinite", "milk", {}), ("chunk", "mocha", {"chunk": 2})]
)
def test_one_head_of_many_is_the_single_one(kind, name, more, training):
    options = {**QUIET, "score": "scaled_dot", "kv": "project", "heads": 1, **more}
    single = made((name, 4, 4, options), dtype=torch.float64).train(training)
    multi = made(("mma", 4, 4, {**options, "kind": kind}), seed=1, dtype=torch.float64).train(training)
    same_parameters(multi, single, {name: name for name, _ in single.named_parameters()})
    with torch.no_grad():  # queries are projected in the multi-head form
        for name, parameter in multi.named_parameters():
            if name in ("score.weight", "second.weight"):
                parameter.copy_(torch.eye(4))
    query, encoded = drawn(("", 4, 4), steps=5, length=6, lengths=[6, 4], dtype=torch.float64)
    for one, other in zip(attend(multi, query, encoded), attend(single, query, encoded), strict=True):
        close(one, other)


def test_a_grown_source_in_decoding():
    """What is written while the source grows, waiting where nothing was selected, is what the whole source gives."""
    for name in FAMILY:
        case = (name, 4, 4, {**QUIET, **({"heads": 1} if name == "mma" else {})})
        module = made(case).eval()
        query, encoded = drawn(case, batch=1, steps=6, length=8)
        query = query * 4
        context, _ = attend(module, query, encoded)

        def part(start, end, encoded=encoded):
            return Encoded(encoded.states[:, start:end], encoded.final, encoded.mask[:, start:end])

        memory, read, waits = module.remember(part(0, 1)), 1, 0
        state = module.initial_state(memory)
        for t in range(6):
            while True:
                output = module(query[:, t : t + 1], memory, state)
                if output.aux["stopped"].all() or read == 8:
                    break
                memory, read, waits = module.extend(memory, part(read, read + 1)), read + 1, waits + 1
            state = output.state
            close(output.context, context[:, t : t + 1], 1e-6)
        assert waits


# --- delays


def test_expected_delays_and_their_losses():
    weights = torch.zeros(1, 2, 3, 4, dtype=torch.float64)
    weights[0, 0, 0, 0] = weights[0, 1, 0, 2] = 1.0  # delays 1 and 3 of 4
    weights[0, :, 1, 3] = 1.0  # both 4
    weights[0, :, 2, 1] = 0.5  # half is lost: 1 + 2
    mask = torch.ones(1, 4, dtype=torch.bool)
    slow = torch.tensor([1.0, 3.0], dtype=torch.float64)
    expected = torch.stack([(slow.softmax(0) * slow).sum() / 4, torch.tensor(1.0), torch.tensor(0.75)])
    close(delay_loss(weights, mask, 2.0, 0.0)[0], 2 * expected)
    variance = torch.tensor([((0.25 - 0.5) ** 2 + (0.75 - 0.5) ** 2) / 2, 0.0, 0.0], dtype=torch.float64)
    close(delay_loss(weights, mask, 0.0, 3.0)[0], 3 * variance)


def test_delays_are_shares_of_the_real_source():
    energies = energies_of(1, 2, 3, 4)
    align = alignment(2, latency_average=1.0, latency_variance=1.0).double()
    alone = aligned(align, energies).aux["loss"]
    padded = torch.nn.functional.pad(energies, (0, 3))
    close(aligned(align, padded, torch.arange(7).unsqueeze(0) < 4).aux["loss"], alone)
    assert alone.shape == (1, 3)


def test_equal_heads_have_no_variance_and_the_losses_reach_the_training_loss():
    energies = energies_of(2, 1, 3, 5).expand(2, 2, 3, 5)
    close(aligned(alignment(2, latency_variance=1.0).double(), energies).aux["loss"], torch.zeros(2, 3).double())
    module = build("mma", query_size=8, memory_size=8, latency_average=0.5, latency_variance=0.1)
    query, encoded = drawn(("", 8, 8))
    memory = module.remember(encoded)
    output = module.train()(query, memory, module.initial_state(memory))
    found = module.loss({"loss": output.aux["loss"].flatten()}, torch.zeros(6))
    assert found is not None
    assert found > 0
    found.backward()
    assert module.align.bias.grad.abs().sum() > 0
    assert "loss" not in module.eval()(query, memory, module.initial_state(memory)).aux
    assert "loss" not in build("mma", query_size=8, memory_size=8)(query, memory, module.initial_state(memory)).aux


@pytest.mark.parametrize("estimator", ["expected", "straight_through"])
@pytest.mark.parametrize("name", ["monotonic", "mocha", "milk"])
def test_a_latency_loss_draws_the_stops_to_the_front(name, estimator):
    def late(weight):
        torch.manual_seed(0)
        module = build(name, query_size=8, memory_size=8, noise=0.0, estimator=estimator, latency_average=weight)
        query, encoded = drawn(("", 8, 8))
        memory = module.remember(encoded)
        return module, module.train()(query, memory, module.initial_state(memory)).aux

    module, aux = late(0.5)
    module.loss({"loss": aux["loss"].flatten()}, torch.zeros(6)).backward()
    assert aux["loss"].min() > 0
    assert aux["loss"].max() <= 0.5  # the weight of having read all
    assert module.align.bias.grad < 0  # a larger bias stops earlier
    assert "loss" not in late(0.0)[1]


# --- options


@pytest.mark.parametrize("name", FAMILY)
@pytest.mark.parametrize(
    "options",
    [{"normaliser": "sparsemax"}, {"temperature": 0.5}, {"noise": -1.0}, {"bias": float("nan")}, {"heads": 3}],
    ids=str,
)
def test_options_out_of_range_are_refused(name, options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        build(name, query_size=4, memory_size=4, **options)


def test_the_window_and_the_kind_are_checked():
    for name, options, word in (
        ("mocha", {"chunk": 0}, "chunk"),
        ("mma", {"kind": "soft"}, "kind"),
        ("mma", {"chunk": 2}, "chunk"),
        ("mma", {"latency_average": -0.1}, "latency_average"),
    ):
        with pytest.raises(ConfigError, match=word):
            build(name, query_size=4, memory_size=4, **options)


def test_sums_to_one_follows_preservation():
    for name in FAMILY:
        assert build(name, query_size=4, memory_size=4).sums_to_one
        assert not build(name, query_size=4, memory_size=4, preserve=False).sums_to_one


def test_rows_don_t_see_their_neighbours():
    case = ("mocha", 4, 4, QUIET)
    module = made(case).train()
    query, encoded = drawn(case, batch=3, steps=4, length=6, lengths=[6, 3, 5])
    memory = module.remember(encoded)
    whole = module(query, memory, module.initial_state(memory))
    alone = rows_of(memory, torch.tensor([1]))
    torch.testing.assert_close(module(query[1:2], alone, module.initial_state(alone)).context, whole.context[1:2])
