"""A trained model as a search sees it."""

from __future__ import annotations

from typing import cast

from s2s.attention.constraint import constrain
from s2s.attention.monotonic import hasten
from s2s.int8 import Precision
from s2s.model.rounding import in_int8
from s2s.model.seq2seq import Seq2Seq
from s2s.search import SearchConfig


def as_searched(model: Seq2Seq, config: SearchConfig, precision: Precision) -> Seq2Seq:
    """The model, or a copy of it that is rounded to int8, and whose attentions obey `config.forward` and
    `config.eager`; what isn't changed is shared.

    Raises UsageError where int8 can't be had or `config.forward` can't hold.
    """
    if precision == "int8":
        model = in_int8(model)
    if config.eager:
        model = cast(Seq2Seq, hasten(model, config.eager))
    if config.forward == "off":
        return model
    forced = constrain(
        model,
        config.forward,
        threshold=config.forward_threshold,
        back=config.forward_back,
        ahead=config.forward_ahead,
        exhausted=config.forward_exhausted,
    )
    return cast(Seq2Seq, forced)
