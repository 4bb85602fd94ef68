"""Local attention: what the window, the place and the bell curve do, and what is refused."""

import math
from contextlib import nullcontext
from functools import partial

import pytest
import torch
from attention_toys import attend, drawn, made
from references_local import local_m_rows, local_p_rows

from s2s.attention import build, local
from s2s.attention.base import ScoredAttention
from s2s.attention.functional import masked_softmax
from s2s.attention.local import MonotonicWindow, PredictiveWindow
from s2s.attention.normalise import Normaliser
from s2s.errors import ConfigError
from s2s.gather import gathered, windows
from s2s.types import Encoded

CASE = ("local_p", 4, 4, {})
LENGTHS = [7, 9]


def like(name, other, **options):
    """Another mechanism with the parameters of `other` that both have."""
    found = made((name, 4, 4, options))
    found.load_state_dict({k: v for k, v in other.state_dict().items() if k in found.state_dict()})
    return found.eval()


def local_energies(module, query, encoded):
    return module.score(query, module.by_head(module.remember(encoded).keys))


def test_local_m_on_t_equals_a_banded_softmax():
    module = made(("local_m", 4, 4, {"window": 2}))
    query, encoded = drawn(CASE, steps=6, length=9, lengths=LENGTHS)
    steps, places = torch.arange(6).unsqueeze(1), torch.arange(9)
    band = (places - steps).abs() <= 2
    expected = masked_softmax(local_energies(module, query, encoded)[:, 0], encoded.mask.unsqueeze(1) & band)
    torch.testing.assert_close(attend(module, query, encoded)[1], expected)


def test_local_m_stays_at_the_last_word_of_each_source_when_the_target_is_longer():
    module = made(("local_m", 4, 4, {"window": 1}))
    query, encoded = drawn(CASE, steps=30, length=9, lengths=[3, 9])
    for chunks in ([30], [1] * 30, [13, 17]):
        weights = attend(module, query, encoded, chunks=chunks)[1]
        torch.testing.assert_close(weights.sum(-1), torch.ones(2, 30))
        assert weights[0, 10:, 1:3].gt(0).all()
        assert not weights[0, 10:, 0].any()
        assert weights[1, 10:, 7:].gt(0).all()
        assert not weights[1, 10:, :7].any()


@pytest.mark.parametrize("options", [{}, {"renormalise": True}], ids=["paper", "renormalised"])
def test_local_p_is_zero_outside_the_window_and_a_softmax_times_a_gaussian_inside(options):
    module = made(("local_p", 4, 4, {"window": 2, **options}))
    query, encoded = drawn(CASE, steps=5, length=9, lengths=LENGTHS)
    weights = attend(module, query, encoded)[1]
    places = module.align.places(query, encoded.mask)[:, 0].unsqueeze(-1)
    far = (torch.arange(9) - places).abs()
    inside = encoded.mask.unsqueeze(1) & (far <= 2)
    assert not weights[~inside].any()
    assert (weights[inside] > 0).all()
    bent = masked_softmax(local_energies(module, query, encoded)[:, 0], inside) * torch.exp(-(far**2) / 2)  # sigma = 1
    if options:
        bent = bent / bent.sum(-1, keepdim=True)
    else:
        assert (weights.sum(-1) < 1).all()
    torch.testing.assert_close(weights, bent)


