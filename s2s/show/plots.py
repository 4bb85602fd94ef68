"""Pictures as PNG: an attention heatmap and the curves of a run. matplotlib is imported only when one is drawn."""

from __future__ import annotations

import math
import unicodedata
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from s2s.errors import DataError
from s2s.files import write_atomic

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

# Policy for long sequences. Every label is drawn up to MAX_LABELS a side, then every k-th. Every weight has a cell of
# its own up to MAX_CELLS a side, then a cell shows the largest of a block of weights. The title says so in both cases.
MAX_LABELS = 60
MAX_CELLS = 600
LABEL_CHARACTERS = 24  # a longer label is cut and ends in an ellipsis
DPI = 120

# Tried in this order for each character; those that aren't installed are skipped.
FONTS = (
    "DejaVu Sans",
    "Noto Sans",
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "Noto Sans SC",
    "Noto Sans JP",
    "Noto Sans KR",
    "Source Han Sans SC",
    "WenQuanYi Micro Hei",
    "WenQuanYi Zen Hei",
    "Droid Sans Fallback",
    "PingFang SC",
    "Hiragino Sans GB",
    "Hiragino Sans",
    "Apple SD Gothic Neo",
    "Microsoft YaHei",
    "SimHei",
    "Yu Gothic",
    "MS Gothic",
    "Malgun Gothic",
    "Noto Sans Arabic",
    "Noto Naskh Arabic",
    "Noto Sans Hebrew",
    "Noto Sans Devanagari",
    "Noto Sans Bengali",
    "Noto Sans Tamil",
    "Noto Sans Thai",
    "Noto Sans Ethiopic",
    "Noto Sans Armenian",
    "Noto Sans Georgian",
    "Noto Sans Khmer",
    "Noto Sans Symbols",
    "Noto Sans Symbols2",
    "Noto Emoji",
    "Segoe UI Symbol",
    "Arial Unicode MS",
    "Unifont",
)


