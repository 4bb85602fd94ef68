"""Steps that are recorded and replayed against plain ones: for every attention and decoder, and on a GPU for real."""

import copy
import dataclasses
import logging

import pytest
import torch
from replay import ReplayingRecorder, as_on_a_gpu  # noqa: F401
from test_invariance import CASES, lines, same, trained

from s2s.attention import self_attention
from s2s.errors import UsageError
from s2s.model import recorded
from s2s.model.seq2seq import start_search
from s2s.products import HalfWeight
from s2s.recording import CudaRecorder
from s2s.search import SearchConfig
from s2s.state import tensors
from s2s.task import searched
from s2s.task.generate import Generator, Options
from s2s.task.model import Model

CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
GROWING = {"past_lstmn"}


@pytest.fixture
def recorder(monkeypatch, as_on_a_gpu):  # noqa: F811
    made = ReplayingRecorder()
    monkeypatch.setattr(searched, "recorder", lambda device: made)
    return made


def fresh(attention="additive", decoder="feed"):
    """A model for which nothing is recorded yet."""
    return dataclasses.replace(trained(attention, decoder))


def decode(model, texts, *, graphs="auto", batch_size=8, **search):
    config = dataclasses.replace(SearchConfig(max_length=12), **search)
    return Generator([model], config, Options(batch_size, alignment=True, graphs=graphs))(texts)


@pytest.mark.parametrize(("attention", "decoder"), CASES)
def test_replayed_steps_are_the_plain_ones(attention, decoder, recorder):
    model = fresh(attention, decoder)
    for search in ({"beam": 1, "min_length": 6}, {"beam": 3}):
        for one, other in zip(
            decode(model, lines(), **search), decode(model, lines(), graphs="off", **search), strict=True
        ):
            same(one, other)
    steps = model.searched["float32", "auto"][1].steps
    if decoder in GROWING:
        assert steps.off
        assert not recorder.replayed
    else:
        assert not steps.off
        assert recorder.replayed > recorder.recorded > 0


@pytest.mark.parametrize(
    "search",
    [{"beam": 1, "sample": True, "seed": 3}, {"beam": 4, "min_length": 5}, {"beam": 2, "coverage_penalty": 0.2}],
)
def test_with_every_kind_of_search(search, recorder):
    model = fresh()
    for one, other in zip(
        decode(model, lines(), **search), decode(model, lines(), graphs="off", **search), strict=True
    ):
        same(one, other)
    assert recorder.replayed


@pytest.mark.parametrize("decoder", ["transformer", "past_multihead", "past_key_value"])
def test_a_cache_gets_more_room(decoder, recorder, monkeypatch):
    monkeypatch.setattr(self_attention, "_ROOM", 4)
    model = fresh("additive", decoder)
    search = {"beam": 2, "min_length": 7}
    for _ in range(2):
        for one, other in zip(
            decode(model, lines(), **search), decode(model, lines(), graphs="off", **search), strict=True
        ):
            same(one, other)
    works = model.searched["float32", "auto"][1].steps._works.values()
    rooms = {one.shape[2] for work in works for one in tensors(work.state) if one.dim() == 4}
    assert rooms == {4, 8, 12}


def test_searches_take_turns(recorder):
    """What one has got isn't changed by the next, though they share what is recorded."""
    model = fresh()
    texts = [line for line in lines() if line.strip()]
    parts = [list(texts[::2]), list(texts[1::2])]
    expected = [decode(model, part, graphs="off") for part in parts]
    running = [Generator([model], SearchConfig(max_length=12), Options(2)).stream(iter(part)) for part in parts]
    found = [[next(stream) for _ in part] for stream, part in zip(running, parts, strict=True)]
    for one, other in zip(found, expected, strict=True):
        assert [result.tokens for result in one] == [result.tokens for result in other]


def test_two_searches_step_by_step_in_turns(recorder):
    model = fresh()
    made = searched.as_searched(model, SearchConfig(), "float32", "auto")
    ids = torch.tensor([[5, 6, 7, 3], [8, 9, 3, 0]]), torch.tensor([[9, 8, 5, 3], [6, 6, 6, 3]])
    lengths = torch.tensor([4, 3]), torch.tensor([4, 4])

    def outputs(steps):
        begun = [
            start_search(made.model, a, b, need_weights=False, steps=steps) for a, b in zip(ids, lengths, strict=True)
        ]
        states, found = [state for _, state in begun], [[], []]
        for number in range(4):
            for which, (step, _) in enumerate(begun):
                rows = torch.arange(2) if number < 3 else torch.tensor([1, 0])
                output = step(torch.tensor([4 + number, 9 - number]), states[which], rows)
                states[which] = output.state
                found[which].append(output.log_probs)
        return torch.stack([torch.stack(one) for one in found])

    with torch.no_grad():
        torch.testing.assert_close(outputs(made.steps), outputs(None))
    assert recorder.recorded == 1


