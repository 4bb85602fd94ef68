"""The interface of OpenAI's chat completions, so that any of its clients can use the models.

Translators and summarisers answer too: the last message is their text, and what stands before it is not read.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import StreamingResponse

from s2s.errors import S2SError
from s2s.serve.failures import error, status_of
from s2s.serve.models import Served
from s2s.serve.openai_schema import ChatRequest
from s2s.serve.service import Reply, Service, unless_left
from s2s.serve.stops import Stops, cut
from s2s.serve.strict import StrictRoute, event
from s2s.types import Result


def router(service: Service) -> APIRouter:
    """/v1/models and /v1/chat/completions."""
    routes = APIRouter(prefix="/v1", tags=["OpenAI"], route_class=StrictRoute)
    started = int(time.time())

    def facts(name: str) -> dict[str, Any]:
        return {"id": name, "object": "model", "created": started, "owned_by": "s2s"}

    @routes.get("/models")
    async def models() -> dict[str, Any]:
        """The models that are served."""
        return {"object": "list", "data": [facts(name) for name in service.models]}

    @routes.get("/models/{name:path}")
    async def model(name: str) -> dict[str, Any]:
        """One of them."""
        return facts(service.find(name).name)

    @routes.post("/chat/completions", response_model=None)
    async def complete(asked: ChatRequest, request: Request) -> dict[str, Any] | StreamingResponse:
        """A reply, a translation or a summary; with `stream` as server-sent events."""
        served = service.find(asked.model)
        if not asked.stream:
            return _completion(asked, await _results(service, served, asked, request))
        if served.task == "dialogue" and (asked.n or 1) == 1:
            reply = service.stream(served, asked.conversation(), asked.search())
            try:
                first = await unless_left(request, anext(reply, ""))
            except BaseException:
                reply.close()
                raise
            return _events(_streamed(asked, first, reply))
        return _events(_whole(asked, await _results(service, served, asked, request)))

    return routes


async def _results(service: Service, served: Served, asked: ChatRequest, request: Request) -> Sequence[Result]:
    """n results; fewer where a search finds fewer."""
    (result,) = await service.answers(request, served, [asked.conversation()], asked.search())
    return result.nbest or [result]


def _head(asked: ChatRequest, kind: str) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{secrets.token_hex(12)}",
        "object": kind,
        "created": int(time.time()),
        "model": asked.model,
    }


def _end(result: Result, stopped: bool) -> dict[str, Any]:
    """Why an output ended; and the flags of the result, which OpenAI has no place for."""
    unfinished = "unfinished" in result.flags and not stopped
    return {"finish_reason": "length" if unfinished else "stop", "flags": list(result.flags)}


def _usage(results: Sequence[Result]) -> dict[str, int]:
    prompt, completion = len(results[0].source_pieces), sum(len(one.tokens) for one in results)
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def _completion(asked: ChatRequest, results: Sequence[Result]) -> dict[str, Any]:
    choices = []
    for index, result in enumerate(results):
        text, stopped = cut(result.text, asked.stops())
        message = {"role": "assistant", "content": text, "refusal": None}
        choices.append({"index": index, "message": message, "logprobs": None, **_end(result, stopped)})
    return {**_head(asked, "chat.completion"), "choices": choices, "usage": _usage(results)}


def _events(chunks: AsyncIterator[bytes]) -> StreamingResponse:
    return StreamingResponse(chunks, media_type="text/event-stream")


_GOES_ON = {"finish_reason": None}


class _Chunks:
    """The events of one stream."""

    def __init__(self, asked: ChatRequest) -> None:
        self._head = _head(asked, "chat.completion.chunk")
        self.tells_usage = asked.stream_options is not None and asked.stream_options.include_usage

    def __call__(self, index: int, delta: dict[str, str], end: Mapping[str, Any] = _GOES_ON) -> bytes:
        choice = {"index": index, "delta": delta, "logprobs": None, **end}
        return event({**self._head, "choices": [choice], **({"usage": None} if self.tells_usage else {})})

    def end(self, usage: dict[str, int] | None) -> bytes:
        told = event({**self._head, "choices": [], "usage": usage}) if self.tells_usage else b""
        return told + event("[DONE]")


async def _whole(asked: ChatRequest, results: Sequence[Result]) -> AsyncIterator[bytes]:
    """Outputs that are known already, each as one piece."""
    chunk = _Chunks(asked)
    for index, result in enumerate(results):
        text, stopped = cut(result.text, asked.stops())
        yield chunk(index, {"role": "assistant", "content": text})
        yield chunk(index, {}, _end(result, stopped))
    yield chunk.end(_usage(results))


async def _streamed(asked: ChatRequest, first: str, reply: Reply) -> AsyncIterator[bytes]:
    """A reply in pieces, until a stop sequence is met or the client leaves: then the decoding stops too."""
    chunk, stops = _Chunks(asked), Stops(asked.stops())
    try:
        yield chunk(0, {"role": "assistant", "content": stops(first)})
        async for piece in reply:
            if text := stops(piece):
                yield chunk(0, {"content": text})
            if stops.found and not chunk.tells_usage:
                break
        if rest := stops.rest():
            yield chunk(0, {"content": rest})
        if stops.found and not chunk.tells_usage:
            yield chunk(0, {}, {"finish_reason": "stop"})
            yield chunk.end(None)
        else:
            yield chunk(0, {}, _end(reply.result, stops.found))
            yield chunk.end(_usage([reply.result]))
    except S2SError as reason:
        kind = "invalid_request_error" if status_of(reason) < 500 else "server_error"
        yield event({"error": error(str(reason), kind)})
    finally:
        reply.close()
