"""The page is untouched by what the texts in it say, asks for nothing, and keeps every character."""

import base64
import hashlib
import json
import math
import re
from html.parser import HTMLParser

import pytest

from s2s.errors import DataError, RunError
from s2s.show import report
from s2s.show.report import ReportData, Sample, write_report
from s2s.types import Score

HOSTILE = [
    "</script><script>alert(1)</script>",
    "<!-- <script> --> ]]>",
    '"><img src=https://evil.example/x onerror=alert(1)>',
    "line\u2028separator\u2029paragraph",
    "$json $css ${title} $$",
    "</title><h1>no</h1>",
    "a\x00b\x07c \\u003c/script\\u003e",
]


class Page(HTMLParser):
    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.elements, self.bodies, self._open = [], [], None
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag in ("script", "style", "title"):
            self._open = [tag, dict(attributes), ""]

    def handle_data(self, data):
        if self._open:
            self._open[2] += data

    def handle_endtag(self, tag):
        if self._open and tag == self._open[0]:
            self.bodies.append(tuple(self._open))
            self._open = None

    def named(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def json(self):
        return json.loads(next(text for tag, a, text in self.bodies if a.get("type") == "application/json"))


def page_of(tmp_path, data):
    path = tmp_path / "report.html"
    write_report(path, data)
    text = path.read_bytes().decode("utf-8")
    return Page(text), text


def full(**changes):
    values = {
        "name": "translate/debian-en-de",
        "task": "translation",
        "created": "2026-11-22",
        "languages": ("en", "de"),
        "scores": {
            "test": [
                Score("BLEU", 21.4, "nrefs:1|tok:13a", 20.1, 22.7),
                Score("TER", 60.0, "t", higher_is_better=False),
            ],
            "test_raw": [Score("BLEU", 23.0, "nrefs:1|tok:13a", 21.0, 24.0)],
        },
        "samples": [
            Sample(
                "a b", "c", "d", ("▁a", "▁b", "</s>"), ("▁c", "</s>"), ((0.5, 0.25, 0.25), (0, 0, 1)), ("copied",), 3.0
            )
        ],
        "events": [
            {"event": "train", "step": 1, "loss": 2.0, "seconds": 60.0},
            {"event": "valid", "step": 1, "bleu": 3.0},
        ],
        "splits": {"train": 10},
        "drops": {"exact duplicate": 2},
        "config_text": "a: 1\n",
        "machine": {"CPU": "x"},
    }
    return ReportData(**(values | changes))


def hostile_data(text):
    sample = Sample(text, text, text, (text,), (text,), ((1.0,),), (text,), 1.0)
    return ReportData(
        name=text,
        task=text,
        created=text,
        languages=(text, text),
        scores={text: [Score(text, 1.0, text, 0, 2, details={text: 1.0})]},
        events=[{"event": "valid", "step": 1, text: 1.0}],
        samples=[sample],
        sample_score=text,
        data_text=text,
        splits={text: 1},
        drops={text: 2},
        config_text=text,
        machine={text: text},
        notes=[text],
    )


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_adds_no_element_and_comes_back_whole(tmp_path, text):
    harmless, _ = page_of(tmp_path, hostile_data("word"))
    page, _ = page_of(tmp_path, hostile_data(text))
    assert page.elements == [
        (tag, {k: text if v == "word" else v for k, v in a.items()}) for tag, a in harmless.elements
    ]
    assert [(tag, a) for tag, a, _ in page.bodies] == [
        ("title", {}),
        ("style", {}),
        ("script", {"type": "application/json", "id": "report"}),
        ("script", {}),
    ]
    assert page.bodies[0][2] == f"{text} · s2s report"
    content = page.json
    assert content["name"] == content["config"] == content["notes"][0] == text
    assert content["samples"][0]["source"] == content["samples"][0]["output"] == text
    assert content["data"]["drops"] == [[text, 2]]


def test_nothing_in_the_json_can_end_its_element(tmp_path):
    _, text = page_of(tmp_path, hostile_data("".join(HOSTILE)))
    body = re.search(r'<script type="application/json" id="report">(.*?)</script>', text, re.S).group(1)
    assert not set("<>&\u2028\u2029") & set(body)
    assert json.loads(body)["name"] == "".join(HOSTILE)


def test_the_page_asks_for_nothing(tmp_path):
    page, text = page_of(tmp_path, full())
    for tag, attributes in page.elements:
        assert not {"src", "srcset", "action", "data", "poster", "style", "onclick", "onload"} & set(attributes), tag
        assert attributes.get("href", "#").startswith("#"), (tag, attributes)
        assert tag not in ("link", "img", "iframe", "object", "embed", "base", "form")
    assert "http://" not in text.replace("http://www.w3.org/2000/svg", "")  # the name of SVG, never fetched
    assert "https://" not in text
    assert not re.search(r"@import|url\(|fetch\(|XMLHttpRequest|WebSocket|import\(", text)


def test_policy_allows_exactly_its_own_style_and_script(tmp_path):
    page, _ = page_of(tmp_path, full())
    policy = next(a["content"] for a in page.named("meta") if a.get("http-equiv") == "Content-Security-Policy")
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    digest = {
        tag: base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        for tag, attributes, text in page.bodies
        if tag in ("style", "script") and not attributes
    }
    assert rules == {
        "default-src": "'none'",
        "style-src": f"'sha256-{digest['style']}'",
        "script-src": f"'sha256-{digest['script']}'",
        "base-uri": "'none'",
        "form-action": "'none'",
    }


def test_script_never_writes_markup():
    script = report.asset("report.js")
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function|DOMParser", script
    )


