"""A corpus in words and numbers, for `s2s doctor`."""

from __future__ import annotations

from collections.abc import Sequence

from s2s.text.corpus.base import Corpus


def describe(corpus: Corpus) -> str:
    """A plain-text page: facts, sizes and lengths of each split, what was dropped and why, warnings.

    Lengths are in whitespace-separated words: the median, the 95th percentile and the longest of each side.
    """
    out = [f"corpus {corpus.name}: {corpus.source_language} -> {corpus.target_language}", ""]
    rows: list[tuple[str, ...]] = [
        ("split", "pairs", "source words", "median", "p95", "max", "target words", "median", "p95", "max")
    ]
    for split, pairs in corpus.splits.items():
        row = [split, f"{len(pairs):,}"]
        for side in (0, 1):
            lengths = sorted(len((pair.source, pair.target)[side].split()) for pair in pairs)
            row.append(f"{sum(lengths):,}")
            row.extend(str(_percentile(lengths, share)) for share in (0.5, 0.95, 1.0))
        rows.append(tuple(row))
    out.extend(_table(rows))
    drops = [("split", "read", "kept", "dropped", "reason", "for example")]
    for split, counts in corpus.report.splits.items():
        first = (split, f"{counts.read:,}", f"{counts.kept:,}")
        ranked = sorted(counts.dropped.items(), key=lambda item: -item[1]) or [("-", 0)]
        for place, (reason, count) in enumerate(ranked):
            head = ("", "", "") if place else first
            drops.append((*head, f"{count:,}", reason, counts.examples.get(reason, "-")))
    out += ["", *_table(drops), ""]
    out += [f"warning: {warning}" for warning in corpus.report.warnings] or ["no warnings"]
    out += ["", *(f"{key}: {value}" for key, value in corpus.facts.items())]
    out += [f"file: {name} ({print_.size:,} bytes, sha256 {print_.sha256})" for name, print_ in corpus.files.items()]
    out.append(f"fingerprint: {corpus.fingerprint()}")
    return "\n".join(out) + "\n"


def _percentile(ordered: Sequence[int], share: float) -> int:
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def _table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Columns of equal width; numbers are set to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            cell.rjust(width) if cell.replace(",", "").isdigit() else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return lines
