"""A source whose words are the warmer the more an output looked at them, for the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from s2s.types import SPECIALS, Result

if TYPE_CHECKING:
    from rich.text import Text

_MARKS = {SPECIALS[2]: "", SPECIALS[3]: "\n"}  # of turns, see s2s.text.turns


def heat(result: Result) -> Text:
    """The source pieces of a result on backgrounds from none to red, then what each output word looked at most.

    A piece's warmth is its largest weight over all outputs, between the smallest and the largest of them. Empty
    without an alignment.
    """
    from rich.text import Text

    shown = Text()
    if result.alignment is None:
        return shown
    rows = result.alignment
    most = [max(row[place] for row in rows) for place in range(len(result.source_pieces))]
    low, high = min(most, default=0.0), max(most, default=0.0)
    for piece, weight in zip(result.source_pieces[:-1], most, strict=False):
        share = (weight - low) / (high - low) if high > low else 0.0
        shown.append(_MARKS.get(piece, piece.replace("▁", " ")), _style(share))
    shown.append("\n")
    for piece, row in zip(result.pieces, rows, strict=True):
        if piece in SPECIALS:
            continue
        place = max(range(len(row)), key=row.__getitem__)
        looked = result.source_pieces[place]
        shown.append(f"\n{_plain(piece):>16}  {row[place]:4.0%}  {_plain(looked)}")
    return shown


def _plain(piece: str) -> str:
    return piece.replace("▁", " ").strip() or piece


def _style(share: float) -> str:
    """A background from nothing over yellow to red."""
    return "" if share < 0.05 else f"#000000 on #ff{int(235 - 150 * share):02x}{int(170 - 120 * share):02x}"
