"""Pictures: what is drawn, what is said when something can't be, and how large they get."""

import struct
import subprocess
import sys

import numpy as np
import pytest
import torch

from s2s.errors import DataError
from s2s.show import plots
from s2s.show.plots import attention_png, visible


def size_of(path):
    data = path.read_bytes()
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    return struct.unpack(">II", data[16:24])


def pixels(path):
    from matplotlib.image import imread

    return imread(path)[..., :3]


def draw(tmp_path, source, target, weights=None, **options):
    weights = torch.full((len(target), len(source)), 1 / len(source)) if weights is None else weights
    path = tmp_path / "a" / "p.png"
    return path, attention_png(path, source, target, weights, **options)


def test_one_by_one(tmp_path):
    path, notes = draw(tmp_path, ["a"], ["b"], [[1.0]])
    assert notes == []
    assert (pixels(path) == pixels(path).min()).any()
    assert max(size_of(path)) < 600


@pytest.mark.parametrize("kind", [list, np.array, torch.tensor, lambda w: torch.tensor(w, dtype=torch.bfloat16)])
def test_any_kind_of_weights(tmp_path, kind):
    draw(tmp_path, ["a", "b"], ["c"], kind([[0.5, 0.5]]))


def test_source_runs_along_x_and_target_down(tmp_path):
    """The only weight, of the last target piece to the first source piece, is at the left bottom."""
    weights = np.zeros((12, 12))
    weights[11, 0] = 1.0
    path, _ = draw(tmp_path, ["s"] * 12, ["t"] * 12, weights)
    dark = np.array([16, 48, 95]) / 255
    rows, columns = np.where(np.abs(pixels(path) - dark).max(-1) < 0.02)
    height, width = pixels(path).shape[:2]
    inside = columns < 0.8 * width  # right of it is the scale
    assert inside.sum() > 200
    assert rows[inside].min() > 0.7 * height
    assert columns[inside].max() < 0.3 * width


@pytest.mark.parametrize("text", ["$x$", "a$b$c_1^2", r"\frac{1}{2}", "$", "%", "{", "#"])
def test_mathtext_is_plain_text(tmp_path, text):
    _, notes = draw(tmp_path, [text, "b"], [text], title=f"{text} costs $5 and $6")
    assert notes == []


def test_missing_glyph_is_said_and_drawn(tmp_path):
    unassigned = "\u0378"
    path, notes = draw(tmp_path, ["a", unassigned + "b"], ["c", "d"])
    assert len(notes) == 1
    assert "lacks glyphs for 1 character: U+0378" in notes[0]
    plain, none = draw(tmp_path / "plain", ["a", "xb"], ["c", "d"])
    assert none == []
    assert size_of(path)[1] > size_of(plain)[1]  # the sentence is in the picture
    warned = np.abs(pixels(path) - np.array([0x9A, 0x34, 0x12]) / 255).max(-1) < 0.05
    assert warned.sum() > 50


def test_without_any_cjk_font_every_character_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(plots, "FONTS", ("DejaVu Sans",))
    _, notes = draw(tmp_path, ["机", "器"], ["▁x"], title="翻")
    assert "lacks glyphs for 3 characters: U+5668 U+673A U+7FFB" in notes[0]
    assert "U+0020" not in notes[0]


def test_old_matplotlib_says_that_rtl_is_unshaped(tmp_path, monkeypatch):
    import matplotlib

    monkeypatch.setattr(matplotlib, "__version_info__", (3, 10, 0))
    _, notes = draw(tmp_path, ["שלום"], ["x"])
    assert any("right-to-left" in note for note in notes)


def test_invisible_characters_are_not_missing(tmp_path):
    assert draw(tmp_path, ["a\u200d\ufe0f", "\u200f \u00a0"], ["\u2066b\u2069"])[1] == []


def test_word_starts_and_control_characters_can_be_read():
    assert visible("▁the") == "␣the"
    assert visible("a\tb\n\x7f\x00") == "a␉b␊␡␀"
    assert visible("\u2028\x85\ud800") == "\ufffd\ufffd\ufffd"
    assert plots._labels(["", " ", "▁", "x" * 30]) == ["∅", "␣", "␣", "x" * 23 + "…"]


def test_surrogates_and_line_ends_draw(tmp_path):
    draw(tmp_path, ["\ud800", "a\nb", "\x00"], ["\r\n"], title="a\nb")


@pytest.mark.parametrize("rows, columns", [(60, 60), (61, 300), (3, 5000), (1500, 2)])
def test_size_is_bounded(tmp_path, rows, columns):
    path, _ = draw(tmp_path, ["▁" + "w" * 40] * columns, ["x"] * rows, title="t" * 500)
    assert max(size_of(path)) < 2600


def test_thinned_labels_are_said(tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    said = []
    original = Figure.text
    monkeypatch.setattr(Figure, "text", lambda self, x, y, s, **k: (said.append(s), original(self, x, y, s, **k))[1])
    draw(tmp_path, ["s"] * 150, ["t"] * 1300)
    text = " ".join(said[0].split())
    assert "label of every 3rd of 150 source tokens; label of every 22nd of 1300 target tokens" in text
    assert "a cell shows the largest of 3 x 1 weights" in text


@pytest.mark.parametrize("shape", [(601, 599), (1999, 1), (7, 4001)])
def test_blocks_lose_no_weight(shape):
    matrix = np.zeros(shape)
    matrix[shape[0] - 1, shape[1] // 2] = 0.7
    cells, block = plots._blocks(matrix)
    assert max(cells.shape) <= plots.MAX_CELLS
    assert cells[(shape[0] - 1) // block[0], (shape[1] // 2) // block[1]] == 0.7
    assert (cells > 0).sum() == 1


def test_not_a_number_is_said(tmp_path):
    _, notes = draw(tmp_path, ["a", "b"], ["c"], [[float("nan"), 1.0]])
    assert notes == ["1 of 2 weights are not finite numbers; drawn in red."]


@pytest.mark.parametrize("weights", [[[0.5]], [0.5, 0.5], [[0.5, 0.5], [1.0]], [["x", "y"]], torch.zeros(2, 2)])
def test_wrong_shape_is_refused(tmp_path, weights):
    with pytest.raises(DataError):
        draw(tmp_path, ["a", "b"], ["c"], weights)


@pytest.mark.parametrize("source, target", [([], ["a"]), (["a"], [])])
def test_an_empty_side_is_refused(tmp_path, source, target):
    with pytest.raises(DataError, match=r"at least \(1, 1\)"):
        draw(tmp_path, source, target, np.zeros((len(target), len(source))))


def test_matplotlib_is_imported_only_to_draw():
    code = "import sys, s2s.show.plots, s2s.show.report, s2s.show.console, s2s.show.machine\n"
    code += "sys.exit(any(m in sys.modules for m in ('matplotlib', 'rich')))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
