"""Corpus scores with signatures and bootstrap intervals: BLEU, chrF and TER by sacrebleu, ROUGE by rouge-score.

Every function takes the hypotheses, one string a line, and a list of reference streams, each with as many lines. Text
is raw: detokenised and cased, since the metrics tokenise. A blank line is a line like any other.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from s2s.errors import DataError, RunError, UsageError
from s2s.score.diversity import DIVERSITY, diversity
from s2s.score.resampling import SAMPLES, SEED, Array, Statistics, bootstrap, bounds, check_resampling
from s2s.score.rouge import ROUGE, RougeTokenizer, rouge_statistics
from s2s.types import Score

_BLEU_ORDERS = {"bleu": 4, "bleu1": 1, "bleu2": 2}
NAMES = ("bleu", "chrf", "chrf++", "ter", *ROUGE, "bertscore", "bleu1", "bleu2", *DIVERSITY)
TITLES = {
    **{"bleu": "BLEU", "bleu1": "BLEU-1", "bleu2": "BLEU-2", "chrf": "chrF", "ter": "TER"},
    **{"rouge1": "ROUGE-1", "rouge2": "ROUGE-2", "rougeL": "ROUGE-L"},
    **{f"distinct{order}": f"distinct-{order}" for order in (1, 2, 3)},
    **{f"entropy{order}": f"entropy-{order}" for order in (1, 2, 3)},
    "generic": "generic",
}
GROUPS: dict[str, tuple[str, ...]] = {
    "rouge": ROUGE,
    "distinct": ("distinct1", "distinct2", "distinct3"),
    "dialogue": ("bleu1", "bleu2", "bleu", "rougeL", *DIVERSITY),
}


@dataclass(frozen=True)
class Scoring:
    """How texts are compared, beside the metric.

    lowercase: BLEU and chrF without case (TER and ROUGE never see case). tokenize: sacrebleu's tokeniser of BLEU.
    rouge_tokenize, stem: see `s2s.score.rouge.rouge_statistics`. bert_model, bert_layer: see
    `s2s.score.bertscore.bertscore_statistics`; a model of None is its default.
    """

    lowercase: bool = False
    tokenize: str = "13a"
    rouge_tokenize: RougeTokenizer = "auto"
    stem: bool = False
    bert_model: str | None = None
    bert_layer: int | None = None


PLAIN = Scoring()


def bleu(
    hypotheses: Sequence[str],
    references: Sequence[Sequence[str]],
    *,
    lowercase: bool = False,
    tokenize: str = "13a",
    intervals: bool = False,
    seed: int = SEED,
    samples: int = SAMPLES,
) -> Score:
    """BLEU (Papineni et al. 2002), 0 to 100, as sacrebleu computes it.

    tokenize: sacrebleu's name of a tokeniser (13a, intl, char, zh, none, ...).
    Raises DataError on no lines or unequal counts, UsageError on an unknown tokeniser.
    """
    found = statistics("bleu", hypotheses, references, Scoring(lowercase, tokenize))
    return _score(found, intervals, seed, samples)


def chrf(
    hypotheses: Sequence[str],
    references: Sequence[Sequence[str]],
    *,
    lowercase: bool = False,
    words: bool = False,
    intervals: bool = False,
    seed: int = SEED,
    samples: int = SAMPLES,
) -> Score:
    """The chrF2 score (Popović 2015), 0 to 100, as sacrebleu computes it; with `words`, chrF++ (Popović 2017).

    Raises DataError on no lines or unequal counts.
    """
    found = statistics("chrf++" if words else "chrf", hypotheses, references, Scoring(lowercase))
    return _score(found, intervals, seed, samples)


def ter(
    hypotheses: Sequence[str],
    references: Sequence[Sequence[str]],
    *,
    intervals: bool = False,
    seed: int = SEED,
    samples: int = SAMPLES,
) -> Score:
    """Translation edit rate (Snover et al. 2006) in percent, lower is better, as sacrebleu computes it.

    Sacrebleu's TER ignores case, and so does this. Raises DataError on no lines or unequal counts.
    """
    return _score(statistics("ter", hypotheses, references), intervals, seed, samples)


def rouge(
    hypotheses: Sequence[str],
    references: Sequence[Sequence[str]],
    *,
    tokenize: RougeTokenizer = "auto",
    stem: bool = False,
    intervals: bool = False,
    seed: int = SEED,
    samples: int = SAMPLES,
) -> list[Score]:
    """Mean F1 of ROUGE-1, -2, -L and -Lsum (Lin 2004), 0 to 100, by rouge-score.

    With several references each line takes its best. For Lsum, sentences inside a record are separated by a newline;
    without one Lsum equals L. tokenize, stem: see `s2s.score.rouge.rouge_statistics`. Raises DataError on no lines,
    unequal counts, and references in a script that the tokeniser would drop.
    """
    scoring = Scoring(rouge_tokenize=tokenize, stem=stem)
    return compute(ROUGE, hypotheses, references, scoring, intervals=intervals, seed=seed, samples=samples)


def compute(
    names: Sequence[str],
    hypotheses: Sequence[str],
    references: Sequence[Sequence[str]],
    scoring: Scoring = PLAIN,
    *,
    intervals: bool = False,
    seed: int = SEED,
    samples: int = SAMPLES,
) -> list[Score]:
    """The scores of one system under several metrics, in the order asked; `rouge` stands for its four.

    intervals: add 95 % bootstrap bounds from `samples` samples, but for the metrics of `s2s.score.diversity`.
    Raises UsageError on an unknown or repeated name, DataError on no lines or unequal counts.
    """
    check_lines(hypotheses, references)
    return [
        diversity(name, hypotheses)
        if name in DIVERSITY
        else _score(statistics(name, hypotheses, references, scoring), intervals, seed, samples)
        for name in metric_names(names)
    ]


def metric_names(names: Sequence[str]) -> list[str]:
    """Known metric names with groups expanded. Raises UsageError on none, an unknown or a repeated one."""
    known = [*NAMES, *GROUPS]
    chosen: list[str] = []
    for name in names:
        if name not in known:
            nearest = difflib.get_close_matches(name.lower(), known, n=1)
            hint = f"Did you mean {nearest[0]}?" if nearest else None
            raise UsageError(f"unknown metric {name!r}", expected=f"any of {', '.join(known)}", hint=hint)
        chosen.extend(GROUPS.get(name, (name,)))
    repeated = sorted({name for name in chosen if chosen.count(name) > 1})
    if repeated:
        raise UsageError(f"metric {', '.join(repeated)} is asked for more than once")
    if not chosen:
        raise UsageError("no metric is named", expected=f"any of {', '.join(known)}")
    return chosen


def better(new: Score | float, best: Score | float | None, *, higher_is_better: bool | None = None) -> bool:
    """Whether `new` beats `best`; an equal one does not, and a value that is NaN or infinite never does.

    Any finite value beats None and a best that is not finite. A Score knows its direction; for a float
    `higher_is_better` has to be said. Raises ValueError where it isn't, or where two metrics are compared.
    """
    if isinstance(new, Score):
        if isinstance(best, Score) and best.name != new.name:
            raise ValueError(f"{new.name} can't be compared with {best.name}")
        higher_is_better = new.higher_is_better
    elif isinstance(best, Score):
        higher_is_better = best.higher_is_better
    if higher_is_better is None:
        raise ValueError("higher_is_better has to be given with a plain number")
    value = new.value if isinstance(new, Score) else new
    bar = best.value if isinstance(best, Score) else best
    if not math.isfinite(value):
        return False
    if bar is None or not math.isfinite(bar):
        return True
    return value > bar if higher_is_better else value < bar


def check_lines(hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> None:
    """Refuse what can't be scored.

    Raises UsageError where there is no reference stream, or strings stand in place of streams; DataError on unequal
    counts or no lines.
    """
    if isinstance(references, str) or any(isinstance(stream, str) for stream in references):
        raise UsageError("references are a list of streams", expected="[[line, line, ...], ...]", found="strings")
    if not references:
        raise UsageError("no reference to score against", expected="at least one reference stream")
    for number, stream in enumerate(references, start=1):
        if len(stream) != len(hypotheses):
            raise DataError(
                f"reference {number} has another number of lines than the hypotheses",
                expected=f"{len(hypotheses)} lines",
                found=f"{len(stream)}",
            )
    if not hypotheses:
        raise DataError("there is nothing to score", expected="at least one line", found="0 lines")


def statistics(
    name: str,
    hypotheses: Sequence[str],
    references: Sequence[Sequence[str]],
    scoring: Scoring = PLAIN,
) -> Statistics:
    """What the metric `name` (one of NAMES, none of DIVERSITY) keeps of each line, for intervals and paired tests.

    Raises as `compute` does.
    """
    check_lines(hypotheses, references)
    if name in ROUGE:
        return rouge_statistics(name, hypotheses, references, tokenize=scoring.rouge_tokenize, stem=scoring.stem)
    if name == "bertscore":
        from s2s.score.bertscore import MODEL, bertscore_statistics

        return bertscore_statistics(hypotheses, references, model=scoring.bert_model or MODEL, layer=scoring.bert_layer)
    from sacrebleu.metrics.chrf import CHRF
    from sacrebleu.metrics.ter import TER

    metric: Any
    if name in _BLEU_ORDERS:
        metric = _bleu_metric(scoring.lowercase, scoring.tokenize, _BLEU_ORDERS[name])
    elif name == "ter":
        metric = TER()
    else:
        metric = CHRF(word_order=2 if name == "chrf++" else 0, lowercase=scoring.lowercase)
    rows = np.array(metric._extract_corpus_statistics(hypotheses, references), dtype=np.float64)
    whole = metric._compute_score_from_stats(rows.sum(0))

    def score(sums: Array) -> float:
        return float(metric._compute_score_from_stats(sums).score)

    def sign(settings: Mapping[str, int]) -> str:
        signature = metric.get_signature()
        for key, value in settings.items():
            signature.update(key, value)
        return f"{signature}|order:{_BLEU_ORDERS[name]}" if name in ("bleu1", "bleu2") else str(signature)

    details: dict[str, float] = {}
    if name in _BLEU_ORDERS:
        details = {f"precision_{order}": float(value) for order, value in enumerate(whole.precisions, start=1)}
        details |= {"brevity_penalty": float(whole.bp), "length_ratio": float(whole.ratio)}
    return Statistics(name, rows, score, sign, float(whole.score), name != "ter", details)


def _bleu_metric(lowercase: bool, tokenize: str, order: int) -> Any:
    """Sacrebleu's BLEU with a tokeniser that exists and can be had here."""
    from sacrebleu.metrics.bleu import BLEU

    if tokenize not in BLEU.TOKENIZERS:
        nearest = difflib.get_close_matches(tokenize, BLEU.TOKENIZERS, n=1)
        hint = f"Did you mean {nearest[0]}?" if nearest else None
        expected = f"one of {', '.join(BLEU.TOKENIZERS)}"
        raise UsageError(f"unknown tokeniser {tokenize!r}", where="tokenize", expected=expected, hint=hint)
    try:
        return BLEU(lowercase=lowercase, tokenize=tokenize, max_ngram_order=order)
    except (ImportError, OSError, RuntimeError) as error:
        # Some tokenisers need a further package (ja-mecab, ko-mecab) or a download (spm, flores200).
        raise RunError(f"the tokeniser {tokenize} can't be had here: {error}", where="tokenize") from error


def _score(found: Statistics, intervals: bool, seed: int, samples: int) -> Score:
    low: float | None = None
    high: float | None = None
    settings: dict[str, int] = {}
    if intervals:
        check_resampling(seed, samples)
        low, high = bounds(bootstrap(found, seed=seed, samples=samples))
        settings = {"bs": samples, "seed": seed}
    return Score(found.metric, found.value, found.sign(settings), low, high, found.higher_is_better, found.details)
