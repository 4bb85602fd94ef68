"""Encoders of a source that grows, and decoders that don't start from it."""

import pytest
import torch
from model_toys import SOURCE, flat, tiny

from s2s.errors import ConfigError
from s2s.model import recurrent_encoder

ENCODERS = [
    *({"cell": cell, "layers": layers, "bidirectional": False} for cell in ("lstm", "gru") for layers in (1, 2)),
    *(
        {"cell": cell, "layers": 2, "chunk": chunk, "residual": True}
        for cell in ("lstm", "gru")
        for chunk in (1, 3, 50)
    ),
    {"encoder": "transformer", "bidirectional": False, "layers": 2},
    {"encoder": "transformer", "bidirectional": False, "self_attention": "multihead", "learned_positions": 4},
]


def made(options):
    if options.get("encoder") == "transformer":
        encoder = tiny(**options, dtype=torch.float64).encoder
        return encoder, 4
    torch.manual_seed(0)
    return recurrent_encoder(
        4, **{"width": 6, **{k: v for k, v in options.items() if k != "encoder"}}
    ).double().eval(), 4


def name(options):
    return "-".join(f"{key}_{value}" for key, value in options.items())


@pytest.mark.parametrize("sizes", [[7], [1] * 7, [2, 3, 2], [0, 4, 0, 3]], ids=str)
@pytest.mark.parametrize("options", ENCODERS, ids=name)
def test_a_source_in_parts_is_encoded_as_the_whole(options, sizes):
    encoder, width = made(options)
    assert encoder.online
    torch.manual_seed(1)
    embedded = torch.randn(2, 7, width, dtype=torch.float64)
    whole = encoder(embedded, torch.tensor([7, 7]))
    state, parts = (), []
    starts = torch.tensor([0, *sizes]).cumsum(0).tolist()
    for number, (start, size) in enumerate(zip(starts, sizes, strict=False)):
        part, state = encoder.extend(embedded[:, start : start + size], state, last=number == len(sizes) - 1)
        parts.append(part)
        known = sum(one.states.size(1) for one in parts)
        chunk = options.get("chunk")
        if number < len(sizes) - 1:
            assert known == (start + size if chunk is None else (start + size) // chunk * chunk)
    torch.testing.assert_close(torch.cat([part.states for part in parts], 1), whole.states)
    torch.testing.assert_close(parts[-1].final, whole.final)
    assert torch.cat([part.mask for part in parts], 1).all()


@pytest.mark.parametrize("options", [one for one in ENCODERS if "chunk" in one], ids=name)
def test_padding_changes_nothing(options):
    encoder, width = made(options)
    torch.manual_seed(1)
    embedded, lengths = torch.randn(3, 9, width, dtype=torch.float64), torch.tensor([4, 9, 1])
    batch = encoder(embedded, lengths)
    for row, length in enumerate(lengths.tolist()):
        alone = encoder(embedded[row : row + 1, :length], lengths[row : row + 1])
        torch.testing.assert_close(batch.states[row, :length], alone.states[0])
        torch.testing.assert_close(batch.final[row], alone.final[0])
        assert not batch.states[row, length:].any()


def test_a_state_depends_on_the_rest_of_its_chunk_and_on_nothing_later():
    encoder, width = made({"chunk": 3, "layers": 2})
    torch.manual_seed(1)
    embedded = torch.randn(1, 8, width, dtype=torch.float64, requires_grad=True)
    states = encoder(embedded, torch.tensor([8])).states
    for position in range(8):
        (gradient,) = torch.autograd.grad(states[0, position].sum(), embedded, retain_graph=True)
        assert gradient[0].abs().sum(-1).gt(0).tolist() == [other < min(8, position // 3 * 3 + 3) for other in range(8)]


def test_a_chunk_longer_than_the_source_is_the_bidirectional_encoder():
    chunked, width = made({"chunk": 50, "layers": 2})
    plain, _ = made({"layers": 2})
    plain.load_state_dict(chunked.state_dict())
    torch.manual_seed(1)
    embedded, lengths = torch.randn(2, 7, width, dtype=torch.float64), torch.tensor([7, 3])
    for one, other in zip(chunked(embedded, lengths), plain(embedded, lengths), strict=True):
        torch.testing.assert_close(one, other)
    assert not plain.online


@pytest.mark.parametrize(
    ("options", "message"),
    [({"chunk": 0}, r"encoder\.chunk"), ({"chunk": 4, "bidirectional": False}, "backward direction")],
    ids=["zero", "no_backward"],
)
def test_wrong_chunks_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        recurrent_encoder(4, width=6, **options)


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_a_zero_bridge_starts_from_zeros_whatever_the_source(cell):
    model = tiny(cell=cell, layers=2, bridge="zero")
    source = torch.randint(4, SOURCE, (2, 5))
    _, state = model.start(source, torch.tensor([5, 3]))
    assert not any(part.any() for part in flat(state[0]))
    assert not model.decoder.starts_from_source
    assert tiny(cell=cell).decoder.starts_from_source
