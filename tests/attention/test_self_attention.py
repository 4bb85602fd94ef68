"""Self-attention: plain loops over the papers' equations, and the promises that every kind makes."""

import math

import pytest
import torch

from s2s import registry
from s2s.attention import self_attention
from s2s.attention.self_attention import MultiHead, SelfAttention, TapeAttention
from s2s.errors import ConfigError
from s2s.state import select

WIDTH = 12
SCORES = ["scaled_dot", "dot", "general", "additive", "additive_normed", "concat"]
PAST = ["key_value", "key_value_predict", "intra_decoder"]
NAMES = registry.group_names("self_attention")


def build(name, input_size=5, dtype=torch.float64, **options):
    torch.manual_seed(0)
    function, values = registry.builder(
        "self_attention", name, {**registry.group_defaults("self_attention", name), **options}
    )
    made = function(WIDTH, input_size, **values)
    if made is not None:
        with torch.no_grad():
            for parameter in made.parameters():
                parameter.add_(torch.randn_like(parameter), alpha=0.3)
        made.to(dtype).eval()
    return made


def states(length=6, dtype=torch.float64, requires_grad=False):
    return torch.randn(3, length, WIDTH, generator=torch.Generator().manual_seed(1), dtype=dtype).requires_grad_(
        requires_grad
    )


def called(module, x, chunks=None, **options):
    state, outputs = module.initial_state(x), []
    for part in x.split(chunks or [x.size(1)], 1):
        found = module(part, state, causal=True, **options)
        state = found.state
        outputs.append(found.output)
    return torch.cat(outputs, 1), state


def test_every_file_is_of_a_kind_that_is_tested_here():
    kinds = {name: type(build(name)) for name in NAMES}
    assert {name for name, kind in kinds.items() if issubclass(kind, SelfAttention)} == {"multihead", *PAST}
    assert kinds["lstmn"] is TapeAttention
    assert kinds["none"] is kinds["auto"] is type(None)
    assert isinstance(build("auto", None), MultiHead)


# ---- multi-head: loops over the equations


def energy(module, score, x, q, k, head):
    """e of query position q and key position k in a head, from the module's own weights."""
    size = WIDTH // module.heads
    part = slice(head * size, (head + 1) * size)
    inner = module.score
    if score in ("dot", "scaled_dot"):
        rows = module.inner.weight
        query, key = (x[p] @ rows[n * WIDTH : (n + 1) * WIDTH].t() for n, p in ((0, q), (1, k)))
        return query[part] @ key[part] / (math.sqrt(size) if score == "scaled_dot" else 1.0)
    if score == "general":
        return x[q][part] @ (inner.weight @ x[k])[part]
    vector = inner.vector[part]
    if score == "additive_normed":
        vector = inner.gain[head] * vector / vector.norm()
    bias = 0 if inner.bias is None else inner.bias
    return vector @ torch.tanh(inner.query_weight @ x[q] + inner.key_weight @ x[k] + bias)[part]


def naive(module, score, x, mask, causal):
    """Output of one row x (T, D): softmax among the allowed, heads joined and mixed."""
    length, size = x.size(0), WIDTH // module.heads
    values = x @ module.inner.weight[-WIDTH:].t()
    rows = []
    for q in range(length):
        contexts = []
        for head in range(module.heads):
            seen = [k for k in range(length) if mask[k] and (k <= q or not causal)]
            exps = [energy(module, score, x, q, k, head).exp() for k in seen]
            context = torch.zeros(size, dtype=x.dtype)
            for k, e in zip(seen, exps, strict=True):
                context = context + e / sum(exps) * values[k][head * size : (head + 1) * size]
            contexts.append(context)
        rows.append(module.mix.weight @ torch.cat(contexts))
    return torch.stack(rows)