def attention_png(
    path: str | Path,
    source_pieces: Sequence[str],
    target_pieces: Sequence[str],
    weights: Tensor | Sequence[Sequence[float]],
    *,
    title: str | None = None,
) -> list[str]:
    """Draw what each target piece looked at; source along x, target along y, the colour from 0 to 1 in every picture.

    weights: (T, S), row t the attention of target piece t; the axes are those of Bahdanau et al. 2015, figure 3.
    Returns warnings, also written small below the picture, such as characters that no installed font has.
    Raises DataError where the shape doesn't fit the pieces or a side is empty, RunError where it can't be written.
    """
    import numpy as np
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    matrix = _matrix(weights, len(target_pieces), len(source_pieces))
    x_labels, y_labels = _labels(source_pieces), _labels(target_pieces)
    heading = "" if title is None else visible(title)[:400]
    families, notes = _fonts("".join((heading, *x_labels, *y_labels)))
    if not np.isfinite(matrix).all():
        notes.append(
            f"{int((~np.isfinite(matrix)).sum())} of {matrix.size} weights are not finite numbers; drawn in red."
        )

    cells, block = _blocks(matrix)
    x_every, y_every = (math.ceil(n / MAX_LABELS) for n in (len(x_labels), len(y_labels)))
    remarks = []
    if x_every > 1:
        remarks.append(f"label of every {_ordinal(x_every)} of {len(x_labels)} source tokens")
    if y_every > 1:
        remarks.append(f"label of every {_ordinal(y_every)} of {len(y_labels)} target tokens")
    if block != (1, 1):
        remarks.append(f"a cell shows the largest of {block[0]} x {block[1]} weights")

    cell = 0.27  # inches; small enough for 60 labels, large enough to read them
    width = cell * min(max(len(x_labels), 6), MAX_LABELS)
    height = cell * min(max(len(y_labels), 3), MAX_LABELS)
    # Text is placed in inches from the edges, and the canvas grows to hold it (bbox_inches="tight").
    figure = Figure(figsize=(width, height), dpi=DPI)
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    colours = _colours()
    image = axes.imshow(
        cells,
        cmap=colours,
        vmin=0,
        vmax=1,
        aspect="auto",
        interpolation="nearest",
        extent=(-0.5, len(x_labels) - 0.5, len(y_labels) - 0.5, -0.5),
    )
    text: dict[str, Any] = {"fontfamily": families, "parse_math": False}
    axes.xaxis.tick_top()
    shown = range(0, len(x_labels), x_every)
    axes.set_xticks(shown, [_upright(x_labels[i]) for i in shown], fontsize=9, linespacing=1.0, **text)
    for label in axes.get_xticklabels():
        label.set_rotation(0 if len(label.get_text()) == 1 or "\n" in label.get_text() else 90)
    shown = range(0, len(y_labels), y_every)
    axes.set_yticks(shown, [y_labels[i] for i in shown], fontsize=9, **text)
    axes.tick_params(length=0, pad=4)
    for spine in axes.spines.values():
        spine.set_color("#c4c9d1")
    if len(x_labels) <= MAX_LABELS and len(y_labels) <= MAX_LABELS:
        axes.set_xticks(np.arange(1, len(x_labels)) - 0.5, minor=True)
        axes.set_yticks(np.arange(1, len(y_labels)) - 0.5, minor=True)
        axes.grid(which="minor", color="#e4e7ec", linewidth=0.6)
        axes.tick_params(which="minor", length=0)
    side = figure.add_axes((1 + 0.14 / width, 0, 0.09 / width, min(1, 1.8 / height)))
    bar = figure.colorbar(image, cax=side, ticks=[0, 0.5, 1])
    bar.outline.set_edgecolor("#c4c9d1")
    side.tick_params(length=0, labelsize=7, colors="#555b66")

    above = "\n".join(_wrap(part, 90) for part in (heading, "; ".join(remarks)) if part)
    if above:
        renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
        with _missing_glyphs_are_known():
            top = max(label.get_window_extent(renderer).y1 for label in axes.get_xticklabels()) / DPI
        figure.text(0, (top + 0.14) / height, above, ha="left", va="bottom", fontsize=10, color="#20242b", **text)
    if notes:
        below = "\n".join(_wrap(note, 90) for note in notes)
        figure.text(0, -0.14 / height, below, ha="left", va="top", fontsize=7, color="#9a3412", **text)
    _save(figure, path)
    return notes


def visible(text: str) -> str:
    """`text` on one line: a word start (U+2581) as an open box, a control character as its picture (U+2400 on)."""
    drawn = []
    for c in text:
        if c == "▁":
            drawn.append("␣")
        elif ord(c) < 0x20 or ord(c) == 0x7F:
            drawn.append(chr(0x2421 if ord(c) == 0x7F else 0x2400 + ord(c)))
        elif unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp"):
            drawn.append("\ufffd")
        else:
            drawn.append(c)
    return "".join(drawn)


def _labels(pieces: Sequence[str]) -> list[str]:
    labels = ["␣" if p == " " else visible(p) or "∅" for p in pieces]
    return [p if len(p) <= LABEL_CHARACTERS else p[: LABEL_CHARACTERS - 1] + "…" for p in labels]


def _upright(label: str) -> str:
    """East Asian labels are written downwards, as their readers do; others are turned by the caller."""
    wide = all(c == "␣" or unicodedata.east_asian_width(c) == "W" for c in label)
    return "\n".join(label) if wide and len(label) > 1 else label


def _matrix(weights: Tensor | Sequence[Sequence[float]], rows: int, columns: int) -> np.ndarray[Any, Any]:
    import numpy as np

    try:
        # A tensor may be in bfloat16, which numpy doesn't know, or on a GPU.
        plain = weights.detach().cpu().tolist() if hasattr(weights, "detach") else weights
        matrix = np.asarray(plain, dtype=np.float64)
    except (TypeError, ValueError):
        raise DataError("attention weights are not a matrix of numbers", expected=f"({rows}, {columns})") from None
    if matrix.shape != (rows, columns) or not rows or not columns:
        raise DataError(
            "attention weights don't fit the pieces",
            expected=f"(target pieces, source pieces) = ({rows}, {columns}), at least (1, 1)",
            found=str(matrix.shape),
        )
    return matrix


