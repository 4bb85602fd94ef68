"""HTML with its text replaced: markup stays as it is, what stands between is text.

Any string can be read, in time that is linear in its length; the standard library's parser takes half a minute for
50,000 characters that are made for it.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Sequence

# What markup begins with, or all of a tag; a "<" with anything else behind it is text.
_MARKUP = re.compile(r"""<!--|<(?:script|style)\b|<[a-z/!?](?:[^<>"']|"[^"<]*"|'[^'<]*')*>""", re.IGNORECASE)
_ENDS = {  # of what holds no text
    "<!--": re.compile("-->"),
    "<script": re.compile(r"</script[^<>]*>", re.IGNORECASE),
    "<style": re.compile(r"</style[^<>]*>", re.IGNORECASE),
}


class Page:
    """A piece of HTML. `texts`: its runs of text, without blanks around them; each is translated by itself."""

    def __init__(self, source: str) -> None:
        self._parts = list(_split(source))
        self.texts = [html.unescape(text).strip() for is_text, text in self._parts if is_text]

    def filled(self, outputs: Sequence[str]) -> str:
        """The page with `outputs` in the place of its texts, as text: no output can add markup."""
        left = iter(outputs)
        return "".join(_within(text, next(left)) if is_text else text for is_text, text in self._parts)


def _split(source: str) -> Iterator[tuple[bool, str]]:
    """Parts of a page, and whether each is text that shows something; joined they are the page."""
    at = 0
    while found := _MARKUP.search(source, at):
        yield bool(source[at : found.start()].strip()), source[at : found.start()]
        at = found.end()
        if closing := _ENDS.get(found[0].lower()):
            end = closing.search(source, at)
            at = len(source) if end is None else end.end()  # without an end it goes on to that of the page
        yield False, source[found.start() : at]
    yield bool(source[at:].strip()), source[at:]


def _within(text: str, output: str) -> str:
    """An output with the blanks that stood around the text."""
    start = text[: len(text) - len(text.lstrip())]
    end = text[len(text.rstrip()) :]
    return f"{start}{html.escape(output, quote=False)}{end}"
