"""The server's own interface: what the model says by itself, what is refused, and what it costs nobody else."""

import json
import socket
import threading
import time

import httpx2
import pytest
from serve_toys import Slow, client, running, until

from s2s.serve.guard import HEADERS, LOOPBACK
from s2s.serve.schema import MAX_BEAM, MAX_CHARACTERS, MAX_TEXTS, MAX_TOKENS


def generate(server, **body):
    return server.post("/api/generate", json={"model": "reverse", **body})


def test_the_models_are_listed(server, models):
    listed = server.get("/api/models").json()["models"]
    assert [one["name"] for one in listed] == ["reverse", "copy", "talk", "slow"]
    assert [one["task"] for one in listed] == ["translation", "translation", "dialogue", "dialogue"]
    assert listed[0]["languages"] == list(models["reverse"].model.languages)
    assert listed[0]["parameters"] > 1000
    assert listed[0]["attention"] == models["reverse"].model.trained[0].config.attention.name


@pytest.mark.parametrize("name", ["reverse", "copy"])
def test_an_output_has_all_that_the_model_says(server, models, sources, name):
    expected = models[name].model.translate(sources[:5], details=True, beam=4, nbest=3)
    asked = {"model": name, "texts": sources[:5], "options": {"beam": 4, "nbest": 3}, "details": True}
    answer = server.post("/api/generate", json=asked).json()
    assert answer["model"] == name
    for got, result in zip(answer["outputs"], expected, strict=True):
        assert got["output"] == result.text
        assert got["score"] == pytest.approx(result.score, rel=1e-5)
        assert [one["output"] for one in got["nbest"]] == [one.text for one in result.nbest]
        assert got["pieces"] == list(result.pieces)
        assert got["source_pieces"] == list(result.source_pieces)
        assert got["flags"] == list(result.flags)
        for row, weights in zip(got["alignment"], result.alignment, strict=True):
            assert row == pytest.approx(weights, abs=1e-4)


def test_without_details_there_are_none(server, sources):
    (got,) = generate(server, text=sources[0]).json()["outputs"]
    assert set(got) == {"output", "score", "nbest", "flags"}
    assert got["nbest"] == []


def test_samples_are_those_of_their_seed(server, models, sources):
    options = {"sample": True, "temperature": 3.0, "seed": 7, "nbest": 3}
    expected = models["reverse"].model.translate(sources[0], details=True, **options)
    (got,) = generate(server, text=sources[0], options=options).json()["outputs"]
    assert [one["output"] for one in got["nbest"]] == [one.text for one in expected.nbest]
    (other,) = generate(server, text=sources[0], options={**options, "seed": 8}).json()["outputs"]
    assert other["nbest"] != got["nbest"]


def test_a_conversation_with_a_translator_is_its_last_message(server, models, sources):
    turns = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]
    (got,) = generate(server, messages=[*turns, {"role": "user", "content": sources[0]}]).json()["outputs"]
    assert got["output"] == models["reverse"].model.translate(sources[0])


def test_a_talker_is_given_the_conversation(server, models, sources):
    turns = [{"role": r, "content": text} for r, text in zip(("user", "assistant", "user"), sources, strict=False)]
    expected = models["talk"].model.chat(turns, details=True, beam=3, nbest=2)
    asked = {"model": "talk", "messages": turns, "options": {"beam": 3, "nbest": 2}, "details": True}
    (got,) = server.post("/api/generate", json=asked).json()["outputs"]
    assert got["output"] == expected.text
    assert got["source_pieces"] == list(expected.source_pieces)
    assert [one["output"] for one in got["nbest"]] == [one.text for one in expected.nbest]
    (got,) = server.post("/api/generate", json={"model": "talk", "text": sources[0]}).json()["outputs"]
    assert got["output"] == models["talk"].model.chat([{"role": "user", "content": sources[0]}])


def test_what_of_a_conversation_is_not_read_is_flagged(server):
    turns = [{"role": "system", "content": "be nice"}, {"role": "user", "content": "ba"}]
    (got,) = server.post("/api/generate", json={"model": "talk", "messages": turns}).json()["outputs"]
    assert "system_ignored" in got["flags"]
    (got,) = generate(server, messages=turns).json()["outputs"]
    assert "history_ignored" in got["flags"]


def test_a_history_of_500_turns_is_answered(server):
    turns = [{"role": ("user", "assistant")[i % 2], "content": "ba be"} for i in range(501)]
    (got,) = server.post("/api/generate", json={"model": "talk", "messages": turns}).json()["outputs"]
    assert "turns_dropped" in got["flags"]


@pytest.mark.parametrize("text", ["", " \n ", "\n" * 10_000, "<script>alert(1)</script> <b>ba</b>", "\u2028 ba \x00"])
def test_any_text_is_answered_as_plain_json(server, models, text):
    answer = generate(server, text=text)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    (got,) = answer.json()["outputs"]
    assert got["output"] == models["reverse"].model.translate(text)


