"""LibreTranslate's interface, so that its clients can use the translators. /detect is not offered."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal
from urllib.parse import parse_qsl

from fastapi import APIRouter
from fastapi.exceptions import RequestValidationError
from pydantic import Field, ValidationError, model_validator
from starlette.exceptions import HTTPException
from starlette.requests import Request

from s2s.serve.markup import Page
from s2s.serve.models import Served, UnknownModelError
from s2s.serve.schema import (
    MAX_CHARACTERS,
    MAX_OUTPUTS,
    MAX_TEXTS,
    Name,
    Strict,
    Text,
    check_characters,
    conversation,
)
from s2s.serve.service import Service
from s2s.serve.strict import parse_body
from s2s.types import Result

MAX_RUNS = 1000  # of text between the tags of a request


class Translate(Strict):
    """A text or several, in one pair of languages. `source` must be a language: none is guessed."""

    q: Text | Annotated[list[Text], Field(min_length=1, max_length=MAX_TEXTS)]
    source: Name
    target: Name
    format: Literal["text", "html"] = "text"
    alternatives: Annotated[int, Field(ge=0, lt=MAX_OUTPUTS)] = 0
    api_key: Annotated[str, Field(max_length=1000)] | None = None

    @model_validator(mode="after")
    def _fits(self) -> Translate:
        check_characters(self.texts())
        if self.format == "html" and self.alternatives:
            raise ValueError("`alternatives` are of text, not of html")
        return self

    def texts(self) -> list[str]:
        """The texts, also of one alone."""
        return [self.q] if isinstance(self.q, str) else self.q


def router(service: Service, authorise: Callable[[Request, str | None], None]) -> APIRouter:
    """/translate, /languages and /frontend/settings. authorise: raises HTTPException where a key is wrong."""
    routes = APIRouter(tags=["LibreTranslate"])
    translators = [one for one in service.models.values() if one.task == "translation"]

    def find(source: str, target: str) -> Served:
        for one in translators:
            if one.model.languages == (source, target):
                return one
        pairs = ", ".join(f"{a} to {b}" for a, b in dict.fromkeys(one.model.languages for one in translators))
        raise UnknownModelError("no model here translates between these languages", expected=pairs or "none at all")

    @routes.post(
        "/translate",
        openapi_extra={
            "requestBody": {
                "required": True,
                "content": {
                    kind: {"schema": Translate.model_json_schema()}
                    for kind in ("application/json", "application/x-www-form-urlencoded")
                },
            }
        },
    )
    async def translate(request: Request) -> dict[str, Any]:
        """Translate `q`: a text gives a text, a list a list."""
        asked = await _read(request)
        authorise(request, asked.api_key)
        served = find(asked.source, asked.target)
        if asked.format == "html":
            pages = [Page(text) for text in asked.texts()]
            texts = [text for page in pages for text in page.texts]
            if len(texts) > MAX_RUNS:
                raise HTTPException(400, f"html may have {MAX_RUNS} pieces of text between its tags")
            results = await service.answers(request, served, [conversation(text) for text in texts], {})
            outputs = iter([one.text for one in results])
            translated = [page.filled([next(outputs) for _ in page.texts]) for page in pages]
            return {"translatedText": translated[0] if isinstance(asked.q, str) else translated}
        changes = {"nbest": asked.alternatives + 1} if asked.alternatives else {}
        results = await service.answers(request, served, [conversation(text) for text in asked.texts()], changes)
        made: dict[str, Any] = {"translatedText": [one.text for one in results]}
        if asked.alternatives:
            made["alternatives"] = [_others(one) for one in results]
        return {key: value[0] for key, value in made.items()} if isinstance(asked.q, str) else made

    @routes.get("/languages")
    async def languages() -> list[dict[str, Any]]:
        """The languages that can be translated from, each with those it can be translated to."""
        targets: dict[str, list[str]] = {}
        for one in translators:
            source, target = one.model.languages
            if target not in targets.setdefault(source, []):
                targets[source].append(target)
        return [{"code": source, "name": source, "targets": found} for source, found in targets.items()]

    @routes.get("/frontend/settings")
    async def settings() -> dict[str, Any]:
        """What clients may offer."""
        source, target = translators[0].model.languages if translators else ("", "")
        return {
            "apiKeys": service.needs_key,
            "keyRequired": service.needs_key,
            "charLimit": MAX_CHARACTERS,
            "frontendTimeout": 500,
            "suggestions": False,
            "filesTranslation": False,
            "supportedFilesFormat": [],
            "language": {
                "source": {"code": source, "name": source},
                "target": {"code": target, "name": target},
            },
        }

    return routes


def _others(result: Result) -> list[str]:
    return [one.text for one in result.nbest[1:]]


async def _read(request: Request) -> Translate:
    """The request, sent as JSON or as a form. Raises HTTPException, RequestValidationError."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    body = await request.body()
    if kind == "application/json":
        value = parse_body(body)
    elif kind == "application/x-www-form-urlencoded":
        value = _form(body)
    else:
        raise HTTPException(415, "send application/json or application/x-www-form-urlencoded")
    try:
        return Translate.model_validate(value)
    except ValidationError as error:
        raise RequestValidationError(error.errors()) from None


def _form(body: bytes) -> dict[str, Any]:
    """The fields of a form; `q` may stand several times."""
    try:
        pairs = parse_qsl(
            body.decode("ascii"),
            keep_blank_values=True,
            strict_parsing=bool(body),
            errors="strict",
            max_num_fields=MAX_TEXTS + 10,
        )
    except ValueError:
        raise HTTPException(400, "the body is no form of UTF-8 text") from None
    fields: dict[str, Any] = {}
    for key, value in pairs:
        if key in fields and key != "q":
            raise HTTPException(400, "a field of the form stands twice")
        fields[key] = [*_list(fields[key]), value] if key in fields else value
    if str(fields.get("alternatives", "")).isdecimal():
        fields["alternatives"] = int(fields["alternatives"][:10])
    return fields


def _list(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value
