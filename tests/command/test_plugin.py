"""A mechanism of the user's own: trained, kept and loaded only where its module is named."""

from __future__ import annotations

import sys

import pytest

import s2s as package
from s2s.errors import BundleError

MODULE = """
from s2s.attention import Attention, additive


def halved(query_size: int, memory_size: int, *, size: int = 4) -> Attention:
    return additive(query_size, memory_size, size=size)
"""


def test_a_plugin_is_trained_kept_and_loaded_where_it_is_named(s2s, tmp_path, monkeypatch):
    (tmp_path / "user_plugin.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    few = [
        "trainer.steps=2",
        "optim.warmup=1",
        "trainer.validate_every=null",
        "trainer.samples=1",
        "threads=1",
        "corpus.train=50",
    ]
    options = ["--plugin", "user_plugin", "attention=user_plugin.halved", "attention.size=3", "encoder.width=8"]
    done = s2s("train", "teach/copy", *options, *few, "decoder.width=8", f"output={tmp_path / 'runs'}")
    assert done.code == 0, done.err
    run = done.lines[-1]
    sys.modules.pop("user_plugin")
    with pytest.raises(BundleError, match=r"user_plugin\.halved.*--plugin"):
        package.load(run)
    assert "user_plugin" not in sys.modules
    model = package.load(run, plugins=["user_plugin"])
    assert model.trained[0].model.decoder.attention.score.vector.shape == (3,)
    assert s2s("translate", run, stdin=b"ba be\n").code == 2
    assert s2s("translate", run, "--plugin", "user_plugin", stdin=b"ba be\n").code == 0
