"""The plain knobs of a search and their checks; also the schema of `conf/search`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from s2s.errors import ConfigError

_INTEGERS = {  # key: (lowest, highest) allowed value
    "beam": (1, 10_000),
    "nbest": (1, 10_000),
    "beam_groups": (1, 10_000),
    "max_length": (1, 1_000_000),
    "max_extra": (0, 1_000_000),
    "min_length": (0, 1_000_000),
    "no_repeat_ngram": (0, 1_000),
    "top_k": (0, 10_000_000),
    "words": (0, 1_000_000),
    "shortlist": (0, 1_000_000),
    "seed": (0, 2**63 - 1),
    "forward_back": (0, 1_000_000),
    "forward_ahead": (1, 1_000_000),
}
_NUMBERS = {  # key: (lowest, highest, whether the lowest itself is allowed)
    "length_penalty": (-10.0, 10.0, True),
    "coverage_penalty": (0.0, 100.0, True),
    "diversity": (0.0, 100.0, True),
    "max_ratio": (0.0, 1000.0, True),
    "temperature": (0.0, 1000.0, False),
    "top_p": (0.0, 1.0, False),
    "forward_threshold": (0.0, 1.0, False),
    "eager": (-20.0, 20.0, True),
}
_SWITCHES = ("early_finish", "allow_unk", "sample")

Forward = Literal["off", "soft", "threshold", "strict", "window"]
Exhausted = Literal["last", "zero"]
_CHOICES = {
    "forward": ("off", "soft", "threshold", "strict", "window"),
    "forward_exhausted": ("last", "zero"),
}
# options that only some kinds of `forward` read, and their neutral values
_FORWARD = (
    ("forward_threshold", 0.5, ("threshold",)),
    ("forward_back", 1, ("window",)),
    ("forward_ahead", 3, ("window",)),
    ("forward_exhausted", "last", ("threshold", "strict", "window")),
)


@dataclass(frozen=True)
class SearchConfig:
    """How to search. All lengths count output tokens, EOS included.

    beam: hypotheses kept a source; 1 is greedy. nbest: outputs a source (with `sample`: samples drawn a source).
    beam_groups: beams that the slots are dealt out to; above 1 it is diverse beam search (Vijayakumar et al. 2016,
    arXiv 1610.02424), where a token costs a beam `diversity` for each time that earlier beams take it at that position.
    length_penalty: alpha of `log_prob / ((5 + length) / 6) ** alpha` (Wu et al. 2016, arXiv 1609.08144, eq. 14);
    0 ranks by the plain sum, more favours longer outputs, negative favours shorter ones.
    coverage_penalty: beta of the same equation, for sources whose words were not attended to; needs attention weights.
    max_length: most tokens of an output. max_ratio, max_extra: an output has at most
    `max_ratio * source length + max_extra` tokens as well. min_length: fewest tokens of a finished output.
    early_finish: stop a source as soon as no live hypothesis can still enter its n-best (not with several beams). It
    changes time, never output.
    no_repeat_ngram: no n-gram of this order occurs twice in an output; 0 is off. allow_unk: UNK may be generated.
    sample: draw from the model instead of searching, with `temperature`, then the `top_k` likeliest tokens (0: all),
    then the smallest set of tokens with probability `top_p` (Holtzman et al. 2020, arXiv 1904.09751). seed: of sampling
    alone.

    forward: keeps the attention of a trained model from going back: `strict`, no source token up to the one that the
    last step looked at most; `threshold`, none whose weights of past steps sum to `forward_threshold`; `soft`, used
    ones lose weight; `window`, none but those from `forward_back` before the last one up to, and without,
    `forward_ahead` after it. forward_exhausted: a step to which no token is left takes the last one again (last), or a
    zero context (zero).
    words: that an output shall have, of a model that was trained with `model.features=[length]`; 0: any number.
    shortlist: candidates of each source token that outputs are made of, with what is frequent, of a model that was
    trained with `trainer.lexicon`; 0: the whole vocabulary.
    eager: added to what decides where a monotonic attention stops; above 0 it stops earlier, so that an online model
    writes earlier (and worse), below 0 later.
    """

    beam: int = 5
    nbest: int = 1
    beam_groups: int = 1
    diversity: float = 0.0
    length_penalty: float = 0.6
    coverage_penalty: float = 0.0
    max_length: int = 256
    max_ratio: float = 2.0
    max_extra: int = 10
    min_length: int = 0
    early_finish: bool = True
    no_repeat_ngram: int = 0
    allow_unk: bool = False
    sample: bool = False
    top_k: int = 0
    top_p: float = 1.0
    temperature: float = 1.0
    seed: int = 1
    forward: Forward = "off"
    forward_threshold: float = 0.5
    forward_back: int = 1
    forward_ahead: int = 3
    forward_exhausted: Exhausted = "last"
    words: int = 0
    shortlist: int = 0
    eager: float = 0.0

    def problems(self) -> list[str]:
        """One message for every wrong value or impossible combination: key, value and what is allowed."""
        found = self._wrong_values()
        if found:
            return found
        if self.min_length > self.max_length:
            found.append(f"search.min_length={self.min_length}: must not exceed search.max_length={self.max_length}")
        if self.max_ratio == 0 and self.max_extra == 0:
            found.append(
                "search.max_ratio=0 with search.max_extra=0: no output token would be allowed; raise one of them"
            )
        found += [
            f"search.{key}={getattr(self, key)}: has a meaning only with search.forward={' or '.join(readers)}"
            for key, neutral, readers in _FORWARD
            if self.forward not in readers and getattr(self, key) != neutral
        ]
        if self.beam % self.beam_groups:
            found.append(f"search.beam_groups={self.beam_groups}: must divide search.beam={self.beam}")
        if (self.beam_groups > 1) != (self.diversity > 0):
            found.append(
                f"search.diversity={self.diversity:g} with search.beam_groups={self.beam_groups}: must be above 0 with "
                "several beams, and 0 with one"
            )
        if self.sample:
            if self.beam != 1:
                found.append(f"search.beam={self.beam}: must be 1 with search.sample=true")
            return found
        if self.nbest > self.beam:
            found.append(f"search.nbest={self.nbest}: must be at most search.beam={self.beam}")
        found += [
            f"search.{key}={getattr(self, key)}: has a meaning only with search.sample=true"
            for key, neutral in (("top_k", 0), ("top_p", 1.0), ("temperature", 1.0))
            if getattr(self, key) != neutral
        ]
        return found

    def check(self) -> None:
        """Raises ConfigError that lists all problems, if there are any."""
        found = self.problems()
        if found:
            raise ConfigError("; ".join(found))

    def limit(self, source_length: int) -> int:
        """Most tokens of an output (EOS included) for a source of so many tokens; at least 1 and `min_length`."""
        relative = int(self.max_ratio * source_length) + self.max_extra
        return max(min(self.max_length, relative), self.min_length, 1)

    def _wrong_values(self) -> list[str]:
        found = []
        for key, (low, high) in _INTEGERS.items():
            value = getattr(self, key)
            if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
                found.append(f"search.{key}={value!r}: must be an integer from {low} to {high}")
        for key, (lowest, highest, closed) in _NUMBERS.items():
            value = getattr(self, key)
            number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
            if not number or not lowest <= value <= highest or (value == lowest and not closed):
                bounds = f"from {lowest:g}" if closed else f"above {lowest:g}"
                hint = " (for the likeliest token use search.beam=1)" if key == "temperature" and value == 0 else ""
                found.append(f"search.{key}={value!r}: must be a number {bounds} to {highest:g}{hint}")
        for key in _SWITCHES:
            value = getattr(self, key)
            if not isinstance(value, bool):
                found.append(f"search.{key}={value!r}: must be true or false")
        for key, choices in _CHOICES.items():
            value = getattr(self, key)
            if value not in choices:
                found.append(f"search.{key}={value!r}: must be {', '.join(choices[:-1])} or {choices[-1]}")
        return found
