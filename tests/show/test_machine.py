"""Facts about the machine: all there, all text, none of them private."""

import getpass
import os
import platform

import torch

from s2s.show import machine
from s2s.show.machine import machine_facts, peak_memory_mb


def test_facts():
    facts = machine_facts()
    assert list(facts)[:9] == ["CPU", "cores", "threads", "memory", "system", "Python", "torch", "s2s", "GPU"]
    assert all(isinstance(v, str) and v for v in facts.values())
    assert facts["torch"] == str(torch.__version__)
    assert facts["threads"] == str(torch.get_num_threads())
    assert facts["Python"] == platform.python_version()
    assert (facts["GPU"] == "none") == (not torch.cuda.is_available())
    private = [os.path.expanduser("~"), os.getcwd(), platform.node()]
    private += [name for name in [getpass.getuser()] if len(name) > 4]
    assert not [p for p in private if len(p) > 3 and p in " ".join(facts.values())]


def test_limits_of_a_container_count(monkeypatch):
    files = {"/sys/fs/cgroup/cpu.max": "150000 100000\n", "/sys/fs/cgroup/memory.max": "1000000000\n"}
    monkeypatch.setattr(machine, "_read", lambda path: files.get(path, ""))
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(4)), raising=False)
    assert machine._cores() == "1.5 of 8"
    assert machine._memory().startswith("1.0 GB of ")
    files["/sys/fs/cgroup/cpu.max"] = "max 100000\n"
    files["/sys/fs/cgroup/memory.max"] = "max\n"
    assert machine._cores() == "4 of 8"
    assert " of " not in machine._memory()


def test_peak_memory_grows_with_what_is_held():
    before = peak_memory_mb()
    assert before is not None
    held = bytearray(os.urandom(1 << 20)) * 30
    after = peak_memory_mb()
    assert len(held) > 0
    assert after is not None
    assert 10 < before <= after
    assert after < 1e6
