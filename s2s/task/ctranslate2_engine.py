"""Searches that CTranslate2 runs, behind the same list-in, list-out call."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import torch

from s2s.config import SearchConfig
from s2s.errors import UsageError
from s2s.model.seq2seq import start_search
from s2s.products import Precision
from s2s.search import force
from s2s.search.penalty import length_penalty
from s2s.task.ctranslate2_model import load, vocabulary
from s2s.task.generate import Generator, Options, Part
from s2s.task.trained import Trained
from s2s.text.batching import pad
from s2s.types import BOS, EOS, PAD, UNK, Hypothesis

# what CTranslate2's search lacks, and the values that don't ask for it
_LACKS = {
    "sample": False,
    "beam_groups": 1,
    "coverage_penalty": 0.0,
    "forward": "off",
    "eager": 0.0,
    "words": 0,
    "shortlist": 0,
}


class CTranslate2Generator(Generator):
    """Greedy and beam search of a Transformer by CTranslate2.

    Greedy search gives the tokens that s2s gives, but for ties in the last digits. Beam search ends earlier and divides
    by length ** alpha, so that its outputs differ here and there; `score` is by the formula of `SearchConfig` all the
    same. Log-probabilities are among the tokens that may be generated. precision: float32, or int8, which changes
    outputs a little; either way an output depends on its neighbours in ties only. With `Options.alignment` torch forces
    each output once more, for its weights.
    """

    def __init__(self, trained: Trained, config: SearchConfig, options: Options, precision: Precision) -> None:
        """Raises UsageError for a model or a search that CTranslate2 can't run, or without CTranslate2."""
        super().__init__([trained], config, options)
        asked = [name for name, neutral in _LACKS.items() if getattr(config, name) != neutral]
        if asked:
            raise UsageError(
                f"CTranslate2's search knows no {', '.join(asked)}",
                where="--engine ctranslate2",
                hint="Leave it out, or take --engine torch",
            )
        if precision == "bf16":
            raise UsageError(
                "CTranslate2 runs in float32 or int8",
                where="--precision bf16",
                hint="Leave it out, or take --engine torch",
            )
        longest = max(self.limit + 1, config.limit(self.limit + 1))
        self._translator = load(trained, precision=precision, threads=torch.get_num_threads(), longest=longest)
        self._sources, self._targets = vocabulary(trained.source), vocabulary(trained.target)
        self._ids = {piece: number for number, piece in enumerate(self._targets)}

    def _search(self, parts: Sequence[Part]) -> None:
        """CTranslate2 has one length limit for a call, so parts of one limit are a call, and run beside the others."""
        begun: list[tuple[Part, Any]] = []
        for limit, group in groupby(parts, lambda part: self.config.limit(len(part.ids) + 1)):
            same = list(group)
            begun += zip(same, self._begin(same, limit), strict=True)
        for part, waiting in begun:
            found = waiting.result()
            part.outputs = list(map(self._hypothesis, found.hypotheses, found.scores))
        size = self.options.batch_size
        for start in range(0, len(parts) if self.options.alignment else 0, size):
            self._align(parts[start : start + size])
        for part in parts:
            part.outputs.sort(key=lambda output: ("unfinished" in output.flags, -output.score))

    def _begin(self, parts: Sequence[Part], limit: int) -> list[Any]:
        """What will hold the result of each part."""
        config = self.config
        for part in parts:
            if part.request.constraints or part.request.banned:
                hint = "Leave them out, or take --engine torch"
                raise UsageError("CTranslate2's search knows no constraints", where="--engine ctranslate2", hint=hint)
        encode = self.models[0].target.encode
        prefixes = [encode(part.request.prefix) if part.request.prefix else [] for part in parts]
        never = (PAD, BOS) if config.allow_unk else (PAD, BOS, UNK)
        begun: list[Any] = self._translator.translate_batch(
            [[self._sources[number] for number in part.ids] for part in parts],
            [[self._targets[number] for number in prefix] for prefix in prefixes] if any(prefixes) else None,
            asynchronous=True,
            max_batch_size=self.options.batch_size,
            beam_size=config.beam,
            num_hypotheses=config.nbest,
            length_penalty=config.length_penalty,
            no_repeat_ngram_size=config.no_repeat_ngram,
            suppress_sequences=[[self._targets[number]] for number in never],
            max_input_length=0,
            max_decoding_length=limit,
            min_decoding_length=max(0, config.min_length - 1),
            return_end_token=True,
            return_scores=True,
        )
        return begun

    def _hypothesis(self, pieces: Sequence[str], score: float) -> Hypothesis:
        tokens = tuple(self._ids[piece] for piece in pieces)
        log_prob = score * len(tokens) ** self.config.length_penalty
        flags = frozenset[str]() if tokens[-1:] == (EOS,) else frozenset({"unfinished"})
        return Hypothesis(
            tokens, log_prob / length_penalty(len(tokens), self.config.length_penalty), log_prob, (), None, flags
        )

    @torch.no_grad()
    def _align(self, parts: Sequence[Part]) -> None:
        """The outputs as torch scores and aligns them: CTranslate2 mixes up the alignments of a beam."""
        trained = self.models[0]
        ids, lengths = pad([[*part.ids, EOS] for part in parts])
        step, state = start_search(trained.model, ids.to(trained.device), lengths.to(trained.device))
        rows = [row for row, part in enumerate(parts) for _ in part.outputs]
        targets = [output.tokens for part in parts for output in part.outputs]
        cut = [len(parts[row].ids) + 1 for row in rows]
        forced = iter(force(step, state, targets, self.config, rows=rows, source_lengths=cut))
        for part in parts:
            part.outputs = [next(forced) for _ in part.outputs]
