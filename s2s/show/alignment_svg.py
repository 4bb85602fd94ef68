"""An alignment as SVG: small, sharp at any size, in light and dark; inside a page or as a file of its own."""

from __future__ import annotations

import html
import math
import unicodedata
from collections.abc import Sequence

from s2s.errors import DataError
from s2s.show.plots import visible
from s2s.show.report import words

CELL = 22  # pixels a side
SLANT = 50  # degrees that source labels are turned
LABEL = 18  # characters; a longer label is cut and ends in an ellipsis

# Of a file of its own; a page has these colours in its own style.
_STYLE = """text{font:12px system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans",Arial,sans-serif;fill:#1c2127}
.special{fill:#59616c}.back{fill:#f0f2f4}.cell{fill:rgb(23,74,145)}
@media(prefers-color-scheme:dark){text{fill:#e6e8eb}.special{fill:#a0a8b2}.back{fill:#262b31}.cell{fill:rgb(128,180,255)}}
"""


def alignment_svg(
    source_pieces: Sequence[str],
    target_pieces: Sequence[str],
    weights: Sequence[Sequence[float]],
    *,
    label: str,
    standalone: bool,
) -> str:
    """Source along x, target along y; a cell is the fuller, the larger its weight, from 0 to 1 in every picture.

    weights: (T, S). label: what a screen reader says. standalone: with its own style, to be written as a file.
    Raises DataError where the weights don't fit the pieces.
    """
    rows, columns = len(target_pieces), len(source_pieces)
    if not rows or not columns or len(weights) != rows or {len(row) for row in weights} != {columns}:
        raise DataError(
            "attention weights don't fit the pieces",
            expected=f"(target pieces, source pieces) = ({rows}, {columns}), at least (1, 1)",
            found=f"({len(weights)}, {' or '.join(map(str, sorted({len(row) for row in weights})))})",
        )
    across, down = words(source_pieces), words(target_pieces)
    source_labels, target_labels = [_short(w["text"]) for w in across], [_short(w["text"]) for w in down]
    turn = math.radians(SLANT)
    left = round(max(map(_width, target_labels))) + 8
    top = round(max(map(_width, source_labels)) * math.sin(turn)) + 12
    reach = max(CELL * (i + 0.5) + _width(text) * math.cos(turn) for i, text in enumerate(source_labels))
    width, height = round(left + max(CELL * columns, reach) + 8), top + CELL * rows + 2
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" class="alignment" role="img" aria-label="{html.escape(label)}" '
        f'viewBox="0 0 {width} {height}" width="{width}" height="{height}">'
    ]
    if standalone:
        parts.append(f"<style>{_STYLE}</style>")
    for i, (text, word) in enumerate(zip(source_labels, across, strict=True)):
        x, y = left + CELL * i + CELL // 2, top - 6
        parts.append(f'<text x="{x}" y="{y}" transform="rotate(-{SLANT} {x} {y})"{_class(word)}>{_text(text)}</text>')
    for j, (text, word) in enumerate(zip(target_labels, down, strict=True)):
        y = top + CELL * j + CELL // 2 + 4
        parts.append(f'<text x="{left - 6}" y="{y}" text-anchor="end"{_class(word)}>{_text(text)}</text>')
    for j, row in enumerate(weights):
        for i, weight in enumerate(row):
            place = f'x="{left + CELL * i}" y="{top + CELL * j}" width="{CELL - 1}" height="{CELL - 1}"'
            parts.append(f'<rect class="back" {place}/>')
            shown = min(1.0, max(0.0, weight)) if math.isfinite(weight) else 0.0
            if shown >= 0.005:
                told = f"{_text(target_labels[j])} ← {_text(source_labels[i])}: {shown:.2f}"
                parts.append(f'<rect class="cell" {place} fill-opacity="{shown:.2f}"><title>{told}</title></rect>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def in_words(
    source_pieces: Sequence[str], target_pieces: Sequence[str], weights: Sequence[Sequence[float]]
) -> list[str]:
    """The picture as text: for each target piece the source piece with the most weight, `house ← Haus (0.93)`."""
    source, target = [w["text"] for w in words(source_pieces)], [w["text"] for w in words(target_pieces)]
    told = []
    for piece, row in zip(target, weights, strict=True):
        best = max(range(len(row)), key=row.__getitem__)
        told.append(f"{piece} ← {source[best]} ({row[best]:.2f})" if row[best] > 0 else f"{piece} ← nothing")
    return told


def _short(text: str) -> str:
    shown = visible(text)
    return shown if len(shown) <= LABEL else shown[: LABEL - 1] + "…"


def _width(text: str) -> float:
    """Pixels that a label takes in a font of 12 pixels, rather too many than too few."""
    return sum(12.5 if unicodedata.east_asian_width(c) in "WF" else 7.2 for c in text)


def _text(text: str) -> str:
    return html.escape(text)


def _class(word: dict[str, object]) -> str:
    return ' class="special"' if word["special"] else ""
