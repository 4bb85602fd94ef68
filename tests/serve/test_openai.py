"""OpenAI's own client talks to the models."""

import json
import re
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import openai
import pytest
from serve_toys import PATIENCE, client, running


@pytest.fixture(scope="module")
def theirs(address):
    with openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0) as made:
        yield made


def user(text):
    return [{"role": "user", "content": text}]


def test_models_are_listed_and_found_by_name(theirs, models):
    assert [one.id for one in theirs.models.list()] == list(models)
    assert theirs.models.retrieve("talk").id == "talk"
    with pytest.raises(openai.NotFoundError):
        theirs.models.retrieve("gpt")


@pytest.mark.parametrize("name", ["reverse", "copy"])
def test_a_translator_answers_with_the_translation_of_the_last_message(theirs, models, sources, name):
    messages = [{"role": "system", "content": "Translate."}, *user(sources[0])]
    done = theirs.chat.completions.create(model=name, messages=messages)
    expected = models[name].model.translate(sources[0], details=True)
    (choice,) = done.choices
    assert (choice.message.role, choice.message.content) == ("assistant", expected.text)
    assert choice.finish_reason == "stop"
    assert choice.flags == sorted([*expected.flags, "history_ignored"])
    assert done.usage.prompt_tokens == len(expected.source_pieces)
    assert done.usage.completion_tokens == len(expected.tokens)
    assert done.usage.total_tokens == done.usage.prompt_tokens + done.usage.completion_tokens


def test_a_conversation_is_answered(theirs, models, sources):
    messages = [*user(sources[0]), {"role": "assistant", "content": sources[1]}, *user(sources[2])]
    done = theirs.chat.completions.create(model="talk", messages=messages)
    assert done.choices[0].message.content == models["talk"].model.chat(messages)
    parts = [{"type": "text", "text": sources[2]}]
    done = theirs.chat.completions.create(model="talk", messages=[{"role": "user", "content": parts}])
    assert done.choices[0].message.content == models["talk"].model.chat(user(sources[2]))


@pytest.mark.parametrize(
    ("given", "options"),
    [
        ({"temperature": 0}, {"beam": 1}),
        ({"temperature": 0, "n": 3}, {"beam": 3, "nbest": 3}),
        ({"n": 3}, {"nbest": 3}),
        ({"temperature": 1.5, "seed": 5}, {"sample": True, "temperature": 1.5, "seed": 5}),
        ({"top_p": 0.9, "seed": 5, "n": 2}, {"sample": True, "top_p": 0.9, "seed": 5, "nbest": 2}),
        ({"seed": -1, "temperature": 1.0}, {"sample": True, "seed": 2**63 - 1}),
        ({"max_tokens": 2}, {"max_length": 2}),
        ({"max_completion_tokens": 2}, {"max_length": 2}),
    ],
)
def test_options_are_those_of_the_search(theirs, models, sources, given, options):
    done = theirs.chat.completions.create(model="talk", messages=user(sources[0]), **given)
    expected = models["talk"].model.chat(user(sources[0]), details=True, **{"nbest": 1, **options})
    outputs = expected.nbest or [expected]
    assert [choice.message.content for choice in done.choices] == [one.text for one in outputs]
    assert [choice.index for choice in done.choices] == list(range(len(outputs)))
    cut = "unfinished" in outputs[0].flags
    assert done.choices[0].finish_reason == ("length" if cut else "stop")
    assert done.usage.completion_tokens == sum(len(one.tokens) for one in outputs)


def test_samples_without_a_seed_differ(theirs, sources):
    asked = {"model": "talk", "messages": user(sources[0]), "temperature": 2}
    assert len({theirs.chat.completions.create(**asked).choices[0].message.content for _ in range(8)}) > 1


@pytest.mark.parametrize("stop", ["b", ["zz", "b"]])
def test_an_output_ends_before_a_stop_sequence(theirs, stop):
    for stream in (False, True):
        asked = {"model": "talk", "messages": user("ba da"), "temperature": 0, "stream": stream}
        done = theirs.chat.completions.create(**asked, stop=stop)
        text = "".join(piece for piece, _ in deltas(done)) if stream else done.choices[0].message.content
        whole = theirs.chat.completions.create(**{**asked, "stream": False}).choices[0].message.content
        assert "b" in whole
        assert text == whole[: whole.index("b")]


def deltas(stream):
    return [(chunk.choices[0].delta.content or "", chunk.choices[0].finish_reason) for chunk in stream if chunk.choices]


def test_a_reply_streams_word_by_word(theirs, models, sources):
    source = max(sources, key=len)
    expected = models["talk"].model.chat(user(source), beam=1, details=True)
    options = {"include_usage": True}
    chunks = list(
        theirs.chat.completions.create(
            model="talk", messages=user(source), temperature=0, stream=True, stream_options=options
        )
    )
    pieces = deltas(chunks)
    assert "".join(text for text, _ in pieces) == expected.text
    assert len([text for text, _ in pieces if text]) == len(expected.text.split()) > 2
    assert pieces[-1] == ("", "stop")
    assert chunks[0].choices[0].delta.role == "assistant"
    assert len({chunk.id for chunk in chunks}) == 1
    assert chunks[-1].usage.completion_tokens == len(expected.tokens)
    assert chunks[-1].usage.prompt_tokens == len(expected.source_pieces)
    assert [chunk.usage for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)


