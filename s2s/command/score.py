"""`s2s score`: corpus scores of a file of outputs against references, with signatures and 95 % intervals."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from typing import get_args

from s2s.command import text
from s2s.errors import DataError, UsageError
from s2s.score.metrics import GROUPS, NAMES, Scoring, compute, metric_names
from s2s.score.resampling import SAMPLES, SEED, check_resampling
from s2s.score.rouge import RougeTokenizer


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `s2s score`."""
    parser.add_argument("hypotheses", metavar="HYP", help="file of outputs, one a line; - is standard input")
    parser.add_argument("references", metavar="REF", nargs="+", help="file of references, one a line")
    parser.add_argument(
        "-m",
        "--metrics",
        default="bleu,chrf",
        metavar="NAMES",
        help=f"comma-separated, of {', '.join([*NAMES, *GROUPS])} (default: %(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON list, numbers in full")
    parser.add_argument(
        "-lc", "--lowercase", action="store_true", help="BLEU and chrF without case (TER and ROUGE never see case)"
    )
    parser.add_argument("--tokenize", default="13a", metavar="NAME", help="sacrebleu tokeniser of BLEU (default: 13a)")
    parser.add_argument(
        "--rouge-tokenize",
        default="auto",
        choices=get_args(RougeTokenizer),
        help="words of ROUGE: rouge_score keeps a-z and 0-9, unicode every script; auto looks at the references",
    )
    parser.add_argument("--stem", action="store_true", help="ROUGE compares stems (English)")
    parser.add_argument(
        "--bert-model", metavar="NAME", help="encoder of bertscore: a folder, or a name on the public hub"
    )
    parser.add_argument("--bert-layer", type=int, metavar="N", help="its layer that is compared (the last)")
    parser.add_argument("--no-intervals", action="store_true", help="leave out the 95 %% bootstrap intervals")
    parser.add_argument("--samples", type=int, default=SAMPLES, help="bootstrap samples (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=SEED, help="seed of the bootstrap (default: %(default)s)")
    parser.add_argument(
        "--errors", choices=("strict", "replace"), default="strict", help="what to do with bytes that are not UTF-8"
    )


def run(args: argparse.Namespace) -> int:
    """Score and print a line a metric. Raises UsageError or DataError before anything is scored."""
    names = metric_names([name.strip() for name in args.metrics.split(",") if name.strip()])
    check_resampling(args.seed, args.samples)
    if [args.hypotheses, *args.references].count("-") > 1:
        raise UsageError("standard input can be read only once", where="-", expected="at most one file named -")
    hypotheses = text.read_all(args.hypotheses, args.errors)
    references = []
    for path in args.references:
        lines = text.read_all(path, args.errors)
        if len(lines) != len(hypotheses):
            raise DataError(
                f"another number of lines than {args.hypotheses}",
                where=path,
                expected=f"{len(hypotheses)} lines",
                found=f"{len(lines)}",
            )
        references.append(lines)
    if not hypotheses:
        print("s2s score: no lines, so no score", file=sys.stderr)
        if args.json:
            print("[]")
        return 0
    scores = compute(
        names,
        hypotheses,
        references,
        Scoring(args.lowercase, args.tokenize, args.rouge_tokenize, args.stem, args.bert_model, args.bert_layer),
        intervals=not args.no_intervals,
        seed=args.seed,
        samples=args.samples,
    )
    if args.json:
        print(json.dumps([dataclasses.asdict(score) for score in scores], indent=1, ensure_ascii=False))
    else:
        for score in scores:
            print(score)
    return 0