def test_what_is_recorded_takes_little_memory(recorder, monkeypatch):
    monkeypatch.setattr(recorded, "MAX_BYTES", 1)
    model, search = fresh(), {"beam": 1, "min_length": 6}
    for one, other in zip(
        decode(model, lines(), **search), decode(model, lines(), graphs="off", **search), strict=True
    ):
        same(one, other)
    assert recorder.recorded == 1
    assert recorder.replayed > 1


def test_rows_are_filled_up_to_few_numbers():
    assert [recorded._filled(n) for n in (1, 2, 3, 5, 64, 65, 128, 129, 320)] == [1, 2, 4, 8, 64, 128, 128, 192, 320]


def test_what_prevents_it_is_told(recorder, caplog):
    with caplog.at_level(logging.WARNING):
        decode(fresh("additive", "past_lstmn"), lines())
    assert [record.message for record in caplog.records if record.name == "s2s"] == [
        "steps run without CUDA graphs: the decoder's state grows with what is written"
    ]


def test_what_cannot_be_recorded_runs_plainly(recorder, caplog, monkeypatch):
    def record(work):
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    monkeypatch.setattr(recorder, "record", record)
    model = fresh()
    with caplog.at_level(logging.WARNING):
        for one, other in zip(decode(model, lines()), decode(model, lines(), graphs="off"), strict=True):
            same(one, other)
    assert "not permitted" in model.searched["float32", "auto"][1].steps.off
    assert len([record for record in caplog.records if record.name == "s2s"]) == 1


def test_what_is_recorded_is_kept_until_the_weights_change(recorder):
    model = dataclasses.replace(fresh(), model=copy.deepcopy(fresh().model))
    decode(model, lines())
    before = model.searched["float32", "auto"]
    decode(model, lines())
    assert model.searched["float32", "auto"] is before
    with torch.no_grad():
        for parameter in model.model.parameters():
            parameter.mul_(-0.5)
    for one, other in zip(decode(model, lines()), decode(model, lines(), graphs="off"), strict=True):
        same(one, other)
    assert model.searched["float32", "auto"] is not before
    decode(model, lines(), forward="strict")
    assert set(model.searched) == {("float32", "auto"), ("float32", "off")}


def test_the_option_of_a_generator_is_heeded(recorder):
    model = Model([fresh()])
    assert model.generator()._searched[0].steps is not None
    assert model.generator(graphs="off")._searched[0].steps is None


def test_bf16_asks_for_a_gpu():
    with pytest.raises(UsageError, match="GPU"):
        Generator([fresh()], SearchConfig(), Options(precision="bf16"))
    with pytest.raises(UsageError, match="graphs"):
        Options(graphs="on")


def test_products_in_bf16_are_summed_in_float32():
    torch.manual_seed(0)
    weight, x, added = torch.randn(5, 64), torch.randn(2, 3, 64), torch.randn(2, 3, 5)
    half = HalfWeight(weight)
    exact = x.bfloat16().double() @ weight.bfloat16().double().t()
    torch.testing.assert_close(half.product(x).double(), exact, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(half.product(x, added), half.product(x) + added)
    torch.testing.assert_close(half.rows(torch.tensor([4, 0])).product(x), half.product(x)[..., [4, 0]])
    assert half.product(x).dtype == torch.float32


@CUDA
@pytest.mark.parametrize(("attention", "decoder"), CASES)
@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_cuda_graphs_give_the_plain_steps(attention, decoder, precision):
    model = fresh(attention, decoder)
    model.model.to("cuda")
    try:
        found = [
            Generator([model], SearchConfig(max_length=12, beam=3), Options(precision=precision, graphs=graphs))(
                lines()
            )
            for graphs in ("auto", "off")
        ]
    finally:
        model.model.to("cpu")
    steps = model.searched[precision, "auto"].steps
    assert isinstance(steps.recorder, CudaRecorder)
    assert bool(steps.off) == (decoder in GROWING), steps.off
    for one, other in zip(*found, strict=True):
        assert one.tokens == other.tokens
