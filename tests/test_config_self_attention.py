"""Which encoders, decoders, attentions and self-attentions go together, and what is said where they don't."""

import re

import pytest

from s2s import app, config, registry
from s2s.errors import ConfigError

BOTH = ["encoder=transformer", "decoder=transformer"]
ATTENTIONS = registry.group_names("attention")
RECURRENT_ONLY = ("none", "key_value_predict")


@pytest.mark.parametrize("recipe", ["teach/reverse", "translate/multi30k", "translate/debian-en-de"])
@pytest.mark.parametrize("swaps", [BOTH, BOTH[:1], BOTH[1:]], ids=lambda swaps: "-".join(swaps))
def test_one_word_swaps_a_part_of_any_recipe(recipe, swaps):
    made = app.compose(recipe, swaps)
    assert made.self_attention.name == "auto"
    assert {made.encoder.name.split("_")[0], made.decoder.name.split("_")[0]} >= {"transformer"}


@pytest.mark.parametrize("name", [name for name in registry.group_names("self_attention") if name != "none"])
def test_one_word_makes_a_recurrent_decoder_attend_to_its_past(name):
    made = app.compose("teach/reverse", [f"self_attention={name}"])
    assert made.self_attention.name == name


@pytest.mark.parametrize(
    "overrides, words",
    [
        ([*BOTH, "self_attention=none"], "encoder=transformer is made of self-attention"),
        (["decoder=transformer", "self_attention=none"], "expected self_attention=multihead"),
        (
            [*BOTH, "self_attention.heads=5"],
            "self_attention.heads: self-attention shares its width between 5 heads; expected a divisor of 32",
        ),
        ([*BOTH, "self_attention.heads=0"], "`self_attention.heads` is out of range"),
        ([*BOTH, "self_attention=key_value"], "self_attention=key_value attends to the past of a recurrent decoder"),
        (["encoder=transformer", "self_attention=lstmn"], "expected self_attention=multihead"),
        (["decoder=gru", "self_attention=lstmn"], "expected decoder=lstm"),
        ([*BOTH, "attention=none"], "Take decoder=lstm"),
        (["decoder=transformer", "attention=key_value_predict"], "Take decoder=lstm"),
        (["self_attention.heads=2"], "`self_attention.heads` is read by Transformer layers, and there are none"),
        ([*BOTH, "decoder.alignment_layer=3"], "decoder.alignment_layer"),
        ([*BOTH, "encoder.learned_positions=90"], "`encoder.learned_positions` (90) must be more than"),
        ([*BOTH, "decoder.learned_positions=90"], "`decoder.learned_positions` (90) must be more than"),
        ([*BOTH, "encoder.relu_dropout=1"], "`encoder.relu_dropout` is out of range"),
        ([*BOTH, "decoder.feed_forward=0"], "`decoder.feed_forward` is out of range"),
        ([*BOTH, "decoder.input_feed=false"], "unknown key `decoder.input_feed`"),
        ([*BOTH, "self_attention.score=cosine"], "scaled_dot"),
    ],
)
def test_what_does_not_go_together_is_refused_with_what_does(overrides, words):
    with pytest.raises(ConfigError, match=re.escape(words)):
        app.compose("teach/reverse", overrides)


def test_any_dropout_serves_rdrop():
    app.compose("teach/reverse", [*BOTH, "optim.rdrop=1", "decoder.relu_dropout=0.1"])
    app.compose("teach/reverse", [*BOTH, "optim.rdrop=1", "self_attention.dropout=0.1"])
    with pytest.raises(ConfigError, match="no dropout is above 0"):
        app.compose("teach/reverse", [*BOTH, "optim.rdrop=1"])


def test_a_config_from_before_the_group_was_there_is_read():
    made = app.compose("teach/reverse", [])
    plain = config.to_plain(made)
    del plain["self_attention"]
    assert config.from_plain(plain) == made
