"""Alignments: what a model attends to when it is made to write a given target."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from s2s.errors import DataError, UsageError
from s2s.score.alignment import links_from_weights, merge_links
from s2s.task.trained import Trained
from s2s.text.batching import Example, collate
from s2s.text.lines import clean, is_blank
from s2s.text.vocabulary import Tokenizer


@dataclass(frozen=True)
class Alignment:
    """One aligned pair. weights: (T, S) between pieces, EOS of both included. links: (source word, target word)."""

    links: list[tuple[int, int]]
    weights: Tensor
    source_pieces: list[str]
    target_pieces: list[str]


@torch.no_grad()
def align(trained: Trained, pairs: Sequence[tuple[str, str]], *, batch_size: int = 64) -> Iterator[Alignment | None]:
    """Force-decode each pair and link every target word to the source word it attends to most; None for blank sides.

    Words are those between spaces, 0-based. Raises UsageError for a model without attention weights, DataError for a
    pair longer than the model was trained with (nothing is cut).
    """
    limit = trained.config.trainer
    for start in range(0, len(pairs), batch_size):
        window = pairs[start : start + batch_size]
        texts = [(clean(source)[0], clean(target)[0]) for source, target in window]
        kept = [k for k, (source, target) in enumerate(texts) if not (is_blank(source) or is_blank(target))]
        examples = [Example(trained.source.encode(texts[k][0]), trained.target.encode(texts[k][1])) for k in kept]
        for k, example in zip(kept, examples, strict=True):
            if len(example.source) > limit.max_source or len(example.target) > limit.max_target:
                raise DataError(
                    "the pair is too long for the model",
                    where=f"pair {start + k + 1}",
                    expected=f"at most {limit.max_source} source and {limit.max_target} target tokens",
                    found=f"{len(example.source)} and {len(example.target)}",
                )
        done = dict(zip(kept, _batch(trained, examples), strict=True)) if examples else {}
        yield from (done.get(k) for k in range(len(window)))


def _batch(trained: Trained, examples: Sequence[Example]) -> list[Alignment]:
    batch = collate(examples, range(len(examples))).to(trained.device)
    weights = trained.model(batch, need_weights=True).weights
    if weights is None:
        raise UsageError(
            f"attention={trained.config.attention.name} has no weights to align by",
            hint="Align with a model that attends, such as attention=additive",
        )
    made = []
    for row, example in enumerate(examples):
        source, target = len(example.source), len(example.target)
        own = weights[row, : target + 1, : source + 1].float().cpu()
        words = _words(trained.source, example.source), _words(trained.target, example.target)
        # EOS of either side is no word
        links = merge_links(links_from_weights(own[:target, :source]), *words)
        made.append(
            Alignment(
                sorted(links),
                own,
                [*trained.source.pieces(example.source), "</s>"],
                [*trained.target.pieces(example.target), "</s>"],
            )
        )
    return made


def _words(tokenizer: Tokenizer, ids: Sequence[int]) -> list[int | None]:
    return [None if word < 0 else word for word in tokenizer.words(ids)]
