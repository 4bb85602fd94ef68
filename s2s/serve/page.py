"""The page: files of this package at fixed addresses. No request names a file."""

from __future__ import annotations

from importlib import resources

from fastapi import APIRouter
from starlette.responses import Response

from s2s.show.report import asset

# address -> (file, media type)
FILES = {
    "/": ("index.html", "text/html"),
    "/page/icon.svg": ("icon.svg", "image/svg+xml"),
    "/page/page.css": ("page.css", "text/css"),
    "/page/main.js": ("main.js", "text/javascript"),
    "/page/server.js": ("server.js", "text/javascript"),
    "/page/cards.js": ("cards.js", "text/javascript"),
    "/page/chat.js": ("chat.js", "text/javascript"),
}
LOOK = "/page/report.css"  # the look of reports, which the page shares


def router() -> APIRouter:
    """The page's files, read once."""
    routes = APIRouter(include_in_schema=False)
    folder = resources.files("s2s.serve").joinpath("page")
    for address, (name, media_type) in FILES.items():
        _serve(routes, address, folder.joinpath(name).read_bytes(), media_type)
    _serve(routes, LOOK, asset("report.css").encode(), "text/css")
    return routes


def _serve(routes: APIRouter, address: str, content: bytes, media_type: str) -> None:
    async def file() -> Response:
        return Response(content, media_type=media_type)

    routes.add_api_route(address, file, methods=["GET"])
