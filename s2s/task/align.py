"""Alignments: what a model attends to when it is made to write a given target."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from s2s.errors import DataError, UsageError
from s2s.score.alignment import links_from_weights, merge_links
from s2s.task.trained import Trained
from s2s.text.batching import Example, collate
from s2s.text.lines import clean, is_blank
from s2s.text.vocabulary import Tokenizer
from s2s.types import EOS


@dataclass(frozen=True)
class Alignment:
    """One aligned pair. weights: (T, S) between pieces, EOS of both included. links: (source word, target word)."""

    links: list[tuple[int, int]]
    weights: Tensor
    source_pieces: list[str]
    target_pieces: list[str]


Method = Literal["argmax", "threshold"]


@torch.no_grad()
def align(
    trained: Trained,
    pairs: Sequence[tuple[str, str]],
    *,
    batch_size: int = 64,
    method: Method = "argmax",
    threshold: float = 0.2,
) -> Iterator[Alignment | None]:
    """Force-decode each pair and link its words by what the model attends to; None for a pair with a blank side.

    method, threshold: see `links_from_weights`; argmax links every target piece to one source piece. Words are those
    between spaces, 0-based. Raises UsageError for a model without attention weights or a wrong option, DataError for a
    pair longer than the model was trained with (nothing is cut).
    """
    if batch_size < 1:
        raise UsageError("--batch-size is out of range", expected="at least 1", found=str(batch_size))
    limit = trained.config.trainer

    def entered(text: str) -> str:
        return trained.recased(clean(text)[0])

    for start in range(0, len(pairs), batch_size):
        window = pairs[start : start + batch_size]
        texts = [(entered(source), entered(target)) for source, target in window]
        kept = [k for k, (source, target) in enumerate(texts) if not (is_blank(source) or is_blank(target))]
        examples = [trained.example(*texts[k]) for k in kept]
        for k, example in zip(kept, examples, strict=True):
            if len(example.source) > limit.max_source or len(example.target) > limit.max_target:
                raise DataError(
                    "the pair is too long for the model",
                    where=f"pair {start + k + 1}",
                    expected=f"at most {limit.max_source} source and {limit.max_target} target tokens",
                    found=f"{len(example.source)} and {len(example.target)}",
                )
        weights = _weights(trained, examples) if examples else []
        done: dict[int, Alignment] = {}
        for k, example, own in zip(kept, examples, weights, strict=True):
            source, target = texts[k]
            words = (
                words_of_pieces(trained.source, source, example.source),
                words_of_pieces(trained.target, target, example.target),
            )
            # EOS of either side is no word
            links = links_from_weights(
                own[: len(example.target), : len(example.source)], method=method, threshold=threshold
            )
            done[k] = Alignment(
                sorted(merge_links(links, *words)),
                own,
                trained.source.pieces([*example.source, EOS]),
                trained.target.pieces([*example.target, EOS]),
            )
        yield from (done.get(k) for k in range(len(window)))


def _weights(trained: Trained, examples: Sequence[Example]) -> list[Tensor]:
    """Attention weights (T, S) of each example, EOS of both sides included."""
    batch = collate(examples, range(len(examples))).to(trained.device)
    weights = trained.model(batch, need_weights=True).weights
    if weights is None:
        raise UsageError(
            f"attention={trained.config.attention.name} has no weights to align by",
            hint="Align with a model that attends, such as attention=additive",
        )
    return [
        weights[row, : len(example.target) + 1, : len(example.source) + 1].float().cpu()
        for row, example in enumerate(examples)
    ]


def words_of_pieces(tokenizer: Tokenizer, text: str, ids: Sequence[int]) -> list[int | None]:
    """The word of each piece. A tokenizer's own normalisation may part a word (U+00B4 becomes a space and a mark)."""
    words = text.split()
    pieces = [tokenizer.encode(word) for word in words]
    if [token for word in pieces for token in word] == list(ids):
        return [number for number, word in enumerate(pieces) for _ in word]
    return [None if word < 0 else min(word, len(words) - 1) for word in tokenizer.words(ids)]
