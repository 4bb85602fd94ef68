"""The SimulEval agent: its policy under a stand-in for SimulEval's agent class, driven as its evaluator does it."""

import importlib
import subprocess
import sys
from argparse import ArgumentParser, Namespace
from types import ModuleType, SimpleNamespace

import pytest


class Read:
    content, finished = "", False


class Write:
    def __init__(self, content, finished):
        self.content, self.finished = content, finished


class Agent:
    """What the policy uses of SimulEval's TextToTextAgent: the states, and a reset at construction."""

    def __init__(self, args):
        self.args = args
        self.states = SimpleNamespace()
        self.reset()

    def reset(self):
        self.states.source, self.states.source_finished = [], False


@pytest.fixture
def module(monkeypatch):
    agents = ModuleType("simuleval.agents")
    agents.ReadAction, agents.WriteAction, agents.TextToTextAgent = Read, Write, Agent
    monkeypatch.setitem(sys.modules, "simuleval", ModuleType("simuleval"))
    monkeypatch.setitem(sys.modules, "simuleval.agents", agents)
    monkeypatch.delitem(sys.modules, "s2s.task.simuleval_agent", raising=False)
    yield importlib.import_module("s2s.task.simuleval_agent")
    sys.modules.pop("s2s.task.simuleval_agent", None)


class WaitK:
    """A stream that copies the source in capitals: K words are read before the first is written."""

    def __init__(self, k):
        self.k, self.words, self.written, self.finished = k, [], 0, False

    def read(self, word):
        assert not self.finished
        self.words.append(word)
        return self._upto(len(self.words) - self.k + 1)

    def finish(self):
        assert not self.finished
        self.finished = True
        return self._upto(len(self.words))

    def _upto(self, end):
        new = [word.upper() for word in self.words[self.written : max(end, 0)]]
        self.written += len(new)
        return new


def agent_of(module, monkeypatch, k):
    opened = []

    def opener(args):
        def open_stream():
            opened.append(WaitK(args.wait_k))
            return opened[-1]

        return open_stream

    monkeypatch.setattr(module, "stream_opener", opener)
    return module.StreamAgent(Namespace(model="m", wait_k=k, device="cpu")), opened


def translate(agent, source):
    """(words, delays), as SimulEval's evaluator drives an agent: after each source word one action."""
    agent.reset()
    words, delays = [], []
    for step in range(1, max(len(source), 1) + 1):
        agent.states.source += source[step - 1 : step]
        agent.states.source_finished = step >= len(source)
        action = agent.policy()
        new = action.content.split()
        words += new
        delays += [min(step, len(source))] * len(new)
        assert action.finished == (step >= len(source))
    return words, delays


@pytest.mark.parametrize(
    "k, delays", [(1, [1, 2, 3, 4, 5]), (3, [3, 4, 5, 5, 5]), (5, [5] * 5), (9, [5] * 5)], ids=["1", "3", "5", "9"]
)
def test_words_are_written_when_the_stream_gives_them(module, monkeypatch, k, delays):
    agent, _ = agent_of(module, monkeypatch, k)
    assert translate(agent, ["a", "b", "c", "d", "e"]) == (["A", "B", "C", "D", "E"], delays)


def test_each_sentence_has_a_stream_of_its_own(module, monkeypatch):
    agent, opened = agent_of(module, monkeypatch, 2)
    assert opened == []
    assert translate(agent, ["a", "b", "c"])[0] == ["A", "B", "C"]
    assert translate(agent, ["d"]) == (["D"], [1])
    assert translate(agent, ["e", "f"]) == (["E", "F"], [2, 2])
    assert [stream.words for stream in opened] == [["a", "b", "c"], ["d"], ["e", "f"]]
    assert all(stream.finished for stream in opened)


def test_a_blank_source_ends_at_once(module, monkeypatch):
    agent, opened = agent_of(module, monkeypatch, 2)
    assert translate(agent, []) == ([], [])
    assert opened[0].finished


def test_the_agent_adds_its_options(module):
    parser = ArgumentParser()
    module.StreamAgent.add_args(parser)
    assert parser.parse_args(["--model", "runs/x"]) == Namespace(model="runs/x", wait_k=None)
    assert parser.parse_args(["--model", "runs/x", "--wait-k", "3"]) == Namespace(model="runs/x", wait_k=3)
    with pytest.raises(SystemExit):
        parser.parse_args([])


def test_the_model_is_loaded_once_and_each_stream_follows_the_options(module, monkeypatch):
    loaded, opened = [], []
    stream = ModuleType("s2s.task.stream")
    stream.Stream = lambda trained, *, wait_k: opened.append((trained, wait_k)) or WaitK(wait_k)
    monkeypatch.setitem(sys.modules, "s2s.task.stream", stream)
    monkeypatch.setattr(
        "s2s.task.trained.load_trained", lambda *path, device: loaded.append((*path, device)) or "model"
    )
    agent = module.StreamAgent(Namespace(model="runs/x", wait_k=2, device="cuda"))
    assert translate(agent, ["a", "b", "c"]) == (["A", "B", "C"], [2, 3, 3])
    assert translate(agent, ["d"]) == (["D"], [1])
    assert loaded == [("runs/x", "cuda")]
    assert opened == [("model", 2), ("model", 2)]


def test_without_simuleval_it_says_what_to_install():
    code = (
        "import sys; sys.modules['simuleval'] = None\n"
        "from s2s.errors import RunError\n"
        "try:\n    import s2s.task.simuleval_agent\nexcept RunError as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert "pip install simuleval" in done.stdout
