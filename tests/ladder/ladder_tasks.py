"""The ladder's tasks, and the tiny model that is trained on one of them with one attention mechanism."""

from __future__ import annotations

import bisect
import functools
import random
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch

from s2s import app
from s2s.config import Config
from s2s.model.seq2seq import Seq2Seq, start_search
from s2s.search import SearchConfig, search
from s2s.task.trained import build_model
from s2s.text.batching import Example, collate
from s2s.text.corpus import generated
from s2s.text.corpus.synthetic import Rule
from s2s.train.schedule import rate
from s2s.train.step import make_optimizer, update
from s2s.types import EOS, SPECIALS

PASS, FAIL = 0.9, 0.7  # share of right tokens on the test: at least, at most; in between is an error

SEED = 1
BATCH = 64  # pairs an update
POOL = 8000  # pairs that are drawn from
TESTED = 200  # pairs of the test, and half as many of the dev set
LOOK_EVERY = 50  # updates between looks at the dev set
ENOUGH = 0.97  # accuracy on the dev set at which training stops early
RAMP = 0.25  # share of the updates in which the sources grow from short to full length

MODEL = (
    *("text=words", "encoder=gru", "encoder.width=24", "encoder.bidirectional=false", "decoder=gru"),
    *("decoder.width=64", "decoder.style=luong", "decoder.input_feed=false", "model.embedding=32", "model.dropout=0"),
    *("model.tie=none", "optim.warmup=20", "optim.schedule=linear", "optim.final=0.1"),
    *("optim.clip=1", "optim.label_smoothing=0", "optim.weight_decay=0"),
)


class Task(NamedTuple):
    """A generated task. Sources have `longest` symbols at most (lookup: pairs), those of the test `tested` at least."""

    rule: Rule
    symbols: int
    longest: int
    tested: int
    updates: int
    lr: float  # peak
    says: str


TASKS = {
    "copy": Task("copy", 24, 14, 10, 400, 2e-2, "write the source as it is"),
    "long": Task("copy", 24, 20, 16, 500, 2e-2, "copy more symbols"),
    "skip": Task("skip", 30, 20, 16, 400, 2e-2, "copy, but leave out two symbols of five"),
    "reverse": Task("reverse", 24, 16, 12, 400, 2e-2, "write the source from its end"),
    "sort": Task("sort", 50, 20, 16, 400, 2e-2, "write the source's symbols in alphabetical order"),
    "lookup": Task("lookup", 16, 5, 3, 600, 1e-2, "follow a chain of pairs `key value ;` that stand in random order"),
}


class Data(NamedTuple):
    """Examples of a task as ids; those to train on shortest first."""

    train: list[Example]
    dev: list[Example]
    test: list[Example]
    words: list[str]  # of the ids from len(SPECIALS) on


class Outcome(NamedTuple):
    """What a cell gave. accuracy: share of right tokens on the test; exact: share of right outputs."""

    accuracy: float
    exact: float
    updates: int
    seconds: float  # of this process, on one core


@functools.cache
def data(name: str) -> Data:
    """The examples of a task. No symbol repeats in a source, so that a symbol says where it stands."""
    task = TASKS[name]
    options: dict[str, Any] = {"task": task.rule, "symbols": task.symbols, "repeat": False}
    train = generated(**options, min_length=1, max_length=task.longest, train=POOL, dev=0, test=0, seed=SEED)
    held = generated(
        **options,
        min_length=task.tested,
        max_length=task.longest,
        train=1,
        dev=TESTED // 2,
        test=TESTED,
        seed=SEED + 1,
    )
    words = sorted({word for pair in train.splits["train"] for word in pair.source.split()})
    ids = {word: number for number, word in enumerate(words, len(SPECIALS))}
    sources = {pair.source for split in ("dev", "test") for pair in held.splits[split]}

    def examples(pairs: list[Any]) -> list[Example]:
        return [Example(*([ids[word] for word in text.split()] for text in pair[:2])) for pair in pairs]

    unseen = [pair for pair in train.splits["train"] if pair.source not in sources]
    return Data(
        sorted(examples(unseen), key=lambda example: len(example.source)),
        examples(held.splits["dev"]),
        examples(held.splits["test"]),
        words,
    )


def configured(attention: str, options: Mapping[str, Any], name: str, model: Sequence[str] = ()) -> Config:
    """The config of a cell. name: of the task. model: changes of MODEL. Raises ConfigError where they don't fit."""
    chosen = [f"attention={attention}", *(f"attention.{key}={value}" for key, value in options.items())]
    return app.compose("teach/copy", [*MODEL, f"optim.lr={TASKS[name].lr}", *model, *chosen])


def climb(
    attention: str, options: Mapping[str, Any], name: str, *, budget: float = 1.0, model: Sequence[str] = ()
) -> Outcome:
    """Train a tiny model on a task and test it. budget: of the task's updates, as a factor. model: see `configured`."""
    begun, task, config = time.process_time(), TASKS[name], configured(attention, options, name, model)
    torch.manual_seed(SEED)
    draw, examples = random.Random(SEED), data(name)
    size = len(SPECIALS) + len(examples.words)
    trained = build_model(config, size, size)
    optimizer = make_optimizer(trained, config.optim)
    lengths = [len(example.source) for example in examples.train]
    updates = round(budget * task.updates)
    done = 0
    while done < updates:
        trained.train()
        share = min(1.0, done / (RAMP * updates))
        reach = bisect.bisect_right(lengths, lengths[0] + 1 + share * (lengths[-1] - lengths[0]))
        rows = [draw.randrange(reach) for _ in range(BATCH)]
        batch = collate([examples.train[row] for row in rows], rows)
        update(trained, [batch], optimizer, config.optim, rate=rate(config.optim, done, done / updates))
        done += 1
        if done % LOOK_EVERY == 0 and accuracy(trained, examples.dev)[0] >= ENOUGH:
            break
    right, exact = accuracy(trained, examples.test)
    return Outcome(right, exact, done, time.process_time() - begun)


@torch.no_grad()
def accuracy(model: Seq2Seq, examples: list[Example]) -> tuple[float, float]:
    """Shares of right tokens (of the longer of output and target) and of right outputs, decoded greedily."""
    model.eval()
    batch = collate(examples, range(len(examples)))
    step, state = start_search(model, batch.source, batch.source_lengths, need_weights=False)
    config = SearchConfig(beam=1, max_length=2 * max(len(example.target) for example in examples))
    found = search(step, state, config, batch.source_lengths.tolist())
    right = total = exact = 0
    for example, (best, *_) in zip(examples, found, strict=True):
        output, target = [token for token in best.tokens if token != EOS], list(example.target)
        right += sum(one == other for one, other in zip(output, target, strict=False))
        total += max(len(output), len(target))
        exact += output == target
    return right / total, exact / len(examples)
