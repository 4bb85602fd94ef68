"""The same output for any batch, neighbours and order: for every attention and decoder, with random weights."""

from __future__ import annotations

import dataclasses
import functools
import random
from typing import Any

import pytest
import torch

from s2s.app import compose
from s2s.attention import names
from s2s.model.seq2seq import Copies, start_search
from s2s.search import SearchConfig, force
from s2s.task.generate import Generator, Options
from s2s.task.request import Request
from s2s.task.trained import Trained, build_model
from s2s.text.batching import pad
from s2s.text.corpus import generated
from s2s.types import EOS, UNK, Result

DECODERS = {
    "feed": ["decoder.input_feed=true"],
    "at_once": ["decoder.input_feed=false"],
    "bahdanau": ["decoder.style=bahdanau"],
    "gru_two_layers": ["decoder=gru", "encoder=gru", "decoder.layers=2", "encoder.layers=2", "decoder.residual=true"],
    "transformer": ["encoder=transformer", "decoder=transformer"],
    "transformer_decoder": ["decoder=transformer", "decoder.learned_positions=500"],
    "past_multihead": ["self_attention=multihead"],
    "past_key_value": ["self_attention=key_value"],
    "past_lstmn": ["self_attention=lstmn"],
    "copying": ["copy=pointer", "copy.bias=-1", "text.size=12"],  # eight of the twenty words have an id
    "copying_transformer": ["copy=pointer", "text.size=12", "encoder=transformer", "decoder=transformer"],
}
CASES = (
    [(name, "at_once") for name in names()]
    + [("additive", decoder) for decoder in DECODERS]
    + [(name, "feed") for name in ("none", "location", "general")]
)


@functools.cache
def trained(attention: str, decoder: str) -> Trained:
    corpus = generated(task="sort", train=100, dev=5, test=5, max_length=8)
    config = compose("teach/copy", [f"attention={attention}", *DECODERS[decoder], "text.joint=false"])
    texts = [pair.source for pair in corpus.splits["train"]], [pair.target for pair in corpus.splits["train"]]
    source, target = config.text.build().train(*texts)
    torch.manual_seed(3)
    model = build_model(config, source.size, target.size)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2.0)  # far from uniform, so that outputs differ between sources
    return Trained(model.eval().requires_grad_(False), source, target, config, ("a", "b"))


def lines(count: int = 17) -> list[str]:
    words = [pair.source for pair in generated(task="sort", train=100, dev=5, test=5, max_length=8).splits["train"]]
    return [*words[: count - 3], "", words[0], "  "]


def decode(model: Trained, texts: list[str], batch_size: int = 64, **search: Any) -> list[Result]:
    config = dataclasses.replace(SearchConfig(max_length=12), **search)
    return Generator([model], config, Options(batch_size, alignment=True))(texts)


def same(one: Result, other: Result) -> None:
    assert (one.tokens, one.text, one.flags) == (other.tokens, other.text, other.flags)
    assert one.score == pytest.approx(other.score, abs=1e-4)


# every mechanism with the search that moves its state most, every decoder with all
SEARCHES: tuple[dict[str, Any], ...] = (
    {"beam": 4, "nbest": 2},
    {"beam": 1},
    {"beam": 1, "sample": True, "top_p": 0.9},
)


@pytest.mark.parametrize("attention, decoder", CASES)
def test_batch_neighbours_and_order_change_nothing(attention: str, decoder: str) -> None:
    model, texts = trained(attention, decoder), lines()
    for search in SEARCHES if attention in ("additive", "mocha") else SEARCHES[:1]:
        whole = decode(model, texts, **search)
        assert [result.input for result in whole] == texts
        for size in (1, 7):
            for one, other in zip(whole, decode(model, texts, size, **search), strict=True):
                same(one, other)
        if search.get("sample"):
            continue  # its draws belong to the number of the line
        order = list(range(len(texts)))
        random.Random(1).shuffle(order)
        for place, result in zip(order, decode(model, [texts[i] for i in order], **search), strict=True):
            same(whole[place], result)


@pytest.mark.parametrize("attention, decoder", CASES)
def test_scores_are_those_of_forced_decoding(attention: str, decoder: str) -> None:
    model, texts = trained(attention, decoder), [text for text in lines() if text.strip()]
    results = decode(model, texts, beam=3)
    ids, lengths = pad([[*model.source.encode(text), EOS] for text in texts])
    with torch.no_grad():
        step, state = start_search(model.model, ids, lengths, copies=copies_of(model, texts))
    for result, forced in zip(results, force(step, state, [result.tokens for result in results]), strict=True):
        assert forced.log_prob == pytest.approx(result.log_prob, abs=1e-4)


def copies_of(model: Trained, texts: list[str]) -> Copies | None:
    if model.copier is None:
        return None
    found = [model.copier(text, model.source.encode(text)) for text in texts]
    return Copies(pad([[*one.source, EOS] for one in found])[0], max(len(one.extra) for one in found))


def test_words_without_an_id_are_copied() -> None:
    model, texts = trained("additive", "copying"), [text for text in lines() if text.strip()]
    extra = [word for result in decode(model, texts, beam=3) for word in result.text.split()]
    assert any(model.target.encode(word) == [UNK] and word != "<unk>" for word in extra)
    assert all(
        set(result.text.split()) <= {*result.input.split(), *model.target.pieces(range(model.target.size))}
        for result in decode(model, texts, beam=3)
    )


def test_outputs_differ_between_sources() -> None:
    """The tests above would pass on a model that always says the same."""
    outputs = {result.tokens for result in decode(trained("additive", "feed"), lines(), beam=1) if result.tokens}
    assert len(outputs) > 5


def test_split_truncate_refuse_at_the_limit() -> None:
    model, text = trained("additive", "feed"), " ".join(["ba", "be", "bi", "bo"] * 3)
    config = SearchConfig(beam=1, max_length=12)

    def run(limit: int, overlong: Any) -> Result:
        return Generator([model], config, Options(overlong=overlong, max_source=limit))([Request(text)])[0]

    for overlong in ("split", "truncate", "refuse"):
        assert not {"split", "truncated", "refused"} & set(run(12, overlong).flags)  # exactly as long as allowed
    assert "split" in run(11, "split").flags
    cut = run(11, "truncate")
    assert "truncated" in cut.flags
    assert len(cut.source_pieces) == 12  # and EOS
    refused = run(11, "refuse")
    assert refused.text == ""
    assert refused.error is not None
    assert "12 tokens, at most 11" in refused.error
