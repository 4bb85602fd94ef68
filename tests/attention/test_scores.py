"""Scores and the functions below them: identities between mechanisms, formulas by hand, bounded memory, refusals."""

import math

import pytest
import torch
from attention_toys import attend, drawn, made

from s2s.attention import build, functional, names
from s2s.attention.functional import additive_energies, additive_energies_plain, masked_softmax
from s2s.errors import ConfigError

CASE = ("general", 5, 5, {})


def weights_of(name, query, encoded, **options):
    return attend(build(name, query_size=query.size(2), memory_size=encoded.states.size(2), **options), query, encoded)


def test_additive_without_its_bias_is_concat():
    additive, concat = made(("additive", 3, 5, {})), made(("concat", 3, 5, {}))
    query, encoded = drawn(("additive", 3, 5, {}), lengths=[3, 4])
    concat.load_state_dict({key: value for key, value in additive.state_dict().items() if key != "score.bias"})
    assert not torch.allclose(attend(additive, query, encoded)[1], attend(concat, query, encoded)[1])
    additive.score.bias.data.zero_()
    torch.testing.assert_close(attend(additive, query, encoded), attend(concat, query, encoded))


def test_general_with_the_identity_is_dot():
    query, encoded = drawn(CASE, lengths=[3, 4])
    general = made(CASE)
    general.score.weight.data.copy_(torch.eye(5))
    torch.testing.assert_close(attend(general, query, encoded), weights_of("dot", query, encoded))


def test_scaled_dot_is_dot_over_the_square_root_of_the_width():
    query, encoded = drawn(CASE)
    scaled = weights_of("scaled_dot", query, encoded)
    torch.testing.assert_close(scaled, weights_of("dot", query / math.sqrt(5), encoded))
    # in a square of width 4 the root is 2, so twice the query undoes it
    query, encoded = drawn(("dot", 4, 4, {}))
    torch.testing.assert_close(weights_of("scaled_dot", 2 * query, encoded), weights_of("dot", query, encoded))


@pytest.mark.parametrize("scale", [0.25, 3.0])
def test_a_longer_query_is_a_lower_temperature_for_dot(scale):
    query, encoded = drawn(CASE, lengths=[3, 4])
    energies = torch.einsum("btd,bsd->bts", query, encoded.states)
    cooler = masked_softmax(energies * scale, encoded.mask.unsqueeze(1))
    torch.testing.assert_close(weights_of("dot", scale * query, encoded)[1], cooler)


def test_location_is_blind_to_the_source():
    module = made(("location", 5, 5, {"max_source": 6}))
    query, encoded = drawn(CASE, lengths=[2, 4])
    other = encoded._replace(states=torch.randn_like(encoded.states))
    assert torch.equal(attend(module, query, encoded)[1], attend(module, query, other)[1])
    assert not torch.allclose(attend(module, query, encoded)[0], attend(module, query, other)[0])


@pytest.mark.parametrize("limit", [1, 3, 4, 5])
def test_location_gives_no_mass_beyond_max_source(limit):
    module = made(("location", 5, 5, {"max_source": limit}))
    query, encoded = drawn(CASE)
    _, weights = attend(module, query, encoded)
    assert not weights[..., limit:].any()
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 3))
    # the rows of W for positions that a short source has not are not used ("the top part of a_t")
    if limit == 5:
        module.score.weight.data[4:].fill_(1e3)
        torch.testing.assert_close(attend(module, query, encoded)[1], weights)


def test_location_with_every_real_position_beyond_max_source_is_a_fully_masked_row():
    module = made(("location", 5, 5, {"max_source": 2}))
    query, encoded = drawn(CASE)
    encoded.mask[0, :2] = False
    context, weights = attend(module, query, encoded)
    assert not weights[0].any()
    assert not context[0].any()
    assert weights[1].any()


def test_additive_normed_by_hand():
    module = made(("additive_normed", 3, 5, {"size": 2}))
    query, encoded = drawn(("", 3, 5, {}), batch=1, steps=1, length=3)
    score = module.score
    length = math.hypot(*score.vector.tolist())
    energies = []
    for j in range(3):
        inner = torch.tanh(score.query_weight @ query[0, 0] + score.key_weight @ encoded.states[0, j] + score.bias)
        energies.append(score.gain.item() * (score.vector @ inner).item() / length)
    torch.testing.assert_close(attend(module, query, encoded)[1][0, 0], torch.softmax(torch.tensor(energies), 0))
    fresh = build("additive_normed", query_size=3, memory_size=5, size=16).score
    assert fresh.gain.item() == pytest.approx(1 / 4)
    # only the direction of the vector counts
    before = attend(module, query, encoded)[1]
    score.vector.data.mul_(7)
    torch.testing.assert_close(attend(module, query, encoded)[1], before)
    score.gain.data.mul_(3)
    assert not torch.allclose(attend(module, query, encoded)[1], before)


