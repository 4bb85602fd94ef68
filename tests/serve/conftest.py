"""What tests of the server are given: models, and a server of them in a thread."""

import pytest
from serve_toys import Slow, client, running

from s2s import load
from s2s.serve.models import Served


@pytest.fixture(scope="session")
def models(reverse_run, copy_run, talk_run):
    """A model of words, one of pieces, one that talks, and one that takes its time."""
    runs = {"reverse": reverse_run, "copy": copy_run, "talk": talk_run}
    made = {name: Served(name, load(run, device="cpu")) for name, run in runs.items()}
    return {**made, "slow": Slow(made["talk"].model)}


@pytest.fixture(scope="module")
def address(models):
    """The address of a server of all models."""
    with running(models) as made:
        yield made


@pytest.fixture(scope="module")
def server(address):
    """A client of the server at `address`."""
    with client(address) as made:
        yield made
