"""Generated corpora whose rule, and so every alignment link, is known: for tests and teaching."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence
from typing import Literal, get_args

from s2s.errors import DataError
from s2s.text.corpus.base import Corpus, Pair, make_corpus

Rule = Literal["copy", "reverse", "sort", "double", "skip", "lookup", "marked"]

SEPARATOR = ";"  # ends each pair of `lookup`; no symbol is spelled so
MARKER = "*"  # stands before the symbol that `marked` asks for

_DROPPED = ("e", "o")  # how the symbols end that `skip` leaves out: two of five
_TRIES = 1000  # draws for one sequence before there are said to be too few


def generated(
    *,
    task: Rule = "reverse",
    symbols: int = 20,
    min_length: int = 2,
    max_length: int = 10,
    repeat: bool = True,
    unseen: bool = False,
    train: int = 2000,
    dev: int = 200,
    test: int = 200,
    seed: int = 1,
    lowercase: bool = False,
) -> Corpus:
    """Sequences of made-up syllables and what a rule makes of them; no source stands there twice.

    task: copy, reverse, sort (alphabetically), double (each symbol twice), skip (a copy without the symbols that end in
    e or o, at least one of the others in each source), lookup or marked (the symbol after `*`). symbols: size of the
    vocabulary. min_length, max_length: in symbols of the source (lookup: of the target), drawn uniformly. repeat:
    whether a symbol may stand twice in a sequence. unseen: the targets of dev and test are symbols that never stand in
    train, which has only one half of them (marked only). train, dev, test: pairs; 0 leaves dev or test out.

    lookup: the source holds the pairs `key value ;` of a chain, in random order, and last the key that is asked for.
    The target is its value, then the value of that as a key, to the chain's end; its symbols never repeat.
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
    longest = max_length + 1 if task == "lookup" else max_length
    if longest > symbols and (task == "lookup" or not repeat):
        raise DataError(
            "too few symbols for a sequence in which none repeats",
            where="corpus.symbols",
            expected=f"at least {longest}",
            found=str(symbols),
            hint="Ask for more symbols or shorter sequences.",
        )
    if unseen and (task != "marked" or symbols < 2):
        raise DataError(
            "symbols that train lacks can't be asked for here",
            where="corpus.unseen",
            expected="corpus.task=marked and at least 2 symbols",
            found=f"task={task}, {symbols} symbols",
        )
    known, new = (words[::2], words[1::2]) if unseen else (words, words)
    generator = random.Random(seed)
    seen: set[tuple[str, ...]] = set()
    splits: dict[str, list[Pair]] = {}
    for split, size in (("train", train), ("dev", dev), ("test", test)):
        made: list[Pair] = []
        for number in range(size):
            asked = known if split == "train" else new
            tokens = _draw(generator, known, (min_length, max_length), task, repeat, seen, asked)
            if not tokens:
                raise DataError(
                    f"there aren't enough different sequences for {size} pairs of {split}",
                    where="corpus.symbols, corpus.max_length",
                    hint="Ask for more symbols or longer sequences.",
                )
            seen.add(tokens)
            target = " ".join(tokens[place] for place, _ in links(task, tokens))
            made.append(Pair(" ".join(tokens), target, f"generated:{split}:{number}"))
        if made:
            splits[split] = made
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
    """The true alignment of a generated pair: (source position, target position), both from 0, in target order.

    tokens: the source. Raises DataError for an unknown rule, or for a source of `lookup` that is no chain.
    """
    _check_task(task)
    if task == "reverse":
        order = list(reversed(range(len(tokens))))
    elif task == "sort":
        order = sorted(range(len(tokens)), key=lambda place: tokens[place])
    elif task == "double":
        order = [place for place in range(len(tokens)) for _ in range(2)]
    elif task == "skip":
        order = [place for place, token in enumerate(tokens) if not token.endswith(_DROPPED)]
    elif task == "lookup":
        order = _followed(tokens)
    elif task == "marked":
        order = [tokens.index(MARKER) + 1] if MARKER in tokens[:-1] else []
    else:
        order = list(range(len(tokens)))
    return [(place, position) for position, place in enumerate(order)]


def _followed(tokens: Sequence[str]) -> list[int]:
    """Where the values stand that one finds from the last token on."""
    pairs, rest = divmod(len(tokens), 3)
    value_at = {tokens[3 * pair]: 3 * pair + 1 for pair in range(pairs)}
    order: list[int] = []
    key = tokens[-1] if rest == 1 else SEPARATOR
    while key in value_at and len(order) < pairs:
        order.append(value_at[key])
        key = tokens[order[-1]]
    if not len(order) == len(value_at) == pairs or set(tokens[2::3]) - {SEPARATOR}:
        raise DataError(
            "a source of the rule lookup is no chain of pairs",
            expected=f"`key value {SEPARATOR}` any number of times, then a key",
            found=repr(" ".join(tokens)),
        )
    return order


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
    task: Rule,
    repeat: bool,
    seen: set[tuple[str, ...]],
    asked: Sequence[str],
) -> tuple[str, ...]:
    """A source that is not in `seen` and has a target; () if none was found. asked: what `marked` may ask for."""
    for _ in range(_TRIES):
        length = generator.randint(*lengths)
        if task == "lookup":
            tokens = _chain(generator, generator.sample(words, length + 1))
        elif repeat:
            tokens = tuple(generator.choices(words, k=length))
        else:
            tokens = tuple(generator.sample(words, length))
        if task == "marked":
            place = generator.randrange(length)
            tokens = (*tokens[:place], MARKER, generator.choice(asked), *tokens[place + 1 :])
        if tokens not in seen and links(task, tokens):
            return tokens
    return ()


def _chain(generator: random.Random, words: Sequence[str]) -> tuple[str, ...]:
    """The source of `lookup` whose key is the first of `words` and whose target is the rest."""
    pairs = list(itertools.pairwise(words))
    generator.shuffle(pairs)
    return (*(token for key, value in pairs for token in (key, value, SEPARATOR)), words[0])
