"""Every attention mechanism behind one contract (`s2s.attention.base.Attention`).

`names()` lists them, `build("general", query_size=512, memory_size=512)` makes one. The folder `conf/attention/` is the
registry: a file there names one builder of this module.
"""

from __future__ import annotations

from typing import Any

from s2s.attention.base import Attention
from s2s.attention.chunk import milk, mma, mocha
from s2s.attention.coverage import coverage
from s2s.attention.dca import dca
from s2s.attention.forced_forward import forced_forward
from s2s.attention.gmm import gmm
from s2s.attention.hard import hard
from s2s.attention.local import local_m, local_p
from s2s.attention.monotonic import monotonic
from s2s.attention.multihead import multihead
from s2s.attention.options import Options, whole
from s2s.attention.past import location_aware
from s2s.attention.soft import additive, additive_normed, concat, dot, general, location, none, scaled_dot
from s2s.attention.split import key_value, key_value_predict
from s2s.attention.static import FeatureAttention, reader, static, static_feature
from s2s.attention.temporal import temporal
from s2s.attention.transition import forward, stepwise
from s2s.registry import builder, group_defaults, group_names

__all__ = [
    "Attention",
    "FeatureAttention",
    "Options",
    "additive",
    "additive_normed",
    "build",
    "concat",
    "coverage",
    "dca",
    "dot",
    "forced_forward",
    "forward",
    "general",
    "gmm",
    "hard",
    "key_value",
    "key_value_predict",
    "local_m",
    "local_p",
    "location",
    "location_aware",
    "milk",
    "mma",
    "mocha",
    "monotonic",
    "multihead",
    "names",
    "none",
    "reader",
    "scaled_dot",
    "static",
    "static_feature",
    "stepwise",
    "temporal",
]


def names() -> list[str]:
    """Every mechanism that `conf/attention/` holds, sorted."""
    return group_names("attention")


def build(name: str, *, query_size: int, memory_size: int, **options: Any) -> Attention:
    """A mechanism by name or alias, with the defaults of its file in `conf/attention/` under the given options.

    query_size: width of the decoder's query; memory_size: width of the encoder's states. Raises ConfigError for an
    unknown name (with the nearest one), an unknown option or a value out of range.
    """
    function, values = builder("attention", name, {**group_defaults("attention", name), **options})
    made: Attention = function(whole("query_size", query_size), whole("memory_size", memory_size), **values)
    return made
