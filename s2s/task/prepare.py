"""Corpus to tokenizers to examples: what training starts from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from operator import itemgetter

from s2s.config import Config
from s2s.errors import DataError
from s2s.score.alignment import Link, parse_links
from s2s.task.align import words_of_pieces
from s2s.task.encode import Encoder
from s2s.task.prepared_folder import PreparedFolder
from s2s.task.trained import for_task
from s2s.text.batching import Example, collate, example_lengths
from s2s.text.corpus import Corpus, Pair
from s2s.text.keywords import Keywords, fit_keywords
from s2s.text.lazy import Lazy, Mapped
from s2s.text.lexicon import Lexicon, frequent_tokens
from s2s.text.lines import read_lines
from s2s.text.plan import BatchPlan, Lengths
from s2s.text.stored import Stored
from s2s.text.vocabulary import Recipe, Tokenizer
from s2s.train.links import align_corpus, translations
from s2s.types import Batch

LEXICON_PAIRS = 200_000  # that a lexicon is learned from at most


@dataclass(frozen=True)
class Prepared:
    """A corpus as ids. train, dev: pairs within the length limits; train lies in memory, or in a file that is mapped.

    too_long: how many were left out of each split; cut: how many sources were shortened. keywords: where the task needs
    them. candidates: of each source token in the lexicon.
    """

    corpus: Corpus
    source: Tokenizer
    target: Tokenizer
    train: Sequence[Example]
    dev: list[Example]
    dev_pairs: list[Pair]
    pairs: Sequence[Pair]
    too_long: dict[str, int] = field(default_factory=dict)
    cut: dict[str, int] = field(default_factory=dict)
    keywords: Keywords | None = None
    candidates: int = 0

    @cached_property
    def lexicon(self) -> Lexicon | None:
        """Of the training pairs, evenly spaced if they are more than `LEXICON_PAIRS`; None without candidates."""
        if not self.candidates:
            return None
        size = len(self.train)
        used = (self.train[i * size // min(size, LEXICON_PAIRS)] for i in range(min(size, LEXICON_PAIRS)))
        pairs = [(example.source, example.target) for example in used]
        return Lexicon(translations(pairs, self.candidates), frequent_tokens(target for _, target in pairs))

    def plan(self, config: Config) -> BatchPlan:
        """The batches of training."""
        trainer = config.trainer
        return BatchPlan(self._lengths, trainer.batch_tokens, config.seed, trainer.pad_multiple)

    @cached_property
    def _lengths(self) -> Lengths:
        return self.train.lengths if isinstance(self.train, Stored) else example_lengths(self.train)

    def links_fingerprint(self) -> str | None:
        """One sha256 (hex) over the links of all training examples, in order; None without links."""
        if isinstance(self.train, Stored) or all(example.links is None for example in self.train):
            return None
        return hashlib.sha256(json.dumps([example.links for example in self.train]).encode()).hexdigest()

    def batch(self, config: Config) -> Callable[[Sequence[int], int], Batch]:
        """The batch of some examples, by number, in an epoch; with subword sampling, segmented anew in each."""
        encoder = Encoder.of(config, (self.source, self.target), self.keywords)
        alpha, multiple = config.trainer.subword_sample, config.trainer.pad_multiple
        stored = self.train if isinstance(self.train, Stored) else None

        def made(rows: Sequence[int], epoch: int) -> Batch:
            if alpha or (stored and encoder.copier is not None):
                seed = config.seed * 1_000_003 + epoch
                return collate([encoder.sample(self.pairs[row], alpha, seed) for row in rows], rows, multiple)
            if stored:
                return stored.batch(rows, multiple)
            return collate([self.train[row] for row in rows], rows, multiple)

        return made


def load_corpus(config: Config) -> Corpus:
    """The corpus of a config; raises DataError for what is wrong with it."""
    if config.prepared is not None:
        return PreparedFolder(config.prepared, config).corpus()
    corpus: Corpus = config.corpus.build()
    return corpus


def load_tokenizers(config: Config, corpus: Corpus) -> tuple[Tokenizer, Tokenizer]:
    """Tokenizers of source and target: those of a prepared corpus, else trained on the training split."""
    if config.prepared is not None:
        return PreparedFolder(config.prepared, config).tokenizers()
    recipe: Recipe = config.text.build()
    train = corpus.splits["train"]
    return recipe.train(Mapped(itemgetter(0), train), Mapped(itemgetter(1), train))


def prepare(config: Config, corpus: Corpus, tokenizers: tuple[Tokenizer, Tokenizer]) -> Prepared:
    """Examples of train and dev. Pairs above `trainer.max_source` or `max_target` tokens are left out and counted.

    With `task.overlong=truncate` or `turns` sources are shortened instead, and counted as well.
    The training examples get the links that `trainer.links` asks for. Raises DataError if nothing is left, or if more
    than half of train is left out, and for a file of links that doesn't fit the corpus.
    """
    folder = None if config.prepared is None else PreparedFolder(config.prepared, config)
    keywords = folder.keywords() if folder else corpus_keywords(config, corpus)
    encoder = Encoder.of(config, for_task(config, tokenizers), keywords)
    too_long: dict[str, int] = {}
    cut: dict[str, int] = {}

    def encode(split: str) -> tuple[list[Example], list[Pair]]:
        encoded = [encoder(pair) for pair in corpus.splits.get(split, [])]
        examples, pairs = [one.example for one in encoded], [one.pair for one in encoded]
        if config.task.overlong in ("truncate", "turns"):
            cut[split] = sum(one.cut for one in encoded)
        if split == "train" and config.trainer.links not in (None, "auto"):
            links = _read_links(str(config.trainer.links), corpus, examples, tokenizers)
            examples = [replace(e, links=some) for e, some in zip(examples, links, strict=True)]
        if split == "dev":  # whose sources are entered as a user's
            pairs = [pair._replace(source=own.source) for pair, own in zip(pairs, corpus.splits[split], strict=True)]
        fits = [encoder.fits(example) for example in examples]
        too_long[split] = fits.count(False)
        return (
            [e for e, fit in zip(examples, fits, strict=True) if fit],
            [p for p, fit in zip(pairs, fits, strict=True) if fit],
        )

    train: Sequence[Example]
    pairs: Sequence[Pair]
    if folder:
        train = folder.train(tokenizers)
        too_long["train"], shortened = folder.left_out
        if config.task.overlong in ("truncate", "turns"):
            cut["train"] = shortened
        pairs = _Own(corpus.splits["train"], train, encoder)
    else:
        train, pairs = encode("train")
        check_left_out(too_long["train"], len(corpus.splits["train"]))
        if config.trainer.links == "auto":
            links = align_corpus([(e.source, e.target) for e in train])
            train = [replace(e, links=some) for e, some in zip(train, links, strict=True)]
    dev, dev_pairs = encode("dev")
    check_dev(corpus, dev)
    source, target = encoder.source, encoder.target
    lexicon = config.trainer.lexicon
    return Prepared(corpus, source, target, train, dev, dev_pairs, pairs, too_long, cut, keywords, lexicon)


def check_dev(corpus: Corpus, examples: Sequence[Example] | None = None) -> None:
    """Raises DataError if there are no dev pairs. examples: what is left of them, if that is known."""
    if not (corpus.splits.get("dev") if examples is None else examples):
        raise DataError("there are no dev pairs to choose a model by", where=f"corpus {corpus.name}")


def check_left_out(too_long: int, pairs: int) -> None:
    """Raises DataError if more than half of the training pairs are too long."""
    if too_long * 2 > pairs:
        raise DataError(
            f"{too_long} of {pairs} training pairs are longer than the limits",
            where="trainer.max_source, trainer.max_target",
            expected="at most half",
            hint="Raise the limits, or check text.size: too small a vocabulary makes long sequences",
        )


class _Own(Lazy[Pair]):
    """The pairs of stored examples, as the task has them."""

    def __init__(self, pairs: Sequence[Pair], stored: Stored, encoder: Encoder) -> None:
        self._pairs, self._stored, self._encoder = pairs, stored, encoder

    def __len__(self) -> int:
        return len(self._stored)

    def at(self, place: int) -> Pair:
        """The pair of the example at a place."""
        return self._encoder.as_task(self._pairs[int(self._stored.numbers[place])])


def corpus_keywords(config: Config, corpus: Corpus) -> Keywords | None:
    """Of the training pairs, where the task needs them."""
    if not config.task.topics and config.task.reply == "whole":
        return None
    return fit_keywords((pair.source.split("\n")[-1], pair.target) for pair in corpus.splits["train"])


def _read_links(
    path: str, corpus: Corpus, examples: Sequence[Example], tokenizers: tuple[Tokenizer, Tokenizer]
) -> list[list[Link]]:
    """Links between the pieces of each training example, from a file with those of its words.

    Line n belongs to pair n of the training split; those too long for the model have a line too. A link of two words
    links all of their pieces. Raises DataError that names the line.
    """
    pairs = corpus.splits["train"]
    with read_lines(path) as file:
        lines = list(file)
    if len(lines) != len(pairs):
        dropped = corpus.report.splits["train"].table()
        raise DataError(
            "links and training pairs differ in number",
            where=path,
            expected=f"{len(pairs)} lines, one for each pair of the training split",
            found=f"{len(lines)} lines",
            hint=f"Dropped pairs have no line: {dropped}" if dropped else None,
        )
    found = []
    for number, (line, pair, example) in enumerate(zip(lines, pairs, examples, strict=True), 1):
        sizes = len(pair.source.split()), len(pair.target.split())
        sources = words_of_pieces(tokenizers[0], pair.source, example.source)
        targets = words_of_pieces(tokenizers[1], pair.target, example.target)
        words = parse_links(line, where=f"{path}:{number}", sizes=sizes).possible
        found.append(
            [
                (i, j)
                for j, target in enumerate(targets)
                for i, source in enumerate(sources)
                if (source, target) in words
            ]
        )
    return found
