"""Options that mechanisms share, and the checks of all options' values."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from s2s.attention.normalise import NAMES, NormaliserName
from s2s.errors import ConfigError

KeyValueKind = Literal["shared", "project", "split"]
LARGEST = 1 << 20


@dataclass(frozen=True)
class Options:
    """What can be combined with every score. Raises ConfigError for a value out of range.

    heads: the total width is split between them, their contexts are joined and mixed by one matrix. kv: keys and values
    are both the encoder's states (shared), two projections of them (project), or their two halves (split). normaliser:
    energies to weights. temperature: energies are divided by it. dropout: probability of dropping a weight in training,
    after the normaliser; the weights returned are those before it.
    """

    heads: int = 1
    kv: KeyValueKind = "shared"
    normaliser: NormaliserName = "softmax"
    temperature: float = 1.0
    dropout: float = 0.0

    def __post_init__(self) -> None:
        whole("heads", self.heads)
        choice("kv", self.kv, ("shared", "project", "split"))
        choice("normaliser", self.normaliser, NAMES)
        number("temperature", self.temperature, 0.0, LARGEST, open_low=True)
        probability("dropout", self.dropout)


def whole(name: str, value: int, low: int = 1, high: int = LARGEST) -> int:
    """The value, if it is a whole number from low to high. Raises ConfigError."""
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise _out_of_range(name, f"{low} to {high}, whole", value)
    return value


def number(name: str, value: float, low: float, high: float, *, open_low: bool = False) -> float:
    """The value, if it is a finite number from low (without low itself if open_low) to high. Raises ConfigError."""
    real = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not real or not low <= value <= high or (open_low and value == low):
        raise _out_of_range(name, f"{low:g} {'<' if open_low else '<='} value <= {high:g}", value)
    return float(value)


def probability(name: str, value: float) -> float:
    """The value, if it is a number from 0 to below 1. Raises ConfigError."""
    if number(name, value, 0.0, 1.0) == 1.0:
        raise _out_of_range(name, "0 <= value < 1", value)
    return float(value)


def choice(name: str, value: str, known: tuple[str, ...]) -> str:
    """The value, if it is a known one. Raises ConfigError."""
    if value not in known:
        raise ConfigError(
            f"unknown {name}", where=f"attention.{name}", expected=f"one of {', '.join(known)}", found=repr(value)
        )
    return value


def plain_softmax(name: str, options: Options) -> None:
    """Raises ConfigError where a normaliser or temperature is set for a mechanism whose equations leave no room."""
    if options.normaliser != "softmax" or options.temperature != 1.0:
        raise ConfigError(
            f"attention={name} has its own way from energies to weights",
            where="attention.normaliser, attention.temperature",
            expected="normaliser=softmax temperature=1",
            found=f"normaliser={options.normaliser} temperature={options.temperature:g}",
            hint="Take attention=forced_forward attention.mode=soft, which goes with every normaliser",
        )


def _out_of_range(name: str, expected: str, value: object) -> ConfigError:
    return ConfigError(f"{name} is out of range", where=f"attention.{name}", expected=expected, found=repr(value))
