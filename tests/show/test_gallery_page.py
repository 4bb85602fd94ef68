"""The page and its Markdown: complete, self-contained, and untouched by what texts say."""

import base64
import hashlib
import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser

import pytest

from s2s.errors import DataError
from s2s.show.alignment_svg import alignment_svg, in_words
from s2s.show.card import Card, Rung
from s2s.show.gallery import Exhibit, Gallery, to_html, to_markdown, write_gallery
from s2s.show.shown import Picture

HOSTILE = (
    '</style><script>alert(1)</script> "><img src=https://evil.example/x onerror=b()> $css | `a` <b> ~~ ${x} [l](j)'
)
PICTURE = Picture(("▁ab", "c", "</s>"), ("▁x", "</s>"), ((0.75, 0.25, 0.0), (0.0, 0.004, 0.996)), "forced")
VOID = {"meta", "img", "br", "link", "hr"}


class Page(HTMLParser):
    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.elements, self.ids, self._open = [], [], []
        self.text = ""
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        self.ids += [value for name, value in attributes if name == "id"]
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        self.text += data

    def named(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


def card(name, text="t"):
    return Card(
        name, f"summary {text}", f"idea {text}", f"a = b,  c {text}", f"use {text}", f"P 2014, arXiv 1409.0473 {text}"
    )


def gallery(text="t"):
    rungs = {"copy": Rung(f"pass {text}", f"reason {text}", 0.875), "sort": Rung("fail", "", None)}
    picture = Picture((text, "</s>"), (text,), ((1.0, 0.0),), text)
    return Gallery(
        [
            Exhibit(
                card("full", text),
                picture,
                {"Cost": (f"1.5 {text}", f"2 µs {text}")},
                f"run {text}",
                f"why {text}",
                rungs,
            ),
            Exhibit(card("plain", text), "No run given.", {"Other": ("7", "")}),
        ],
        (f"source {text}", f"reference {text}"),
        [("Cost", f"note {text}")],
        ("copy", "sort"),
    )


def test_all_of_a_mechanism_is_there():
    page, text = Page(to_html(gallery())), to_markdown(gallery())
    for wanted in (
        "summary t",
        "idea t",
        "use t",
        "P 2014, ",
        "run t",
        "why t",
        "reason t",
        "87.5 %",
        "expected: pass t",
    ):
        assert page.text.count(wanted) >= 1, wanted
        assert text.count(wanted) >= 1, wanted
    for wanted in (
        "No run given",
        "not measured",
        "note t",
        "source t",
        "reference t",
        "1.5 t",
        "2 µs t",
        "a = b\nc t",
    ):
        assert wanted in page.text, wanted
        assert wanted in text, wanted
    assert {"full", "plain", "glance", "ladder"} <= set(page.ids)
    assert len(page.ids) == len(set(page.ids))
    assert "https://arxiv.org/abs/1409.0473" in text
    assert "![Attention of full](images/full.svg)" in text
    assert "images/plain.svg" not in text


def test_links_lead_somewhere_and_labels_name_something():
    page = Page(to_html(gallery()))
    for link in page.named("a"):
        assert link["href"][1:] in page.ids if link["href"].startswith("#") else "arxiv.org" in link["href"]
    labelled = [attributes["aria-labelledby"] for _, attributes in page.elements if "aria-labelledby" in attributes]
    assert labelled
    assert set(labelled) <= set(page.ids)
    assert all(part.get("aria-label") for part in page.named("svg"))
    # what scrolls can be reached by the keyboard
    scrolling = [a for tag, a in page.elements if a.get("class") == "scroll"]
    assert scrolling
    assert all(a.get("tabindex") == "0" and a.get("aria-label") for a in scrolling)
    assert all(head.get("scope") in ("col", "row") for head in page.named("th"))


@pytest.mark.parametrize("text", ["t", HOSTILE])
def test_the_page_asks_for_nothing_and_runs_nothing(text):
    html = to_html(gallery(text))
    page = Page(html)
    assert {tag for tag, _ in page.elements} & {"script", "img", "link", "iframe", "object"} == set()
    assert not [a for _, a in page.elements if {"src", "style"} & set(a) or any(k.startswith("on") for k in a)]
    (style,) = re.findall(r"<style>(.*?)</style>", html, re.S)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = next(m["content"] for m in page.named("meta") if m.get("http-equiv"))
    assert policy.startswith(f"default-src 'none'; style-src 'sha256-{digest}'")
    assert "url(" not in style
    assert "@import" not in style
    assert page.text.count(text) > 8


def test_hostile_text_stays_text_in_markdown():
    lines = to_markdown(gallery(HOSTILE)).split("\n")
    inside = [line for line in lines if "evil.example" in line]
    assert inside
    for line in inside:
        if "a = b" not in line and not line.startswith("c "):  # an equation stands in a code block
            assert not re.search(r"(?<!\\)<(script|img|b>)", line)
            assert not re.search(r"(?<!\\)`", line)
    widths = {len(re.findall(r"(?<!\\)\|", line)) for line in lines if line.startswith("| ")}
    assert widths == {4}  # mechanism and two columns, in both tables


def test_without_runs_and_ladder_it_says_so():
    empty = Gallery([Exhibit(card("plain"), "No run given.", {})])
    assert "No run was given" in to_html(empty)
    assert "The ladder was not measured." in to_html(empty)
    assert "The ladder was not measured." in to_markdown(empty)


def test_files(tmp_path):
    made = write_gallery(tmp_path / "a/b", gallery())
    assert sorted(path.relative_to(tmp_path / "a/b").as_posix() for path in made) == [
        "README.md",
        "images/full.svg",
        "index.html",
    ]
    assert all(path.is_file() for path in made)
    assert "<style>" in (tmp_path / "a/b/images/full.svg").read_text(encoding="utf-8")


# ---- pictures


def rects(svg, kind):
    root = ElementTree.fromstring(svg)
    return [part for part in root.iter() if part.tag.endswith("rect") and part.get("class") == kind]


@pytest.mark.parametrize("standalone", [True, False])
def test_a_picture_has_a_cell_for_each_weight_as_full_as_it(standalone):
    svg = alignment_svg(*picture_parts(PICTURE), label="<a>", standalone=standalone)
    back, cells = rects(svg, "back"), rects(svg, "cell")
    assert len(back) == 6
    assert [cell.get("fill-opacity") for cell in cells] == ["0.75", "0.25", "1.00"]
    places = [(int(cell.get("x")), int(cell.get("y"))) for cell in cells]
    columns, rows = sorted({int(b.get("x")) for b in back}), sorted({int(b.get("y")) for b in back})
    assert places == [(columns[0], rows[0]), (columns[1], rows[0]), (columns[2], rows[1])]
    assert ("prefers-color-scheme" in svg) == standalone
    root = ElementTree.fromstring(svg)
    assert root.get("aria-label") == "<a>"
    labels = [part.text for part in root.iter() if part.tag.endswith("text")]
    assert labels == ["ab", "c", "</s>", "x", "</s>"]


def test_labels_stay_inside_the_picture():
    long = "x" * 40
    svg = alignment_svg(("short", long), (long,), ((0.5, 0.5),), label="l", standalone=False)
    root = ElementTree.fromstring(svg)
    texts = [part for part in root.iter() if part.tag.endswith("text")]
    assert [part.text for part in texts] == ["short", "x" * 17 + "…", "x" * 17 + "…"]
    width, left = int(root.get("width")), float(texts[2].get("x"))
    assert left > 18 * 6.5
    assert width > float(texts[1].get("x")) + 18 * 6.5 * 0.6


def picture_parts(picture):
    return picture.source_pieces, picture.target_pieces, picture.weights


def test_weights_that_dont_fit_are_refused():
    for weights in ((), ((1.0,),), ((0.5, 0.5, 0.0), (1.0,))):
        with pytest.raises(DataError, match="don't fit the pieces"):
            alignment_svg(("a", "b", "c"), ("x", "y"), weights, label="l", standalone=True)


def test_broken_weights_are_drawn_as_nothing():
    svg = alignment_svg(("a", "b"), ("x",), ((float("nan"), 7.0),), label="l", standalone=False)
    assert [cell.get("fill-opacity") for cell in rects(svg, "cell")] == ["1.00"]


def test_the_picture_in_words():
    assert in_words(*picture_parts(PICTURE)) == ["x ← ab (0.75)", "</s> ← </s> (1.00)"]
    assert in_words(("a",), ("x",), ((0.0,),)) == ["x ← nothing"]
