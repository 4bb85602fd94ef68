"""Toy models with real state, and the brute-force search that they are checked against."""

from __future__ import annotations

import math
from itertools import pairwise

import torch

from s2s.search.penalty import length_penalty
from s2s.types import BOS, EOS, PAD, UNK, StepOutput


class ToyModel:
    """A small recurrent model whose log-probabilities depend on the source and on the whole history.

    Its nested state holds the hidden vector, the step, the source that a row belongs to and the last token; `step`
    refuses to run if rows and state were ordered differently. Every operation is row-wise.
    """

    def __init__(self, sources=3, vocabulary=6, seed=0, sharpness=3.0, positions=4, weights=True, eos_bias=0.0):
        draw = torch.Generator().manual_seed(seed)

        def normal(*shape):
            return torch.randn(*shape, generator=draw)

        self.width = 5
        self.inner = normal(self.width, self.width)
        self.embed = normal(vocabulary, self.width)
        self.out = normal(vocabulary, self.width) * sharpness
        self.source = normal(sources, self.width)
        self.keys = normal(sources, positions, self.width)
        self.sources, self.vocabulary, self.weights, self.eos_bias = sources, vocabulary, weights, eos_bias
        self.rows_run = []

    def only(self, *indices):
        """The same model over some of its sources, in the given order."""
        other = object.__new__(ToyModel)
        other.__dict__.update(self.__dict__)
        other.source, other.keys, other.sources = self.source[list(indices)], self.keys[list(indices)], len(indices)
        other.rows_run = []
        return other

    def start(self):
        count = torch.arange(self.sources)
        return (torch.zeros(self.sources, self.width), (count * 0, count, (torch.full((self.sources,), BOS),)))

    def step(self, tokens, state, rows):
        hidden, (steps, owner, (last,)) = state
        assert torch.equal(owner, rows), "state and rows are in different orders"
        assert len(set(steps.tolist())) == 1
        assert tokens.shape == last.shape
        self.rows_run.append(len(rows))
        drive = (hidden[:, None, :] * self.inner).sum(2) + self.embed[tokens] + self.source[rows]
        drive = drive + 0.5 * self.embed[last]
        hidden = torch.tanh(drive)
        logits = (hidden[:, None, :] * self.out).sum(2)
        logits[:, EOS] += self.eos_bias
        weights = (hidden[:, None, :] * self.keys[rows]).sum(2).softmax(1) if self.weights else None
        return StepOutput(logits.log_softmax(1), (hidden, (steps + 1, owner, (tokens,))), weights)


class TableModel:
    """A first-order Markov model: log-probabilities of the next token by the last one. table: (V, V) probabilities."""

    def __init__(self, table, sources=1):
        self.table = torch.as_tensor(table, dtype=torch.float32).log()
        self.sources = sources

    def start(self):
        return ()

    def step(self, tokens, state, rows):
        return StepOutput(self.table[tokens], (), None)


def uniform(vocabulary, **probabilities):
    """(V, V) table whose every row has `eos` for EOS and shares the rest equally among ordinary tokens."""
    row = torch.zeros(vocabulary)
    row[EOS] = probabilities.get("eos", 0.0)
    row[4:] = (1 - row[EOS]) / (vocabulary - 4)
    return row.expand(vocabulary, vocabulary).clone()


def enumerate_outputs(model, source, limit, config, source_length=None, allow=lambda ids: True):
    """All finished outputs of one source with at most `limit` tokens, as (ids, score), the best first."""
    lone = model.only(source) if isinstance(model, ToyModel) else model
    row = torch.zeros(1, dtype=torch.int64)
    found = []

    def walk(ids, state, probs, weights):
        output = lone.step(torch.tensor([ids[-1] if ids else BOS]), state, row)
        attention = weights if output.weights is None else [*weights, output.weights[0]]
        for token, value in enumerate(output.log_probs[0].tolist()):
            if token in (PAD, BOS, UNK) or value == -math.inf:
                continue
            longer, sums = (*ids, token), [*probs, value]
            if token == EOS:
                if allow(longer):
                    found.append((longer, oracle_score(sums, attention, config, source_length)))
            elif len(longer) < limit:
                walk(longer, output.state, sums, attention)

    walk((), lone.start(), [], [])
    return sorted(found, key=lambda item: -item[1])


def oracle_score(probs, attention, config, source_length):
    """Eq. 14 of arXiv 1609.08144, written naively."""
    score = sum(probs) / length_penalty(len(probs), config.length_penalty)
    if config.coverage_penalty:
        for position in range(source_length):
            looked = sum(float(weights[position]) for weights in attention)
            score += config.coverage_penalty * math.log(max(min(looked, 1.0), 1e-6))
    return score


def greedy_ids(model, source, limit):
    """The argmax loop."""
    lone = model.only(source)
    ids, state = [], lone.start()
    while len(ids) < limit:
        output = lone.step(torch.tensor([ids[-1] if ids else BOS]), state, torch.zeros(1, dtype=torch.int64))
        state = output.state
        log_probs = output.log_probs[0].clone()
        log_probs[[PAD, BOS, UNK]] = -math.inf
        ids.append(int(log_probs.argmax()))
        if ids[-1] == EOS:
            break
    return tuple(ids)


def ngrams(ids, order):
    return list(zip(*(ids[start:] for start in range(order)), strict=False))


def same(left, right, tolerance=1e-5):
    """Whether two lists of hypotheses are the same but for rounding."""
    return len(left) == len(right) and all(
        a.tokens == b.tokens and a.flags == b.flags and math.isclose(a.score, b.score, abs_tol=tolerance)
        for a, b in zip(left, right, strict=True)
    )


def is_sorted(scores):
    return all(a >= b for a, b in pairwise(scores))
