"""Generated corpora whose rule, and so every alignment link, is known: for tests and teaching."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence
from typing import Literal, get_args

from s2s.errors import DataError
from s2s.text.corpus.base import Corpus, Pair, make_corpus

Rule = Literal["copy", "reverse", "sort", "double"]


def generated(
    *,
    task: Rule = "reverse",
    symbols: int = 20,
    min_length: int = 2,
    max_length: int = 10,
    train: int = 2000,
    dev: int = 200,
    test: int = 200,
    seed: int = 1,
    lowercase: bool = False,
) -> Corpus:
    """Sequences of made-up syllables and what a rule makes of them; no source stands there twice.

    task: copy, reverse, sort (alphabetically) or double (each symbol twice). symbols: size of the vocabulary.
    min_length, max_length: in symbols, drawn uniformly. train, dev, test: pairs; 0 leaves dev or test out.
    Raises DataError if there aren't that many sequences.
    """
    _check_task(task)
    if not 1 <= min_length <= max_length or train < 1 or dev < 0 or test < 0:
        raise DataError(
            "impossible lengths or sizes",
            where="corpus",
            expected="1 <= min_length <= max_length, train >= 1, dev and test >= 0",
            found=f"min_length={min_length} max_length={max_length} train={train} dev={dev} test={test}",
        )
    words = list(itertools.islice(_syllables(), symbols)) if symbols > 0 else []
    if len(words) != symbols or symbols < 1:
        raise DataError(
            "too few or too many symbols", where="corpus.symbols", expected="1 to 10100", found=str(symbols)
        )
    generator = random.Random(seed)
    seen: set[tuple[str, ...]] = set()
    splits: dict[str, list[Pair]] = {}
    for split, size in (("train", train), ("dev", dev), ("test", test)):
        if size:
            splits[split] = list(_draw(generator, words, (min_length, max_length), size, task, split, seen))
    return make_corpus(
        f"generated-{task}",
        ("symbols", "symbols"),
        splits,
        max_words=None,
        lowercase=lowercase,
        allow_drop=False,
        facts={"licence": "none needed", "obtained": f"generated: {task}, {symbols} symbols, seed {seed}"},
        files={},
    )


def links(task: Rule, tokens: Sequence[str]) -> list[tuple[int, int]]:
    """The true alignment of a generated pair: (source position, target position), both from 0, in target order."""
    _check_task(task)
    if task == "reverse":
        order = list(reversed(range(len(tokens))))
    elif task == "sort":
        order = sorted(range(len(tokens)), key=lambda place: tokens[place])
    elif task == "double":
        order = [place for place in range(len(tokens)) for _ in range(2)]
    else:
        order = list(range(len(tokens)))
    return [(place, position) for position, place in enumerate(order)]


def _check_task(task: str) -> None:
    if task not in get_args(Rule):
        raise DataError("unknown rule", where="corpus.task", expected=", ".join(get_args(Rule)), found=repr(task))


def _syllables() -> Iterator[str]:
    """Words that a reader tells apart: ba, be, ..., then two syllables each."""
    short = [consonant + vowel for consonant in "bdfgklmnprstvwzchjqy" for vowel in "aeiou"]
    yield from short
    yield from (one + other for one in short for other in short)


def _draw(
    generator: random.Random,
    words: Sequence[str],
    lengths: tuple[int, int],
    size: int,
    task: Rule,
    split: str,
    seen: set[tuple[str, ...]],
) -> Iterator[Pair]:
    for number in range(size):
        for _ in range(1000):
            tokens = tuple(generator.choices(words, k=generator.randint(*lengths)))
            if tokens not in seen:
                break
        else:
            raise DataError(
                f"there aren't enough different sequences for {size} pairs of {split}",
                where="corpus.symbols, corpus.max_length",
                hint="Ask for more symbols or longer sequences.",
            )
        seen.add(tokens)
        target = " ".join(tokens[place] for place, _ in links(task, tokens))
        yield Pair(" ".join(tokens), target, f"generated:{split}:{number}")
