"""Decoders: the promise of chunk invariance in every style, and the order in which state, query and context meet."""

from itertools import product

import pytest
import torch
from model_toys import ATTENTIONS, MIXED, STYLES, batch, flat, kind, named, shapes, tiny
from torch import nn

from s2s.attention import build, self_attention
from s2s.errors import ConfigError
from s2s.model import recurrent_decoder
from s2s.state import select
from s2s.types import Encoded

GRID = [
    {**options, "attention": attention}
    for number, options in enumerate(shapes())
    # every shape with one mechanism, in turn; those without flags with all
    for attention in (
        ATTENTIONS if not (options["deep_output"] or options["residual"]) else [ATTENTIONS[number % len(ATTENTIONS)]]
    )
]
ROUNDING = (
    5e-6  # of float32 through stacked layers: other shapes are summed in another order, and each processor has its own
)
every = pytest.mark.parametrize("options", [*GRID, *MIXED], ids=[*map(named, GRID), *map(kind, MIXED)])
mixed = pytest.mark.parametrize("options", MIXED, ids=kind)


def decoded(model, given, chunks=None, need_weights=True):
    """Features, context and weights of the targets of a batch, by one call or by a call for each chunk."""
    memory, state = model.start(given.source, given.source_lengths)
    parts = []
    for tokens in given.target_in.split(chunks or [given.target_in.size(1)], 1):
        output = model.decoder(tokens, memory, state, need_weights=need_weights)
        state = output.state
        parts.append(output)
    joined = [torch.cat([part[i] for part in parts], 1) for i in (0, 1) if parts[0][i] is not None]
    weights = None if parts[0].weights is None else torch.cat([part.weights for part in parts], 1)
    return [*joined, weights], state


@every
def test_chunk_invariance_and_reordered_states(options):
    if options.get("decoder") != "transformer":
        check_chunks(tiny(**options), options, 1e-6)
        return
    check_chunks(tiny(**options), options, 3e-6)  # one query and many have kernels of their own
    check_chunks(tiny(**options).double(), options, 1e-9)


def check_chunks(model, options, near):
    """One call equals any split of it, as near as that; and rows of a state go on by themselves."""
    given = batch(((3, 5), (5, 5), (1, 4)))
    with torch.no_grad():
        whole, last = decoded(model, given)
        assert (whole[2] is None) == (options.get("attention") == "none")
        for chunks in ([1] * 6, [2, 1, 3], [5, 1]):
            parts, end = decoded(model, given, chunks)
            for one, other in zip(parts, whole, strict=True):
                assert (one is None) == (other is None)
                if one is not None:
                    torch.testing.assert_close(one, other, atol=near, rtol=near)
            for one, other in zip(flat(end), flat(last), strict=True):
                torch.testing.assert_close(one, other, atol=near, rtol=near)
        # rows taken out of the state in the middle go on as if they had been decoded alone
        memory, state = model.start(given.source, given.source_lengths)
        middle = model.decoder(given.target_in[:, :3], memory, state)
        rows = torch.tensor([2, 0, 0])
        rest = model.decoder(given.target_in[rows, 3:], select(memory, rows), select(middle.state, rows))
        torch.testing.assert_close(rest.features, whole[0][rows, 3:], atol=1e-6, rtol=1e-6)


@every
def test_a_batch_of_one_equals_a_row_of_a_batch(options):
    model = tiny(**options)
    lengths = ((3, 5), (5, 2), (1, 4))
    given = batch(lengths)
    wide = batch(lengths, pad_multiple=8)
    with torch.no_grad():
        together, padded = model(given, need_weights=True), model(wide, need_weights=True)
        for row, (source, target) in enumerate(lengths):
            kept = slice(row, row + 1)
            alone = given._replace(
                source=given.source[kept, : source + 1],
                source_lengths=given.source_lengths[kept],
                target_in=given.target_in[kept, : target + 1],
            )
            output = model(alone, need_weights=True)
            for other in (together, padded):
                torch.testing.assert_close(
                    other.features[row, : target + 1], output.features[0], atol=ROUNDING, rtol=ROUNDING
                )
                if output.weights is not None:
                    shown = other.weights[row, : target + 1]
                    torch.testing.assert_close(shown[:, : source + 1], output.weights[0], atol=ROUNDING, rtol=ROUNDING)
                    assert not shown[:, source + 1 :].any()


