"""Latency of online translation in words: average lagging (AL), LAAL, DAL and average proportion (AP).

The delay of an output word is the number of source words that had been read when it was written. Words are what blanks
separate; the end of the sentence is no word, neither in the source nor in the output. The score of a corpus is the mean
over its sentences.

The papers measure AL and AP against the length of the output; SimulEval, unless told otherwise (`--no-use-ref-len`),
against that of the reference. Both can be had here, and the signature says which it is.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

from s2s import __version__
from s2s.errors import DataError, UsageError
from s2s.types import Score

NAMES = ("al", "laal", "dal", "ap")

Length = Literal["output", "reference"]


class Sentence(NamedTuple):
    """What latency needs to know of one sentence; all lengths are in words."""

    delays: Sequence[int]  # of each output word, how many source words had been read
    source_length: int
    reference_length: int | None = None


def average_proportion(delays: Sequence[int], source_length: int, target_length: int | None = None) -> float:
    """AP (Cho and Esipova 2016): sum_t d_t / (|x| |y|), in [0, 1] where |y| is the length of the output.

    target_length: |y|; by default the length of the output. Raises DataError as `check_delays`, and where there is no
    source word, no output word, or |y| is 0.
    """
    length = _check(delays, source_length, target_length)
    return sum(delays) / (source_length * length)


def average_lagging(delays: Sequence[int], source_length: int, target_length: int | None = None) -> float:
    """AL (Ma et al. 2019): 1/tau sum_{t=1..tau} d_t - (t-1) |x|/|y|, in source words.

    tau is the first output word that was written after the whole source had been read; where the output ended before,
    the last one. So AL says how far the output lags behind an ideal one that writes |y|/|x| words for each word that it
    reads, for as long as there is something to read. It is negative where the output runs ahead.
    target_length: |y|; by default the length of the output. Raises as `average_proportion`.
    """
    length = _check(delays, source_length, target_length)
    read_all = (number for number, delay in enumerate(delays, start=1) if delay == source_length)
    cutoff = next(read_all, len(delays))
    pace = source_length / length
    return sum(delay - step * pace for step, delay in enumerate(delays[:cutoff])) / cutoff


def length_adaptive_average_lagging(delays: Sequence[int], source_length: int, reference_length: int) -> float:
    """LAAL (Papi et al. 2022): AL with |y| = max(output length, reference length), in source words.

    So an output that is too long can't lower its lagging. Raises as `average_proportion`.
    """
    return average_lagging(delays, source_length, max(len(delays), reference_length))


def differentiable_average_lagging(delays: Sequence[int], source_length: int) -> float:
    """DAL (Cherry and Foster 2019): 1/|y| sum_t d'_t - (t-1) |x|/|y|, in source words; |y| is the output's length.

    d'_1 = d_1, d'_t = max(d_t, d'_{t-1} + |x|/|y|): each output word takes as long as |x|/|y| source words, so what is
    lost is never made up for, and no cut-off is needed. Raises as `average_proportion`.
    """
    length = _check(delays, source_length, None)
    pace = source_length / length
    total = 0.0
    earliest = 0.0  # when the word could be written at the soonest
    for step, delay in enumerate(delays):
        written = max(delay, earliest)
        total += written - step * pace
        earliest = written + pace
    return total / length


def latency(name: str, sentence: Sentence, *, length: Length = "output") -> float:
    """One of NAMES for one sentence. length: whose length is |y| in AL and AP.

    Raises UsageError on an unknown name or length, DataError as the four functions, and where the length of the
    reference is needed and missing.
    """
    if length not in ("output", "reference"):
        raise UsageError(f"unknown length {length!r}", where="length", expected="output or reference")
    delays, source_length, _ = sentence
    if name == "dal":
        return differentiable_average_lagging(delays, source_length)
    if name == "laal":
        return length_adaptive_average_lagging(delays, source_length, _reference_length(name, sentence))
    target_length = _reference_length(name, sentence) if length == "reference" else None
    if name == "al":
        return average_lagging(delays, source_length, target_length)
    if name == "ap":
        return average_proportion(delays, source_length, target_length)
    nearest = difflib.get_close_matches(name.lower(), NAMES, n=1)
    hint = f"Did you mean {nearest[0]}?" if nearest else None
    raise UsageError(f"unknown latency {name!r}", expected=f"any of {', '.join(NAMES)}", hint=hint)


def compute(sentences: Sequence[Sentence], names: Sequence[str] = NAMES, *, length: Length = "output") -> list[Score]:
    """The latency of a corpus under the metrics `names`, in the order asked: means over sentences, lower is better.

    length: whose length is |y| in AL and AP, "output" (the papers) or "reference" (SimulEval's default). A sentence
    without source words or without output words has no latency: it is left out of the mean and counted in
    `details["left_out"]`; `details["sentences"]` counts the others.
    Raises UsageError on an unknown name or length, DataError (with the sentence's number) on delays that can't be and
    where a reference is needed and missing or without words, and DataError where no sentence is left.
    """
    for number, sentence in enumerate(sentences, start=1):
        check_delays(sentence.delays, sentence.source_length, where=f"sentence {number}")
    scored = [
        (number, found) for number, found in enumerate(sentences, start=1) if found.delays and found.source_length
    ]
    if not scored:
        raise DataError(
            "there is no latency to measure",
            expected="at least one sentence with source words and output words",
            found=f"{len(sentences)} sentences without",
        )
    counts = {"sentences": float(len(scored)), "left_out": float(len(sentences) - len(scored))}
    scores = []
    for name in names:
        values = []
        for number, sentence in scored:
            try:
                values.append(latency(name, sentence, length=length))
            except DataError as error:
                raise DataError(error.what, where=f"sentence {number}", expected=error.expected) from error
        lengths = {"al": length, "ap": length, "laal": "longer", "dal": "output"}[name]
        signature = f"unit:word|length:{lengths}|blank:skip|version:s2s-{__version__}"
        value = math.fsum(values) / len(values)
        scores.append(Score(name, value, signature, higher_is_better=False, details=dict(counts)))
    return scores


def check_delays(delays: Sequence[int], source_length: int, *, where: str | None = None) -> None:
    """Refuse delays that can't be: negative, falling, or more words than the source has. Raises DataError."""
    previous = 0
    for number, delay in enumerate(delays, start=1):
        # Written so that NaN is refused too.
        if not delay >= previous:
            raise DataError(
                f"the delay of output word {number} is smaller than what had been read before",
                where=where,
                expected=f"at least {previous}",
                found=str(delay),
                hint="A delay is the number of source words read so far, so it never falls",
            )
        if not delay <= source_length:
            raise DataError(
                f"the delay of output word {number} is past the end of the source",
                where=where,
                expected=f"at most {source_length}",
                found=str(delay),
                hint="Count words only; the end of the sentence is none",
            )
        previous = delay


def _reference_length(name: str, sentence: Sentence) -> int:
    if sentence.reference_length is None:
        raise DataError(f"{name} needs the length of the reference", expected="a reference for each sentence")
    return sentence.reference_length


def _check(delays: Sequence[int], source_length: int, target_length: int | None) -> int:
    """The target length to measure by, after all checks."""
    check_delays(delays, source_length)
    if source_length < 1 or not delays:
        raise DataError(
            "latency is not defined without words",
            expected="at least one source word and one output word",
            found=f"{source_length} and {len(delays)}",
        )
    length = len(delays) if target_length is None else target_length
    if length < 1:
        raise DataError("latency is not defined for a reference without words", expected="at least one word")
    return length