def test_at_the_edge_of_the_window_the_gaussian_is_exp_minus_two():
    align = PredictiveWindow(Normaliser(), 3, 2, 1, renormalise=False)
    torch.nn.init.zeros_(align.vector)  # p = S / 2 = 5
    energies = torch.full((1, 1, 1, 10), -20.0)
    energies[..., 2] = 20.0
    weights = align(energies, torch.ones(1, 10, dtype=torch.bool), (), torch.zeros(1, 1, 2)).weights
    torch.testing.assert_close(weights[0, 0, 0, 2].item(), math.exp(-2), atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", ["local_m", "local_p"])
def test_a_window_wider_than_the_source_is_global(name):
    query, encoded = drawn(CASE, steps=5, length=9, lengths=LENGTHS)
    wide = made((name, 4, 4, {"window": 1_000_000}))
    torch.testing.assert_close(attend(wide, query, encoded), attend(like("additive", wide), query, encoded))
    # with D just the source's length the bell curve is still there for local_p, and nothing for local_m
    same = torch.allclose(
        attend(made((name, 4, 4, {"window": 9})), query, encoded)[1], attend(like("additive", wide), query, encoded)[1]
    )
    assert same == (name == "local_m")


def test_padding_never_changes_the_place():
    module = made(CASE)
    query, encoded = drawn(CASE, length=9, lengths=LENGTHS)
    mask = torch.cat([encoded.mask, torch.zeros(2, 40, dtype=torch.bool)], 1)
    places = module.align.places(query, encoded.mask)
    assert torch.equal(module.align.places(query, mask), places)
    share = torch.sigmoid(torch.tanh(query @ module.align.weight.t()) @ module.align.vector)
    torch.testing.assert_close(places[:, 0], share * torch.tensor(LENGTHS).unsqueeze(1))
    assert ((places > 0) & (places < torch.tensor(LENGTHS)[:, None, None])).all()


def test_the_gradient_reaches_the_place_through_the_gaussian_only():
    module = made(("local_p", 4, 4, {"window": 2}))
    query, encoded = drawn(CASE, length=9)
    align, memory = module.align, module.remember(encoded)
    energies = local_energies(module, query, encoded).detach()
    far, nearest = align.distances(align.places(query, memory.mask), memory.mask)
    assert far.requires_grad
    assert not nearest.requires_grad
    assert not align.inside(energies, memory.mask, far, nearest).requires_grad
    weights = align(energies, memory.mask, (), query).weights
    found = torch.autograd.grad(weights.square().sum(), [align.weight, align.vector])
    assert all(part.abs().max() > 1e-4 for part in found)


def test_each_head_has_its_own_place():
    module = made(("local_p", 4, 4, {"heads": 2}))
    query, encoded = drawn(CASE, length=9)
    both = module.align.places(query, encoded.mask)
    for head in range(2):
        one = PredictiveWindow(Normaliser(), 10, 4, 1, renormalise=False)
        part = slice(2 * head, 2 * head + 2)
        with torch.no_grad():
            one.weight.copy_(module.align.weight)
            one.vector.zero_()[part] = module.align.vector[part]
        torch.testing.assert_close(one.places(query, encoded.mask)[:, 0], both[:, head])


@pytest.mark.parametrize(("name", "options"), [("local_m", {}), ("local_p", {"renormalise": True})])
def test_a_hole_wider_than_the_window_leaves_the_nearest_words(name, options):
    module = made((name, 4, 4, {"window": 1, **options}))
    query, encoded = drawn(CASE, steps=40, length=40)
    encoded.mask[:, 1:39] = False
    with torch.autograd.set_detect_anomaly(True):
        context, weights = attend(module, query, encoded)
        context.sum().backward()
    assert module.sums_to_one
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 40))
    assert not weights.transpose(1, 2)[~encoded.mask].any()
    if name == "local_m":
        assert (weights[:, 1:20, 0] == 1).all()
        assert (weights[:, 20:, 39] == 1).all()
    for parameter in module.parameters():
        assert parameter.grad is None or parameter.grad.isfinite().all()


@pytest.mark.parametrize("kind", ["local_m", "local_p", "local_p-renormalised"])
def test_a_source_of_2000_words_is_exact_against_a_naive_recursion_in_float64(kind):
    torch.manual_seed(0)
    steps, length = 3, 2000
    normaliser, renormalise = Normaliser(), kind == "local_p-renormalised"
    align = (
        MonotonicWindow(normaliser, 10)
        if kind == "local_m"
        else PredictiveWindow(normaliser, 10, 4, 1, renormalise=renormalise)
    )
    energies, query = 3 * torch.randn(1, 1, steps, length), torch.randn(1, steps, 4)
    mask = torch.arange(length).unsqueeze(0) < length - 5
    state = torch.tensor([[1234]]) if kind == "local_m" else ()
    found = align(energies, mask, state, query).weights[0, 0]
    rows = [{j: energies[0, 0, t, j].double() for j in range(length - 5)} for t in range(steps)]
    if kind == "local_m":
        expected = local_m_rows(align, [{}] * 1234 + rows, length - 5, None)[1234:]
    else:
        expected = local_p_rows(iter([0]))(align.double(), rows, length - 5, query[0].double())
    for t, row in enumerate(expected):
        wanted = torch.zeros(length, dtype=torch.float64)
        for j, weight in row.items():
            wanted[j] = weight.detach()
        # a place near 2,000 is known to 1e-4 in float32
        torch.testing.assert_close(found[t].double(), wanted, atol=1e-6 if kind == "local_m" else 1e-4, rtol=0)
    assert found.isfinite().all()


