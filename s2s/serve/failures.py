"""Every failure as JSON: in OpenAI's form, and for LibreTranslate's paths in theirs. None echoes what was sent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse

from s2s.errors import S2SError, UsageError
from s2s.files import printable
from s2s.serve.models import UnknownModelError
from s2s.serve.work import OverloadedError, StoppingError

LIBRETRANSLATE = ("/translate", "/languages", "/detect", "/frontend/settings")
MAX_TOLD = 5  # wrong values that one answer names

_CODES = {
    401: "invalid_api_key",
    404: "not_found",
    408: "timeout",
    413: "too_large",
    429: "overloaded",
    503: "shutting_down",
}


def failure(
    path: str, status: int, message: str, *, param: str | None = None, headers: Mapping[str, str] | None = None
) -> JSONResponse:
    """The answer to a request that failed."""
    if path in LIBRETRANSLATE:
        return JSONResponse({"error": message}, status, headers)
    kind = "invalid_request_error" if status < 500 else "server_error"
    return JSONResponse({"error": error(message, kind, param, _CODES.get(status))}, status, headers)


def error(message: str, kind: str, param: str | None = None, code: str | None = None) -> dict[str, str | None]:
    """An error object as OpenAI has them."""
    return {"message": message, "type": kind, "param": param, "code": code}


def status_of(error: Exception) -> int:
    """The HTTP status of one of our errors."""
    if isinstance(error, OverloadedError):
        return 429
    if isinstance(error, StoppingError):
        return 503
    if isinstance(error, UnknownModelError):
        return 404
    return 400 if isinstance(error, UsageError) else 500


def add_handlers(app: FastAPI) -> None:
    """Have all failures of an application answered here."""

    @app.exception_handler(S2SError)
    async def ours(request: Request, reason: S2SError) -> JSONResponse:
        status = status_of(reason)
        headers = {"Retry-After": "1"} if status in (429, 503) else None
        param = "model" if isinstance(reason, UnknownModelError) else None
        return failure(request.url.path, status, str(reason), param=param, headers=headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, reason: RequestValidationError) -> JSONResponse:
        problems = [problem(one) for one in reason.errors()[:MAX_TOLD]]
        left = len(reason.errors()) - len(problems)
        told = "; ".join(f"{where}: {what}" if where else what for where, what in problems)
        param = problems[0][0] if problems else None
        return failure(request.url.path, 400, told + (f"; and {left} more" if left else ""), param=param or None)

    @app.exception_handler(HTTPException)
    async def http(request: Request, reason: HTTPException) -> JSONResponse:
        return failure(request.url.path, reason.status_code, str(reason.detail), headers=reason.headers)

    @app.exception_handler(Exception)  # which is raised again and logged by the server
    async def unknown(request: Request, reason: Exception) -> JSONResponse:
        return failure(request.url.path, 500, "the server failed; its log says how")


def problem(one: Mapping[str, Any]) -> tuple[str, str]:
    """Where pydantic found something wrong, and what; never what stood there."""
    where = ".".join(printable(str(part))[:80] for part in one["loc"] if part != "body")
    return where, str(one["msg"]).removeprefix("Value error, ")
