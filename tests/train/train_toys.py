"""A tiny model and corpus to train on, and the parts that `fit` is handed."""

from __future__ import annotations

import json
import random
from functools import partial

import torch

from s2s.attention import Attention, build, self_attention
from s2s.model import recurrent_decoder, recurrent_encoder
from s2s.model.seq2seq import seq2seq
from s2s.text.batching import Example, collate, example_lengths
from s2s.text.plan import BatchPlan
from s2s.train.log import RunLog, read_log
from s2s.train.loop import Data, Run, fit
from s2s.train.options import OptimConfig, TrainerConfig

VOCABULARY = 12


class Extra(Attention):
    """A mechanism around another one: it adds half of its largest weights to the loss, and counts its calls."""

    def __init__(self, inner):
        super().__init__()
        self.inner, self.memory_size = inner, inner.memory_size
        self.register_buffer("baseline", torch.zeros(()))
        self.register_buffer("scratch", torch.zeros(2), persistent=False)

    def make_memory(self, encoded):
        return self.inner.make_memory(encoded)

    def attend(self, query, memory, state, need_weights):
        found = self.inner.attend(query, memory, state, True)
        return found._replace(aux={"largest": found.weights.amax(-1)}, weights=found.weights if need_weights else None)

    def loss(self, aux, log_prob):
        self.seen = (aux["largest"].detach(), log_prob)
        with torch.no_grad():
            self.baseline.lerp_(log_prob.mean(), 0.1)
        return aux["largest"].sum() / 2


def tiny(dropout=0.0, seed=0, input_feed=True, extra=False):
    """extra: with the mechanism `Extra`."""
    torch.manual_seed(seed)

    def attention(query, memory):
        made = build("additive", query_size=query, memory_size=memory)
        return Extra(made) if extra else made

    return seq2seq(
        source_size=VOCABULARY,
        target_size=VOCABULARY,
        embedding=4,
        dropout=dropout,
        tie="target",
        encoder=partial(recurrent_encoder, width=6, dropout=dropout),
        decoder=partial(recurrent_decoder, width=6, dropout=dropout, input_feed=input_feed),
        attention=attention,
        self_attention=self_attention.none,
    )


def corpus(count=30, seed=0, low=4):
    """Sequences to copy, of 1 to 6 words."""
    draw = random.Random(seed)
    words = [[draw.randrange(low, VOCABULARY) for _ in range(draw.randint(1, 6))] for _ in range(count)]
    return [Example(ids, ids) for ids in words]


class Quiet:
    """A display that keeps what it is told."""

    def __init__(self):
        self.notes, self.steps, self.closed = [], [], 0

    def start(self, title, *, total=None, minutes=None, done=0):
        self.started = (total, minutes, done)

    def step(self, step, *, loss, tokens_per_second, lr=None):
        self.steps.append(step)

    def valid(self, step, metrics, *, best=False):
        pass

    def note(self, text):
        self.notes.append(text)

    def close(self):
        self.closed += 1


OPTIM = OptimConfig(lr=0.01, warmup=3, ema=0.9)
TRAINER = TrainerConfig(steps=12, batch_tokens=16, validate_every=5, log_every=1, metric="loss", precision="float32")


class Session:
    """One process of a run: a fresh model and optimiser, going on from the newest checkpoint of its folder."""

    def __init__(self, folder, *, optim=OPTIM, trainer=TRAINER, examples=None, dropout=0.3, resume=None, model=None):
        self.folder, self.checkpoints = folder, folder / "checkpoints"
        self.examples = corpus() if examples is None else examples
        self.run = Run(model or tiny(dropout), optim, trainer, seed=3, meta={"config": {}})
        self.log, self.display = RunLog(folder / "log.jsonl"), Quiet()
        self.kept, self.validations = [], 0
        self.scores = None  # (validation number) -> scores; by default a loss that falls
        plan = BatchPlan(example_lengths(self.examples), trainer.batch_tokens, seed=2)
        self.data = Data(plan, self.batch)
        if resume is not None:
            self.run.load(resume)
            self.log.rewind(self.run.position.step)

    def batch(self, rows, epoch):
        return collate([self.examples[row] for row in rows], rows)

    def validate(self):
        self.validations += 1
        assert not self.run.model.training
        assert not torch.is_grad_enabled()
        # of the weights that are validated, so that it shows whether they are the averaged ones
        return self.scores(self.validations) if self.scores else {"loss": fingerprint(self.run.model)}

    def fit(self):
        return fit(
            self.run,
            self.data,
            self.checkpoints,
            log=self.log,
            display=self.display,
            validate=self.validate,
            keep_best=lambda scores: self.kept.append((self.run.position.step, scores, fingerprint(self.run.model))),
        )

    def events(self, kind=None):
        return [event for event in read_log(self.folder / "log.jsonl") if kind in (None, event["event"])]


def fingerprint(model):
    """A number that changes with any weight."""
    return float(sum((p.detach().double() * (n + 1)).abs().sum() for n, p in enumerate(model.parameters())))


def timeless(events):
    """Events without what a clock says, as exact text."""
    return [
        json.dumps({key: value for key, value in event.items() if key not in ("seconds", "tokens_per_second")})
        for event in events
    ]
