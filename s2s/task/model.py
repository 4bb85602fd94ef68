"""The Python interface: `s2s.load(folder)` gives a `Model` with the verb of its task."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args, overload

from s2s.config import SearchConfig
from s2s.errors import UsageError
from s2s.products import Precision
from s2s.task.chat import context, stream_reply
from s2s.task.ctranslate2_engine import CTranslate2Generator
from s2s.task.generate import Generator, Options
from s2s.task.keyword_first import KeywordFirst
from s2s.task.request import Request
from s2s.task.rerank import Rerank, Reranker
from s2s.task.searched import Graphs
from s2s.task.stream import greedy, stream
from s2s.task.trained import Trained, load_trained
from s2s.types import Overlong, Result

Engine = Literal["torch", "ctranslate2"]


def search_config(base: SearchConfig, changes: dict[str, Any]) -> SearchConfig:
    """The search a model was saved with, changed. `nbest` above the beam widens it; sampling sets the beam to 1, and a
    beam ends sampling.

    Raises UsageError for an unknown name, ConfigError for values out of range.
    """
    names = [field.name for field in dataclasses.fields(SearchConfig)]
    for name in changes:
        if name not in names:
            raise UsageError(f"unknown search option `{name}`", expected=", ".join(names))
    if changes.get("sample"):
        changes = {"beam": 1, "nbest": 1, "beam_groups": 1, "diversity": 0.0, **changes}
    elif base.sample:  # several outputs are several samples
        if "beam" in changes and not {"top_k", "top_p", "temperature"} & set(changes):
            changes = {"sample": False, "top_k": 0, "top_p": 1.0, "temperature": 1.0, **changes}
    elif "beam" not in changes and isinstance(nbest := changes.get("nbest"), int) and nbest > base.beam:
        changes = {**changes, "beam": nbest}
    elif "nbest" not in changes and isinstance(beam := changes.get("beam"), int) and beam < base.nbest:
        changes = {**changes, "nbest": 1}
    made = dataclasses.replace(base, **changes)
    made.check()
    return made


class Model:
    """A trained model, or several as an ensemble."""

    def __init__(self, trained: Sequence[Trained]) -> None:
        self.trained = list(trained)
        self._others: dict[str, Trained] = {}  # models that help, by their folder

    @property
    def languages(self) -> tuple[str, str]:
        """Language codes of source and target."""
        return self.trained[0].languages

    def generator(
        self,
        *,
        alignment: bool = False,
        title: bool = False,
        batch_size: int = 64,
        overlong: Overlong | None = None,
        rerank: Rerank | None = None,
        keyword_model: str | None = None,
        task: str | None = None,
        engine: Engine = "torch",
        precision: Precision = "float32",
        graphs: Graphs = "auto",
        **search: Any,
    ) -> Generator:
        """What turns requests into results; `search` are the fields of `SearchConfig` that differ from the model's.

        keyword_model: folder of a model that begins replies, see `s2s.task.keyword_first`. task: raises UsageError if
        the model was trained for another one. engine: see `s2s.task.ctranslate2_engine`. precision: see
        `s2s.products`, and CTranslate2's own. graphs: see `s2s.task.generate.Options`.
        """
        own = self.trained[0].config.task.name
        if task not in (None, own):
            raise UsageError(f"this model was trained for {own}", expected=f"a model for {task}")
        config = search_config(self.trained[0].config.search, search)
        options = Options(batch_size, overlong, alignment=alignment, title=title, graphs=graphs)
        if precision not in get_args(Precision):
            expected = " or ".join(get_args(Precision))
            raise UsageError("unknown precision", where=f"--precision {precision}", expected=expected)
        if engine == "ctranslate2":
            if len(self.trained) > 1 or rerank or keyword_model:
                raise UsageError("CTranslate2 runs one model by itself", where="--engine ctranslate2")
            return CTranslate2Generator(self.trained[0], config, options, precision)
        if engine != "torch":
            raise UsageError("unknown engine", where=f"--engine {engine}", expected=" or ".join(get_args(Engine)))
        options = dataclasses.replace(options, precision=precision)
        order = (
            None if not rerank else Reranker(rerank, self._other(rerank.language_model), self._other(rerank.reverse))
        )
        draws = 1 if rerank is None else rerank.draws
        backward = self._other(keyword_model)
        if backward is None:
            return Generator(self.trained, config, options, order, draws)
        return KeywordFirst(self.trained, config, options, order, draws, backward=backward)

    def _other(self, path: str | None) -> Trained | None:
        """A further model, loaded once."""
        if path is None:
            return None
        if path not in self._others:
            self._others[path] = load_trained(path, device=self.trained[0].device.type)
        return self._others[path]

    @overload
    def translate(self, text: str, *, details: Literal[False] = False, **options: Any) -> str: ...
    @overload
    def translate(self, text: Sequence[str], *, details: Literal[False] = False, **options: Any) -> list[str]: ...
    @overload
    def translate(self, text: str, *, details: Literal[True], **options: Any) -> Result: ...
    @overload
    def translate(self, text: Sequence[str], *, details: Literal[True], **options: Any) -> list[Result]: ...

    def translate(
        self, text: str | Sequence[str], *, details: bool = False, **options: Any
    ) -> str | list[str] | Result | list[Result]:
        """Translate a text, or a list of texts: as many results, in the same order; blank stays blank.

        details: give `Result` objects with score, n-best, alignment and flags instead of plain text. Options: prefix,
        constraints, banned (of every text), batch_size, overlong, title (a capital, no full stop), and the fields of
        SearchConfig (beam, nbest, length_penalty, sample, temperature, ...). Raises UsageError or ConfigError for wrong
        ones.
        """
        single = isinstance(text, str)
        texts = [text] if isinstance(text, str) else list(text)
        for number, one in enumerate(texts):
            if not isinstance(one, str):
                raise UsageError(f"text {number} is no str", found=type(one).__name__)
        wanted = _wanted(options)
        results = self.generator(alignment=details, **options)([Request(one, **wanted) for one in texts])
        made: list[Any] = list(results) if details else [result.text for result in results]
        return made[0] if single else made

    # Lines in, lines out, whatever the model was trained for: only the verb differs.
    summarise = summarize = translate

    def chat(self, messages: Sequence[Mapping[str, Any]], *, details: bool = False, **options: Any) -> str | Result:
        """The reply to a conversation: messages, oldest first, each with a `role` (user, assistant, system) and a
        `content`; see `s2s.task.chat.context`.

        details, options: as of `translate`; flags of the result say what of the conversation the model didn't see.
        Raises UsageError for what is no conversation or no dialogue model.
        """
        wanted = _wanted(options)
        (result,) = self.reply_generator(**options)([context(messages, **wanted)])
        return result if details else result.text

    def chat_stream(self, messages: Sequence[Mapping[str, Any]], **options: Any) -> Iterator[str]:
        """The reply of `chat` in pieces as they are known: words of greedy search or sampling, else all at once."""
        wanted = _wanted(options)
        return stream_reply(self.reply_generator(**options), context(messages, **wanted))

    def reply_generator(self, **options: Any) -> Generator:
        """`generator` of a dialogue model; raises UsageError for any other."""
        return self.generator(task="dialogue", **options)

    def stream(self, words: Iterable[str], *, wait_k: float | None = None, **search: Any) -> Iterator[str]:
        """Translate one sentence while it grows: each word of the output as soon as it is known.

        wait_k, and UsageError on a model that can't: see `s2s.task.stream.Stream`. search: fields of SearchConfig; it
        is greedy unless `beam` is given.
        """
        if len(self.trained) > 1:
            raise UsageError("an ensemble can't stream", expected="one model", found=f"{len(self.trained)}")
        return stream(
            self.trained[0], words, wait_k=wait_k, search=search_config(greedy(self.trained[0].config.search), search)
        )


def _wanted(options: dict[str, Any]) -> dict[str, Any]:
    """What of the options is asked of each output; taken out of them."""
    found = {key: options.pop(key) for key in ("prefix", "constraints", "banned") if key in options}
    return {key: value if key == "prefix" else tuple(value) for key, value in found.items()}


def load(path: str | Path, *more: str | Path, device: str = "auto", plugins: Sequence[str] = ()) -> Model:
    """The model in a run folder or bundle folder; several folders make an ensemble. Raises BundleError.

    plugins: modules of yours that hold builders which the model was trained with.
    """
    return Model([load_trained(one, device=device, plugins=plugins) for one in (path, *more)])
