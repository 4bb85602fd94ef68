"""What the server tells of itself, in the text format of Prometheus."""

from __future__ import annotations

import time
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100)
_SIZES = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """Counts of one server. No label comes from a request: paths are those of the routes."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.requests = Counter(
            "s2s_requests", "Answers, by route and status", ["route", "status"], registry=self._registry
        )
        self.seconds = Histogram(
            "s2s_request_seconds",
            "Time to the end of an answer",
            ["route"],
            buckets=_SECONDS,
            registry=self._registry,
        )
        self.batches = Histogram(
            "s2s_batch_size", "Inputs that were decoded together", buckets=_SIZES, registry=self._registry
        )
        self._waiting = Gauge("s2s_waiting", "Requests that wait or stream", registry=self._registry)

    def watch(self, waiting: Callable[[], int]) -> None:
        """Where to ask how many requests wait."""
        self._waiting.set_function(waiting)

    def text(self) -> bytes:
        """All of it."""
        return generate_latest(self._registry)


class Counted:
    """Counts every answer of an application and measures its time."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """An ASGI call."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begun, status = time.perf_counter(), 500

        async def told(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            await self.app(scope, receive, told)
        finally:
            route = getattr(scope.get("route"), "path", "other")
            self.metrics.requests.labels(route, status).inc()
            self.metrics.seconds.labels(route).observe(time.perf_counter() - begun)
