"""ROUGE (Lin 2004) line by line, by rouge-score; for scripts that its tokeniser drops, over words of any script."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Literal, get_args

import numpy as np

from s2s.errors import DataError, UsageError
from s2s.score.flags import units
from s2s.score.resampling import Array, Statistics

ROUGE = ("rouge1", "rouge2", "rougeL", "rougeLsum")
RougeTokenizer = Literal["auto", "rouge_score", "unicode"]


class _Units:
    """What rouge-score asks of a tokeniser: words of any script, and single characters where no blanks are written."""

    def tokenize(self, text: str) -> list[str]:
        """Without case; see `s2s.score.flags.units`."""
        return units(text)


def rouge_statistics(
    name: str,
    hypotheses: Sequence[str],
    references: Sequence[Sequence[str]],
    *,
    tokenize: RougeTokenizer = "auto",
    stem: bool = False,
) -> Statistics:
    """Rows (N, 2): the best F1 of a line over its references and 1, so that a sum of rows scores as a mean.

    tokenize: rouge_score keeps runs of a-z and 0-9 (published figures are made with it); unicode takes letters, marks
    and digits of every script; auto is unicode where fewer than half the letters of the references are ASCII.
    stem: Porter's stemmer on words of more than three letters, English only.
    Raises UsageError for an unknown tokeniser or a stemmer beside unicode, DataError where every score would be 0.
    """
    from rouge_score.rouge_scorer import RougeScorer

    if tokenize not in get_args(RougeTokenizer):
        raise UsageError(
            f"unknown tokeniser {tokenize!r} of ROUGE", expected=f"one of {', '.join(get_args(RougeTokenizer))}"
        )
    letters = [letter.isascii() for stream in references for line in stream for letter in line if letter.isalpha()]
    latin = 2 * sum(letters) >= len(letters)
    chosen = ("rouge_score" if latin else "unicode") if tokenize == "auto" else tokenize
    if chosen == "unicode" and stem:
        raise UsageError("the stemmer is for English", expected="the tokeniser rouge_score", found="unicode")
    if chosen == "rouge_score" and letters and not any(letters):
        raise DataError(
            f"{name} would be 0 for every line: the tokeniser rouge_score keeps only a-z and 0-9",
            expected="references in Latin script",
            hint="Take the tokeniser unicode",
        )
    scorer = RougeScorer([name], use_stemmer=stem, tokenizer=_Units() if chosen == "unicode" else None)
    rows = np.ones((len(hypotheses), 2))
    for row, (hypothesis, *targets) in enumerate(zip(hypotheses, *references, strict=True)):
        rows[row, 0] = scorer.score_multi(targets, hypothesis)[name].fmeasure

    def score(sums: Array) -> float:
        return float(100.0 * sums[0] / sums[1])

    def sign(settings: Mapping[str, int]) -> str:
        options = {"nrefs": len(references), **settings, "case": "lc", "tok": chosen, "stem": "yes" if stem else "no"}
        options |= {"agg": "mean", "multi": "max", "version": f"rouge-score-{version('rouge-score')}"}
        return "|".join(f"{key}:{value}" for key, value in options.items())

    return Statistics(name, rows, score, sign, score(rows.sum(0)))