@pytest.mark.parametrize("heads", [1, 3])
@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("causal", [True, False])
def test_multihead_is_the_plain_loop(score, heads, causal):
    module, x = build("multihead", score=score, heads=heads), states(4)
    mask = torch.tensor([[True, True, True, True], [True, True, False, False], [False, True, True, False]])
    found = module(x, module.initial_state(x), mask=mask, causal=causal)
    for row in range(3):
        torch.testing.assert_close(found.output[row], naive(module, score, x[row], mask[row], causal))
    if causal:  # with and without a mask are other paths
        plain = module(x, module.initial_state(x), causal=True).output
        torch.testing.assert_close(plain[1], naive(module, score, x[1], [True] * 4, True))


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("masked", [True, False])
def test_the_fused_kernel_equals_the_plain_form(causal, masked):
    """float32, in values and gradients, with a row that may see nothing at all."""
    module = build("multihead", dtype=torch.float32)
    mask = torch.tensor([[True] * 6, [True] * 2 + [False] * 4, [False] * 6]) if masked else None
    outputs = []
    for need_weights in (False, True):
        x = states(dtype=torch.float32, requires_grad=True)
        found = module(x, module.initial_state(x), mask=mask, causal=causal, need_weights=need_weights)
        gradients = torch.autograd.grad(found.output.square().mean(), [x, *module.parameters()])
        assert (found.weights is not None) == need_weights
        outputs.append([found.output, *gradients])
    for one, other in zip(*outputs, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)
        assert torch.isfinite(one).all()


@pytest.mark.parametrize("score", SCORES)
def test_a_row_without_any_position_gives_zeros_and_zero_gradients(score):
    module, x = build("multihead", score=score), states(requires_grad=True)
    mask = torch.tensor([[True] * 6, [False] * 6, [False, False, True, True, True, True]])
    for causal in (True, False):
        found = module(x, module.initial_state(x), mask=mask, causal=causal)
        assert not found.output[1].any()
        (gradient,) = torch.autograd.grad(found.output.square().sum(), x)
        assert torch.isfinite(gradient).all()
        assert not gradient[1].any()
        assert found.output[0].any()
        if causal:  # those before the first real one see nothing either
            assert not found.output[2, :2].any()


def test_padding_changes_nothing():
    module, x = build("multihead"), states()
    mask = torch.arange(6) < torch.tensor([[4], [6], [1]])
    quiet = module(x, module.initial_state(x), mask=mask, causal=False).output
    loud = module(x.masked_fill(~mask.unsqueeze(-1), 1e3), module.initial_state(x), mask=mask, causal=False).output
    for row, length in enumerate((4, 6, 1)):
        torch.testing.assert_close(quiet[row, :length], loud[row, :length])
        alone = x[row : row + 1, :length]
        found = module(alone, module.initial_state(alone), mask=mask[row : row + 1, :length], causal=False).output
        torch.testing.assert_close(quiet[row, :length], found[0])


@pytest.mark.parametrize("score", SCORES)
def test_without_positions_it_is_blind_to_order(score):
    module, x, order = build("multihead", score=score), states(), torch.tensor([3, 0, 5, 1, 4, 2])
    one = module(x[:, order], module.initial_state(x), causal=False).output
    torch.testing.assert_close(one, module(x, module.initial_state(x), causal=False).output[:, order])


@pytest.mark.parametrize("normaliser", ["sparsemax", "entmax15", "sigmoid"])
def test_the_normaliser_makes_the_weights(normaliser):
    x = 3 * states()
    soft, other = (
        module(x, module.initial_state(x), causal=True, need_weights=True)
        for module in (build("multihead"), build("multihead", normaliser=normaliser))
    )
    torch.testing.assert_close(other.weights.sum(-1), torch.ones(3, 4, 6).double())
    assert not torch.allclose(soft.weights, other.weights)
    if normaliser != "sigmoid":  # exact zeros among the allowed
        assert (other.weights.tril() == 0).sum() > (soft.weights.tril() == 0).sum()


@pytest.mark.parametrize("need_weights", [True, False])
def test_dropout_is_on_weights_in_training_only(need_weights):
    module, x = build("multihead", dropout=0.5), states()

    def output():
        return module(x, module.initial_state(x), causal=True, need_weights=need_weights)

    assert torch.equal(output().output, output().output)
    module.train()
    assert not torch.equal(output().output, output().output)
    if need_weights:
        torch.testing.assert_close(output().weights.sum(-1), torch.ones(3, 4, 6).double())


# ---- the past of a recurrent decoder


