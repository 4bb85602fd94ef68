"""What a run shows at its end: sample translations, attention pictures, the report page."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from s2s.config import Config
from s2s.show.plots import attention_png
from s2s.show.report import ReportData, Sample, write_report
from s2s.task.evaluate import Evaluation
from s2s.task.generate import Generator, Options
from s2s.task.trained import Trained
from s2s.text.corpus import Corpus, Pair


def spread(count: int, of: int) -> list[int]:
    """`count` numbers spread evenly over range(of), always the same."""
    return [i * of // count for i in range(min(count, of))] if count else []


def draw_samples(trained: Trained, pairs: Sequence[Pair], count: int, folder: Path) -> list[Sample]:
    """Translate `count` pairs spread over a split, draw their attention as PNG, and give them for the report."""
    from s2s.score.metrics import compute

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
        chrf = compute(["chrf"], [result.text], [[pair.target]])[0].value
        samples.append(
            Sample(
                pair.source,
                result.text,
                pair.target,
                result.source_pieces,
                result.pieces,
                result.alignment,
                result.flags,
                chrf,
            )
        )
    return samples


def report(
    folder: Path,
    config: Config,
    config_text: str,
    corpus: Corpus,
    evaluations: Mapping[str, Evaluation],
    events: Sequence[Mapping[str, Any]],
    samples: Sequence[Sample],
    machine: Mapping[str, str],
) -> None:
    """Write report.html of a run."""
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
    write_report(
        folder / "report.html",
        ReportData(
            name=config.name,
            task=config.task.name,
            created=datetime.now().strftime("%Y-%m-%d %H:%M"),
            languages=(corpus.source_language, corpus.target_language),
            scores={split: one.scores for split, one in evaluations.items()},
            events=events,
            samples=samples,
            sample_score="chrF",
            data_text="\n".join(f"{key}: {value}" for key, value in corpus.facts.items()),
            splits={name: len(pairs) for name, pairs in corpus.splits.items()},
            drops=drops,
            config_text=config_text,
            machine=machine,
            notes=notes,
        ),
    )
