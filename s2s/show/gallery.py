"""The gallery of attention mechanisms: a page of one file, and the same as Markdown with pictures beside it.

What models and users wrote is put in as text only. The page has no script, and its content security policy allows
nothing but its own style.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from string import Template

from s2s import __version__
from s2s.files import write_atomic
from s2s.show.alignment_svg import alignment_svg, in_words
from s2s.show.card import Card, Rung
from s2s.show.report import asset, content_hash
from s2s.show.shown import Picture, Sentence


@dataclass(frozen=True)
class Exhibit:
    """A mechanism. picture: or, where there is none, the reason as text.

    measures: name -> value and a detail (or "") as text; the names of all exhibits are the columns of the table.
    run: which run they are of, or "" where none was given. why, rungs: its row of the ladder, or empty.
    """

    card: Card
    picture: Picture | str
    measures: dict[str, tuple[str, str]]
    run: str = ""
    why: str = ""
    rungs: dict[str, Rung] = field(default_factory=dict)


@dataclass(frozen=True)
class Gallery:
    """All that is shown. sentence: the source and, where it was forced, the reference; None without a run.

    notes: what the numbers are and how they were measured, name -> text. tasks: of the ladder.
    """

    exhibits: Sequence[Exhibit]
    sentence: Sentence | None = None
    notes: Sequence[tuple[str, str]] = ()
    tasks: Sequence[str] = ()


INTRO = (
    "Every mechanism of conf/attention/, each one word apart: attention=NAME swaps it into any recipe. "
    "The pictures show the same sentence; source words run along the top, written words down the side, and a cell is "
    "the fuller, the more the mechanism looks there."
)
_ARXIV = re.compile(r"arXiv ([0-9]{4}\.[0-9]{4,5})")
UNMEASURED = "not measured"


def write_gallery(folder: Path, gallery: Gallery) -> list[Path]:
    """Write index.html, README.md and images/NAME.svg into `folder`, and return what was written.

    Raises DataError where an alignment doesn't fit its pieces, RunError where a file can't be written.
    """
    files = {
        folder / "images" / f"{one.card.name}.svg": _svg(one.card.name, one.picture, standalone=True)
        for one in gallery.exhibits
        if isinstance(one.picture, Picture)
    }
    files |= {folder / "README.md": to_markdown(gallery), folder / "index.html": to_html(gallery)}
    for path, text in files.items():
        write_atomic(path, text.encode("utf-8", "replace"))
    return list(files)


def _svg(name: str, picture: Picture, *, standalone: bool) -> str:
    label = f"Attention of {name}: rows are {len(picture.target_pieces)} written words, columns are source words"
    return alignment_svg(
        picture.source_pieces, picture.target_pieces, picture.weights, label=label, standalone=standalone
    )


def _equation(card: Card) -> str:
    """A part a line: in the card, two spaces after a comma or semicolon part them."""
    return re.sub("[,;]  +", "\n", card.equation)


def _columns(exhibits: Sequence[Exhibit]) -> list[str]:
    return list(dict.fromkeys(name for one in exhibits for name in one.measures))


def _rung(rung: Rung | None) -> tuple[str, str]:
    """What stands in a cell of the ladder: the accuracy, and what was expected."""
    if rung is None:
        return UNMEASURED, ""
    accuracy = UNMEASURED if rung.accuracy is None else f"{100 * rung.accuracy:.1f} %"
    return accuracy, f"expected: {rung.expected}"


# ---- HTML


def to_html(gallery: Gallery) -> str:
    """The page, whole: no outside request, no script."""
    css = asset("report.css") + asset("gallery.css")
    return Template(asset("gallery.html")).substitute(
        css=css,
        css_hash=content_hash(css),
        count=len(gallery.exhibits),
        version=_e(__version__),
        intro=_e(INTRO),
        sentence=_sentence(gallery.sentence),
        links="".join(f'<a href="#{_e(one.card.name)}">{_e(one.card.name)}</a>' for one in gallery.exhibits),
        table=_overview(gallery.exhibits),
        ladder=_ladder(gallery),
        notes="".join(f"<dt>{_e(name)}</dt><dd>{_e(text)}</dd>" for name, text in gallery.notes),
        exhibits="\n".join(_article(one, gallery.tasks) for one in gallery.exhibits),
    )


def _e(text: object) -> str:
    return html.escape(str(text))


def _sentence(sentence: Sentence | None) -> str:
    if sentence is None:
        return '<p class="missing">No run was given, so there are no pictures.</p>'
    source, reference = sentence
    rows = [("Source", source)] + ([] if reference is None else [("Reference", reference)])
    shown = "".join(f'<dt>{name}</dt><dd dir="auto" lang="">{_e(text)}</dd>' for name, text in rows)
    return f'<div class="sample"><dl>{shown}</dl></div>'


def _table(caption: str, head: Iterable[str], rows: Iterable[tuple[str, Iterable[str]]]) -> str:
    """rows: the mechanism, and its cells as HTML."""
    columns = "".join(f'<th scope="col">{_e(name)}</th>' for name in ("mechanism", *head))
    body = "".join(
        f'<tr><th scope="row"><a href="#{_e(name)}">{_e(name)}</a></th>'
        + "".join(f"<td>{cell}</td>" for cell in cells)
        + "</tr>"
        for name, cells in rows
    )
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{_e(caption)}"><table class="plain wide">'
        f"<caption>{_e(caption)}</caption><thead><tr>{columns}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _value(value: str, detail: str) -> str:
    return _e(value) + (f'<span class="small">{_e(detail)}</span>' if detail else "")


def _facts(values: Mapping[str, tuple[str, str]]) -> str:
    shown = "".join(f"<div><dt>{_e(name)}</dt><dd>{_value(*value)}</dd></div>" for name, value in values.items())
    return f'<dl class="facts">{shown}</dl>'


def _overview(exhibits: Sequence[Exhibit]) -> str:
    columns = _columns(exhibits)
    missing = ("–", "")
    rows = ((one.card.name, (_value(*one.measures.get(column, missing)) for column in columns)) for one in exhibits)
    return _table("What each costs and reaches", columns, rows)


def _ladder(gallery: Gallery) -> str:
    if not gallery.tasks:
        return '<p class="missing">The ladder was not measured.</p>'
    rows = (
        (one.card.name, (_value(*_rung(one.rungs.get(task))) for task in gallery.tasks)) for one in gallery.exhibits
    )
    return _table("Share of words that a tiny model gets right", gallery.tasks, rows)


def _article(one: Exhibit, tasks: Sequence[str]) -> str:
    card, name = one.card, _e(one.card.name)
    of = f"Run: {one.run}." if one.run else "No run given: only what needs none was measured."
    return f"""<article id="{name}" aria-labelledby="h-{name}">
