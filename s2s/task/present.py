"""What a run shows at its end: sample translations, attention pictures, the report page."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from s2s.config import Config
from s2s.score.dialogue import DialogueStatistics
from s2s.score.metrics import TITLES, compute
from s2s.score.summary import SummaryStatistics
from s2s.show.plots import attention_png
from s2s.show.report import ReportData, Sample, write_report
from s2s.task.evaluate import Evaluation
from s2s.task.gates import generated_shares
from s2s.task.generate import Generator, Options
from s2s.task.trained import Trained
from s2s.text.corpus import Corpus, Pair, reference_streams
from s2s.types import Score

# What tells how good one output is.
SAMPLE_SCORES = {"translation": "chrf", "summarisation": "rougeL", "dialogue": "chrf"}


def spread(count: int, of: int) -> list[int]:
    """`count` numbers spread evenly over range(of), always the same."""
    return [i * of // count for i in range(min(count, of))] if count else []


def draw_samples(trained: Trained, pairs: Sequence[Pair], count: int, folder: Path) -> list[Sample]:
    """Translate `count` pairs spread over a split, draw their attention as PNG, and give them for the report."""
    task = trained.config.task.name
    chosen = [pairs[i] for i in spread(count, len(pairs))]
    results = Generator([trained], trained.config.search, Options(alignment=True))([pair.source for pair in chosen])
    samples = []
    for number, (pair, result) in enumerate(zip(chosen, results, strict=True), 1):
        if result.alignment is not None:
            folder.mkdir(exist_ok=True)
            title = f"{trained.config.attention.name}: {trained.languages[0]} to {trained.languages[1]}"
            path = folder / f"{number:02d}.png"
            for warning in attention_png(path, result.source_pieces, result.pieces, result.alignment, title=title):
                print(f"{path.name}: {warning}", file=sys.stderr)
        score = compute([SAMPLE_SCORES[task]], [result.text], reference_streams([pair]))[0].value
        samples.append(
            Sample(
                pair.source.replace("\n", " / "),
                result.text,
                pair.target,
                result.source_pieces,
                result.pieces,
                result.alignment,
                result.flags,
                score,
                generated_shares(trained, result),
            )
        )
    return samples


def _told(split: str, found: SummaryStatistics) -> str:
    """Statistics of summaries as a sentence."""

    def percent(share: float | None) -> str:
        return "-" if share is None else f"{100 * share:.0f} %"

    new = ", ".join(percent(found.novel[order]) for order in sorted(found.novel))
    shorter = "-" if found.compression is None else f"{found.compression:.1f}"
    told = {
        "words, pairs and triples that these lack": new,
        "words in runs of three that were taken over": percent(found.copied),
        "pairs of words said before": percent(found.repeated),
        "summaries with a number or name that the text lacks": percent(found.unsupported),
    }
    facts = "; ".join(f"{name}: {value}" for name, value in told.items())
    return f"summaries of {split}: {shorter} times shorter than their texts; {facts}"


def told_of_replies(split: str, found: DialogueStatistics) -> str:
    """Statistics of replies as a sentence."""
    known = {
        "words a reply": f"{found.words:.1f}",
        "replies that repeat a triple of words": f"{100 * found.repeating:.1f} %",
        "replies given before": f"{100 * found.said_before:.1f} %",
        "replies that hold their keyword": None if found.keywords is None else f"{100 * found.keywords:.1f} %",
        "relevance (embedding average)": None if found.relevance is None else f"{found.relevance:.3f}",
        "perplexity a word": None if found.perplexity is None else f"{found.perplexity:.2f}",
    }
    return f"replies of {split}: " + "; ".join(f"{name}: {value}" for name, value in known.items() if value)


def drawn_profile(profile: Mapping[str, Any]) -> dict[str, Any]:
    """What the report draws of a profile as profile.json has it."""
    rate, bandwidth = profile["rate"] / 1e9, profile["bandwidth"] / 1e9
    return {
        "parts": [[one["name"], one["seconds"], one["floor"]] for one in profile["parts"] if one["seconds"]],
        "text": f"{profile['updates']} updates of {profile['tokens']:,.0f} target tokens on average: "
        f"{profile['tokens'] / profile['seconds']:,.0f} target tokens/s, "
        f"{profile['tokens'] / profile['floor']:,.0f} at best. At best means: each part takes no longer than its "
        f"matrix products at {rate:,.0f} GFLOP/s, or its weights, gradients and optimiser state at {bandwidth:,.1f} "
        f"GB/s, both as this machine reached them at the end of the run. Validation and saving took "
        f"{profile['waiting']:,.1f} s beside {profile['training']:,.1f} s of updates.",
    }


def report(
    folder: Path,
    config: Config,
    config_text: str,
    corpus: Corpus,
    evaluations: Mapping[str, Evaluation],
    scores: Mapping[str, Sequence[Score]],
    events: Sequence[Mapping[str, Any]],
    samples: Sequence[Sample],
    machine: Mapping[str, str],
    profile: Mapping[str, Any] | None = None,
) -> None:
    """Write report.html of a run. scores: of each split, and of what else was scored. profile: as profile.json."""
    drops: dict[str, int] = {}
    for counts in corpus.report.splits.values():
        for reason, count in counts.dropped.items():
            drops[reason] = drops.get(reason, 0) + count
    notes = [*corpus.report.warnings]
    for split, one in evaluations.items():
        flagged = {flag: count for flag, count in one.flags().items() if flag != "blank"}
        if flagged:
            told = ", ".join(f"{count} {flag}" for flag, count in flagged.items())
            notes.append(f"flags on {split} ({len(one.results)} outputs): {told}")
        if one.summary is not None:
            notes.append(_told(split, one.summary))
        if one.dialogue is not None:
            notes.append(told_of_replies(split, one.dialogue))
    write_report(
        folder / "report.html",
        ReportData(
            name=config.name,
            task=config.task.name,
            created=datetime.now().strftime("%Y-%m-%d %H:%M"),
            languages=(corpus.source_language, corpus.target_language),
            scores=scores,
            events=events,
            samples=samples,
            sample_score=TITLES[SAMPLE_SCORES[config.task.name]],
            data_text="\n".join(f"{key}: {value}" for key, value in corpus.facts.items()),
            splits={name: len(pairs) for name, pairs in corpus.splits.items()},
            drops=drops,
            config_text=config_text,
            machine=machine,
            profile=None if profile is None else drawn_profile(profile),
            notes=notes,
        ),
    )
