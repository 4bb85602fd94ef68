"""Random segmentations into subwords, the same on every machine and in every process for the same random numbers.

The sentencepiece library can sample as well, but its random numbers differ from process to process even with a seed, so
training could not be resumed exactly.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Mapping
from functools import lru_cache
from itertools import accumulate, pairwise

# (word, alpha, source of uniform numbers in [0, 1)) -> pieces, joined the word; a character that is no piece is alone.
Sampler = Callable[[str, float, Callable[[], float]], list[str]]

_UNKNOWN_PENALTY = 10.0  # a character that is no piece scores this much below the worst piece, as in the library
_CACHED_WORDS = 1 << 15  # about three kilobytes each


class UnigramSampler:
    """Draws from all segmentations of a word, in proportion to probability ** alpha.

    Kudo 2018 (arXiv 1804.10959), section 3.2 with l = infinity: forward filtering, backward sampling. The pieces of a
    unigram model never cross a space, so words are drawn independently of each other.

    scores: log-probability of each piece.
    """

    def __init__(self, scores: Mapping[str, float]) -> None:
        self._scores = dict(scores)
        self._longest = max(map(len, self._scores), default=1)
        self._unknown = min(self._scores.values(), default=0.0) - _UNKNOWN_PENALTY
        self._cached_lattice = lru_cache(_CACHED_WORDS)(self._lattice)

    def __call__(self, word: str, alpha: float, uniform: Callable[[], float]) -> list[str]:
        """The pieces of one segmentation. Time is linear in the word."""
        lattice = self._cached_lattice(word, alpha)
        pieces: list[str] = []
        end = len(word)
        while end:
            starts, cumulative = lattice[end]
            start = starts[0]
            if len(starts) > 1:
                start = starts[min(bisect_right(cumulative, uniform() * cumulative[-1]), len(starts) - 1)]
            pieces.append(word[start:end])
            end = start
        pieces.reverse()
        return pieces

    def _lattice(self, word: str, alpha: float) -> list[tuple[list[int], list[float]]]:
        """For each end of a piece, where it may start and the running sum of those starts' weights."""
        forward = [0.0]  # log of the summed weights of all segmentations of word[:i]
        lattice: list[tuple[list[int], list[float]]] = [([], [])]
        for end in range(1, len(word) + 1):
            starts: list[int] = []
            logs: list[float] = []
            for start in range(max(0, end - self._longest), end):
                score = self._scores.get(word[start:end], self._unknown if end - start == 1 else None)
                if score is not None:
                    starts.append(start)
                    logs.append(forward[start] + alpha * score)
            top = max(logs)
            cumulative = list(accumulate(math.exp(value - top) for value in logs))
            lattice.append((starts, cumulative))
            forward.append(top + math.log(cumulative[-1]))
        return lattice


class DropoutSampler:
    """Merges adjacent pieces, best first, where every possible merge is left out of each round with probability alpha.

    BPE-dropout: Provilkov et al. 2020 (arXiv 1910.13267), algorithm 1.

    scores: the higher a piece's, the sooner it is merged.
    """

    def __init__(self, scores: Mapping[str, float]) -> None:
        self._scores = dict(scores)

    def __call__(self, word: str, alpha: float, uniform: Callable[[], float]) -> list[str]:
        """The pieces of one segmentation. Time is quadratic in the word: hand in long ones by stretches."""
        get = self._scores.get
        pieces = list(word)
        scores = [get(left + right) for left, right in pairwise(pieces)]  # of merging a piece with the next
        while True:
            best, place = -math.inf, -1
            for i, score in enumerate(scores):
                # those below the best need no draw: whether they are left out changes nothing
                if score is not None and score > best and uniform() >= alpha:
                    best, place = score, i
            if place < 0:
                return pieces
            pieces[place : place + 2] = [pieces[place] + pieces[place + 1]]
            del scores[place]
            if place > 0:
                scores[place - 1] = get(pieces[place - 1] + pieces[place])
            if place < len(scores):
                scores[place] = get(pieces[place] + pieces[place + 1])
