"""Corpus to tokenizers to examples: what training starts from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial

from s2s.config import Config
from s2s.errors import DataError
from s2s.score.alignment import Link, parse_links
from s2s.task.align import words_of_pieces
from s2s.task.trained import about, for_task, turns
from s2s.text.batching import BatchPlan, Example, example_lengths, make_example
from s2s.text.copying import Copier
from s2s.text.corpus import Corpus, Pair
from s2s.text.keywords import Keywords, fit_keywords, to_keyword
from s2s.text.lexicon import Lexicon, frequent_tokens
from s2s.text.lines import read_lines
from s2s.text.turns import shorten
from s2s.text.vocabulary import Recipe, Tokenizer
from s2s.train.links import align_corpus, translations


@dataclass(frozen=True)
class Prepared:
    """A corpus as ids. train, dev: pairs within the length limits.

    too_long: how many were left out of each split; cut: how many sources were shortened. keywords: where the task needs
    them. candidates: of each source token in the lexicon.
    """

    corpus: Corpus
    source: Tokenizer
    target: Tokenizer
    train: list[Example]
    dev: list[Example]
    dev_pairs: list[Pair]
    pairs: list[Pair]
    too_long: dict[str, int] = field(default_factory=dict)
    cut: dict[str, int] = field(default_factory=dict)
    keywords: Keywords | None = None
    candidates: int = 0

    @cached_property
    def lexicon(self) -> Lexicon | None:
        """Of the training pairs; None without candidates."""
        if not self.candidates:
            return None
        pairs = [(example.source, example.target) for example in self.train]
        return Lexicon(translations(pairs, self.candidates), frequent_tokens(target for _, target in pairs))

    def plan(self, config: Config) -> BatchPlan:
        """The batches of training."""
        trainer = config.trainer
        return BatchPlan(example_lengths(self.train), trainer.batch_tokens, config.seed, trainer.pad_multiple)

    def links_fingerprint(self) -> str | None:
        """One sha256 (hex) over the links of all training examples, in order; None without links."""
        if all(example.links is None for example in self.train):
            return None
        return hashlib.sha256(json.dumps([example.links for example in self.train]).encode()).hexdigest()

    def fetch(self, config: Config) -> _Fetch:
        """Examples by number; with subword sampling, segmented anew in each epoch."""
        copier = _copier(config, self.source, self.target)
        return _Fetch(self, config.trainer.subword_sample, config.seed, copier, _shortening(config))


@dataclass(frozen=True)
class _Fetch:
    prepared: Prepared
    alpha: float
    seed: int
    copier: Copier | None
    shorten: _Shorten

    def __call__(self, rows: Sequence[int], epoch: int) -> list[Example]:
        """The examples `rows` of training as they are in `epoch`."""
        if not self.alpha:
            return [self.prepared.train[row] for row in rows]
        seed = self.seed * 1_000_003 + epoch
        source, target = self.prepared.source, self.prepared.target
        sampled = []
        for pair in (self.prepared.pairs[row] for row in rows):
            text, ids, _ = self.shorten(pair.source, source.sample(pair.source, self.alpha, seed))
            target_ids = target.sample(pair.target, self.alpha, seed)
            sampled.append(make_example(text, ids, pair.target, target_ids, self.copier))
        return sampled


_Shorten = Callable[[str, Sequence[int]], tuple[str, list[int], frozenset[str]]]


def _shortening(config: Config) -> _Shorten:
    """How the sources of training are shortened."""
    limit, most = config.trainer.max_source, turns(config)
    return partial(shorten, overlong=config.task.overlong, limit=limit, turns=most)


def _copier(config: Config, source: Tokenizer, target: Tokenizer) -> Copier | None:
    return None if config.copy.name == "none" else Copier(source, target)


def load_corpus(config: Config) -> Corpus:
    """The corpus of a config; raises DataError for what is wrong with it."""
    corpus: Corpus = config.corpus.build()
    return corpus


def train_tokenizers(config: Config, corpus: Corpus) -> tuple[Tokenizer, Tokenizer]:
    """Tokenizers of source and target, trained on the training split."""
    recipe: Recipe = config.text.build()
    train = corpus.splits["train"]
    return recipe.train([pair.source for pair in train], [pair.target for pair in train])


def prepare(config: Config, corpus: Corpus, tokenizers: tuple[Tokenizer, Tokenizer]) -> Prepared:
    """Examples of train and dev. Pairs above `trainer.max_source` or `max_target` tokens are left out and counted.

    With `task.overlong=truncate` or `turns` sources are shortened instead, and counted as well.
    The training examples get the links that `trainer.links` asks for. Raises DataError if nothing is left, or if more
    than half of train is left out, and for a file of links that doesn't fit the corpus.
    """
    source, target = for_task(config, tokenizers)
    keywords = _keywords(config, corpus)
    copier, shortened = _copier(config, source, target), _shortening(config)
    kept: dict[str, tuple[list[Example], list[Pair]]] = {}
    too_long: dict[str, int] = {}
    cut: dict[str, int] = {}
    limit = config.trainer
    for split in ("train", "dev"):
        own = corpus.splits.get(split, [])
        pairs = [_for_dialogue(config, keywords, pair) for pair in own]
        sources = [shortened(pair.source, source.encode(pair.source)) for pair in pairs]
        if config.task.overlong in ("truncate", "turns"):
            cut[split] = sum(bool(flags) for _, _, flags in sources)
        examples = [
            make_example(text, ids, pair.target, target.encode(pair.target), copier)
            for pair, (text, ids, _) in zip(pairs, sources, strict=True)
        ]
        if split == "train" and config.trainer.links not in (None, "auto"):
            links = _read_links(str(config.trainer.links), corpus, examples, tokenizers)
            examples = [replace(e, links=some) for e, some in zip(examples, links, strict=True)]
        fits = [len(e.source) <= limit.max_source and len(e.target) <= limit.max_target for e in examples]
        if split == "dev":  # whose sources are entered as a user's
            pairs = [pair._replace(source=before.source) for pair, before in zip(pairs, own, strict=True)]
        kept[split] = (
            [e for e, fit in zip(examples, fits, strict=True) if fit],
            [p for p, fit in zip(pairs, fits, strict=True) if fit],
        )
        too_long[split] = fits.count(False)
    train = corpus.splits["train"]
    if len(kept["train"][0]) * 2 < len(train):
        raise DataError(
            f"{too_long['train']} of {len(train)} training pairs are longer than the limits",
            where="trainer.max_source, trainer.max_target",
            expected="at most half",
            hint="Raise the limits, or check text.size: too small a vocabulary makes long sequences",
        )
    if not kept["dev"][0]:
        raise DataError("there are no dev pairs to choose a model by", where=f"corpus {corpus.name}")
    if config.trainer.links == "auto":
        links = align_corpus([(e.source, e.target) for e in kept["train"][0]])
        kept["train"][0][:] = [replace(e, links=some) for e, some in zip(kept["train"][0], links, strict=True)]
    (train_examples, train_pairs), (dev_examples, dev_pairs) = kept["train"], kept["dev"]
    return Prepared(
        corpus,
        source,
        target,
        train_examples,
        dev_examples,
        dev_pairs,
        train_pairs,
        too_long,
        cut,
        keywords,
        limit.lexicon,
    )


def _keywords(config: Config, corpus: Corpus) -> Keywords | None:
    """Of the training pairs, where the task needs them."""
    if not config.task.topics and config.task.reply == "whole":
        return None
    return fit_keywords((pair.source.split("\n")[-1], pair.target) for pair in corpus.splits["train"])


def _for_dialogue(config: Config, keywords: Keywords | None, pair: Pair) -> Pair:
    """A pair as the task has it."""
    if keywords is None:
        return pair
    target = to_keyword(pair.target, keywords) if config.task.reply == "to_keyword" else pair.target
    return pair._replace(source=about(pair.source, keywords, config.task.topics), target=target)


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
