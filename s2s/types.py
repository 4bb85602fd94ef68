"""The small typed objects that rooms hand to each other.

Shape legend, used in every docstring: `B` batch, `T` target length, `S` source length, `D` width, `H` heads,
`V` vocabulary (in attention: width of the values), `N` rows of a search (hypotheses alive).
A mask is bool and `True = may attend` (or `True = a real token`) everywhere. Lengths are in tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Union

import torch
from torch import Tensor

# What is done with a text above the model's length limit: its parts are decoded and joined, or the joined outputs are
# decoded again until they fit, or it is cut off, or refused; of a dialogue, the oldest turns are left out.
Overlong = Literal["split", "merge", "truncate", "refuse", "turns"]
OVERLONG: dict[str, tuple[Overlong, ...]] = {  # by task
    "translation": ("split", "merge", "truncate", "refuse"),
    "summarisation": ("split", "merge", "truncate", "refuse"),
    "dialogue": ("turns", "refuse"),
}

# Fused versions of what is plain elsewhere, wherever they can run, or never; see `s2s.kernels`.
Kernels = Literal["auto", "plain"]

# What can be added to the embeddings of a source, see `s2s.model.features.SourceFeatures`.
Feature = Literal["position", "frequency", "length"]

# Nested tuple of tensors, batch first; `()` where there is nothing to carry. See `s2s.state.select`.
State = Union[Tensor, tuple["State", ...]]

# The special ids of every vocabulary, whatever made it.
PAD, UNK, BOS, EOS = 0, 1, 2, 3
SPECIALS = ("<pad>", "<unk>", "<s>", "</s>")


class Batch(NamedTuple):
    """Padded examples of one training or decoding step; right padding with PAD.

    The source ends in EOS. `target_in` is BOS + target, `target_out` is target + EOS. Where words are copied that the
    target's vocabulary of V ids lacks, `copies` and `target_out` have ids from V on for them, numbered in each source.
    """

    source: Tensor  # (B, S) int64
    source_lengths: Tensor  # (B,) int64, at least 1
    target_in: Tensor  # (B, T) int64
    target_out: Tensor  # (B, T) int64
    target_lengths: Tensor  # (B,) int64, EOS included
    rows: tuple[int, ...]  # which examples of the corpus these are
    links: Tensor | None = None  # (B, T, S) float32: what each target position should attend to; rows sum to 1 or 0
    copies: Tensor | None = None  # (B, S) int64: the target id that copying a source position gives; PAD at padding

    def to(self, device: torch.device) -> Batch:
        """The same batch with its tensors on `device`."""
        source, source_lengths, target_in, target_out, target_lengths = (
            tensor.to(device, non_blocking=True) for tensor in self[:5]
        )
        links, copies = (None if one is None else one.to(device, non_blocking=True) for one in self[6:])
        return Batch(source, source_lengths, target_in, target_out, target_lengths, self.rows, links, copies)


class Encoded(NamedTuple):
    """What an encoder hands on."""

    states: Tensor  # (B, S, D)
    final: Tensor  # (B, F) summary of the whole source
    mask: Tensor  # (B, S) bool, True = may attend
    prior: Tensor | None = None  # (B, S): what each position weighs by itself, see `s2s.attention.reweight`


class Memory(NamedTuple):
    """What attention reads: projected once a source, then read-only. A mechanism may carry more in `extra`."""

    keys: Tensor  # (B, S, K)
    values: Tensor  # (B, S, V)
    mask: Tensor  # (B, S) bool, True = may attend
    extra: tuple[Tensor, ...] = ()  # batch first


class AttentionOutput(NamedTuple):
    """What one call of an attention gives."""

    context: Tensor  # (B, T, V)
    weights: Tensor | None  # (B, T, S), the alignment; None where there is none or it wasn't asked for
    state: State
    aux: dict[str, Tensor]  # losses, log-probabilities, weights of each head; empty otherwise


class DecoderOutput(NamedTuple):
    """What one call of a decoder gives."""

    features: Tensor  # (B, T, D), input of the output layer
    context: Tensor  # (B, T, V)
    weights: Tensor | None  # (B, T, S)
    state: State
    aux: dict[str, Tensor]


class StepOutput(NamedTuple):
    """What one step of a model (or of several) tells a search."""

    log_probs: Tensor  # (N, V) float32, normalised
    state: State  # N rows
    weights: Tensor | None  # (N, S)


# (tokens (N,), state of N rows, source row of each hypothesis (N,)) -> StepOutput. All that a search knows of a model.
StepFunction = Callable[[Tensor, State, Tensor], StepOutput]


@dataclass(frozen=True)
class Hypothesis:
    """One finished or cut-off output of a search.

    tokens: ids without BOS; the last one is EOS if it is finished.
    score: what the search ranks by (log-probability with penalties). log_prob: plain sum of `token_log_probs`.
    weights: (len(tokens), S) float32 on the CPU, or None.
    flags: any of "unfinished" (stopped at the length limit), "constraint_unmet", "fallback" (all candidates were
    masked, so the blocks were lifted).
    """

    tokens: tuple[int, ...]
    score: float
    log_prob: float
    token_log_probs: tuple[float, ...]
    weights: Tensor | None = None
    flags: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Result:
    """One output record of a text command: the answer to one input record.

    tokens: the ids of the output, so that its score can be checked by forced decoding.
    alignment: (output pieces, source pieces, weights as nested lists), or None.
    flags: of the input cleaned, blank, refused, split, merged, truncated, turns_dropped, and those of its request; of
    the output unfinished, looping, copied, constraint_unmet, fallback, half, generic, repeated, unwanted.
    """

    input: str
    text: str
    score: float
    log_prob: float
    tokens: tuple[int, ...] = ()
    pieces: tuple[str, ...] = ()
    source_pieces: tuple[str, ...] = ()
    alignment: tuple[tuple[float, ...], ...] | None = None
    nbest: tuple[Result, ...] = ()
    flags: tuple[str, ...] = ()
    error: str | None = None


@dataclass(frozen=True)
class Score:
    """A metric's value with the signature that makes it comparable.

    value: the point estimate. low, high: bounds of the 95 % bootstrap interval, or None where it wasn't asked for.
    """

    name: str
    value: float
    signature: str
    low: float | None = None
    high: float | None = None
    higher_is_better: bool = True
    details: dict[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        interval = "" if self.low is None else f" [{self.low:.2f}, {self.high:.2f}]"
        return f"{self.name} {self.value:.2f}{interval} ({self.signature})"