<h3 id="h-{name}">{name}</h3>
<p class="lead">{_e(card.summary)}</p>
<div class="exhibit">
<div>
<p>{_e(card.idea)}</p>
<pre class="equation" aria-label="Equation">{_e(_equation(card))}</pre>
<p><b>When to use it:</b> {_e(card.use)}</p>
<p class="paper"><b>Paper:</b> {_linked(card.paper)}</p>
{_facts(one.measures)}
<p class="small">{_e(of)}</p>
{_rungs(one, tasks)}
</div>
{_figure(one)}
</div>
</article>"""


def _linked(paper: str) -> str:
    return _ARXIV.sub(r'<a href="https://arxiv.org/abs/\1">arXiv \1</a>', _e(paper))


def _rungs(one: Exhibit, tasks: Sequence[str]) -> str:
    if not one.rungs:
        return '<p class="small">Ladder: not measured.</p>'
    reasons = "".join(
        f"<li>{_e(task)}: {_e(one.rungs[task].reason)}</li>"
        for task in tasks
        if task in one.rungs and one.rungs[task].reason
    )
    return (
        f"<h4>Ladder</h4>{_facts({task: _rung(one.rungs.get(task)) for task in tasks})}"
        f'<details><summary>Why</summary><p class="small">{_e(one.why)}</p><ul class="small">{reasons}</ul></details>'
    )


def _figure(one: Exhibit) -> str:
    if isinstance(one.picture, str):
        return f'<p class="missing no-picture">{_e(one.picture)}</p>'
    told = in_words(one.picture.source_pieces, one.picture.target_pieces, one.picture.weights)
    return (
        f'<figure><div class="scroll" tabindex="0" role="region" aria-label="Attention of {_e(one.card.name)}">'
        f"{_svg(one.card.name, one.picture, standalone=False)}</div>"
        f'<figcaption class="small">{_e(one.picture.caption)}</figcaption>'
        f'<details><summary>The picture in words</summary><ul class="small">'
        f"{''.join(f'<li>{_e(line)}</li>' for line in told)}</ul></details></figure>"
    )


# ---- Markdown


def to_markdown(gallery: Gallery) -> str:
    """The same as Markdown that a code host renders; pictures are files in images/."""
    lines = ["# Attention gallery", "", _m(INTRO), ""]
    if gallery.sentence is not None:
        source, reference = gallery.sentence
        lines += [f"- Source: {_m(source)}", *([] if reference is None else [f"- Reference: {_m(reference)}"]), ""]
    columns = _columns(gallery.exhibits)
    lines += ["## At a glance", ""]
    lines += _rows(
        ["mechanism", *columns],
        ([_anchor(one), *(_both(*one.measures.get(c, ("–", ""))) for c in columns)] for one in gallery.exhibits),
    )
    lines += ["", *(f"- **{_m(name)}**: {_m(text)}" for name, text in gallery.notes), "", "## Ladder", ""]
    if gallery.tasks:
        lines += _rows(
            ["mechanism", *map(_m, gallery.tasks)],
            (
                [_anchor(one), *(_both(*_rung(one.rungs.get(task))) for task in gallery.tasks)]
                for one in gallery.exhibits
            ),
        )
    else:
        lines += ["The ladder was not measured."]
    lines += ["", "## Mechanisms", ""]
    for one in gallery.exhibits:
        lines += _chapter(one)
    return "\n".join(lines).rstrip("\n") + "\n"


def _chapter(one: Exhibit) -> list[str]:
    card = one.card
    paper = _ARXIV.sub(r"[arXiv \1](https://arxiv.org/abs/\1)", _m(card.paper))
    lines = [f"### {card.name}", "", f"*{_m(card.summary)}*", "", _m(card.idea), "", "```", _equation(card), "```", ""]
    if isinstance(one.picture, Picture):
        lines += [f"![Attention of {card.name}](images/{card.name}.svg)", "", _m(one.picture.caption), ""]
    else:
        lines += [f"*{_m(one.picture)}*", ""]
    measured = [f"- {_m(name)}: {_both(*value)}" for name, value in one.measures.items()]
    reasons = [f"- {_m(task)}: {_m(rung.reason)}" for task, rung in one.rungs.items() if rung.reason]
    return [
        *lines,
        f"**When to use it:** {_m(card.use)}",
        "",
        f"**Paper:** {paper}",
        "",
        *measured,
        f"- Run: {_m(one.run) if one.run else 'no run given'}",
        "",
        *(
            [f"**Ladder:** {_m(one.why) or 'see above'}", "", *reasons, ""]
            if one.rungs
            else ["Ladder: not measured.", ""]
        ),
    ]


def _both(value: str, detail: str) -> str:
    return _m(value) + (f" ({_m(detail)})" if detail else "")


def _rows(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]


def _anchor(one: Exhibit) -> str:
    return f"[{_m(one.card.name)}](#{one.card.name})"


def _m(text: str) -> str:
    """Text that Markdown shows as it is, on one line."""
    return re.sub(r"([\\`*_\[\]<>|#~$&])", r"\\\1", " ".join(text.split()))
