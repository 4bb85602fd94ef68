"""What all interfaces ask: the models by name, and a worker's answers awaited for as long as the client is there."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

from starlette.exceptions import HTTPException
from starlette.requests import Request

from s2s.serve.models import Message, Served, UnknownModelError
from s2s.serve.work import Stream, Worker
from s2s.types import Result

T = TypeVar("T")

CLIENT_LEFT = 499  # a status that nobody reads but the metrics


class Service:
    """The models and the worker that owns them. needs_key: clients must show one."""

    def __init__(self, models: Mapping[str, Served], worker: Worker, *, needs_key: bool = False) -> None:
        self.models, self.worker, self.needs_key = dict(models), worker, needs_key

    def find(self, name: str) -> Served:
        """The model of this name. Raises UnknownModelError."""
        if name not in self.models:
            raise UnknownModelError(f"there is no model {name!r} here", expected=", ".join(self.models))
        return self.models[name]

    async def answers(
        self,
        request: Request,
        served: Served,
        conversations: Sequence[Sequence[Message]],
        changes: Mapping[str, Any],
        *,
        alignment: bool = False,
    ) -> list[Result]:
        """See `Served.answers`. A client that leaves takes what it asked for out of the queue."""
        asked = served.answers(self.worker, conversations, changes, alignment=alignment)
        return await unless_left(request, asyncio.wrap_future(asked))

    def stream(self, served: Served, conversation: Sequence[Message], changes: Mapping[str, Any]) -> Reply:
        """See `Served.stream`."""
        return Reply(lambda put: served.stream(self.worker, conversation, changes, put))


class Reply:
    """The pieces of a reply as they are known; after the last one `result` is there."""

    def __init__(self, start: Callable[[Callable[[str], None]], Stream]) -> None:
        """start: given what takes the pieces. For the thread of an event loop."""
        self._pieces: asyncio.Queue[str | None] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()
        self._stream = start(self._put)
        self._stream.future.add_done_callback(lambda _: self._put(None))

    def _put(self, piece: str | None) -> None:
        self._loop.call_soon_threadsafe(self._pieces.put_nowait, piece)

    def __aiter__(self) -> Reply:
        return self

    async def __anext__(self) -> str:
        piece = await self._pieces.get()
        if piece is None:
            self._pieces.put_nowait(None)
            self._stream.future.result()
            raise StopAsyncIteration
        return piece

    @property
    def result(self) -> Result:
        """What was told, whole."""
        found: Result = self._stream.future.result(0)
        return found

    def close(self) -> None:
        """Stop the decoding, if it goes on."""
        self._stream.cancel()


async def unless_left(request: Request, wanted: Awaitable[T]) -> T:
    """What is awaited; if the client leaves first it is cancelled, and HTTPException(499) raised."""
    work, left = asyncio.ensure_future(wanted), asyncio.ensure_future(_left(request))
    try:
        await asyncio.wait({work, left}, return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            raise HTTPException(CLIENT_LEFT, "the client left")
        return work.result()
    finally:
        work.cancel()
        left.cancel()


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
