"""A trained model as a search sees it."""

from __future__ import annotations

from typing import Literal, NamedTuple, cast

from s2s.attention.constraint import constrain
from s2s.attention.monotonic import hasten
from s2s.model.recorded import RecordedSteps
from s2s.model.seq2seq import Seq2Seq
from s2s.products import Precision
from s2s.recording import recorder
from s2s.search import SearchConfig
from s2s.task.trained import Trained

Graphs = Literal["auto", "off"]


class Searched(NamedTuple):
    """A model, and what replays its steps, where that is faster."""

    model: Seq2Seq
    steps: RecordedSteps | None


def as_searched(trained: Trained, config: SearchConfig, precision: Precision, graphs: Graphs) -> Searched:
    """The model, ready for decoding in this precision, with attentions that obey `config.forward` and `config.eager`;
    what isn't changed is shared. One that obeys neither is kept, with what it has recorded, until its weights change.

    graphs: auto: its steps are CUDA graphs on a GPU where the model allows it. Raises UsageError where the precision
    can't be had or `config.forward` can't hold.
    """
    ready = trained.ready(precision)
    if config.eager or config.forward != "off":
        return _with_steps(_obeying(ready, config), trained, graphs)
    weights, kept = trained.weights(), trained.searched
    if (precision, graphs) not in kept or kept[precision, graphs][0] != weights:
        kept[precision, graphs] = weights, _with_steps(ready, trained, graphs)
    return cast(Searched, kept[precision, graphs][1])


def _with_steps(model: Seq2Seq, trained: Trained, graphs: Graphs) -> Searched:
    made = recorder(trained.device) if graphs == "auto" else None
    return Searched(model, None if made is None else RecordedSteps(model, made))


def _obeying(model: Seq2Seq, config: SearchConfig) -> Seq2Seq:
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
