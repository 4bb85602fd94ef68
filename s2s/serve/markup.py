"""HTML with its text replaced: markup stays as it is, what stands between is text."""

from __future__ import annotations

import html
from collections.abc import Sequence
from html.parser import HTMLParser

from s2s.errors import DataError
from s2s.files import printable

_UNTOUCHED = ("script", "style")  # their content is no text


class _Splitter(HTMLParser):
    """Cuts a page into markup and runs of text."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=False)
        self.parts: list[tuple[bool, str]] = []  # (whether it is text, as it stood)
        self._inside = 0

    def _add(self, text: str, is_text: bool) -> None:
        if self.parts and self.parts[-1][0] and is_text:
            text = self.parts.pop()[1] + text
        self.parts.append((is_text, text))

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self._inside += tag in _UNTOUCHED
        self._add(self.get_starttag_text() or "", False)

    def handle_startendtag(self, tag: str, attrs: object) -> None:
        self._add(self.get_starttag_text() or "", False)

    def handle_endtag(self, tag: str) -> None:
        self._inside = max(0, self._inside - (tag in _UNTOUCHED))
        self._add(f"</{tag}>", False)

    def handle_data(self, data: str) -> None:
        self._add(data, not self._inside)

    def handle_entityref(self, name: str) -> None:
        self._add(f"&{name};", True)

    def handle_charref(self, name: str) -> None:
        self._add(f"&#{name};", True)

    def handle_comment(self, data: str) -> None:
        self._add(f"<!--{data}-->", False)

    def handle_decl(self, decl: str) -> None:
        self._add(f"<!{decl}>", False)

    def unknown_decl(self, data: str) -> None:
        self._add(f"<![{data}]>", False)

    def handle_pi(self, data: str) -> None:
        self._add(f"<?{data}>", False)


class Page:
    """A piece of HTML. `texts`: its runs of text, without blanks around them; each is translated by itself."""

    def __init__(self, source: str) -> None:
        """Raises DataError where it can't be read at all."""
        splitter = _Splitter()
        try:
            splitter.feed(source)
            splitter.close()
        except AssertionError as error:  # the parser's way to refuse a declaration that is none
            raise DataError("is no HTML", where="q", found=printable(error)) from None
        self._parts = [(is_text and bool(text.strip()), text) for is_text, text in splitter.parts]
        self.texts = [html.unescape(text).strip() for is_text, text in self._parts if is_text]

    def filled(self, outputs: Sequence[str]) -> str:
        """The page with `outputs` in the place of its texts, as text: no output can add markup."""
        left = iter(outputs)
        return "".join(_within(text, next(left)) if is_text else text for is_text, text in self._parts)


def _within(text: str, output: str) -> str:
    """An output with the blanks that stood around the text."""
    start = text[: len(text) - len(text.lstrip())]
    end = text[len(text.rstrip()) :]
    return f"{start}{html.escape(output, quote=False)}{end}"