def test_the_state_of_a_shorter_source_goes_on_in_the_longer_one():
    module = made(("local_m", 4, 4, {"window": 1})).eval()
    query, encoded = drawn(CASE, steps=6, length=8)
    first, rest = (Encoded(encoded.states[:, p], encoded.final, encoded.mask[:, p]) for p in (slice(4), slice(4, 8)))
    memory = module.remember(first)
    before = module(query[:, :3], memory, module.initial_state(memory))
    after = module(query[:, 3:], module.extend(memory, rest), before.state)
    torch.testing.assert_close(after.weights, attend(module, query, encoded)[1][:, 3:])


def test_only_renormalised_weights_of_local_p_are_a_distribution():
    flags = [build("local_p", query_size=4, memory_size=4, renormalise=given).sums_to_one for given in (False, True)]
    assert flags == [False, True]
    assert build("local_m", query_size=4, memory_size=4).sums_to_one


@pytest.mark.parametrize("name", ["local_m", "local_p"])
@pytest.mark.parametrize("window", [0, -1, 2.5], ids=str)
def test_a_window_that_is_not_a_whole_number_from_one_is_refused(name, window):
    with pytest.raises(ConfigError, match=rf"attention\.window.*(1 to|whole number).*found {window}"):
        build(name, query_size=4, memory_size=4, window=window)


def test_heads_that_do_not_divide_the_query_are_refused():
    with pytest.raises(ConfigError, match=r"attention\.heads.*found 3"):
        build("local_p", query_size=4, memory_size=6, heads=3)


def tensors_of(module, query, encoded, *, whole, looped=False, weights=True):
    """Context and weights, by windows alone or by the whole source, and the gradients of all that they come from."""
    query = query.clone().requires_grad_()
    states = encoded.states.transpose(0, 1).contiguous().transpose(0, 1).requires_grad_()  # time first in memory
    call = partial(ScoredAttention.attend, module) if whole else module.attend
    with gathered() if looped else nullcontext():
        memory = module.remember(Encoded(states, encoded.final, encoded.mask))
        state, outputs = module.initial_state(memory), []
        for part in query.split(1, 1) if looped else [query]:
            outputs.append(call(part, memory, state, weights))
            state = outputs[-1].state
    found = [torch.cat([output.context for output in outputs], 1)]
    found += [torch.cat([output.weights for output in outputs], 1)] if weights else []
    factors = [torch.linspace(-1, 1, one.numel(), dtype=one.dtype).view_as(one) for one in found]
    wrt = [query, states, *module.parameters()]
    loss = sum((one * factor).sum() for one, factor in zip(found, factors, strict=True))
    return [*found, *torch.autograd.grad(loss, wrt, materialize_grads=True)]


LONG_CASES = [
    ("local_m", 4, 4, {}),
    ("local_m", 4, 6, {"score": "general", "kv": "split", "normaliser": "entmax15"}),
    ("local_p", 4, 6, {"kv": "project"}),
    ("local_p", 4, 4, {"renormalise": True, "score": "scaled_dot", "temperature": 0.5}),
]


@pytest.mark.parametrize("looped", [False, True], ids=["at once", "in a loop"])
@pytest.mark.parametrize("weights", [False, True], ids=["no weights", "weights"])
@pytest.mark.parametrize("case", LONG_CASES, ids=lambda case: case[0])
def test_windows_alone_give_what_the_whole_source_gives(case, weights, looped, monkeypatch):
    taken = []
    monkeypatch.setattr(local, "windows", lambda *given: taken.append(1) or windows(*given))
    module = made((*case[:3], {"window": 2, **case[3]}), dtype=torch.float64)
    query, encoded = drawn(case, batch=4, steps=30, length=25, lengths=[25, 0, 3, 14], dtype=torch.float64)
    encoded.mask[3, 4:6] = False  # a hole that no window fits in
    expected = tensors_of(module, query, encoded, whole=True, weights=weights)
    assert not taken
    found = tensors_of(module, query, encoded, whole=False, weights=weights, looped=looped)
    product = case[3].get("score") is not None  # of all queries at once, which is cheaper then
    assert len(taken) == (60 if looped else 0 if product else 2)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("length", [1, 12, 100])
def test_only_windows_of_a_long_source_are_read(length):
    module = made(("local_m", 4, 4, {"window": 2}))
    query, encoded = drawn(CASE, steps=9, length=length)
    memory = module.remember(encoded)
    memory.keys[:, 20:] = torch.nan  # where no window reaches, in a source of 100
    output = module(query, memory, module.initial_state(memory))
    assert output.context.isfinite().all()
    assert output.weights.shape == (2, 9, length)
    torch.testing.assert_close(output.weights.sum(-1), torch.ones(2, 9))
