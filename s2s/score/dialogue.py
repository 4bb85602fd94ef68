"""What replies are like beside their scores: length, repetition, keywords, relevance, perplexity a word."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from s2s.score.flags import units


@dataclass(frozen=True)
class DialogueStatistics:
    """Of the replies to contexts. Shares are of 1; None where nothing could be counted.

    words: of a reply, mean. repeating: replies in which a triple of words stands twice. said_before: replies that the
    speaker has given before in the context. keywords: replies that hold the keyword they were given, as a word.
    relevance: see `embedding_average`. perplexity: of the references, a word, see `perplexity_a_word`.
    """

    words: float
    repeating: float
    said_before: float
    keywords: float | None = None
    relevance: float | None = None
    perplexity: float | None = None


def dialogue_statistics(
    contexts: Sequence[str],
    replies: Sequence[str],
    *,
    keywords: Sequence[str] = (),
    relevance: float | None = None,
    perplexity: float | None = None,
) -> DialogueStatistics:
    """contexts: turns joined by line feeds, the last one answered. keywords: one a reply, blank where there is none.

    Raises ValueError where there are not as many contexts, or keywords if any, as replies.
    """
    said = [units(reply) for reply in replies]
    count = max(1, len(said))
    own_turns = [{tuple(units(turn)) for turn in context.split("\n")[-2::-2]} for context in contexts]
    asked = [units(keyword) for keyword in keywords or [""] * len(said)]
    held = [_holds(own, wanted) for own, wanted in zip(said, asked, strict=True) if wanted]
    return DialogueStatistics(
        sum(map(len, said)) / count,
        sum(map(repeats, said)) / count,
        sum(tuple(own) in known for own, known in zip(said, own_turns, strict=True)) / count,
        sum(held) / len(held) if held else None,
        relevance,
        perplexity,
    )


def repeats(words: Sequence[str], order: int = 3) -> bool:
    """Whether an n-gram stands twice."""
    grams = list(zip(*(words[start:] for start in range(order)), strict=False))
    return len(set(grams)) < len(grams)


def _holds(words: Sequence[str], wanted: Sequence[str]) -> bool:
    return any(list(words[k : k + len(wanted)]) == list(wanted) for k in range(len(words)))


def embedding_average(outputs: Sequence[Sequence[int]], references: Sequence[Sequence[int]], table: Tensor) -> float:
    """Mean cosine between the mean embedding of an output and of its reference (Liu et al. 2016, arXiv 1603.08023).

    table: (V, D), a row for each id. A pair with a side that has no ids counts 0. Only values of one table compare.
    """
    found = []
    for output, reference in zip(outputs, references, strict=True):
        if not output or not reference:
            found.append(0.0)
            continue
        one, other = (table[torch.tensor(list(ids))].double().mean(0) for ids in (output, reference))
        found.append(float(torch.nn.functional.cosine_similarity(one, other, dim=0)))
    return sum(found) / max(1, len(found))


def perplexity_a_word(log_likelihood: float, texts: Sequence[str]) -> float:
    """exp(-log-likelihood / words): nats over all tokens of all texts, however they are cut into tokens.

    The end of each text counts as a word, as it has to be predicted too; words stand between spaces. So models with
    other vocabularies compare.
    """
    words = sum(len(text.split()) + 1 for text in texts)
    return math.exp(min(-log_likelihood / max(1, words), 700.0))