@pytest.mark.parametrize("scale", [1e-2, 1e-3])
def test_with_small_weights_additive_forgets_the_query(scale):
    """tanh is then linear, so the query adds the same to all energies; what is left is cubic in the scale."""
    module = made(("concat", 5, 5, {}), dtype=torch.float64)
    query, encoded = drawn(CASE, dtype=torch.float64)
    module.score.query_weight.data.mul_(scale)
    module.score.key_weight.data.mul_(scale)
    _, weights = attend(module, query, encoded)
    _, others = attend(module, torch.randn_like(query), encoded)
    assert not torch.equal(weights, others)
    assert (weights - others).abs().max() < 100 * scale**3
    linear = (encoded.states @ module.score.key_weight.t()) @ module.score.vector
    torch.testing.assert_close(weights[:, 0], torch.softmax(linear, -1), atol=100 * scale**3, rtol=0)


CONTENT = ["additive", "additive_normed", "concat", "dot", "scaled_dot", "general", "key_value", "multihead"]


@pytest.mark.parametrize("name", CONTENT)
def test_equal_keys_get_equal_weights(name):
    module = made((name, 4, 4, {}))
    query, encoded = drawn((name, 4, 4, {}), lengths=[2, 4])
    _, weights = attend(module, query, encoded._replace(states=encoded.states[:, :1].expand(2, 4, 4)))
    even = encoded.mask / encoded.mask.sum(1, keepdim=True)
    torch.testing.assert_close(weights, even.unsqueeze(1).expand(2, 3, 4))


def leaves(batch, steps, length, size):
    generator = torch.Generator().manual_seed(0)
    shapes = (batch, steps, size), (batch, length, size), (size,)
    return [torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_() for shape in shapes]


@pytest.mark.parametrize("chunk", [1, 2 * 4 * 3 - 1, 2 * 2 * 4 * 3, 2 * 3 * 4 * 3 + 5, 1 << 24])
@pytest.mark.parametrize("shape", [(2, 5, 4, 3), (1, 1, 1, 1), (2, 1, 4, 3), (2, 0, 4, 3), (2, 5, 0, 3)], ids=str)
def test_energies_in_bounded_memory_equal_the_plain_ones(monkeypatch, chunk, shape):
    monkeypatch.setattr(functional, "_CHUNK", chunk)
    inputs = leaves(*shape)
    plain, bounded = additive_energies_plain(*inputs), additive_energies(*inputs)
    torch.testing.assert_close(bounded, plain, atol=1e-12, rtol=1e-12)
    outer = torch.randn(shape[2], shape[0], shape[1], dtype=torch.float64).permute(1, 2, 0)  # not contiguous
    wanted, found = torch.autograd.grad(plain, inputs, outer), torch.autograd.grad(bounded, inputs, outer)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, atol=1e-12, rtol=1e-12)


def test_bounded_energies_never_hold_more_than_a_chunk(monkeypatch):
    """The largest tensor that is made in the forward and backward pass has at most _CHUNK elements."""
    batch, steps, length, size = 2, 12, 6, 4
    chunk = batch * length * size * 3  # three steps at once
    sizes = []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, kinds, arguments=(), options=None):
            output = function(*arguments, **(options or {}))
            sizes.extend(part.numel() for part in [output] if isinstance(part, torch.Tensor))
            return output

    for limit, expected in ((chunk, chunk), (1 << 24, batch * steps * length * size)):
        monkeypatch.setattr(functional, "_CHUNK", limit)
        inputs = leaves(batch, steps, length, size)
        sizes.clear()
        with Watch():
            additive_energies(*inputs).sum().backward()
        assert max(sizes) == expected


@pytest.mark.parametrize("cached", [1, 2 * 4 * 3, 1 << 20])
@pytest.mark.parametrize("shape", [(5, 1, 4, 3), (1, 1, 1, 1), (5, 1, 0, 3), (0, 1, 4, 3)], ids=str)
def test_the_step_of_a_search_takes_energies_a_few_rows_at_a_time(monkeypatch, cached, shape):
    monkeypatch.setattr(functional, "_CACHED", cached)
    with torch.no_grad():
        inputs = [one.float() for one in leaves(*shape)]
        torch.testing.assert_close(additive_energies(*inputs), additive_energies_plain(*inputs), atol=1e-6, rtol=1e-6)


