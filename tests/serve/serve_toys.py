"""What tests of the server share: a server that runs in a thread, its client, and a model that takes its time."""

import threading
import time
from contextlib import contextmanager

import httpx2
import uvicorn

from s2s.command.serve import listen
from s2s.serve.app import build_app
from s2s.serve.models import Served
from s2s.types import Result

PATIENCE = 30


class Slow(Served):
    """A dialogue model that waits before it answers, and streams until nobody listens."""

    def __init__(self, model):
        super().__init__("slow", model)
        held = {name: threading.Event() for name in ("begun", "go", "ended")}
        self.__dict__.update(held, answered=[])

    def answers(self, worker, conversations, changes, *, alignment):
        def wait(asked):
            self.begun.set()
            assert self.go.wait(PATIENCE)
            self.answered += asked
            return [Result(one, one, 0.0, 0.0) for one in asked]

        return worker.submit(wait, [one[-1]["content"] for one in conversations])

    def stream(self, worker, conversation, changes, put):
        def endless(hear):
            try:
                while True:
                    hear("on ")
                    time.sleep(0.001)
            finally:
                self.ended.set()

        return worker.stream(endless, put)


@contextmanager
def running(models, **options):
    """The address of a server of these models."""
    listening = listen("127.0.0.1", 0)
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
