"""Recurrent decoders that attend to their own past, step by step over the papers' equations (dropout 0)."""

import pytest
import torch
from model_toys import STYLES, batch, tiny
from torch import nn

PARTS = {"key_value": 2, "key_value_predict": 3, "intra_decoder": 1}
WINDOW = 2


def cell_step(layer, inputs, before):
    weights = {name.removesuffix("_l0"): value for name, value in layer.rnn.named_parameters()}
    return torch.func.functional_call(nn.LSTMCell(layer.input_size, layer.size).double(), weights, (inputs, before))


def looked_back(module, history, hidden, name):
    """r of Daniluk et al. 2017: the sum over the last outputs by their scores; zeros without a past."""
    size = hidden.size(1) // PARTS[name]
    past = history[-WINDOW:]
    values = [one if PARTS[name] == 1 else one[:, size : 2 * size] for one in past]
    if not past:
        return hidden.new_zeros(hidden.size(0), size)
    score, query = module.score, hidden[:, :size]
    energies = []
    for one in past:
        key = one[:, :size]
        if name == "intra_decoder":
            energies.append((query * (key @ score.weight.t())).sum(1))
        else:
            inner = query @ score.query_weight.t() + key @ score.key_weight.t() + score.bias
            energies.append(torch.tanh(inner) @ score.vector)
    weights = torch.stack(energies, 1).softmax(1)
    return (weights.unsqueeze(2) * torch.stack(values, 1)).sum(1)


@pytest.mark.parametrize("name", PARTS)
@pytest.mark.parametrize("style, feed", STYLES)
def test_what_is_read_is_merged_with_what_is_seen_of_the_past(name, style, feed):
    model = tiny(self_attention=name, style=style, input_feed=feed, dtype=torch.float64)
    decoder, given = model.decoder, batch()
    memory, state = model.start(given.source, given.source_lengths)
    (hidden, cell), last = state.cells[0], state.feed
    history, features = [], []
    for step in range(given.target_in.size(1)):
        word = 2 * decoder.embedding.weight[given.target_in[:, step]]  # times the root of its width

        def ask(query):
            return decoder.attention(query.unsqueeze(1), memory, ()).context.squeeze(1)

        context = ask(hidden) if style == "bahdanau" else None
        late = [context] if style == "bahdanau" else [last] if feed else []
        hidden, cell = cell_step(decoder.layers[0], torch.cat([word, *late], 1), (hidden, cell))
        seen = looked_back(decoder.self_attention, history, hidden, name)
        history.append(hidden)
        part = hidden[:, -(6 // PARTS[name]) :]
        merged = torch.tanh(torch.cat([seen, part], 1) @ decoder.merge.weight.t() + decoder.merge.bias)
        context = ask(merged) if style == "luong" else context
        read = torch.cat([merged, context], 1) @ decoder.readout.weight.t() + decoder.readout.bias
        last = torch.tanh(read + word @ decoder.readout_embedding.weight.t())
        features.append(last)
    found = decoder(given.target_in, memory, state).features
    torch.testing.assert_close(found, torch.stack(features, 1), atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("style, feed", STYLES)
@pytest.mark.parametrize("layers", [1, 2])
def test_tapes_take_the_place_of_the_last_state(style, feed, layers):
    """Cheng et al. 2016, eq. 4 to 8, with a tape for each layer."""
    model = tiny(self_attention="lstmn", style=style, input_feed=feed, layers=layers, dtype=torch.float64)
    decoder, given = model.decoder, batch()
    memory, state = model.start(given.source, given.source_lengths)
    tapes = [[pair] for pair in state.cells]
    summaries, last = [pair[0] for pair in state.cells], state.feed
    features = []
    for step in range(given.target_in.size(1)):
        word = 2 * decoder.embedding.weight[given.target_in[:, step]]

        def ask(query):
            return decoder.attention(query.unsqueeze(1), memory, ()).context.squeeze(1)

        context = ask(tapes[-1][-1][0]) if style == "bahdanau" else None
        x = torch.cat([word, *([context] if style == "bahdanau" else [last] if feed else [])], 1)
        for n, layer in enumerate(decoder.layers):
            score = decoder.tapes[n].score
            asked = torch.cat([x, summaries[n]], 1) @ score.query_weight.t()
            energies = [torch.tanh(asked + h @ score.key_weight.t()) @ score.vector for h, _ in tapes[n]]
            weights = torch.stack(energies, 1).softmax(1).unsqueeze(2)
            attended = [(weights * torch.stack(tape, 1)).sum(1) for tape in zip(*tapes[n], strict=True)]
            tapes[n].append(cell_step(layer, x, tuple(attended)))
            summaries[n], x = attended[0], tapes[n][-1][0]
        context = ask(x) if style == "luong" else context
        read = torch.cat([x, context], 1) @ decoder.readout.weight.t() + decoder.readout.bias
        last = torch.tanh(read + word @ decoder.readout_embedding.weight.t())
        features.append(last)
    found = decoder(given.target_in, memory, state).features
    torch.testing.assert_close(found, torch.stack(features, 1), atol=1e-10, rtol=1e-10)


def test_multihead_looks_at_the_present_too():
    """Unlike the others: a first position attends to itself."""
    model, given = tiny(self_attention="multihead", input_feed=False), batch()
    decoder = model.decoder
    seen = []
    decoder.self_attention.register_forward_hook(lambda module, inputs, output: seen.append((inputs[0], output.output)))
    model(given)
    (x, output), module = seen[0], decoder.self_attention
    values = x[:, 0] @ module.inner.weight[-6:].t()
    torch.testing.assert_close(output[:, 0], values @ module.mix.weight.t())
