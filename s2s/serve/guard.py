"""Who may ask, how much, and what a browser may do with an answer."""

from __future__ import annotations

import asyncio
import hmac

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from s2s.serve.failures import failure

# The page's own files and nothing else: no inline script or style, no other host, no frame around it.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}
PATIENCE = 30  # seconds that a client may take to send its body
DISCARDING = 1  # seconds in which the rest of a body that is too large is thrown away
LOOPBACK = ("localhost", "127.0.0.1", "[::1]")


class Key:
    """The key that clients must show; None lets everyone in."""

    def __init__(self, key: str | None) -> None:
        self._key = None if key is None else key.encode()

    def __call__(self, request: Request, given: str | None = None) -> None:
        """given: a key that came otherwise than as a bearer token. Raises HTTPException(401)."""
        if self._key is None:
            return
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        shown = given if given is not None else token.strip() if scheme.lower() == "bearer" else ""
        # in constant time, so that the answer's delay tells nothing of the key
        if not hmac.compare_digest(shown.encode("utf-8", "replace"), self._key):
            raise HTTPException(401, "the API key is missing or wrong", {"WWW-Authenticate": "Bearer"})

    async def check(self, request: Request) -> None:
        """The same, for routes that know only the bearer token."""
        self(request)


class SafeHeaders:
    """Adds HEADERS to every answer, errors included."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """An ASGI call."""

        async def safe(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        await self.app(scope, receive, safe if scope["type"] == "http" else send)


class BodyLimit:
    """Reads the body of each request before the application sees it, and no further than its limit."""

    def __init__(self, app: ASGIApp, most: int, patience: float = PATIENCE) -> None:
        """most: bytes. patience: seconds."""
        self.app, self.most, self.patience = app, most, patience

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """An ASGI call. What is too large is answered with 413, what doesn't come with 408."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        try:
            async with asyncio.timeout(self.patience):
                body = await self._read(scope, receive)
        except TimeoutError:
            await failure(scope["path"], 408, "the body didn't come in time")(scope, receive, send)
            return
        if body is None:
            await self._discard(scope, receive)
            message = f"the body is too large: at most {self.most} bytes are read"
            await failure(scope["path"], 413, message, headers={"Connection": "close"})(scope, receive, send)
            return
        messages = iter([{"type": "http.request", "body": body, "more_body": False}])

        async def again() -> Message:
            for message in messages:
                return message
            return await receive()

        await self.app(scope, again, send)

    async def _read(self, scope: Scope, receive: Receive) -> bytes | None:
        """The body; None if it is too large."""
        declared = Headers(scope=scope).get("content-length", "")
        if declared.isdecimal() and int(declared[:20]) > self.most:
            return None
        parts, size, more = list[bytes](), 0, True
        while more:
            message = await receive()
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > self.most:
                return None
            more = message.get("more_body", False)  # a client that left sends no more
        return b"".join(parts)

    async def _discard(self, scope: Scope, receive: Receive) -> None:
        """Take what a client goes on sending, for a while: many read no answer before they have sent all."""
        if "expect" in Headers(scope=scope):  # it waits to be told whether to send
            return
        try:
            async with asyncio.timeout(DISCARDING):
                while (await receive()).get("more_body", False):
                    pass
        except TimeoutError:
            pass