USER = {"role": "user", "content": "ba"}
WRONG = {
    "no input": {},
    "two inputs": {"text": "ba", "texts": ["ba"]},
    "a number as text": {"text": 1},
    "no texts": {"texts": []},
    "too many texts": {"texts": ["ba"] * (MAX_TEXTS + 1)},
    "a long text": {"text": "b" * (MAX_CHARACTERS + 1)},
    "long texts": {"texts": ["b" * MAX_CHARACTERS, "b"]},
    "unknown key": {"text": "ba", "temperatur": 1},
    "unknown option": {"text": "ba", "options": {"beem": 1}},
    "a number as string": {"text": "ba", "options": {"beam": "3"}},
    "true as number": {"text": "ba", "options": {"beam": True}},
    "beam": {"text": "ba", "options": {"beam": MAX_BEAM + 1}},
    "no beam": {"text": "ba", "options": {"beam": 0}},
    "nbest above beam": {"text": "ba", "options": {"beam": 2, "nbest": 3}},
    "length": {"text": "ba", "options": {"max_length": MAX_TOKENS + 1}},
    "huge integer": {"text": "ba", "options": {"seed": 10**400}},
    "temperature without sampling": {"text": "ba", "options": {"temperature": 0.5}},
    "model as number": {"model": 3, "text": "ba"},
    "no messages": {"messages": []},
    "unknown role": {"messages": [{"role": "tool", "content": "ba"}]},
    "last by the assistant": {"messages": [USER, {"role": "assistant", "content": "ba"}]},
    "messages of texts": {"messages": ["ba"]},
}


