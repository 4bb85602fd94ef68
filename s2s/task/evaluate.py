"""Decode and score: the one path for validation during training, `s2s eval` and the final test."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from s2s.config import Config, TaskConfig
from s2s.model.seq2seq import Seq2Seq
from s2s.score.alignment import AlignmentScore, GoldAlignment, alignment_error_rate
from s2s.score.attention_statistics import AttentionStatistics, attention_statistics
from s2s.score.dialogue import DialogueStatistics, dialogue_statistics, embedding_average, perplexity_a_word
from s2s.score.extracts import extracts
from s2s.score.metrics import Scoring, compute
from s2s.score.summary import SummaryStatistics, summary_statistics
from s2s.task.align import align
from s2s.task.generate import Generator
from s2s.task.keyword_first import KeywordFirst
from s2s.task.likelihood import log_likelihoods
from s2s.task.trained import Trained
from s2s.text.batching import Example, collate, example_lengths
from s2s.text.corpus import Pair, reference_streams
from s2s.text.corpus.synthetic import links
from s2s.text.plan import BatchPlan
from s2s.train.step import target_loss
from s2s.types import EOS, UNK, Result, Score


@dataclass(frozen=True)
class Evaluation:
    """What a split gave. results: one a pair, in order, without alignments. seconds: of decoding alone.

    attention: of the outputs' own alignments, the row of the end of sentence left out. alignment: of the references,
    forced, against the true links. Either is None where the model gives no weights or the generator wasn't asked for
    them; alignment also where nobody knows the links, or a pair is longer than the model takes. summary: of the task
    summarisation; dialogue: of the task dialogue, with intervals.
    """

    results: list[Result]
    scores: list[Score]
    seconds: float
    attention: AttentionStatistics | None = None
    alignment: AlignmentScore | None = None
    summary: SummaryStatistics | None = None
    dialogue: DialogueStatistics | None = None

    @property
    def speed(self) -> float:
        """Sentences decoded a second."""
        return len(self.results) / self.seconds

    def facts(self) -> dict[str, Any]:
        """What a run's log keeps of it beside the scores, as plain values."""
        return {
            "sentences_per_second": self.speed,
            "attention": None if self.attention is None else asdict(self.attention),
            "alignment": None if self.alignment is None else asdict(self.alignment),
            "summary": None if self.summary is None else asdict(self.summary),
            "dialogue": None if self.dialogue is None else asdict(self.dialogue),
        }

    def flags(self) -> dict[str, int]:
        """How many results carry each flag."""
        counts: dict[str, int] = {}
        for result in self.results:
            for flag in result.flags:
                counts[flag] = counts.get(flag, 0) + 1
        return dict(sorted(counts.items()))


def scoring(task: TaskConfig) -> Scoring:
    """How a task's texts are scored."""
    return Scoring(task.lowercase, task.tokenize, task.rouge_tokenize, task.stem)


def evaluate(generator: Generator, pairs: Sequence[Pair], task: TaskConfig, *, intervals: bool = False) -> Evaluation:
    """Translate the sources of `pairs` and score the texts against the targets, as raw text.

    Attention and its error rate are looked at if the generator keeps alignments (`Options.alignment`).
    """
    results: list[Result] = []
    seconds = 1e-9

    def weights() -> Iterator[Sequence[Sequence[float]]]:
        """The alignment of each output as it comes, so that those of a whole corpus are never held at once."""
        nonlocal seconds
        outputs = generator.stream([pair.source for pair in pairs])
        while True:
            began = time.monotonic()
            result = next(outputs, None)
            seconds += time.monotonic() - began
            if result is None:
                return
            results.append(replace(result, alignment=None))
            if result.alignment is not None:
                yield result.alignment[: len(result.tokens) - (result.tokens[-1:] == (EOS,))]

    attention = attention_statistics(weights())
    trained = generator.models[0]
    attends = attention.rows > 0
    scores = compute(
        list(task.metrics),
        [result.text for result in results],
        reference_streams(pairs),
        scoring(task),
        intervals=intervals,
    )
    summary = None
    if task.name == "summarisation":
        summary = summary_statistics([pair.source for pair in pairs], [result.text for result in results])
    dialogue = _dialogue(generator, pairs, results) if task.name == "dialogue" and intervals else None
    aligned = _alignment(trained, pairs) if attends else None
    return Evaluation(results, scores, seconds, attention if attends else None, aligned, summary, dialogue)


def _dialogue(generator: Generator, pairs: Sequence[Pair], results: Sequence[Result]) -> DialogueStatistics:
    trained = generator.models[0]
    examples = [trained.example(trained.entered(pair.source)[0], pair.target, generator.overlong) for pair in pairs]
    likelihood = math.fsum(float(own.double().sum()) for own in log_likelihoods(trained, examples))
    table = trained.model.output.weight.detach().cpu()  # the embeddings, where these are tied
    size = trained.target.size
    written = [[token for token in result.tokens if token not in (EOS, UNK) and token < size] for result in results]
    return dialogue_statistics(
        [pair.source for pair in pairs],
        [result.text for result in results],
        keywords=[generator.keyword(pair.source) for pair in pairs] if isinstance(generator, KeywordFirst) else (),
        relevance=embedding_average(written, [example.target for example in examples], table),
        perplexity=perplexity_a_word(likelihood, [pair.target for pair in pairs]),
    )


def score_extracts(pairs: Sequence[Pair], task: TaskConfig, words: int, *, intervals: bool) -> dict[str, list[Score]]:
    """The scores of extracts of `words` words, by name: what a summary of these sources is worth without a model."""
    references = reference_streams(pairs)
    made = extracts([pair.source for pair in pairs], references, words)
    return {
        f"{name}-{words}": compute(list(task.metrics), texts, references, scoring(task), intervals=intervals)
        for name, texts in made.items()
    }


def _alignment(trained: Trained, pairs: Sequence[Pair]) -> AlignmentScore | None:
    """The alignment error of forced references, where their true links are known."""
    gold, limit = _gold(trained.config, pairs), trained.config.trainer
    if gold is None or any(
        len(trained.source.encode(pair.source)) > limit.max_source
        or len(trained.target.encode(pair.target)) > limit.max_target
        for pair in pairs
    ):
        return None
    aligned = align(trained, [(pair.source, pair.target) for pair in pairs])
    return alignment_error_rate([frozenset(one.links if one else ()) for one in aligned], gold)


def _gold(config: Config, pairs: Sequence[Pair]) -> list[GoldAlignment] | None:
    """The links of a generated corpus, all of them sure; None for any other corpus."""
    if config.corpus.name != "generated":
        return None
    known = (frozenset(links(config.corpus.options["task"], pair.source.split())) for pair in pairs)
    return [GoldAlignment(own, own) for own in known]


@torch.no_grad()
def dev_loss(model: Seq2Seq, examples: Sequence[Example], budget: int) -> dict[str, float]:
    """Negative log-likelihood a target token (EOS included, natural log, teacher forced, unsmoothed), and exp of it."""
    device = next(model.parameters()).device
    total, tokens = 0.0, 0
    for rows in BatchPlan(example_lengths(examples), budget).epoch(0, shuffle=False):
        batch = collate([examples[row] for row in rows], rows).to(device)
        total += float(target_loss(model, batch, model(batch))[0].nll)
        tokens += int(batch.target_lengths.sum())
    loss = total / max(1, tokens)
    return {"loss": loss, "ppl": math.exp(min(loss, 700.0))}