@pytest.mark.parametrize("name", PAST)
@pytest.mark.parametrize("window", [None, 1, 3])
def test_past_attention_is_the_plain_loop(name, window):
    module, x = build(name, window=window, score="concat"), states()
    parts = {"intra_decoder": 1, "key_value": 2, "key_value_predict": 3}[name]
    size = WIDTH // parts
    found = called(module, x)[0]
    key = x[..., :size]
    value = x if parts == 1 else x[..., size : 2 * size]
    score = module.score
    for row in range(3):
        for t in range(6):
            seen = range(0 if window is None else max(0, t - window), t)
            energies = [
                score.vector @ torch.tanh(score.query_weight @ key[row, t] + score.key_weight @ key[row, i])
                for i in seen
            ]
            expected = torch.zeros(size, dtype=x.dtype)
            for i, e in zip(seen, energies, strict=True):
                expected = expected + e.exp() / sum(other.exp() for other in energies) * value[row, i]
            torch.testing.assert_close(found[row, t], expected)
    torch.testing.assert_close(module.output_part(x), x[..., -size:])
    assert module.part_size == module.output_size == size


def test_paulus_score_is_general_and_sees_the_whole_past():
    module, x = build("intra_decoder"), states()
    energies = torch.stack([x[0, 5] @ module.score.weight @ x[0, i] for i in range(5)])
    torch.testing.assert_close(called(module, x)[0][0, 5], energies.softmax(0) @ x[0, :5])


@pytest.mark.parametrize("name, sizes", [("key_value", (5, 6, 6)), ("key_value_predict", (3, 3, 5))])
def test_the_last_part_takes_what_an_uneven_width_leaves_over(name, sizes):
    function, options = registry.builder("self_attention", name, {})
    module, x = function(11, 5, **options), torch.randn(2, 4, 11)
    found = called(module, x)[0]
    assert (module.key_size, module.output_size, module.part_size) == sizes
    assert (found.size(-1), module.output_part(x).size(-1)) == sizes[1:]
    torch.testing.assert_close(found[:, 1], x[:, 0, sizes[0] : sizes[0] + sizes[1]])