@pytest.mark.parametrize("cell", ["lstm", "gru"])
@pytest.mark.parametrize("style, feed", STYLES)
@pytest.mark.parametrize("layers", [1, 2])
def test_the_equations_step_by_step(cell, style, feed, layers):
    """A loop over torch's own cells in the order that the papers give (dropout 0)."""
    model = tiny(cell=cell, style=style, input_feed=feed, layers=layers, deep_output=True, dtype=torch.float64)
    decoder, given = model.decoder, batch()
    memory, state = model.start(given.source, given.source_lengths)
    encoded = model.encode(given.source, given.source_lengths)
    kind = {"lstm": nn.LSTMCell, "gru": nn.GRUCell}[cell]
    width, count = decoder.width, 2 if cell == "lstm" else 1
    bridged = encoded.final @ decoder.bridge.weight.t() + decoder.bridge.bias
    hidden = [torch.tanh(bridged[:, n * width : (n + 1) * width]) for n in range(layers)]
    cells = [bridged[:, (layers + n) * width : (layers + n + 1) * width] for n in range(layers)] if count == 2 else []
    last = torch.zeros(3, decoder.output_size, dtype=torch.float64)

    def attend(query):
        return decoder.attention(query.unsqueeze(1), memory, ()).context.squeeze(1)

    features = []
    for step in range(given.target_in.size(1)):
        embedding = 2 * decoder.embedding.weight[given.target_in[:, step]]  # times the root of its width
        context = attend(hidden[-1]) if style == "bahdanau" else None
        inputs = torch.cat([embedding, context], 1) if style == "bahdanau" else embedding
        if style == "luong" and feed:
            inputs = torch.cat([embedding, last], 1)
        for n, layer in enumerate(decoder.layers):
            weights = {name.removesuffix("_l0"): value for name, value in layer.rnn.named_parameters()}
            one = kind(layer.input_size, width).double()
            before = (hidden[n], cells[n]) if cell == "lstm" else hidden[n]
            made = torch.func.functional_call(one, weights, (inputs, before))
            if cell == "lstm":
                hidden[n], cells[n] = made
            else:
                hidden[n] = made
            inputs = hidden[n]
        if style == "luong":
            context = attend(hidden[-1])
        read = torch.cat([hidden[-1], context], 1) @ decoder.readout.weight.t() + decoder.readout.bias
        last = torch.tanh(read + embedding @ decoder.readout_embedding.weight.t())
        features.append(last)
    output = decoder(given.target_in, memory, state)
    torch.testing.assert_close(output.features, torch.stack(features, 1), atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("cell", ["lstm", "gru"])
@pytest.mark.parametrize("style, feed", STYLES)
def test_residual_is_for_layers_above_the_first(cell, style, feed):
    """Embeddings as wide as the cell, so that the first layer could add its input, and must not."""
    options = {"cell": cell, "style": style, "input_feed": feed, "width": 6, "embedding": 6}
    given = batch()

    def features(layers, residual):
        model = tiny(**options, layers=layers, residual=residual)
        model.encoder.residual = False
        return model(given).features

    assert torch.equal(features(1, False), features(1, True))
    assert not torch.allclose(features(2, False), features(2, True))


@pytest.mark.parametrize("style, feed", [style for style in STYLES if style[0] == "luong"])
def test_residual_adds_what_dropout_has_not_touched(style, feed):
    """With everything dropped, a lower layer reaches the query past the dropout or not at all."""
    given, features = batch(), []
    for residual in (False, True):
        model = tiny(style=style, input_feed=feed, layers=2, residual=residual)
        model.encoder.residual = False
        model.decoder.dropout = nn.Threshold(torch.inf, 0.0)
        features.append(model(given).features)
    assert not torch.allclose(*features)


def test_input_feeding_and_style_are_other_functions():
    given = batch()
    outputs = [tiny(style=style, input_feed=feed)(given) for style, feed in STYLES]
    for one, other in ((0, 1), (1, 2)):
        assert not torch.allclose(outputs[one].features, outputs[other].features)


def test_deep_output_lets_the_last_word_reach_the_output_beside_the_cell():
    given = batch()
    for style, feed in STYLES:
        model = tiny(style=style, input_feed=feed, deep_output=True)
        first = model(given).features
        model.decoder.readout_embedding.weight.data.zero_()
        assert not torch.allclose(model(given).features, first)
        assert tiny(style=style, input_feed=feed, deep_output=False).decoder.readout_embedding is None


@pytest.mark.parametrize("style, feed", STYLES)
def test_dropout_draws_differ_in_training_and_never_in_eval(style, feed):
    model = tiny(style=style, input_feed=feed, layers=2, dropout=0.5)
    given = batch()
    assert torch.equal(model(given).features, model(given).features)
    model.train()
    assert not torch.equal(model(given).features, model(given).features)


@pytest.mark.parametrize("style, feed", STYLES)
def test_weights_only_when_asked_for(style, feed):
    model, given = tiny(style=style, input_feed=feed), batch()
    assert model(given).weights is None
    with_weights = model(given, need_weights=True)
    assert with_weights.weights.shape == (3, 5, 6)
    assert torch.equal(with_weights.features, model(given).features)


@mixed
def test_no_information_of_the_future_reaches_a_position_of_any_model(options):
    model, given = tiny(**options), batch()
    before, changed = model(given).features, given.target_in.clone()
    changed[:, 3] = (changed[:, 3] + 1) % 9
    after = model(given._replace(target_in=changed)).features
    torch.testing.assert_close(before[:, :3], after[:, :3], atol=1e-6, rtol=1e-6)
    assert not torch.allclose(before[:, 3], after[:, 3])


@mixed
def test_weights_only_when_asked_for_of_any_model(options):
    model, given = tiny(**options), batch()
    plain, shown = model(given), model(given, need_weights=True)
    assert plain.weights is None
    assert shown.weights.shape == (3, 5, 6)
    torch.testing.assert_close(shown.weights.sum(-1), torch.ones(3, 5))
    torch.testing.assert_close(plain.features, shown.features, atol=1e-6, rtol=1e-6)


@mixed
def test_a_source_that_grows_gives_the_memory_of_the_whole(options):
    model, given = tiny(**options), batch(((5, 4), (5, 3), (5, 2)))
    encoded = model.encode(given.source, given.source_lengths)
    whole = model.decoder.remember(encoded)
    first, rest = (Encoded(encoded.states[:, p], encoded.final, encoded.mask[:, p]) for p in (slice(4), slice(4, 6)))
    grown = model.decoder.extend(model.decoder.remember(first), rest)
    for one, other in zip(flat(grown), flat(whole), strict=True):
        torch.testing.assert_close(one, other)


def test_no_information_of_the_future_reaches_a_position():
    given = batch()
    for cell, (style, feed) in product(("lstm", "gru"), STYLES):
        model = tiny(cell=cell, style=style, input_feed=feed, layers=2)
        before = model(given).features
        changed = given.target_in.clone()
        changed[:, 3] = (changed[:, 3] + 1) % 9
        after = model(given._replace(target_in=changed)).features
        assert torch.equal(before[:, :3], after[:, :3])
        assert not torch.allclose(before[:, 3], after[:, 3])


def decoder_of(**options):
    def attention(size):
        return build("additive", query_size=size, memory_size=6)

    return recurrent_decoder(nn.Embedding(9, 4), attention, self_attention.none, 6, 6, 0.0, **{"width": 6, **options})


@pytest.mark.parametrize(
    "options, named",
    [
        ({"style": "bahdanau", "input_feed": False}, "decoder.input_feed.*expected true; found false.*style=luong"),
        ({"style": "bahdanu"}, "decoder.style.*luong or bahdanau; found 'bahdanu'"),
        ({"width": 0}, "decoder.width.*found 0"),
        ({"width": 10**12}, "decoder.width"),
        ({"layers": 65}, "decoder.layers.*1 to 64; found 65"),
        ({"dropout": -0.1}, "decoder.dropout.*found -0.1"),
        ({"cell": "LSTM"}, "cell.*found 'LSTM'"),
    ],
)
def test_wrong_options_are_named(options, named):
    with pytest.raises(ConfigError, match=named):
        decoder_of(**options)
