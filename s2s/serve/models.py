"""The models that are served, by name, and how each answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from s2s.config import SearchConfig
from s2s.errors import UsageError
from s2s.serve.work import Stream, Worker
from s2s.task.chat import context, tell
from s2s.task.model import Model, load, search_config
from s2s.task.request import Request
from s2s.types import Result

# {"role": "user", "assistant" or "system", "content": text}; the last one of a conversation is the user's.
Message = Mapping[str, str]


class UnknownModelError(UsageError):
    """There is no model of this name or for these languages."""


@dataclass(frozen=True)
class Served:
    """A model under its name.

    What it is asked is always a conversation; a translator or summariser reads its last message only.
    """

    name: str
    model: Model

    @property
    def task(self) -> str:
        """translation, summarisation or dialogue."""
        return self.model.trained[0].config.task.name

    @property
    def attention(self) -> str:
        """The mechanism's name."""
        return self.model.trained[0].config.attention.name

    @property
    def parameters(self) -> int:
        """How many numbers were learned."""
        return sum(one.numel() for one in self.model.trained[0].model.parameters())

    def search(self, changes: Mapping[str, Any]) -> SearchConfig:
        """The model's search, changed; one output unless more are asked for. Raises UsageError, ConfigError."""
        return search_config(self.model.trained[0].config.search, _one_output(changes))

    def answers(
        self, worker: Worker, conversations: Sequence[Sequence[Message]], changes: Mapping[str, Any], *, alignment: bool
    ) -> Future[list[Result]]:
        """A result for each conversation, in their order.

        Requests of one search to one model are decoded together; samples are not, as their place in a batch seeds them.
        Raises UsageError and ConfigError for wrong changes or conversations, and what `Worker.submit` raises.
        """
        search = self.search(changes)

        def generate(requests: list[Request]) -> list[Result]:
            return self.model.generator(alignment=alignment, **_one_output(changes))(requests)

        key = None if search.sample else (self.name, search, alignment)
        return worker.submit(generate, [self._request(one) for one in conversations], key)

    def stream(
        self, worker: Worker, conversation: Sequence[Message], changes: Mapping[str, Any], put: Callable[[str], None]
    ) -> Stream:
        """The reply to a conversation, of which `put` gets the pieces as they are known; see `s2s.task.chat.tell`.

        Raises what `answers` raises.
        """
        self.search(changes)
        request = self._request(conversation)
        return worker.stream(lambda hear: tell(self.model.generator(**_one_output(changes)), request, hear), put)

    def _request(self, conversation: Sequence[Message]) -> Request:
        """What the model is asked. What stands before the text of a translator or summariser is left out, flagged."""
        if self.task == "dialogue":
            return context(conversation)
        ignored = {"history_ignored"} if len(conversation) > 1 else set[str]()
        return Request(conversation[-1]["content"], flags=frozenset(ignored))


def _one_output(changes: Mapping[str, Any]) -> dict[str, Any]:
    return {"nbest": 1, **changes}


def load_models(named: Sequence[str], *, device: str = "auto", plugins: Sequence[str] = ()) -> dict[str, Served]:
    """The models of folders, each as `FOLDER` or `NAME=FOLDER`; without a name it has its recipe's.

    Raises UsageError where two have one name, BundleError for whatever is wrong with a folder.
    """
    models: dict[str, Served] = {}
    for given in named:
        name, mark, folder = given.partition("=")
        if not mark or "/" in name or Path(given).exists():
            name, folder = "", given
        model = load(folder, device=device, plugins=plugins)
        name = name or model.trained[0].config.name
        if name in models:
            raise UsageError(f"two models are named {name}", where=given, hint="Name them: s2s serve one=RUN other=RUN")
        models[name] = Served(name, model)
    return models
