"""What tests are given: `s2s` run in this process, four tiny trained models, and which kernels in C run.

What they import is in `toys`: another folder may have a conftest of its own, and only one of them can be imported.
"""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from toys import Done, call, trained

from s2s import kernels
from s2s.kernels import cpu

os.environ.setdefault("TRITON_INTERPRET", "1")  # before anything imports Triton: tests of kernels run on a CPU

PIECES = ("text=sentencepiece", "text.size=290", "text.joint=true", "optim.lr=1.5e-2", "trainer.steps=160")


@pytest.fixture(autouse=True)
def own_choice_of_kernels() -> None:
    """What a test before this one chose, by a command with kernels=plain say, is forgotten."""
    kernels.use("auto")


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the kernels in C that run."""
    names: list[str] = []
    run = cpu._run
    monkeypatch.setattr(cpu, "_run", lambda name, *given: (names.append(name), run(name, *given))[1])
    return names


@pytest.fixture(scope="session")
def s2s() -> Callable[..., Done]:
    """`s2s("translate", folder, stdin=b"...")` gives a `Done`."""
    return call


@pytest.fixture(scope="session")
def reverse_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of a model of words that reverses nearly every sequence."""
    return trained(tmp_path_factory.mktemp("reverse"), "teach/reverse", "optim.lr=1e-2", "trainer.steps=160")


@pytest.fixture(scope="session")
def copy_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of a sentencepiece model that copies most sequences."""
    return trained(tmp_path_factory.mktemp("copy"), "teach/copy", *PIECES)


@pytest.fixture(scope="session")
def talk_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of a dialogue model that answers with what it is told, last word first, more or less."""
    changes = ("task=dialogue", "corpus.test=5", "optim.lr=1e-2", "trainer.steps=60")
    return trained(tmp_path_factory.mktemp("talk"), "teach/reverse", *changes)


@pytest.fixture(scope="session")
def echo_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of a sentencepiece dialogue model that answers with what it is told, mostly."""
    return trained(tmp_path_factory.mktemp("echo"), "teach/copy", "task=dialogue", *PIECES)


@pytest.fixture(scope="session")
def sources(reverse_run: Path) -> list[str]:
    """Sequences that neither translator was trained on, in an order that isn't by length."""
    references = (reverse_run / "test.ref").read_text(encoding="utf-8").split("\n")[:-1]
    return [" ".join(reversed(line.split())) for line in references][:40]
