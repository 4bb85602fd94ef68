"""A trained model as a search sees it."""

from __future__ import annotations

from typing import cast

from s2s.attention.constraint import constrain
from s2s.attention.monotonic import hasten
from s2s.model.seq2seq import Seq2Seq
from s2s.products import Precision
from s2s.search import SearchConfig
from s2s.task.trained import Trained


def as_searched(trained: Trained, config: SearchConfig, precision: Precision) -> Seq2Seq:
    """The model, ready for decoding in this precision, with attentions that obey `config.forward` and `config.eager`;
    what isn't changed is shared.

    Raises UsageError where int8 can't be had or `config.forward` can't hold.
    """
    model = trained.ready(precision)
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