def test_cjk_rtl_emoji_and_combining_marks_are_kept(tmp_path):
    text = "机器翻译 日本語 한국어 ديبيان שלום 👩‍👩‍👧 é e\u0301 ไทย"
    page, raw = page_of(tmp_path, full(samples=[Sample(text, text)], name=text))
    assert page.json["samples"][0]["source"] == page.json["name"] == text
    assert text in raw  # readable in the file too
    assert all(a.get("dir") == "auto" for a in page.named("h1"))


def test_lone_surrogates_do_not_break_the_file(tmp_path):
    page, _ = page_of(tmp_path, full(name="x\ud800y", samples=[Sample("\udfff", "b")]))
    assert page.json["name"] == "x\ud800y"
    assert page.bodies[0][2] == "x?y · s2s report"


def test_weights_come_back_to_three_decimals(tmp_path):
    rows = ((0.12345, 0.87655), (1 / 3, 2 / 3), (0.0, 1.0))
    page, _ = page_of(tmp_path, full(samples=[Sample("a b", "c d", None, ("a", "b"), ("c", "d", "e"), rows)]))
    attention = page.json["samples"][0]["attention"]
    for drawn, row in zip(attention["rows"], rows, strict=True):
        assert [w / 1000 for w in drawn] == pytest.approx(row, abs=5e-4)
    assert len(attention["source"]) == 2
    assert len(attention["output"]) == 3


def test_one_by_one_alignment(tmp_path):
    page, _ = page_of(tmp_path, full(samples=[Sample("a", "b", None, ("a",), ("b",), ((1.0,),))]))
    assert page.json["samples"][0]["attention"]["rows"] == [[1000]]


@pytest.mark.parametrize("rows", [((0.5, 0.5),) * 3, ((0.5,),) * 2, ((0.5, 0.5), (1.0,))])
def test_an_alignment_that_does_not_fit_is_refused(tmp_path, rows):
    with pytest.raises(DataError, match=r"sample 1.*expected.*\(2, 2\)"):
        page_of(tmp_path, full(samples=[Sample("a", "b", None, ("a", "b"), ("c", "d"), rows)]))
    assert not list(tmp_path.iterdir())


def test_non_finite_weights_and_scores_are_said(tmp_path):
    sample = Sample("a", "b", None, ("a", "b"), ("c",), ((math.nan, 1.0),), score=math.inf)
    page, _ = page_of(tmp_path, full(samples=[sample], scores={"test": [Score("BLEU", math.nan, "s")]}))
    content = page.json
    assert "1 of 2 weights of this sample are not finite" in content["samples"][0]["remark"]
    assert content["samples"][0]["score"] is None
    assert content["scores"]["rows"][0]["cells"][0]["value"] is None


