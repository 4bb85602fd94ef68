"""The application: routes, limits and headers put together around one worker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

from fastapi import Depends, FastAPI
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp

from s2s import __version__
from s2s.serve import libretranslate, native, openai_api, page
from s2s.serve.failures import add_handlers
from s2s.serve.guard import BodyLimit, Key, SafeHeaders
from s2s.serve.metrics import MEDIA_TYPE, Counted, Metrics
from s2s.serve.models import Served
from s2s.serve.schema import MAX_BODY
from s2s.serve.service import Service
from s2s.serve.work import Worker

MAX_WAITING = 64


def build_app(
    models: Mapping[str, Served],
    *,
    api_key: str | None = None,
    max_body: int = MAX_BODY,
    max_waiting: int = MAX_WAITING,
    hosts: Sequence[str] = ("*",),
) -> ASGIApp:
    """The server of some models. Its worker starts at once and ends with the application's lifespan.

    api_key: what clients must show to learn of models or run them. max_body: bytes. max_waiting: requests that may wait
    or stream at a time. hosts: names under which it may be asked, so that no other name that leads here is answered.
    """
    metrics = Metrics()
    worker = Worker(waiting=max_waiting, batches=metrics.batches.observe)
    metrics.watch(lambda: worker.waiting)
    service, key = Service(models, worker, needs_key=api_key is not None), Key(api_key)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(worker.close)

    app = FastAPI(
        title="s2s",
        version=__version__,
        docs_url=None,  # they would load scripts from elsewhere
        redoc_url=None,
        lifespan=lifespan,
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=list(hosts), www_redirect=False)],
    )
    add_handlers(app)
    locked = [Depends(key.check)]
    app.include_router(native.router(service), dependencies=locked)
    app.include_router(openai_api.router(service), dependencies=locked)
    app.include_router(libretranslate.router(service, key))
    app.include_router(page.router())

    @app.get("/health")
    async def health() -> dict[str, str]:
        """Whether the server runs."""
        return {"status": "ok"}

    @app.get("/metrics", dependencies=locked)
    async def told() -> Response:
        """Counts and times as Prometheus reads them."""
        return Response(metrics.text(), media_type=MEDIA_TYPE)

    return SafeHeaders(Counted(BodyLimit(app, max_body), metrics))