@pytest.mark.parametrize("asked", [{"model": "reverse"}, {"model": "talk", "n": 2}, {"model": "talk"}])
def test_what_is_known_at_once_streams_too(theirs, sources, asked):
    asked = {**asked, "messages": user(sources[0])}
    whole = theirs.chat.completions.create(**asked)
    outputs = dict.fromkeys(range(len(whole.choices)), "")
    for chunk in theirs.chat.completions.create(**asked, stream=True):
        outputs[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    assert list(outputs.values()) == [choice.message.content for choice in whole.choices]


def test_streams_and_whole_replies_at_once_are_those_of_one_client(theirs, models, sources):
    expected = {text: models["talk"].model.chat(user(text), beam=1) for text in sources}

    def ask(number):
        text = sources[number % len(sources)]
        asked = {"model": "talk", "messages": user(text), "temperature": 0}
        if number % 2:
            got = theirs.chat.completions.create(**asked).choices[0].message.content
        else:
            got = "".join(piece for piece, _ in deltas(theirs.chat.completions.create(**asked, stream=True)))
        return got == expected[text]

    with ThreadPoolExecutor(30) as pool:
        assert all(pool.map(ask, range(60)))


def test_a_stream_that_is_cut_off_says_so(theirs, sources):
    stream = theirs.chat.completions.create(
        model="talk", messages=user(sources[0]), temperature=0, max_tokens=2, stream=True
    )
    assert deltas(stream)[-1] == ("", "length")


def test_decoding_stops_when_the_client_leaves(address, models):
    slow = models["slow"]
    slow.ended.clear()
    body = json.dumps({"model": "slow", "messages": user("go"), "stream": True}).encode()
    head = "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    with socket.create_connection(address.removeprefix("http://").split(":"), timeout=PATIENCE) as leaving:
        leaving.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        seen = b""
        while seen.count(b"on ") < 20:
            seen += leaving.recv(1 << 16)
        assert not slow.ended.is_set()
    assert slow.ended.wait(PATIENCE)


def test_the_first_word_comes_before_the_last_is_known(address):
    body = {"model": "slow", "messages": user("go"), "stream": True}
    begun = time.perf_counter()
    with client(address) as asking, asking.stream("POST", "/v1/chat/completions", json=body) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert next(answer.iter_lines()).startswith("data: {")
    assert time.perf_counter() - begun < 5


@pytest.mark.parametrize(
    "changes",
    [
        {"messages": []},
        {"messages": [{"role": "assistant", "content": "ba"}]},
        {"messages": [{"role": "user", "content": None}]},
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "file:///x"}}]}]},
        {"temperature": 2.5},
        {"n": 17},
        {"max_tokens": 0},
        {"max_tokens": 10_000},
        {"max_tokens": 5, "max_completion_tokens": 5},
        {"presence_penalty": 0.5},
        {"stop": ["a"] * 5},
        {"stop": ""},
        {"stream_options": {"include_usage": True}},
        {"tools": [{"type": "function", "function": {"name": "f"}}]},
    ],
)
def test_what_is_wrong_is_their_bad_request(theirs, changes):
    asked = {"model": "talk", "messages": user("ba"), **changes}
    with pytest.raises(openai.BadRequestError) as error:
        theirs.chat.completions.create(**asked)
    assert error.value.type == "invalid_request_error"
    assert error.value.body["message"]


def test_other_errors_are_theirs_too(theirs, models):
    with pytest.raises(openai.NotFoundError) as error:
        theirs.chat.completions.create(model="gpt", messages=user("ba"))
    assert error.value.param == "model"
    with running(models, api_key="sesame") as locked:
        wrong, right = (openai.OpenAI(base_url=f"{locked}/v1", api_key=key, max_retries=0) for key in ("no", "sesame"))
        with wrong, pytest.raises(openai.AuthenticationError):
            wrong.models.list()
        with right:
            assert right.models.retrieve("talk").id == "talk"


def test_neutral_options_and_unicode_are_taken(theirs, models):
    options = {"presence_penalty": 0, "frequency_penalty": 0.0, "user": "u"}
    text = "<script>é</script> 😀 \u2028"
    done = theirs.chat.completions.create(model="reverse", messages=user(text), **options)
    assert done.choices[0].message.content == models["reverse"].model.translate(text)


def test_what_the_readme_shows_works(address, models, sources, capsys):
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    (shown,) = [block for block in re.findall(r"```python\n(.*?)```", readme, re.DOTALL) if "base_url" in block]
    changes = {"http://127.0.0.1:8000": address, "translate/debian-en-de": "reverse", "a text editor": sources[0]}
    for old, new in changes.items():
        assert old in shown
        shown = shown.replace(old, new)
    exec(compile(shown, "README.md", "exec"), {})
    assert capsys.readouterr().out == f"{models['reverse'].model.translate(sources[0])}\n"
    (asked,) = re.findall(r"-d '(\{.*\})'", readme)
    with client(address) as asking:
        body = {**json.loads(asked), "model": "reverse"}
        assert asking.post("/api/generate", json=body).status_code == 200
        body["model"] = "unknown"
        assert asking.post("/api/generate", json=body).status_code == 404