def test_size_is_bounded_and_said(tmp_path):
    rows = tuple((0.001,) * 200 for _ in range(200))
    large = Sample("x" * 100_000, "y", None, ("s",) * 200, ("t",) * 200, rows)
    events = [{"event": "train", "step": i, "loss": 5.0 + i % 2, "seconds": i / 7} for i in range(1, 50_001)]
    page, text = page_of(tmp_path, full(samples=[large] * 80, events=events, config_text="k: v\n" * 100_000))
    assert len(text) < 800_000
    content = page.json
    assert len(content["samples"]) == report.MAX_SAMPLES
    assert content["samples_left_out"] == 80 - report.MAX_SAMPLES
    assert "(200 x 200 weights) is too large" in content["samples"][0]["remark"]
    assert content["samples"][0]["source"].endswith("[95,000 more characters are not shown]")
    assert content["config"].endswith("more characters are not shown]")
    curve = content["curves"]["charts"][0]["series"][0]["points"]
    assert len(curve) <= report.MAX_POINTS == content["curves"]["thinned"]
    assert curve[-1][0] == 50_000
    assert all(p[2] == pytest.approx(5.5, abs=0.1) for p in curve)


def test_missing_parts_leave_empty_places(tmp_path):
    page, _ = page_of(tmp_path, ReportData("r"))
    content = page.json
    assert content["scores"] == {"splits": [], "rows": []}
    assert content["samples"] == content["curves"]["charts"] == content["machine"] == content["notes"] == []
    ids = {a["id"] for _, a in page.elements if "id" in a}
    assert {"scores", "samples", "curves", "data", "machine", "configuration", "notes"} <= ids


def test_scores_stand_side_by_side(tmp_path):
    page, _ = page_of(tmp_path, full())
    bleu, ter = page.json["scores"]["rows"]
    assert page.json["scores"]["splits"] == ["test", "test_raw"]
    assert [c["value"] for c in bleu["cells"]] == [21.4, 23.0]
    assert bleu["signatures"] == ["nrefs:1|tok:13a"]
    assert ter["cells"][1] is None
    assert not ter["higher_is_better"]


def test_curves_over_steps_and_minutes_also_after_a_resume():
    events = [
        {"event": "start"},
        {"event": "valid", "step": 0, "loss": 9.0, "bleu": 0.0, "best": True},
        {"event": "train", "step": 10, "loss": 4.0, "lr": 0.1, "seconds": 60},
        {"event": "valid", "step": 10, "loss": 5.0, "ppl": 148.4, "bleu": 7.0},
        {"event": "train", "step": 20, "loss": math.nan, "lr": 0.1, "seconds": 120},
        {"event": "train", "step": 30, "loss": 3.0, "lr": 0.1, "seconds": 30},  # resumed: its clock began anew
        {"event": "train", "step": "x", "loss": 3.0},
    ]
    curves = report._curves(events)
    charts = {chart["name"]: {s["label"]: s["points"] for s in chart["series"]} for chart in curves["charts"]}
    assert charts["Loss (nats a token)"]["train"] == [[10, 1.0, 4.0], [20, 2.0, None], [30, 2.5, 3.0]]
    assert charts["Loss (nats a token)"]["dev"] == [[0, None, 9.0], [10, 1.0, 5.0]]
    assert charts["Dev scores"] == {"BLEU": [[0, None, 0.0], [10, 1.0, 7.0]]}
    assert charts["Dev perplexity"]["perplexity"] == [[10, 1.0, 148.4]]
    assert "Speed (target tokens/s)" not in charts


@pytest.mark.parametrize(
    "pieces, shown",
    [
        (("▁Werk", "zeug", "▁zum", "</s>"), "Werkzeug zum</s>"),
        (("机", "器", "</s>"), "机器</s>"),
        (("two", "words", "</s>"), "two words</s>"),
        (("▁", "😀", "▁a▁b"), "␣😀 a b"),
    ],
)
def test_pieces_read_as_text(pieces, shown):
    words = report.words(pieces)
    assert len(words) == len(pieces)
    text = "".join((" " if i and w["gap"] and not w["special"] else "") + w["text"] for i, w in enumerate(words))
    assert text == shown


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    path = tmp_path / "report.html"
    path.mkdir()
    (path / "kept").write_text("old")
    with pytest.raises(RunError, match=r"report\.html"):
        write_report(path, full())
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]
    assert (path / "kept").read_text() == "old"