def test_a_softmax_keeps_the_precision_it_is_given():
    energies = torch.randn(2, 3, 4, dtype=torch.float64)
    mask = torch.tensor([[True, True, True, False]])
    found = masked_softmax(energies, mask)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found[..., :3], torch.softmax(energies[..., :3], -1), atol=1e-15, rtol=1e-15)
    assert masked_softmax(energies.bfloat16(), mask).dtype == torch.bfloat16


def test_weights_are_the_same_with_and_without_a_gradient():
    energies = torch.randn(3, 2, 5, generator=torch.Generator().manual_seed(1))
    mask = torch.tensor([[True] * 5, [True, False, True, False, False], [False] * 5]).unsqueeze(1)
    free, learned = masked_softmax(energies, mask), masked_softmax(energies.requires_grad_(), mask)
    assert torch.equal(free, learned)
    assert not free[2].any()
    learned.square().sum().backward()
    assert energies.grad.isfinite().all()
    assert not energies.grad[2].any()


def test_a_softmax_survives_huge_energies_and_padding_that_holds_the_maximum():
    energies = torch.tensor([[[3e4, 1e4, 3.0e38], [-3e38, -3e38, 5.0]]])
    weights = masked_softmax(energies, torch.tensor([[[True, True, False]]]))
    torch.testing.assert_close(weights, torch.tensor([[[1.0, 0.0, 0.0], [0.5, 0.5, 0.0]]]))


@pytest.mark.parametrize("name", ["dot", "scaled_dot"])
def test_a_dot_score_refuses_unequal_widths(name):
    with pytest.raises(ConfigError, match=r"as wide as the keys \(6\); found 5.*attention=general"):
        build(name, query_size=5, memory_size=6)


@pytest.mark.parametrize(
    "name, options, named",
    [
        ("additive", {"size": 0}, "size is out of range.*found 0"),
        ("concat", {"size": -3}, "size is out of range.*found -3"),
        ("additive_normed", {"size": 1 << 30}, f"size is out of range.*found {1 << 30}"),
        ("general", {"dropout": 1.0}, "dropout is out of range.*0 <= value < 1; found 1.0"),
        ("dot", {"dropout": -0.1}, "dropout is out of range.*found -0.1"),
        ("scaled_dot", {"dropout": float("nan")}, "dropout"),
        ("location", {"max_source": 0}, "max_source is out of range.*found 0"),
        ("additive", {"size": 2.5}, "wrong value of `attention.size`.*found 2.5"),
        ("additive", {"size": True}, "wrong value of `attention.size`.*found true"),
        ("additive", {"droput": 0.1}, "unknown key `attention.droput`; did you mean `attention.dropout`"),
        ("general", {"size": 3}, "unknown key `attention.size`"),
        ("none", {"dropout": 0.1}, "unknown key `attention.dropout`"),
    ],
)
def test_wrong_options_are_named(name, options, named):
    with pytest.raises(ConfigError, match=named):
        build(name, query_size=5, memory_size=5, **options)


@pytest.mark.parametrize("sizes", [(0, 5), (5, 0), (-1, 5), (True, 5), (5, 2.0)], ids=str)
@pytest.mark.parametrize("name", names())
def test_wrong_widths_are_refused(name, sizes):
    with pytest.raises(ConfigError, match=r"query_size|memory_size"):
        build(name, query_size=sizes[0], memory_size=sizes[1])


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(ConfigError, match=r"unknown attention `aditive`.*Did you mean `additive`"):
        build("aditive", query_size=5, memory_size=5)
    with pytest.raises(ConfigError, match=r"unknown attention `xyzzy`.*one of additive"):
        build("xyzzy", query_size=5, memory_size=5)


@pytest.mark.parametrize("alias, name", [("bahdanau", "additive"), ("soft", "additive"), ("luong", "general")])
def test_names_that_people_type(alias, name):
    assert alias not in names()
    made_by_alias = build(alias, query_size=5, memory_size=6)
    assert list(made_by_alias.state_dict()) == list(build(name, query_size=5, memory_size=6).state_dict())


def test_the_inner_layer_is_as_wide_as_the_query_unless_told():
    assert build("additive", query_size=3, memory_size=5).score.vector.shape == (3,)
    assert build("additive", query_size=3, memory_size=5, size=7).score.vector.shape == (7,)
