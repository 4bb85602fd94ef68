"""Every attention mechanism behind one contract (`s2s.attention.base.Attention`).

`names()` lists them, `build("general", query_size=512, memory_size=512)` makes one. The folder `conf/attention/` is the
registry: a file there names one builder of this module.
"""

from __future__ import annotations

from typing import Any

from s2s.attention.base import Attention
from s2s.attention.multihead import multihead
from s2s.attention.options import Options, whole
from s2s.attention.soft import additive, additive_normed, concat, dot, general, location, none, scaled_dot
from s2s.attention.split import key_value, key_value_predict
from s2s.registry import builder, group_defaults, group_names

__all__ = [
    "Attention",
    "Options",
    "additive",
    "additive_normed",
    "build",
    "concat",
    "dot",
    "general",
    "key_value",
    "key_value_predict",
    "location",
    "multihead",
    "names",
    "none",
    "scaled_dot",
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
