"""Word alignments: links in Pharaoh format, links out of attention weights, and the alignment error rate.

A link (i, j) joins source word i to target word j, both 0-based. Weights are (T, S): a row for each target position.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from s2s.errors import DataError, UsageError
from s2s.types import SPECIALS

Link = tuple[int, int]
Links = frozenset[Link]
Weights = Tensor | NDArray[np.floating] | Sequence[Sequence[float]]

_LINK = re.compile(r"([0-9]{1,9})([-p])([0-9]{1,9})")


@dataclass(frozen=True)
class GoldAlignment:
    """One sentence's reference links: those that are sure, and those that are possible (the sure ones among them)."""

    sure: Links
    possible: Links


@dataclass(frozen=True)
class AlignmentScore:
    """Error rate, precision and recall as fractions of 1, and the number of links that they stand on."""

    error_rate: float
    precision: float
    recall: float
    links: int
    sure_links: int
    possible_links: int


def parse_links(line: str, *, where: str = "alignment", sizes: tuple[int, int] | None = None) -> GoldAlignment:
    """Read one line of links: `i-j` is sure, `ipj` is possible, separated by blanks; a blank line has none.

    where: file:line for messages. sizes: number of source and target words, to refuse links that point outside.
    Raises DataError with the offending token.
    """
    sure: set[Link] = set()
    possible: set[Link] = set()
    for number, token in enumerate(line.split(), start=1):
        match = _LINK.fullmatch(token)
        if match is None:
            raise DataError(
                f"token {number} is no link",
                where=where,
                expected="i-j (sure) or ipj (possible), counted from 0",
                found=repr(token[:40]),
            )
        link = (int(match[1]), int(match[3]))
        if sizes is not None and not (link[0] < sizes[0] and link[1] < sizes[1]):
            raise DataError(
                f"token {number} ({token}) points outside the sentence",
                where=where,
                expected=f"source below {sizes[0]} and target below {sizes[1]}",
                hint="Links are counted from 0",
            )
        possible.add(link)
        if match[2] == "-":
            sure.add(link)
    return GoldAlignment(frozenset(sure), frozenset(possible))


def parse_alignment(
    lines: Sequence[str], *, name: str = "alignment", sizes: Sequence[tuple[int, int]] | None = None
) -> list[GoldAlignment]:
    """Read a whole file of links, a sentence a line. Raises DataError with name:line and token."""
    if sizes is not None and len(sizes) != len(lines):
        raise DataError(
            "links and sentences differ in number", where=name, expected=f"{len(sizes)} lines", found=f"{len(lines)}"
        )
    return [
        parse_links(line, where=f"{name}:{number + 1}", sizes=None if sizes is None else sizes[number])
        for number, line in enumerate(lines)
    ]


def format_links(links: Iterable[Link]) -> str:
    """Links as a line of Pharaoh format, sorted by source and then target: `0-0 1-2`."""
    return " ".join(f"{source}-{target}" for source, target in sorted(links))


def links_from_weights(
    weights: Weights, *, method: Literal["argmax", "threshold"] = "argmax", threshold: float = 0.2
) -> Links:
    """Turn attention weights (T, S) into links.

    argmax: each target position to the source position with the largest weight, the first of equals. threshold: every
    pair whose weight is at least `threshold`. A row without any weight (a masked one) gives no link.
    Raises DataError on weights that are not a matrix of finite numbers >= 0, UsageError on an unknown method.
    """
    matrix = as_matrix(weights)
    if method == "threshold":
        if not 0 < threshold <= 1:
            raise UsageError("a threshold is a weight", where="threshold", expected="0 < x <= 1", found=str(threshold))
        return frozenset((int(source), int(target)) for target, source in np.argwhere(matrix >= threshold))
    if method != "argmax":
        raise UsageError(f"unknown method {method!r}", where="method", expected="argmax or threshold")
    return frozenset((int(row.argmax()), target) for target, row in enumerate(matrix) if row.any())


def word_of_piece(pieces: Sequence[str]) -> list[int | None]:
    """For each sentencepiece piece the number of its blank-separated word; None for special symbols.

    A piece that begins with the marker `▁` begins a word, and so does the first one; any other (byte pieces too) goes
    on with the word before it.
    """
    words: list[int | None] = []
    word = -1
    for piece in pieces:
        if piece in SPECIALS:
            words.append(None)
            continue
        if word < 0 or piece.startswith("▁"):
            word += 1
        words.append(word)
    return words


def merge_links(links: Iterable[Link], source_words: Sequence[int | None], target_words: Sequence[int | None]) -> Links:
    """Links between pieces as links between words: two words are linked if any of their pieces are.

    source_words, target_words: of each piece its word, see `word_of_piece`; links of a piece without word are dropped.
    """
    merged = set()
    for source, target in links:
        source_word, target_word = source_words[source], target_words[target]
        if source_word is not None and target_word is not None:
            merged.add((source_word, target_word))
    return frozenset(merged)


def alignment_error_rate(hypotheses: Sequence[Links], gold: Sequence[GoldAlignment]) -> AlignmentScore:
    """Compare links A of all sentences with sure links S and possible links P (Och and Ney 2003, section 4).

    AER = 1 - (|A∩S| + |A∩P|) / (|A| + |S|), precision = |A∩P| / |A|, recall = |A∩S| / |S|, each sum taken over the
    whole corpus. Where a denominator is zero nothing can be wrong: AER 0, precision 1, recall 1.
    Raises DataError where the numbers of sentences differ.
    """
    if len(hypotheses) != len(gold):
        raise DataError(
            "links and gold links differ in number of sentences", expected=f"{len(gold)}", found=f"{len(hypotheses)}"
        )
    pairs = list(zip(hypotheses, gold, strict=True))
    links = sum(len(found) for found in hypotheses)
    sure = sum(len(reference.sure) for reference in gold)
    possible = sum(len(reference.possible | reference.sure) for reference in gold)
    sure_hits = sum(len(found & reference.sure) for found, reference in pairs)
    possible_hits = sum(len(found & (reference.possible | reference.sure)) for found, reference in pairs)
    return AlignmentScore(
        error_rate=1 - (sure_hits + possible_hits) / (links + sure) if links + sure else 0.0,
        precision=possible_hits / links if links else 1.0,
        recall=sure_hits / sure if sure else 1.0,
        links=links,
        sure_links=sure,
        possible_links=possible,
    )


def as_matrix(weights: Weights) -> NDArray[np.float64]:
    """Weights as a float64 matrix (T, S) on the CPU.

    Raises DataError where they aren't two-dimensional, or hold a number that is negative, NaN or infinite.
    """
    if isinstance(weights, Tensor):
        weights = weights.detach().double().cpu().numpy()
    matrix = np.asarray(weights, dtype=np.float64)
    if matrix.size == 0:
        return np.zeros((matrix.shape[0], 0))
    if matrix.ndim != 2:
        raise DataError("attention weights are no matrix", expected="shape (T, S)", found=f"{matrix.shape}")
    if not np.isfinite(matrix).all() or (matrix < 0).any():
        raise DataError("attention weights hold a bad number", expected="finite weights >= 0")
    return matrix