def _blocks(matrix: np.ndarray[Any, Any]) -> tuple[np.ndarray[Any, Any], tuple[int, int]]:
    """At most MAX_CELLS a side, each the largest of its block, so that no weight vanishes from a picture."""
    import numpy as np

    block = (math.ceil(matrix.shape[0] / MAX_CELLS), math.ceil(matrix.shape[1] / MAX_CELLS))
    if block == (1, 1):
        return matrix, block
    starts = [np.arange(0, n, size) for n, size in zip(matrix.shape, block, strict=True)]
    return np.maximum.reduceat(np.maximum.reduceat(matrix, starts[0], axis=0), starts[1], axis=1), block


def _fonts(text: str) -> tuple[list[str], list[str]]:
    """Installed fonts that together hold the most of `text`, and warnings about what they can't draw."""
    import matplotlib
    from matplotlib import font_manager

    notes = []
    if matplotlib.__version_info__[:2] < (3, 11) and any(unicodedata.bidirectional(c) in ("R", "AL") for c in text):
        notes.append("matplotlib before 3.11 draws right-to-left text unshaped and reversed; see report.html.")
    wanted = {c for c in text if _has_shape(c)}
    chosen, missing = _choose(wanted)
    if missing:
        # matplotlib remembers the fonts of its first day: look for those that came later.
        known = {entry.fname for entry in font_manager.fontManager.ttflist}
        for file in font_manager.findSystemFonts():
            if file not in known:
                try:
                    font_manager.fontManager.addfont(file)
                except (RuntimeError, OSError, ValueError, UnicodeError):  # broken, or pixels only (colour emoji)
                    continue
        chosen, missing = _choose(wanted)
    if not missing:
        return chosen, notes
    named = " ".join(f"U+{ord(c):04X}" for c in sorted(missing)[:12]) + (" ..." if len(missing) > 12 else "")
    characters = "character" if len(missing) == 1 else "characters"
    notes.append(
        f"The font lacks glyphs for {len(missing)} {characters}: {named}. Boxes stand for them; "
        "install a font that has them (such as Noto Sans CJK), or see report.html."
    )
    return chosen, notes


def _choose(wanted: set[str]) -> tuple[list[str], set[str]]:
    from matplotlib import font_manager

    files = {entry.name: entry.fname for entry in reversed(font_manager.fontManager.ttflist) if entry.style == "normal"}
    chosen, missing = ["DejaVu Sans"], set(wanted)  # matplotlib ships it
    for name in FONTS:
        if missing and name in files:
            try:
                have = font_manager.get_font(files[name]).get_charmap()
            except (RuntimeError, OSError):
                continue
            found = {c for c in missing if ord(c) in have}
            if found:
                missing -= found
                chosen = chosen if name in chosen else [*chosen, name]
    return chosen, missing


def _has_shape(c: str) -> bool:
    """False for what is drawn as nothing: spaces, joiners, direction marks, variation selectors."""
    return not (c.isspace() or unicodedata.category(c) == "Cf" or 0xFE00 <= ord(c) <= 0xFE0F)


def _colours() -> Any:
    from matplotlib.colors import LinearSegmentedColormap

    colours = LinearSegmentedColormap.from_list("attention", ["#ffffff", "#a9c5ea", "#3b74bd", "#10305f"])
    return colours.with_extremes(bad="#d33a2c")


@contextmanager
def _missing_glyphs_are_known() -> Iterator[None]:
    """No warning for each glyph from matplotlib: `_fonts` has found them, and the picture says so."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield


def _save(figure: Any, path: str | Path) -> None:
    held = BytesIO()
    with _missing_glyphs_are_known():
        figure.savefig(
            held, format="png", bbox_inches="tight", pad_inches=0.15, facecolor="white", metadata={"Software": "s2s"}
        )
    write_atomic(path, held.getvalue())


def _number(value: object) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def _ordinal(n: int) -> str:
    suffix = "th" if n % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(n % 10, "th")
    return f"{n}{suffix}"


def _wrap(text: str, width: int) -> str:
    import textwrap

    return "\n".join(textwrap.wrap(text, width))
