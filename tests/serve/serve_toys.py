"""What tests of the server share: a server that runs in a thread, tiny models, and a stand-in for a dialogue model."""

import dataclasses
import socket
import threading
import time
from contextlib import contextmanager
from types import SimpleNamespace

import httpx2
import uvicorn

from s2s import load
from s2s.serve.app import build_app
from s2s.serve.models import Served
from s2s.types import Result

PATIENCE = 30


class Talker:
    """A dialogue model as the server knows one. It says what it was told, with how long the conversation is.

    `endless` makes it go on until nobody listens; `hold` has it wait before it says anything.
    """

    def __init__(self, model):
        config = model.trained[0].config
        task = dataclasses.replace(config.task, name="dialogue")
        self.trained = [SimpleNamespace(model=model.trained[0].model, config=dataclasses.replace(config, task=task))]
        self.languages = ("en", "en")
        self.asked, self.closed, self.begun, self.hold = [], threading.Event(), threading.Event(), threading.Event()
        self.hold.set()

    def chat(self, messages, *, details=False, **options):
        self.begun.set()
        assert self.hold.wait(PATIENCE)
        self.asked.append((messages, options))
        text = f"{len(messages)} {messages[-1]['content']}"
        nbest = [Result(messages[-1]["content"], f"{text} {i}", -i, -i, (5, 3)) for i in range(options["nbest"])]
        made = dataclasses.replace(nbest[0], nbest=tuple(nbest)) if len(nbest) > 1 else nbest[0]
        return dataclasses.replace(made, text=text) if details else text

    def chat_stream(self, messages, **options):
        self.asked.append((messages, options))
        try:
            yield str(len(messages))
            for word in messages[-1]["content"].split():
                yield f" {word}"
            while "endless" in messages[-1]["content"]:
                yield " on"
                time.sleep(0.001)
        finally:
            self.closed.set()


def tiny_models(reverse_run, copy_run):
    """A model of words, one of pieces and a talker."""
    reverse = load(reverse_run, device="cpu")
    return {
        "reverse": Served("reverse", reverse),
        "copy": Served("copy", load(copy_run, device="cpu")),
        "talker": Served("talker", Talker(reverse)),
    }


@contextmanager
def running(models, **options):
    """The address of a server of these models."""
    listening = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(build_app(models, **options), log_level="error", timeout_graceful_shutdown=5)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    address = f"http://127.0.0.1:{listening.getsockname()[1]}"
    try:
        until(lambda: server.started)
        yield address
    finally:
        server.should_exit = True
        thread.join(PATIENCE)
        listening.close()


def client(address):
    return httpx2.Client(base_url=address, timeout=PATIENCE)


def until(true):
    """Wait for something that another thread does."""
    end = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < end
        time.sleep(0.005)
