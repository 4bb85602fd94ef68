"""Bodies are read by the package's own JSON parser: no NaN, no key twice, no half characters, no deep nests."""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from s2s.errors import DataError
from s2s.files import parse_json
from s2s.serve.schema import MAX_VALUES


def parse_body(body: bytes) -> Any:
    """The value of a JSON body. Raises HTTPException(400)."""
    if sum(map(body.count, (b",", b"[", b"{"))) > MAX_VALUES:  # else a second goes into looking at them
        raise HTTPException(400, "body: holds too many values")
    try:
        return parse_json(body, "body")
    except DataError as error:
        raise HTTPException(400, str(error)) from None


class _StrictRequest(Request):
    async def json(self) -> Any:
        return parse_body(await self.body())


class StrictRoute(APIRoute):
    """A route that reads JSON strictly."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """See FastAPI's own."""
        handler = super().get_route_handler()

        async def strict(request: Request) -> Response:
            return await handler(_StrictRequest(request.scope, request.receive))

        return strict


def event(value: object) -> bytes:
    """A server-sent event whose data is JSON; a string is sent as it is."""
    data = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, allow_nan=False)
    return f"data: {data}\n\n".encode()
