"""Bodies are read up to a limit and for a limited time; keys are compared whole."""

import asyncio
import json

import pytest
from starlette.exceptions import HTTPException
from starlette.requests import Request

from s2s.serve.guard import BodyLimit, Key


async def echo(scope, receive, send):
    """Answers with the body; a second message must be that the client left."""
    message = await receive()
    assert not message["more_body"]
    assert (await receive())["type"] == "http.disconnect"
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": message["body"]})


def answered(messages, *, headers=(), most=10, patience=5.0):
    """(status, body) of a request that comes in these messages and then in none."""
    sent, waiting = [], list(messages)

    async def receive():
        return waiting.pop(0) if waiting else await asyncio.sleep(60)

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "path": "/api/generate", "headers": list(headers)}
    asyncio.run(BodyLimit(echo, most, patience)(scope, receive, send))
    return sent[0]["status"], sent[1]["body"]


def parts(*bodies):
    last = len(bodies) - 1
    return [{"type": "http.request", "body": body, "more_body": n < last} for n, body in enumerate(bodies)]


GONE = {"type": "http.disconnect"}


def test_a_body_in_parts_is_put_together():
    assert answered([*parts(b"01234", b"", b"56789"), GONE]) == (200, b"0123456789")
    assert answered([*parts(b""), GONE]) == (200, b"")


@pytest.mark.parametrize("length", [b"11", b"9" * 5000, None])
def test_one_that_is_too_large_is_refused(length):
    headers = [] if length is None else [(b"content-length", length)]
    status, body = answered(parts(b"01234", b"567890"), headers=headers)
    assert (status, json.loads(body)["error"]["code"]) == (413, "too_large")


def test_one_that_does_not_come_is_not_waited_for():
    status, body = answered(parts(b"01234", b"5")[:1], patience=0.05)
    assert (status, json.loads(body)["error"]["code"]) == (408, "timeout")


def test_who_waits_to_be_told_is_told_at_once():
    headers = [(b"content-length", b"11"), (b"expect", b"100-continue")]
    assert answered([], headers=headers)[0] == 413


@pytest.mark.parametrize(
    ("header", "given", "fits"),
    [
        (b"Bearer sesame", None, True),
        (b"bearer  sesame ", None, True),
        (b"", "sesame", True),
        (b"Bearer sesame", "other", False),
        (b"Bearer sesam", None, False),
        (b"Bearer sesamee", None, False),
        (b"Bearer", None, False),
        (b"sesame", None, False),
        (b"", "", False),
        (b"", "sésame", False),
    ],
)
def test_only_the_whole_key_opens(header, given, fits):
    request = Request({"type": "http", "headers": [(b"authorization", header)]})
    if fits:
        Key("sesame")(request, given)
    else:
        with pytest.raises(HTTPException) as error:
            Key("sesame")(request, given)
        assert error.value.status_code == 401
    Key(None)(request, given)
