"""The Transformer: pre-norm layers as plain equations, positions, and what an option changes."""

import math

import pytest
import torch
from model_toys import SOURCE, TARGET, batch, own, tiny

from s2s.attention import build
from s2s.errors import ConfigError
from s2s.model import transformer_decoder, transformer_encoder
from s2s.model.embedding import Embedding
from s2s.model.seq2seq import start_search
from s2s.model.transformer import Positions
from s2s.types import BOS, Encoded

INPUT, WIDTH = 5, 6
LENGTHS = torch.tensor([4, 1, 6])
WHOLE = {"encoder": "transformer", "decoder": "transformer"}


def encoder(input_size=INPUT, **options):
    torch.manual_seed(0)
    made = transformer_encoder(input_size, own("multihead"), **{"width": WIDTH, **options}).double().eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.3)
    return made


def embedded(extra=0, size=INPUT):
    return torch.randn(3, 6 + extra, size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


# ---- positions


def test_sinusoids_by_hand():
    found = Positions(6, None)(torch.arange(5), torch.float64)
    for place in range(5):
        for i in range(3):
            angle = place / 10000 ** (2 * i / 6)
            assert found[place, i].item() == pytest.approx(math.sin(angle), abs=1e-6)
            assert found[place, 3 + i].item() == pytest.approx(math.cos(angle), abs=1e-6)
    assert Positions(5, None)(torch.arange(4), torch.float32).shape == (4, 5)  # an odd width too


def test_sinusoids_are_the_same_however_far_the_table_reached():
    made = Positions(6, None)
    for places in (torch.arange(3), torch.tensor([[7, 0]]), torch.arange(40), torch.empty(0, dtype=torch.int64)):
        assert torch.equal(made(places, torch.float32), made._sinusoids(places))
    assert not made.state_dict()


def test_places_beyond_the_learned_ones_share_the_last_vector():
    made = Positions(4, 3)
    found = made(torch.tensor([[0, 2, 3, 900]]), torch.float32)
    assert torch.equal(found[0, 0], made.vectors.weight[0])
    assert torch.equal(found[0, 1:], made.vectors.weight[2].expand(3, 4))


# ---- layers as equations


def norm(module, x):
    spread = (x - x.mean(-1, keepdim=True)) / (x.var(-1, unbiased=False, keepdim=True) + module.eps).sqrt()
    return spread * module.weight + module.bias


def fed(module, x):
    inner = torch.relu(x @ module[0].weight.t() + module[0].bias)
    return inner @ module[3].weight.t() + module[3].bias


def attended(module, x, causal):
    """A row (T, D): heads one by one."""
    query, key, value = (x @ part.t() for part in module.inner.weight.chunk(3))
    size, contexts = WIDTH // module.heads, []
    for head in range(module.heads):
        part = slice(head * size, (head + 1) * size)
        energies = query[:, part] @ key[:, part].t() / math.sqrt(size)
        if causal:
            energies = energies + torch.full_like(energies, -torch.inf).triu(1)
        contexts.append(energies.softmax(-1) @ value[:, part])
    return torch.cat(contexts, -1) @ module.mix.weight.t()


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("bidirectional", [True, False])
def test_the_encoder_is_its_equations(layers, bidirectional):
    made = encoder(layers=layers, bidirectional=bidirectional)
    encoded = made(embedded(), LENGTHS)
    for row, length in enumerate(LENGTHS.tolist()):
        x = embedded()[row, :length] @ made.project.weight.t() + Positions(WIDTH, None)(torch.arange(length), x_type())
        for layer in made.layers:
            x = x + attended(layer.attention, norm(layer.attention_norm, x), not bidirectional)
            x = x + fed(layer.feed_forward, norm(layer.feed_forward_norm, x))
        x = norm(made.norm, x)
        torch.testing.assert_close(encoded.states[row, :length], x)
        torch.testing.assert_close(encoded.final[row], x.mean(0))
    assert encoded.mask.tolist() == [[j < length for j in range(6)] for length in LENGTHS.tolist()]


def x_type():
    return torch.float64


def test_the_decoder_is_its_equations():
    """Without padding in the source, additive attention, which the layer mixes by a matrix of its own."""
    model, given = tiny(**WHOLE, layers=2, dtype=torch.float64), batch(((5, 4), (5, 3)))
    memory, state = model.start(given.source, given.source_lengths)
    made = model.decoder
    found = made(given.target_in, memory, state)
    for row in range(2):
        e = 2 * made.embedding.weight[given.target_in[row]]  # times the root of its width
        x = e @ made.project.weight.t() + Positions(WIDTH, None)(torch.arange(5), x_type())
        for layer, one in zip(made.layers, memory, strict=True):
            x = x + attended(layer.self_attention, norm(layer.self_attention_norm, x), True)
            score = layer.attention.score
            asked = norm(layer.attention_norm, x) @ score.query_weight.t()
            energies = torch.tanh(asked.unsqueeze(1) + one.keys[row]) @ score.vector
            x = x + energies.softmax(-1) @ one.values[row] @ layer.mix.weight.t()
            x = x + fed(layer.feed_forward, norm(layer.feed_forward_norm, x))
        torch.testing.assert_close(found.features[row], norm(made.norm, x) @ made.readout.weight.t())


# ---- the encoder's promises


@pytest.mark.parametrize("bidirectional", [True, False])
def test_padding_changes_nothing(bidirectional):
    made = encoder(layers=2, bidirectional=bidirectional)
    inputs = embedded().requires_grad_()
    encoded = made(inputs, LENGTHS)
    padding = ~encoded.mask
    assert not encoded.states[padding].any()
    (gradient,) = torch.autograd.grad(encoded.states.square().sum() + encoded.final.square().sum(), inputs)
    assert not gradient[padding].any()
    loud = made(torch.cat([inputs.detach().masked_fill(padding.unsqueeze(-1), 1e3), embedded()[:, :2]], 1), LENGTHS)
    torch.testing.assert_close(loud.states[:, :6], encoded.states)
    torch.testing.assert_close(loud.final, encoded.final)
    for row in range(3):
        alone = made(inputs.detach()[row : row + 1, : LENGTHS[row]], LENGTHS[row : row + 1])
        torch.testing.assert_close(alone.states[0], encoded.states[row, : LENGTHS[row]])
        torch.testing.assert_close(alone.final[0], encoded.final[row])


def test_an_empty_source_gives_zeros_and_no_nan():
    made, inputs = encoder(layers=2), embedded().requires_grad_()
    encoded = made(inputs, torch.tensor([4, 0, 6]))
    assert not encoded.states[1].any()
    assert not encoded.final[1].any()
    (gradient,) = torch.autograd.grad(encoded.states.square().sum(), inputs)
    assert torch.isfinite(gradient).all()


def test_one_direction_never_sees_what_comes_later():
    lengths = torch.tensor([6, 6, 6])
    for bidirectional in (True, False):
        made = encoder(layers=2, bidirectional=bidirectional)
        whole, start = made(embedded(), lengths).states, made(embedded()[:, :3], lengths - 3).states
        assert torch.allclose(whole[:, :3], start) != bidirectional


def test_without_positions_the_encoder_is_blind_to_order():
    made, order = encoder(layers=2), torch.tensor([3, 0, 5, 1, 4, 2])
    lengths = torch.full((3,), 6)
    ordered = made(embedded()[:, order], lengths).states
    assert not torch.allclose(ordered, made(embedded(), lengths).states[:, order])
    made.positions.forward = lambda places, dtype: torch.zeros(WIDTH, dtype=dtype)
    torch.testing.assert_close(made(embedded()[:, order], lengths).states, made(embedded(), lengths).states[:, order])


def test_gradients_of_the_encoder():
    made = encoder(layers=1, width=4)
    inputs = embedded()[:, :3].requires_grad_()
    lengths = torch.tensor([3, 1, 2])
    assert torch.autograd.gradcheck(lambda x: made(x, lengths)[:2], (inputs,))


# ---- options


def test_widths_default_to_the_embeddings_and_are_projected_otherwise():
    made = transformer_encoder(8, own("multihead"))
    assert (made.width, made.project) == (8, None)
    assert made.layers[0].feed_forward[0].weight.shape == (32, 8)
    assert encoder(width=6, feed_forward=7).layers[0].feed_forward[0].weight.shape == (7, 6)
    assert tiny(**WHOLE, width=4).decoder.readout is None
    assert tiny(**WHOLE, width=4, tie="none").decoder.output_size == 4
    assert tiny(**WHOLE, width=6, tie="none").decoder.output_size == 6
    assert tiny(**WHOLE, width=6).decoder.output_size == 4  # that of the embedding which is the output layer


@pytest.mark.parametrize("option", ["dropout", "relu_dropout"])
def test_each_dropout_is_in_training_only(option):
    given = batch()
    made = {
        "encoder": encoder(**{option: 0.5}),
        "decoder": decoder_of(**{option: 0.5}).eval(),
    }
    memory, state = started(made["decoder"], given)
    calls = {
        "encoder": lambda: made["encoder"](embedded(), LENGTHS).states,
        "decoder": lambda: made["decoder"](given.target_in, memory, state).features,
    }
    for name, call in calls.items():
        assert torch.equal(call(), call())
        made[name].train()
        assert not torch.equal(call(), call())


def test_relu_dropout_with_everything_dropped_leaves_the_bias():
    made = encoder(relu_dropout=0.5)
    block = made.layers[0].feed_forward
    block[2] = torch.nn.Threshold(torch.inf, 0.0)
    torch.testing.assert_close(block(embedded(size=WIDTH)), block[3].bias.expand(3, 6, WIDTH))


def decoder_of(attention="additive", self_attention="multihead", **options):
    torch.manual_seed(0)
    return transformer_decoder(
        Embedding(TARGET, 4),
        lambda size: build(attention, query_size=size, memory_size=WIDTH),
        own(self_attention),
        WIDTH,
        4,
        0.0,
        **{"width": WIDTH, **options},
    )


def started(made, given):
    torch.manual_seed(3)
    size = given.source.shape
    mask = torch.arange(size[1]) < given.source_lengths.unsqueeze(1)
    encoded = Encoded(torch.randn(*size, WIDTH), torch.randn(size[0], WIDTH), mask)
    memory = made.remember(encoded)
    return memory, made.initial_state(encoded, memory)


@pytest.mark.parametrize("layers, chosen, default", [(1, None, 1), (2, None, 1), (4, None, 3), (4, 4, 4), (4, 1, 1)])
def test_the_alignment_is_that_of_one_layer(layers, chosen, default):
    made, given = decoder_of(layers=layers, alignment_layer=chosen).eval(), batch()
    assert made.alignment_layer == default
    seen = {}
    for number, layer in enumerate(made.layers, 1):
        layer.attention.register_forward_hook(lambda m, i, out, number=number: seen.update({number: out}))
    found = made(given.target_in, *started(made, given))
    assert torch.equal(found.weights, seen[default].weights)
    assert torch.equal(found.context, seen[default].context)
    assert [n for n, out in seen.items() if out.weights is not None] == [default]


def test_losses_of_the_layers_are_added():
    made = decoder_of(layers=2)
    assert made.loss({}, torch.zeros(3)) is None
    aux = {"1.loss": torch.tensor([1.0, 2.0]), "2.loss": torch.tensor([4.0, 8.0]), "12.loss": torch.tensor([16.0, 0])}
    assert made.loss(aux, torch.zeros(2)).item() == 15
    made.layers[0].attention.attend = with_aux(made.layers[0].attention.attend)
    output = made(batch().target_in, *started(made, batch()))
    assert set(output.aux) == {"1.loss"}


def with_aux(attend):
    def noted(query, *rest):
        return attend(query, *rest)._replace(aux={"loss": query[..., 0]})

    return noted


def test_an_attention_that_mixes_its_heads_needs_no_second_matrix():
    mixed, plain = (tiny(**WHOLE, attention=name).decoder.layers[0].mix for name in ("multihead", "additive"))
    assert mixed is None
    assert plain.weight.shape == (WIDTH, WIDTH)
    narrow = decoder_of("key_value").layers[0].mix  # contexts of half the width
    assert narrow.weight.shape == (WIDTH, WIDTH // 2)


def test_decoding_goes_beyond_the_learned_positions():
    model, given = tiny(**WHOLE, learned_positions=2), batch()
    with torch.no_grad():
        step, state = start_search(model, given.source, given.source_lengths)
        for _ in range(5):
            output = step(torch.full((3,), BOS), state, torch.arange(3))
            state = output.state
    assert torch.isfinite(output.log_probs).all()


def test_a_narrow_source_vocabulary_is_no_matter():
    assert tiny(**WHOLE).source_embedding.num_embeddings == SOURCE


def test_a_step_costs_no_pass_over_the_past():
    """With a cache, the layers see the new token alone."""
    made, given, seen = decoder_of().eval(), batch(), []
    memory, state = started(made, given)
    made.layers[1].feed_forward.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0].size(1)))
    for token in given.target_in.split(1, 1):
        state = made(token, memory, state).state
    assert seen == [1] * 5


