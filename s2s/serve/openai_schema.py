"""What a request for a chat completion may hold: the part of OpenAI's that these models have an answer to."""

from __future__ import annotations

import secrets
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from s2s.serve.schema import MAX_CHARACTERS, MAX_MESSAGES, Name, Outputs, Strict, Text, Tokens, check_characters

_STOPS = 4
_Stop = Annotated[str, Field(min_length=1, max_length=200)]
_Zero = Annotated[float, Field(ge=0, le=0)]


class TextPart(Strict):
    """A part of a message's content; only text is read."""

    type: Literal["text"]
    text: Text


class ChatMessage(Strict):
    """A message. "developer" is the newer name of "system"; `name` changes nothing."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Text | Annotated[list[TextPart], Field(min_length=1, max_length=100)]
    name: Name | None = None

    def plain(self) -> dict[str, str]:
        """As models take it."""
        parts = [self.content] if isinstance(self.content, str) else [part.text for part in self.content]
        return {"role": "system" if self.role == "developer" else self.role, "content": "\n".join(parts)}


class StreamOptions(Strict):
    """What a stream tells at its end."""

    include_usage: bool = False


class ChatRequest(Strict):
    """A request for a reply, a translation or a summary.

    temperature: 0 takes the likeliest output, above it is drawn; if neither it nor top_p is given, the model's own
    search answers. seed: of what is drawn; without one each request draws anew. Penalties may only be 0.
    """

    model: Name
    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=MAX_MESSAGES)]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Outputs | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stop: _Stop | Annotated[list[_Stop], Field(max_length=_STOPS)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    max_tokens: Tokens | None = None
    max_completion_tokens: Tokens | None = None
    presence_penalty: _Zero | None = None
    frequency_penalty: _Zero | None = None
    user: Annotated[str, Field(max_length=MAX_CHARACTERS)] | None = None

    @model_validator(mode="after")
    def _fits(self) -> ChatRequest:
        check_characters([one["content"] for one in self.conversation()])
        if self.messages[-1].role != "user":
            raise ValueError("the last of `messages` must be the user's")
        if self.max_tokens is not None and self.max_completion_tokens is not None:
            raise ValueError("give `max_completion_tokens` or its older name `max_tokens`, not both")
        if self.stream_options is not None and not self.stream:
            raise ValueError("`stream_options` has a meaning only with `stream`")
        return self

    def conversation(self) -> list[dict[str, str]]:
        """As models take it."""
        return [one.plain() for one in self.messages]

    def stops(self) -> list[str]:
        """The stop sequences."""
        return [self.stop] if isinstance(self.stop, str) else list(self.stop or ())

    def search(self) -> dict[str, Any]:
        """The fields of SearchConfig that this changes."""
        changes: dict[str, Any] = {"nbest": self.n or 1}
        tokens = self.max_completion_tokens or self.max_tokens
        if tokens is not None:
            changes["max_length"] = tokens
        if self.temperature == 0:
            return {**changes, "beam": self.n or 1}
        if self.temperature is not None or self.top_p is not None:
            seed = secrets.randbits(63) if self.seed is None else self.seed % 2**63
            changes |= {
                "sample": True,
                "seed": seed,
                "temperature": self.temperature or 1.0,
                "top_p": self.top_p or 1.0,
            }
        return changes