@pytest.mark.parametrize("body", WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_refused_quickly_with_a_reason(server, body):
    begun = time.perf_counter()
    answer = generate(server, **body)
    assert time.perf_counter() - begun < 1
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["type"] == "invalid_request_error"
    assert error["message"]


def test_the_reason_names_the_place_and_not_the_value(server):
    answer = generate(server, text="ba", options={"beam": "SECRET"}).json()
    assert answer["error"]["param"] == "options.beam"
    assert "SECRET" not in json.dumps(answer)


BROKEN = {
    "nothing": b"",
    "no json": b"{",
    "a list": b"[]",
    "a string": b'"ba"',
    "null": b"null",
    "NaN": b'{"model": "reverse", "text": "ba", "options": {"length_penalty": NaN}}',
    "infinity": b'{"model": "reverse", "text": "ba", "options": {"length_penalty": 1e999}}',
    "a key twice": b'{"model": "reverse", "model": "copy", "text": "ba"}',
    "half a character": b'{"model": "reverse", "text": "\\ud800"}',
    "half a character as key": b'{"model": "reverse", "text": "ba", "\\ud800": 1}',
    "no UTF-8": b'{"model": "reverse", "text": "\xff"}',
    "deep": b'{"model": ' + b"[" * 100_000,
    "values": b'{"model": "reverse", "texts": [' + b'"",' * 300_000 + b'""]}',
    "objects": b'{"model": "talk", "messages": [' + b"{}," * 300_000 + b"{}]}",
    "digits": b'{"model": "reverse", "text": "ba", "options": {"seed": ' + b"9" * 5000 + b"}}",
}


@pytest.mark.parametrize("body", BROKEN.values(), ids=BROKEN)
@pytest.mark.parametrize("path", ["/api/generate", "/v1/chat/completions", "/translate"])
def test_broken_json_is_refused(server, path, body):
    begun = time.perf_counter()
    answer = server.post(path, content=body, headers={"Content-Type": "application/json"})
    assert time.perf_counter() - begun < 1
    assert answer.status_code == 400
    assert answer.json()["error"]


def test_an_unknown_model_or_place_is_not_found(server):
    answer = server.post("/api/generate", json={"model": "../../etc/passwd", "text": "ba"})
    assert (answer.status_code, answer.json()["error"]["param"]) == (404, "model")
    for path in ("/api", "/page/../app.py", "/page/%2e%2e/app.py", "/page/", "/docs", "/static/x"):
        assert server.get(path).status_code == 404
    assert server.get("/api/generate").status_code == 405


@pytest.mark.parametrize("path", ["/health", "/api/models", "/api/nothing", "/", "/page/main.js", "/metrics"])
def test_every_answer_is_safe_in_a_browser(server, path):
    answer = server.get(path, headers={"Origin": "https://elsewhere.example"})
    for name, value in HEADERS.items():
        assert answer.headers[name] == value
    assert "unsafe" not in answer.headers["Content-Security-Policy"]
    assert not [name for name in answer.headers if name.startswith("access-control")]


@pytest.mark.parametrize("path", ["/api/generate", "/v1/chat/completions", "/translate", "/health"])
@pytest.mark.parametrize("chunked", [False, True], ids=["declared", "chunked"])
def test_a_body_of_100_megabytes_is_not_read(server, path, chunked):
    piece = b"x" * 1_000_000
    body = (piece for _ in range(100)) if chunked else piece * 100
    begun = time.perf_counter()
    answer = server.post(path, content=body, headers={"Content-Type": "application/json"})
    assert time.perf_counter() - begun < 5
    assert answer.status_code == 413
    assert server.get("/health").json() == {"status": "ok"}


def test_a_body_at_the_limit_is_read(models):
    body = json.dumps({"model": "reverse", "text": "ba"}).encode()
    with running(models, max_body=len(body)) as address, client(address) as asking:
        headers = {"Content-Type": "application/json"}
        assert asking.post("/api/generate", content=body, headers=headers).status_code == 200
        assert asking.post("/api/generate", content=body + b" ", headers=headers).status_code == 413


def test_a_full_queue_answers_429_and_those_who_left_make_room(models):
    slow = Slow(models["talk"].model)
    with running({"slow": slow}, max_waiting=2) as address, client(address) as asking:
        running_one = threading.Thread(target=asking.post, args=("/api/generate",), kwargs={"json": TALK})
        running_one.start()
        assert slow.begun.wait(10)
        left = [leaving(address) for _ in range(2)]
        until(lambda: waiting(asking) == 2)
        answer = asking.post("/api/generate", json=TALK)
        assert (answer.status_code, answer.headers["retry-after"]) == (429, "1")
        assert answer.json()["error"]["code"] == "overloaded"
        assert asking.get("/health").status_code == 200
        for one in left:
            one.close()
        until(lambda: counted(asking, "499") == 2)
        late = threading.Thread(target=asking.post, args=("/api/generate",), kwargs={"json": {**TALK, "text": "late"}})
        late.start()
        until(lambda: waiting(asking) == 1)
        slow.go.set()
        running_one.join(10)
        late.join(10)
        assert slow.answered == ["hello", "late"]  # and neither of those who left


def test_who_runs_when_the_server_stops_is_answered_and_who_waits_is_refused_or_answered(models):
    slow, answers = Slow(models["talk"].model), []
    with running({"slow": slow}) as address:

        def ask():
            with client(address) as asking:
                answers.append(asking.post("/api/generate", json=TALK).status_code)

        threads = [threading.Thread(target=ask) for _ in range(3)]
        threads[0].start()
        assert slow.begun.wait(10)
        for thread in threads[1:]:
            thread.start()
        with client(address) as asking:
            until(lambda: waiting(asking) == 2)
        threading.Timer(0.3, slow.go.set).start()
    for thread in threads:
        thread.join(10)
    assert answers == [200] * 3
    with client(address) as asking, pytest.raises(httpx2.ConnectError):
        asking.get("/health")


TALK = {"model": "slow", "text": "hello"}


def leaving(address):
    """A connection that asked and can leave before the answer."""
    body = json.dumps(TALK).encode()
    head = f"POST /api/generate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    made = socket.create_connection(address.removeprefix("http://").split(":"), timeout=10)
    made.sendall(f"{head}\r\n\r\n".encode() + body)
    return made


def metric(asking, name):
    return [line.split()[-1] for line in asking.get("/metrics").text.splitlines() if line.startswith(name)]


def waiting(asking):
    return float(metric(asking, "s2s_waiting")[0])


def counted(asking, status):
    found = metric(asking, f's2s_requests_total{{route="/api/generate",status="{status}"}}')
    return float(found[0]) if found else 0


def test_metrics_count_routes_and_batches(models):
    with running(models) as address, client(address) as asking:
        for path in ("/nowhere/1", "/nowhere/2"):
            asking.get(path)
        generate(asking, texts=["ba", "be"])
        told = asking.get("/metrics").text
        assert 's2s_requests_total{route="other",status="404"} 2.0' in told
        assert 's2s_requests_total{route="/api/generate",status="200"} 1.0' in told
        assert "s2s_batch_size_sum 2.0" in told
        assert "nowhere" not in told


def test_a_key_is_asked_for_where_models_are(models):
    with running(models, api_key="sesame") as address, client(address) as asking:
        for path in ("/health", "/", "/languages", "/frontend/settings"):
            assert asking.get(path).status_code == 200
        for path in ("/api/models", "/v1/models", "/metrics"):
            for headers in ({}, {"Authorization": "Bearer sesam"}, {"Authorization": "Basic sesame"}):
                answer = asking.get(path, headers=headers)
                assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key")
            assert asking.get(path, headers={"Authorization": "Bearer sesame"}).status_code == 200
        assert asking.post("/api/generate", json=TALK).status_code == 401
        assert asking.post("/v1/chat/completions", json={}).status_code in (400, 401)


def test_only_the_names_of_this_machine_are_answered(models):
    with running(models, hosts=LOOPBACK) as address, client(address) as asking:
        for host, status in (("localhost", 200), ("127.0.0.1:80", 200), ("[::1]:8000", 200), ("evil.example", 400)):
            assert asking.get("/health", headers={"Host": host}).status_code == status


def test_fifty_clients_at_once_get_what_one_gets(server, models, sources):
    expected = {text: models["reverse"].model.translate(text, beam=3) for text in sources}
    got, failures = {}, []

    def ask(number):
        text = sources[number % len(sources)]
        with client(str(server.base_url)) as asking:
            answer = generate(asking, text=text, options={"beam": 3})
        if answer.status_code != 200:
            failures.append(answer.text)
        got[number] = (text, answer.json()["outputs"][0]["output"])

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert [output for _, output in got.values()] == [expected[text] for text, _ in got.values()]
    assert len(got) == 50
