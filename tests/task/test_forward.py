"""Decoding with the attention kept from going back: any trained model, any batch, and the model stays as it is."""

from __future__ import annotations

import argparse

import pytest
import torch
from test_invariance import decode, lines, trained

from s2s.attention.align import SoftAlignment
from s2s.attention.base import ScoredAttention
from s2s.command.text import add_search_arguments, search_changes
from s2s.errors import ConfigError, UsageError
from s2s.search import SearchConfig
from s2s.task.generate import Generator, Options

MODES = ["soft", "threshold", "strict", "window"]
MODELS = [("additive", "feed"), ("general", "at_once"), ("additive", "bahdanau"), ("multihead", "transformer")]


def alignments(model):
    return [type(part.align) for part in model.model.modules() if isinstance(part, ScoredAttention)]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("attention, decoder", MODELS, ids=["-".join(model) for model in MODELS])
def test_the_same_output_for_any_batch_and_the_model_is_left_alone(attention, decoder, mode):
    model, texts = trained(attention, decoder), lines(12)
    free = decode(model, texts, beam=3)
    forced = decode(model, texts, beam=3, forward=mode)
    for batch_size in (1, 5):
        again = decode(model, texts, batch_size=batch_size, beam=3, forward=mode)
        assert [result.tokens for result in again] == [result.tokens for result in forced]
    assert any(a.log_prob != b.log_prob for a, b in zip(free, forced, strict=True))
    assert set(alignments(model)) == {SoftAlignment}
    assert [result.tokens for result in decode(model, texts, beam=3)] == [result.tokens for result in free]


def test_strict_never_goes_back_in_the_best_hypothesis_of_a_beam():
    config = SearchConfig(beam=4, forward="strict", min_length=5)
    results = Generator([trained("additive", "feed")], config, Options(alignment=True))(lines(9)[:6])
    for result in results:
        places = torch.tensor(result.alignment).argmax(1)
        last = len(result.source_pieces) - 1
        steps = places.diff()
        assert ((steps > 0) | (places[1:] == last)).all()


def test_its_parameters_reach_the_attention():
    model, texts = trained("additive", "feed"), lines(12)

    def scores(**options):
        return [result.log_prob for result in decode(model, texts, beam=1, **options)]

    for mode, changes in (
        ("threshold", {"forward_threshold": 0.1}),
        ("window", {"forward_back": 0}),
        ("window", {"forward_ahead": 1}),
        ("strict", {"forward_exhausted": "zero"}),
    ):
        assert scores(forward=mode) != scores(forward=mode, **changes)


def test_an_ensemble_is_forced_too():
    models = [trained("additive", "feed"), trained("additive", "bahdanau")]
    free, forced = (Generator(models, SearchConfig(beam=2, forward=mode))(lines(6)) for mode in ("off", "strict"))
    assert any(a.log_prob != b.log_prob for a, b in zip(free, forced, strict=True))


@pytest.mark.parametrize("name, reason", [("none", "no energies"), ("monotonic", "its own past")])
def test_a_model_whose_attention_can_t_be_forced_is_refused(name, reason):
    with pytest.raises(UsageError, match=reason):
        Generator([trained(name, "at_once")], SearchConfig(forward="strict"))


@pytest.mark.parametrize(
    "options, key",
    [
        ({"forward": "back"}, "forward='back'"),
        ({"forward": "strict", "forward_exhausted": "first"}, "forward_exhausted='first'"),
        ({"forward": "threshold", "forward_threshold": 0.0}, "forward_threshold=0.0"),
        ({"forward": "window", "forward_back": -1}, "forward_back=-1"),
        ({"forward": "window", "forward_ahead": 0}, "forward_ahead=0"),
        ({"forward_threshold": 0.7}, "forward_threshold=0.7: has a meaning only with search.forward=threshold"),
        ({"forward": "strict", "forward_back": 2}, "forward_back=2: has a meaning only with search.forward=window"),
        ({"forward": "soft", "forward_exhausted": "zero"}, "forward_exhausted=zero: has a meaning only with"),
    ],
    ids=str,
)
def test_values_out_of_range_or_without_a_meaning_are_named(options, key):
    with pytest.raises(ConfigError, match=f"search.{key}"):
        SearchConfig(**options).check()


def test_the_command_line_gives_them():
    parser = argparse.ArgumentParser()
    add_search_arguments(parser)
    given = ["--forward", "window", "--forward-back", "2", "--forward-ahead", "4", "--forward-exhausted", "zero"]
    found = search_changes(parser.parse_args([*given]))
    expected = {"forward": "window", "forward_back": 2, "forward_ahead": 4, "forward_exhausted": "zero"}
    assert expected.items() <= found.items()
    assert search_changes(parser.parse_args(["--forward", "threshold", "--forward-threshold", "0.3"])).items() >= {
        ("forward", "threshold"),
        ("forward_threshold", 0.3),
    }
    assert not any(key.startswith("forward") for key in search_changes(parser.parse_args([])))