def test_a_window_keeps_no_more_than_it_needs():
    module, x = build("key_value", window=2), states()
    _, state = called(module, x)
    assert [part.shape for part in state] == [(3, 1, 2, WIDTH // 2)] * 2


def test_positions_that_are_masked_are_never_looked_back_at():
    module, x = build("key_value", window=None), states()
    mask = torch.tensor([[True] * 6, [True, False, True, False, True, True], [False] * 6])
    found = module(x, module.initial_state(x), mask=mask, causal=True).output
    other = module(x.masked_fill(~mask.unsqueeze(-1), 7.0), module.initial_state(x), mask=mask, causal=True).output
    torch.testing.assert_close(found[mask], other[mask])
    assert not found[2].any()


@pytest.mark.parametrize("length", [1, 5])
def test_tapes_are_the_plain_loop(length):
    """Cheng et al. 2016, eq. 4 to 6, with any cell: here each step's state is drawn."""
    torch.manual_seed(2)
    module = build("lstmn", size=7)
    hidden, cell = torch.randn(3, 1, WIDTH).double(), torch.randn(3, 1, WIDTH).double()
    state, summary = module.initial_state(hidden[:, 0], cell[:, 0]), hidden[:, 0]
    for _ in range(length):
        x = torch.randn(3, 5).double()
        found = module.read(x, state)
        asked = torch.cat([x, summary], 1) @ module.score.query_weight.t()
        energies = torch.tanh(asked.unsqueeze(1) + hidden @ module.score.key_weight.t()) @ module.score.vector
        weights = energies.softmax(1).unsqueeze(1)
        for one, tape in zip(found, (hidden, cell), strict=True):
            torch.testing.assert_close(one, (weights @ tape).squeeze(1))
        summary, step = found[0], torch.randn(2, 3, WIDTH).double()
        state = module.write(state, summary, step[0], step[1])
        hidden, cell = torch.cat([hidden, step[0].unsqueeze(1)], 1), torch.cat([cell, step[1].unsqueeze(1)], 1)
    assert module.read(x, module.initial_state(step[0], step[1]))[1].equal(step[1])  # one place on the tape: all of it


# ---- what all promise

every = pytest.mark.parametrize(
    "name, options",
    [("multihead", {"score": score}) for score in SCORES]
    + [(name, {"window": window}) for name in PAST for window in (None, 2)],
    ids=str,
)


@every
@pytest.mark.parametrize("chunks", [[1] * 6, [2, 3, 1], [5, 1]], ids=str)
def test_one_call_equals_any_split_of_it(name, options, chunks):
    module, x = build(name, **options), states()
    (whole, end), (parts, last) = called(module, x), called(module, x, chunks)
    torch.testing.assert_close(parts, whole)
    for one, other in zip(last, end, strict=True):
        torch.testing.assert_close(one, other)
    one, _ = called(module, x, chunks, need_weights=True)
    torch.testing.assert_close(one, whole)


@every
@pytest.mark.parametrize("chunks", [[1] * 6, [2, 3, 1], [6]], ids=str)
@pytest.mark.parametrize("need_weights", [False, True])
def test_a_cache_with_room_gives_the_same_in_fixed_shapes(name, options, chunks, need_weights, monkeypatch):
    monkeypatch.setattr(self_attention, "_ROOM", 4)
    module, x = build(name, **options), states()
    whole, grown = called(module, x)
    state, length, found, rooms = module.initial_state(x), 0, [], []
    for part in x.split(chunks, 1):
        length += part.size(1)
        state = module.with_room(state, length)
        rooms.append(state.keys.size(2))
        output, weights, state = module(part, state, causal=True, need_weights=need_weights)
        found.append(output)
        assert (weights is None) != need_weights
        if need_weights:
            assert (weights[..., length:] == 0).all()
    torch.testing.assert_close(torch.cat(found, 1), whole)
    assert rooms == [4 if sum(chunks[: number + 1]) <= 4 else 8 for number in range(len(chunks))]
    for one, other in zip(state, grown, strict=False):
        torch.testing.assert_close(one[:, :, 6 - other.size(2) : 6], other)
    assert state.used.tolist() == [6] * len(x)


@every
def test_rows_of_a_cache_go_on_as_if_alone(name, options):
    module, x, rows = build(name, **options), states(), torch.tensor([2, 0, 0])
    whole, _ = called(module, x)
    _, middle = called(module, x[:, :4])
    rest = module(x[rows, 4:], select(middle, rows), causal=True).output
    torch.testing.assert_close(rest, whole[rows, 4:])


@every
def test_gradients(name, options):
    module = build(name, **options)
    parameters = [p for p in module.parameters() if p.dim() < 3]
    for chunks in (None, [1, 2]):
        x = states(3, requires_grad=True)
        inputs = (x, *parameters)  # along random directions: there are too many axes to go along each
        function = lambda x, *_, chunks=chunks: called(module, x, chunks)[0]  # noqa: E731
        assert torch.autograd.gradcheck(function, inputs, fast_mode=True)


@every
def test_bf16_stays_near_float32(name, options):
    module, x = build(name, dtype=torch.float32, **options), states(dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        mixed, _ = called(module, x)
        stepped, _ = called(module, x, [1] * 6)
    whole, _ = called(module, x)
    for found in (mixed, stepped):
        torch.testing.assert_close(found.float(), whole, atol=0.15 * whole.abs().max().item(), rtol=0)


@pytest.mark.parametrize(
    "name, options, sizes, told",
    [
        ("multihead", {"heads": 5}, (WIDTH, None), "5 heads.*a divisor of 12; found 5"),
        ("multihead", {"heads": 0}, (WIDTH, None), "heads is out of range"),
        ("auto", {"heads": 7}, (WIDTH, None), "7 heads"),
        ("multihead", {"dropout": 1.0}, (WIDTH, None), "dropout is out of range"),
        ("multihead", {"score": "cosine"}, (WIDTH, None), "score.*scaled_dot"),
        ("key_value", {"window": 0}, (8, 5), "window is out of range"),
        ("lstmn", {"size": 0}, (8, 5), "size is out of range"),
        *((name, {}, (WIDTH, None), f"self_attention={name}.*expected self_attention=multihead") for name in PAST),
        ("lstmn", {}, (WIDTH, None), "self_attention=lstmn.*Transformer"),
    ],
)
def test_wrong_options_are_named(name, options, sizes, told):
    def make():
        function, values = registry.builder("self_attention", name, options)
        function(*sizes, **values)

    with pytest.raises(ConfigError, match=told):
        make()