@pytest.mark.parametrize(
    "make, told",
    [
        (lambda: encoder(width=7), "2 heads.*a divisor of 7; found 2"),
        (lambda: encoder(layers=0), "encoder.layers.*1 to 64; found 0"),
        (lambda: encoder(width=0), "encoder.width.*found 0"),
        (lambda: encoder(feed_forward=0), "encoder.feed_forward.*found 0"),
        (lambda: encoder(relu_dropout=1.0), "encoder.relu_dropout.*found 1.0"),
        (lambda: encoder(dropout=-0.1), "encoder.dropout.*found -0.1"),
        (lambda: encoder(learned_positions=0), "encoder.learned_positions.*found 0"),
        (lambda: decoder_of(alignment_layer=3), "decoder.alignment_layer.*1 to 2; found 3"),
        (lambda: decoder_of(alignment_layer=0), "decoder.alignment_layer.*1 to 2; found 0"),
        (lambda: decoder_of("none"), "through attention alone.*decoder=lstm"),
        (lambda: decoder_of("key_value_predict"), "no state to split.*decoder=lstm"),
        (lambda: decoder_of(self_attention="none"), "decoder=transformer is made of self-attention.*multihead"),
        (lambda: decoder_of(self_attention="key_value"), "self_attention=key_value.*multihead for a Transformer"),
        (lambda: transformer_encoder(4, own("none")), "encoder=transformer is made of self-attention"),
        (lambda: tiny(self_attention="lstmn", cell="gru"), "lstmn.*decoder=lstm; found cell gru"),
    ],
)
def test_wrong_options_are_named(make, told):
    with pytest.raises(ConfigError, match=told):
        make()
