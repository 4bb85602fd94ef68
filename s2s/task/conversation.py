"""A conversation with a dialogue model: what was said, the next reply, and another one instead."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from s2s.task.chat import context, tell
from s2s.task.model import Model
from s2s.task.rerank import AVOIDED
from s2s.types import Result

_DRAWS = 1000  # seeds that the tries of one reply may use
_SPELLINGS = 3  # outputs that may be spelled otherwise only, for each that is new
_TRIES = 5  # samples that are drawn for one that needn't be avoided


def _unheard(piece: str) -> None:
    """Nobody listens."""


class Conversation:
    """Messages of both sides.

    wanted: what each reply must begin with, hold or not hold, see `s2s.task.generate.Request`. settings: of
    `Model.generator`, for each reply that follows.

    A turn that ends in an error or is interrupted leaves the messages as they were.
    """

    def __init__(self, model: Model, wanted: Mapping[str, Any] | None = None, **settings: Any) -> None:
        """Raises UsageError for a model of another task, and for wrong settings."""
        self._model, self._wanted, self.settings = model, dict(wanted or {}), settings
        self._again = 0  # how often the last message has been answered before
        model.reply_generator(**settings)
        self.messages: list[dict[str, str]] = []
        self.last: Result | None = None

    def change(self, **settings: Any) -> None:
        """Other settings from now on. Raises UsageError or ConfigError for wrong ones, and keeps the old ones."""
        changed = {**self.settings, **settings}
        self._model.reply_generator(**changed)
        self.settings = changed

    def shown(self) -> dict[str, Any]:
        """The settings of the search, by name."""
        return dataclasses.asdict(self._model.reply_generator(**self.settings).config)

    def say(self, text: str, hear: Callable[[str], None] = _unheard) -> Result:
        """The reply to `text`, which `hear` gets in pieces while it is written; see `s2s.task.chat.tell`."""
        self._again = 0
        return self._answer([*self.messages, {"role": "user", "content": text}], hear)

    def retry(self, hear: Callable[[str], None] = _unheard) -> Result | None:
        """Another reply to the last message: of sampling, the next draw; else the next best. None: there is none."""
        if self.last is None:
            return None
        self._again += 1
        return self._answer(self.messages[:-1], hear)

    def reset(self) -> None:
        """Forget all that was said."""
        self.messages, self.last, self._again = [], None, 0

    def _answer(self, messages: list[dict[str, str]], hear: Callable[[str], None]) -> Result:
        search = self._model.reply_generator(**self.settings).config
        choosing = self._again if not search.sample else self.settings.get("rerank")
        for attempt in range(_TRIES if choosing and search.sample else 1):
            changes: dict[str, Any] = {}
            if search.sample:  # other draws for each reply
                changes["seed"] = search.seed + _DRAWS * (len(messages) // 2) + _TRIES * self._again + attempt
            elif self._again:
                changes["nbest"] = _SPELLINGS * (self._again + 1)
                changes["beam"] = search.beam_groups * -(-max(search.beam, changes["nbest"]) // search.beam_groups)
            generator = self._model.reply_generator(**{**self.settings, **changes})
            result = tell(generator, context(messages, **self._wanted), _unheard if choosing else hear)
            if not AVOIDED & set(result.flags):
                break
        if self._again and result.nbest:
            texts = {one.text: one for one in reversed(result.nbest)}  # the best of each text, the best text last
            result = list(texts.values())[max(-1 - self._again, -len(texts))]
        if choosing:
            hear(result.text)
        if "blank" not in result.flags:
            self.messages = [*messages, {"role": "assistant", "content": result.text}]
            self.last = result
        return result
