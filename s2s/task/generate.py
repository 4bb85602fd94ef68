"""Lines in, results out: one for each, in the same order, whatever the batch.

Blank lines never reach the model. Long ones are split, cut or refused as asked, and flagged. Nothing is dropped.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import get_args

import torch
from torch import Tensor

from s2s.errors import UsageError
from s2s.model.seq2seq import Copies, start_search
from s2s.products import Precision
from s2s.score.flags import line_flags
from s2s.search import Constraints, SearchConfig, ensemble, search
from s2s.search.shortlist import Shortlist, make_shortlist
from s2s.task.request import Request, read_window
from s2s.task.searched import Graphs, as_searched
from s2s.task.trained import Trained
from s2s.text.batching import pad
from s2s.text.copying import CopyIds
from s2s.text.lines import as_title, is_blank
from s2s.text.sentences import split_text
from s2s.text.turns import shorten
from s2s.types import BOS, EOS, OVERLONG, Hypothesis, Overlong, Result, State, StepFunction, StepOutput


@dataclass(frozen=True)
class Options:
    """How to run. batch_size: sentences decoded together. overlong: see `s2s.types.Overlong`; None: as in training.

    max_source: source tokens that the model takes at once; None: what it was trained with. title: outputs get the style
    of a title, see `s2s.text.lines.as_title`. window: records that are read before the first is written (they are
    sorted by length among themselves). precision: of the products, see `s2s.products`. graphs: auto: steps are CUDA
    graphs on a GPU where the model allows it.
    """

    batch_size: int = 64
    overlong: Overlong | None = None
    max_source: int | None = None
    alignment: bool = False
    title: bool = False
    window: int = 4096
    precision: Precision = "float32"
    graphs: Graphs = "auto"

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise UsageError("--batch-size is out of range", expected="at least 1", found=str(self.batch_size))
        if self.overlong not in (None, *get_args(Overlong)):
            raise UsageError("unknown --overlong", expected=", ".join(get_args(Overlong)), found=str(self.overlong))
        if self.graphs not in get_args(Graphs):
            raise UsageError("unknown --graphs", expected=" or ".join(get_args(Graphs)), found=str(self.graphs))


@dataclass
class Part:
    """A piece of a record that is decoded at once."""

    record: int
    number: int  # the record's number in the whole input: seeds sampling, whatever the window
    text: str
    ids: list[int]
    flags: frozenset[str]
    request: Request
    outputs: list[Hypothesis] = field(default_factory=list)
    error: str | None = None  # why its constraints can't be met at all
    copies: CopyIds | None = None  # of a model that copies

    @property
    def extra(self) -> Sequence[str]:
        """What ids beyond the vocabulary stand for."""
        return () if self.copies is None else self.copies.extra


def _unanswered(request: Request, flag: str, error: str | None = None) -> Result:
    """The result of a request that no model has seen."""
    return Result(request.text, "", 0.0, 0.0, flags=tuple(sorted({*request.flags, flag})), error=error)


def _overheard(step: StepFunction, hear: Callable[[int], None]) -> StepFunction:
    """The same step for one hypothesis; `hear` gets each token that is fed, BOS aside."""

    def heard(tokens: Tensor, state: State, rows: Tensor) -> StepOutput:
        if (token := int(tokens[0])) != BOS:
            hear(token)
        return step(tokens, state, rows)

    return heard


class Generator:
    """One model, or several that decode as one, behind a list-in, list-out call."""

    def __init__(
        self,
        models: Sequence[Trained],
        config: SearchConfig,
        options: Options | None = None,
        rerank: Callable[[Sequence[Result]], list[Result]] | None = None,
        draws: int = 1,
    ) -> None:
        """models: share their target vocabulary. rerank: puts the outputs of each record into another order: those of
        the beam, or so many samples.

        Raises UsageError if they don't, or if `config.forward` can't hold for their attention; ConfigError for a wrong
        config.
        """
        config.check()
        self.models, self.config, self.options = list(models), config, options or Options()
        first = self.models[0]
        for other in self.models[1:]:
            if (other.source.digest, other.target.digest) != (first.source.digest, first.target.digest):
                raise UsageError(
                    "the models of an ensemble must share their tokenizers",
                    hint="Train them on the same corpus with the same text options and different seeds",
                )
        if config.shortlist and (first.lexicon is None or first.copier is not None):
            raise UsageError(
                "a model that copies has no shortlist" if first.copier else "this model has no lexicon",
                where=f"search.shortlist={config.shortlist}",
                expected="0, or a model that was trained with trainer.lexicon and copy=none",
                hint="s2s train RECIPE trainer.lexicon=50",
            )
        self._hear: Callable[[str], None] | None = None
        self._rerank, self._shown = rerank, config.nbest
        if rerank is not None:  # among all that the search has found
            self.config = replace(config, nbest=max(config.nbest, draws) if config.sample else config.beam)
        self._searched = [
            as_searched(trained, config, self.options.precision, self.options.graphs) for trained in self.models
        ]
        self.overlong = self.options.overlong or first.config.task.overlong
        trained_with = first.config.trainer.max_source
        self.limit = self.options.max_source or trained_with  # tokens, EOS not counted
        self._policies = OVERLONG[first.config.task.name]
        if self.overlong not in self._policies:
            raise UsageError(
                f"--overlong {self.overlong} has no meaning for the task {first.config.task.name}",
                expected=f"one of {', '.join(self._policies)}",
            )

    def overheard(self, hear: Callable[[str], None]) -> Generator:
        """The same generator, but `hear` gets what is written so far whenever a token is added, while it decodes.

        That is one record at a time, by greedy search or one sample that nothing reranks; of all else nothing is heard.
        What `hear` raises ends the search.
        """
        other = copy.copy(self)
        other._hear = hear if self._rerank is None else None
        return other

    def stream(self, requests: Iterable[Request | str]) -> Iterator[Result]:
        """Results in order, a window of records at a time, so that memory is bounded."""
        source, done = iter(requests), 0
        while records := read_window(source, self.options.window):
            yield from self.window(records, range(done, done + len(records)))
            done += len(records)

    def __call__(self, requests: Iterable[Request | str]) -> list[Result]:
        """All results, in order."""
        return list(self.stream(requests))

    def window(self, records: Sequence[Request | str], numbers: Sequence[int]) -> list[Result]:
        """Results of records that are held at once, in order. numbers: theirs in the whole input, for sampling."""
        requests = [self._recased(Request(record) if isinstance(record, str) else record) for record in records]
        parts: list[Part] = []
        results: list[Result | None] = [None] * len(requests)
        for number, request in enumerate(requests):
            made = self._parts(number, numbers[number], request)
            if isinstance(made, Result):
                results[number] = made
            parts += [] if isinstance(made, Result) else made
        parts.sort(key=lambda part: (len(part.ids), part.record))
        self._search(parts)
        by_record: dict[int, list[Part]] = {}
        for part in sorted(parts, key=lambda part: part.record):  # stable: parts of a record keep their order below
            by_record.setdefault(part.record, []).append(part)
        for number, own in by_record.items():
            results[number] = self._result(requests[number], sorted(own, key=lambda part: part.number))
        done = [result for result in results if result is not None]
        if self._rerank is not None:
            done = [self._cut(result) for result in self._rerank(done)]
        return self._merged(requests, done, numbers) if self.overlong == "merge" else done

    def _cut(self, result: Result) -> Result:
        """A result with as many outputs as were asked for."""
        return replace(result, nbest=result.nbest[: self._shown] if self._shown > 1 else ())

    def _merged(self, requests: Sequence[Request], results: list[Result], numbers: Sequence[int]) -> list[Result]:
        """Results of texts that were split, with what the model makes of their joined outputs; again until they fit.

        Outputs that are no shorter than their text are left as they are.
        """
        encode = self.models[0].source.encode
        again = [
            number
            for number, result in enumerate(results)
            if "split" in result.flags and len(encode(result.text)) < len(encode(result.input))
        ]
        if not again:
            return results
        shorter = [replace(requests[number], text=results[number].text) for number in again]
        found = self.window(shorter, [numbers[number] for number in again])
        for number, result in zip(again, found, strict=True):
            flags = tuple(sorted({*result.flags, *results[number].flags, "merged"}))
            results[number] = replace(result, input=results[number].input, flags=flags)
        return results

    def _recased(self, request: Request) -> Request:
        """What is asked of the output, as the target side of the corpus had it."""
        recased = self.models[0].recased
        constraints, banned = (tuple(map(recased, each)) for each in (request.constraints, request.banned))
        return replace(request, prefix=recased(request.prefix), constraints=constraints, banned=banned)

    def _parts(self, record: int, number: int, request: Request) -> list[Part] | Result:
        text, removed = self.models[0].entered(request.text)
        encode = self.models[0].source.encode
        ids = [] if is_blank(text) else encode(text)
        if not ids:
            return _unanswered(request, "blank")
        flags = request.flags | ({"cleaned"} if removed else set())
        text, ids, shortened = shorten(text, ids, self.overlong, self.limit, self.models[0].turns)
        if len(ids) <= self.limit:
            return [Part(record, number << 20, text, ids, flags | shortened, request)]
        if self.overlong == "refuse":
            others = ", ".join(policy for policy in self._policies if policy != "refuse")
            error = f"{len(ids)} tokens, at most {self.limit} are taken at once (other choices of --overlong: {others})"
            return _unanswered(request, "refused", error)
        pieces = [
            piece for piece in split_text(text, self.limit, lambda part: len(encode(part))) if not is_blank(piece)
        ]
        own = [encode(piece)[: self.limit] for piece in pieces]
        return [
            # constraints hold for the record, so its first part is asked to meet them; a prefix starts it
            Part(record, (number << 20) + i, piece, ids, flags | {"split"}, request if not i else Request(piece))
            for i, (piece, ids) in enumerate(zip(pieces, own, strict=True))
            if ids
        ]

    def _search(self, parts: Sequence[Part]) -> None:
        """The outputs of each part; parts come sorted by length."""
        for start in range(0, len(parts), self.options.batch_size):
            self._decode(parts[start : start + self.options.batch_size])

    @torch.no_grad()
    def _decode(self, parts: Sequence[Part]) -> None:
        steps: list[StepFunction] = []
        states: list[State] = []
        needed = self.options.alignment or self.config.coverage_penalty > 0
        ids, lengths = pad([[*part.ids, EOS] for part in parts])
        copies = self._copies(parts)
        constraints = [self._constraints(part.request) for part in parts]
        for part, wanted, length in zip(parts, constraints, lengths.tolist(), strict=True):
            if wanted is not None:
                impossible = wanted.problems(self.config.limit(length), self.models[0].target.size)
                part.error = "; ".join(impossible) or None
        shortlist = self._shortlist(parts, constraints)
        if shortlist is not None:
            constraints = [shortlist.constraints(wanted) for wanted in constraints]
        for trained, searched in zip(self.models, self._searched, strict=True):
            step, state = start_search(
                searched.model,
                ids.to(trained.device),
                lengths.to(trained.device),
                need_weights=needed,
                copies=copies,
                words=self.config.words,
                shortlist=shortlist,
                steps=searched.steps,
            )
            steps.append(step)
            states.append(state)
        together = steps[0] if len(steps) == 1 else ensemble(steps)
        if self._hear is not None and len(parts) == self.config.beam == self.config.nbest == 1:
            together = _overheard(together, self._written(parts[0], self._hear, shortlist))
        found = search(
            together,
            states[0] if len(steps) == 1 else tuple(states),
            self._wider() if any(part.request.banned for part in parts) else self.config,
            lengths.tolist(),
            constraints=constraints if any(constraints) else None,
            indices=[part.number for part in parts],
        )
        for part, outputs in zip(parts, found, strict=True):
            if shortlist is not None:
                outputs = [shortlist.hypothesis(output) for output in outputs]
            part.outputs = self._allowed(part, outputs)[: self.config.nbest]

    def _shortlist(self, parts: Sequence[Part], constraints: Sequence[Constraints | None]) -> Shortlist | None:
        """The tokens that the outputs are searched among; None for the whole vocabulary."""
        most, lexicon = self.config.shortlist, self.models[0].lexicon
        if not most or lexicon is None:
            return None
        return make_shortlist([lexicon.of(part.ids, most) for part in parts], constraints)

    def _written(self, part: Part, hear: Callable[[str], None], shortlist: Shortlist | None) -> Callable[[int], None]:
        """What takes the tokens of a part's output as they come, and tells the text."""
        tokens: list[int] = []

        def add(token: int) -> None:
            tokens.append(token if shortlist is None else shortlist.tokens([token])[0])
            hear(self.models[0].target.decode(tokens, part.extra))

        return add

    def _copies(self, parts: Sequence[Part]) -> Copies | None:
        """What each part may copy, where the models copy."""
        trained = self.models[0]
        if trained.copier is None:
            return None
        for part in parts:
            part.copies = trained.copier(part.text, part.ids)
        ids, _ = pad([[*part.copies.source, EOS] for part in parts if part.copies is not None])
        return Copies(ids.to(trained.device), max(len(part.extra) for part in parts))

    def _wider(self) -> SearchConfig:
        """All of the beam's outputs, so that one without a banned phrase can be picked."""
        return self.config if self.config.sample else replace(self.config, nbest=self.config.beam)

    def _allowed(self, part: Part, outputs: list[Hypothesis]) -> list[Hypothesis]:
        """Outputs whose text holds no banned phrase first: ids alone can't tell, a text can be segmented otherwise."""
        decode, banned = self.models[0].target.decode, part.request.banned
        return sorted(outputs, key=lambda h: any(phrase in decode(h.tokens, part.extra) for phrase in banned))

    def _constraints(self, request: Request) -> Constraints | None:
        encode = self.models[0].target.encode
        if not (request.prefix or request.constraints or request.banned):
            return None
        return Constraints(
            prefix=tuple(encode(request.prefix)) if request.prefix else (),
            phrases=tuple((tuple(encode(phrase)),) for phrase in request.constraints if not is_blank(phrase)),
            banned=tuple(tuple(encode(phrase)) for phrase in request.banned if not is_blank(phrase)),
        )

    def _result(self, request: Request, parts: list[Part]) -> Result:
        if self.config.nbest == 1:
            return self._joined(request, parts, 0)
        count = min(len(part.outputs) for part in parts)
        nbest = tuple(self._joined(request, parts, rank) for rank in range(count))
        return replace(nbest[0], nbest=nbest)

    def _joined(self, request: Request, parts: list[Part], rank: int) -> Result:
        """The record's output of a rank: its parts' outputs joined by a space."""
        outputs = [part.outputs[rank] for part in parts]
        target, source = self.models[0].target, self.models[0].source
        written = [(output.tokens, part.extra) for output, part in zip(outputs, parts, strict=True)]
        text = " ".join(piece for piece in (target.decode(*each) for each in written) if piece)
        flags = set().union(*(part.flags for part in parts), *(output.flags for output in outputs))
        flags.update(line_flags(request.text, text))
        # the text decides whether constraints are met, not the ids that were asked for
        wanted = [target.decode(target.encode(phrase)) for phrase in request.constraints]
        flags.discard("constraint_unmet")
        if (
            any(phrase not in text for phrase in wanted)
            or any(phrase in text for phrase in request.banned if phrase)
            or (request.prefix and not text.startswith(target.decode(target.encode(request.prefix))))
        ):
            flags.add("constraint_unmet")
        text = as_title(text) if self.options.title else text
        single = len(parts) == 1
        weights = outputs[0].weights if single and self.options.alignment else None
        return Result(
            input=request.text,
            text=text,
            score=sum(output.score for output in outputs),
            log_prob=sum(output.log_prob for output in outputs),
            tokens=tuple(token for output in outputs for token in output.tokens),
            pieces=tuple(piece for each in written for piece in target.pieces(*each)),
            source_pieces=tuple(piece for part in parts for piece in source.pieces([*part.ids, EOS])),
            alignment=None if weights is None else tuple(tuple(row) for row in weights.tolist()),
            flags=tuple(sorted(flags)),
            error=next((part.error for part in parts if part.error), None),
        )
