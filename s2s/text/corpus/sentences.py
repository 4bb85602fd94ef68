"""Splitting a paragraph into sentences, by punctuation alone; good enough to pair texts whose counts then agree."""

from __future__ import annotations

import re

# Words that end in a full stop without ending a sentence (English and German, the dots taken off).
_ENGLISH = "e.g i.e cf vs al approx dr fig incl inc jr mr mrs ms no nos pp prof sr st vol"
_GERMAN = "z.b d.h u.a u.ä o.ä i.d.r bzw bspw ca evtl ggf inkl nr sog vgl abk allg engl"
_ABBREVIATIONS = frozenset((*_ENGLISH.split(), *_GERMAN.split()))
_STOP = re.compile(r"""[.!?…]+["'”’»)\]]*\s+|[。！？]["'”’」』）]*\s*""")
_OPENERS = "\"'“„‘«»([{`"


def split_sentences(text: str) -> list[str]:
    """The sentences of `text`, stripped; together they hold every character of it but spaces between them.

    A sentence ends at `.!?…` (with closing quotes or brackets) before a space and anything but a small letter, unless
    an abbreviation or a single letter stands before the dot, and at the full-width `。！？`.
    """
    sentences, start = [], 0
    for stop in _STOP.finditer(text):
        following = text[stop.end() : stop.end() + 2].lstrip(_OPENERS)[:1]
        if following.islower() or _is_abbreviation(text[start : stop.end()].rstrip()):
            continue
        sentences.append(text[start : stop.end()].strip())
        start = stop.end()
    sentences.append(text[start:].strip())
    return [sentence for sentence in sentences if sentence]


def _is_abbreviation(sentence: str) -> bool:
    if not sentence.endswith(".") or sentence.endswith(".."):
        return False
    word = sentence[:-1].rsplit(None, 1)[-1] if sentence[:-1].strip() else ""
    word = word.lstrip(_OPENERS)
    return word.lower() in _ABBREVIATIONS or (len(word) == 1 and word.isalpha()) or word.isdigit()
