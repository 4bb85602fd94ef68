"""Words that a reply may turn on, found by pointwise mutual information with the words of a message."""

from __future__ import annotations

import hashlib
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice

from s2s.errors import BundleError
from s2s.files import parse_json, to_json

FILE = "keywords.json"  # in a bundle
FORMAT = 1
_WORD = re.compile(r"[^\W\d_][\w'’-]*")
_TOGETHER = 3  # fewest pairs that hold both words
_KEPT = 20  # keywords kept of a word
_MAX_WORDS = 1 << 20


class Keywords:
    """For each word of messages, the words of replies that go with it, by PMI(q, k) = log p(q, k) / (p(q) p(k)).

    After Mou et al. 2016, arXiv 1607.00970, section 3.2, where keywords are nouns; here, without a tagger, they are
    words that stand in at least `least` replies and aren't among the `common` most frequent. Probabilities are shares
    of pairs. Letter case doesn't count, and a word is a run of letters, digits, apostrophes and hyphens.
    """

    def __init__(self, table: Mapping[str, Mapping[str, float]], frequent: Sequence[str]) -> None:
        """table: PMI by message word and keyword. frequent: keywords, the most frequent first."""
        self.table, self.frequent, self.known = table, list(frequent), frozenset(frequent)

    def best(self, message: str, count: int) -> list[str]:
        """The keywords with the highest sum of PMI over the words of a message, then the most frequent ones."""
        sums: Counter[str] = Counter()
        for word in sorted(set(words(message))):
            sums.update(self.table.get(word, {}))
        found = [word for word, _ in sorted(sums.items(), key=lambda item: (-item[1], item[0]))]
        found += islice((word for word in self.frequent if word not in sums), max(0, count - len(found)))
        return found[:count]

    def to_bytes(self) -> bytes:
        """What a bundle keeps."""
        rounded = {word: {k: round(value, 3) for k, value in own.items()} for word, own in self.table.items()}
        return to_json({"format": FORMAT, "frequent": self.frequent, "table": rounded})


def words(text: str) -> list[str]:
    """The words of a text, without letter case."""
    return [word.rstrip("-'’") for word in _WORD.findall(text.casefold())]


def fit_keywords(pairs: Iterable[tuple[str, str]], *, least: int = 10, common: int | None = None) -> Keywords:
    """Keywords of (message, reply) pairs. common: None is 150, or a tenth of all words if these are fewer."""
    messages: Counter[str] = Counter()
    replies: Counter[str] = Counter()
    together: dict[str, Counter[str]] = {}
    split = [(set(words(message)), set(words(reply))) for message, reply in pairs]
    for message, reply in split:
        messages.update(message)
        replies.update(reply)
    ranked = sorted(replies, key=lambda word: (-replies[word], word))
    skipped = min(150, len(ranked) // 10) if common is None else common
    wanted = {word for word in ranked[skipped:] if replies[word] >= least and len(word) > 1}
    for message, reply in split:
        for word in message:
            together.setdefault(word, Counter()).update(reply & wanted)
    table: dict[str, dict[str, float]] = {}
    for word, counts in sorted(together.items()):
        own = {
            keyword: math.log(count * len(split) / (messages[word] * replies[keyword]))
            for keyword, count in counts.items()
            if count >= _TOGETHER
        }
        kept = sorted((k for k in own if own[k] > 0), key=lambda k: (-own[k], k))[:_KEPT]
        if kept:
            table[word] = {keyword: own[keyword] for keyword in kept}
    return Keywords(table, [word for word in ranked if word in wanted])


def to_keyword(reply: str, keywords: Keywords) -> str:
    """A reply backwards, from one of its words to the first (Mou et al. 2016, section 3.3).

    It is a keyword where the reply has one, by chance, but always the same one of the same reply. The word itself has
    no marks on it.
    """
    all_words = reply.split()
    bare = [words(word) for word in all_words]
    places = [place for place, own in enumerate(bare) if len(own) == 1 and own[0] in keywords.known]
    places = places or [place for place, own in enumerate(bare) if len(own) == 1] or [len(all_words) - 1]
    digest = hashlib.blake2b(reply.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    place = places[int.from_bytes(digest, "big") % len(places)]
    first = bare[place][0] if len(bare[place]) == 1 else all_words[place]
    return " ".join([first, *reversed(all_words[:place])])


def parse_keywords(data: bytes, where: str) -> Keywords:
    """Keywords from untrusted JSON. Raises BundleError that says what is wrong."""
    value = parse_json(data, where, error=BundleError)
    if not isinstance(value, dict) or set(value) != {"format", "frequent", "table"} or value["format"] != FORMAT:
        raise BundleError("is no list of keywords", where=where, expected=f"format {FORMAT}, frequent and table")
    frequent, table = value["frequent"], value["table"]
    if not _are_words(frequent) or not isinstance(table, dict) or not _are_words([*table]):
        raise BundleError("has something else than words", where=where)
    for own in table.values():
        good = isinstance(own, dict) and _are_words([*own]) and len(own) <= _KEPT
        if not good or not all(type(number) in (int, float) and math.isfinite(number) for number in own.values()):
            raise BundleError("has something else than numbers of words", where=where)
    return Keywords(table, frequent)


def _are_words(value: object) -> bool:
    """Each found whole by `words`, so that nothing else can be put into a source or an output."""
    if not isinstance(value, list) or len(value) > _MAX_WORDS:
        return False
    return all(isinstance(word, str) and words(word) == [word] for word in value)
