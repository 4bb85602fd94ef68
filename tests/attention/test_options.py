"""What can be combined with every score: normalisers, temperature, heads, keys and values; and what is refused."""

import pytest
import torch
from attention_toys import NORMALISERS, attend, drawn, made

from s2s.attention import build
from s2s.attention.base import check_finite
from s2s.attention.normalise import NAMES, Normaliser
from s2s.errors import ConfigError, NonFiniteError, UsageError
from s2s.types import Encoded

EVERY = torch.ones(3, dtype=torch.bool)


@pytest.mark.parametrize(
    ("name", "energies", "expected"),
    [
        ("softmax", [-2.0, 0.0, 0.5], [0.0486, 0.3592, 0.5922]),
        ("sparsemax", [-2.0, 0.0, 0.5], [0.0, 0.25, 0.75]),
        ("entmax15", [-2.0, 0.0, 0.5], [0.0, 0.3260, 0.6740]),
        ("sigmoid", [-2.0, 0.0, 0.5], [0.0963, 0.4038, 0.5000]),
    ],
)
def test_published_values(name, energies, expected):
    found = Normaliser(name)(torch.tensor(energies), EVERY)
    if name == "sigmoid":
        squashed = torch.sigmoid(torch.tensor(energies))
        expected = (squashed / squashed.sum()).tolist()
    torch.testing.assert_close(found, torch.tensor(expected), atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", NAMES)
def test_a_normaliser_equals_its_naive_reference_and_ignores_masked_positions(name):
    generator = torch.Generator().manual_seed(0)
    for length in (1, 2, 5, 9):
        energies = 3 * torch.randn(20, length, generator=generator, dtype=torch.float64)
        mask = torch.rand(20, length, generator=generator) < 0.7
        found = Normaliser(name)(energies.masked_fill(~mask, 1e6), mask)
        for row, real, weights in zip(energies, mask, found, strict=True):
            naive = NORMALISERS[name]({j: row[j] for j in range(length) if real[j]}) if real.any() else {}
            wanted = torch.stack([naive.get(j, row.new_zeros(())) for j in range(length)])
            torch.testing.assert_close(weights, wanted, atol=1e-12, rtol=0)


@pytest.mark.parametrize("name", ["softmax", "sparsemax", "entmax15"])
def test_a_constant_added_to_all_energies_changes_nothing(name):
    energies = torch.randn(4, 6, dtype=torch.float64)
    mask = torch.ones(6, dtype=torch.bool)
    torch.testing.assert_close(Normaliser(name)(energies + 1e3, mask), Normaliser(name)(energies, mask))


@pytest.mark.parametrize("name", ["softmax", "sparsemax", "entmax15"])
def test_temperature_goes_from_the_highest_energy_to_evenness(name):
    energies = torch.tensor([[0.1, 0.7, -0.4]])
    cold = Normaliser(name, 1e-4)(energies, EVERY)
    torch.testing.assert_close(cold, torch.tensor([[0.0, 1.0, 0.0]]))
    torch.testing.assert_close(Normaliser(name, 1e6)(energies, EVERY), torch.full((1, 3), 1 / 3))
    torch.testing.assert_close(Normaliser(name, 2.0)(energies, EVERY), Normaliser(name)(energies / 2, EVERY))


def test_sparse_normalisers_give_exact_zeros_and_no_gradient_to_them():
    energies = torch.tensor([[-2.0, 0.0, 0.5]], requires_grad=True)
    for name in ("sparsemax", "entmax15"):
        weights = Normaliser(name)(energies, EVERY)
        assert weights[0, 0] == 0
        (gradient,) = torch.autograd.grad(weights[0, 2], energies)
        assert gradient[0, 0] == 0
        assert gradient[0, 1] != 0


def test_one_head_of_multihead_is_projected_scaled_dot():
    multihead, dot = made(("multihead", 4, 6, {"heads": 1})), made(("scaled_dot", 4, 6, {"kv": "project"}))
    query, encoded = drawn(("", 4, 6, {}), lengths=[2, 4])
    dot.load_state_dict({k: v for k, v in multihead.state_dict().items() if k != "score.weight"})
    projected = torch.nn.functional.linear(query, multihead.score.weight)
    torch.testing.assert_close(attend(multihead, query, encoded), attend(dot, projected, encoded))


def test_heads_with_equal_slices_attend_alike_and_are_reported():
    module = made(("scaled_dot", 4, 4, {"heads": 2}))
    query, encoded = drawn(("", 4, 4, {}), lengths=[2, 4])
    twice = Encoded(encoded.states[..., :2].repeat(1, 1, 2), encoded.final, encoded.mask)
    memory = module.remember(twice)
    output = module(query[..., :2].repeat(1, 1, 2), memory, ())
    assert output.aux["heads"].shape == (2, 3, 2, 4)
    torch.testing.assert_close(output.aux["heads"][:, :, 0], output.aux["heads"][:, :, 1])
    torch.testing.assert_close(output.weights, output.aux["heads"][:, :, 0])
    # another second slice changes the second head alone
    other = module(query, memory, ()).aux["heads"]
    assert not torch.allclose(other[:, :, 0], other[:, :, 1])


def test_projections_that_pick_the_halves_are_a_split():
    case = ("general", 4, 6, {})
    split, project = made((*case[:3], {"kv": "split"})), made((*case[:3], {"kv": "project"}))
    query, encoded = drawn(case, lengths=[2, 4])
    half = torch.eye(6)
    with torch.no_grad():
        project.key_value.key.weight.copy_(torch.cat([half[:3], torch.zeros(1, 6)]))  # 4 wide: the query's width
        project.key_value.value.weight.copy_(torch.cat([half[3:], torch.zeros(3, 6)]))
        project.score.weight[:, :3].copy_(split.score.weight)
    contexts, weights = attend(project, query, encoded)
    wanted, split_weights = attend(split, query, encoded)
    torch.testing.assert_close(weights, split_weights)
    torch.testing.assert_close(contexts[..., :3], wanted)
    assert not contexts[..., 3:].any()


def test_a_split_memory_reads_values_that_keys_never_see():
    module = made(("key_value", 4, 6, {}))
    query, encoded = drawn(("", 4, 6, {}))
    other = encoded.states.clone()
    other[..., 3:] += 1
    context, weights = attend(module, query, encoded)
    moved, same = attend(module, query, encoded._replace(states=other))
    assert torch.equal(weights, same)
    torch.testing.assert_close(moved, context + 1)


def test_the_predicting_half_of_the_query_asks_nothing_and_is_what_the_output_reads():
    module = made(("key_value_predict", 6, 4, {}))
    query, encoded = drawn(("", 6, 4, {}))
    other = query.clone()
    other[..., 3:] += 1
    assert torch.equal(attend(module, query, encoded)[1], attend(module, other, encoded)[1])
    assert torch.equal(module.output_part(query), query[..., 3:])
    assert module.output_size(6) == 3
    plain = made(("additive", 6, 4, {}))
    assert torch.equal(plain.output_part(query), query)
    assert plain.output_size(6) == 6


@pytest.mark.parametrize(
    ("name", "sizes", "options", "named"),
    [
        ("additive", (4, 4), {"heads": 0}, "heads is out of range.*found 0"),
        ("additive", (4, 4), {"heads": 3}, "heads.*divisor of 4.*found 3"),
        ("general", (6, 4), {"heads": 3}, "heads.*values.*divisor of 4.*found 3"),
        ("dot", (4, 4), {"temperature": -1.0}, "temperature is out of range.*0 < value.*found -1.0"),
        ("dot", (4, 4), {"temperature": 0.0}, "temperature is out of range"),
        ("dot", (4, 4), {"normaliser": "softmin"}, "attention.normaliser.*one of softmax.*softmin"),
        ("dot", (4, 4), {"kv": "halved"}, "attention.kv.*one of shared, project, split.*halved"),
        ("dot", (4, 5), {"kv": "split"}, "kv=split.*even.*found 5"),
        ("multihead", (4, 4), {"score": "cosine"}, "attention.score.*one of additive.*cosine"),
        ("location", (4, 4), {"heads": 2}, "attention.heads.*expected 1; found 2.*attention=general"),
        ("key_value_predict", (5, 4), {}, "decoder.width.*even.*found 5"),
    ],
)
def test_values_out_of_range_and_impossible_combinations_are_named(name, sizes, options, named):
    with pytest.raises(ConfigError, match=named):
        build(name, query_size=sizes[0], memory_size=sizes[1], **options)


@pytest.mark.parametrize(
    "mask", [torch.ones(2, 4), torch.ones(2, 3, dtype=torch.bool), torch.ones(4, dtype=torch.bool)]
)
def test_a_mask_of_wrong_shape_or_type_is_refused(mask):
    module, (_, encoded) = made(("additive", 4, 4, {})), drawn(("", 4, 4, {}))
    with pytest.raises(UsageError, match=r"mask doesn't fit.*bool tensor \(2, 4\), True = may attend; found"):
        module.remember(encoded._replace(mask=mask))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_query_that_is_not_finite_is_refused(value):
    module, (query, encoded) = made(("additive", 4, 4, {})), drawn(("", 4, 4, {}))
    query[1, 2, 3] = value
    with pytest.raises(NonFiniteError, match="the query is not finite"):
        module(query, module.remember(encoded), ())


def test_a_finite_query_passes_even_if_its_sum_does_not_fit():
    check_finite(torch.full((1, 1, 4), 3e38))
