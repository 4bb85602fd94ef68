"""Bundles hold all that a model keeps: parameters and persistent buffers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from s2s.app import compose
from s2s.errors import BundleError
from s2s.model.seq2seq import Seq2Seq
from s2s.task import trained as room
from s2s.task.trained import Trained, build_model, load_trained, save_trained
from s2s.text.corpus import generated

SIZES = ["encoder.width=8", "decoder.width=8", "model.embedding=8"]


def model_of(config: Any) -> Trained:
    pairs = generated(task="copy", train=50, dev=0, test=0).splits["train"]
    source, target = config.text.build().train([p.source for p in pairs], [p.target for p in pairs])
    return Trained(room.build_model(config, source.size, target.size), source, target, config, ("a", "b"))


def with_buffers(*args: Any) -> Seq2Seq:
    model = build_model(*args)
    model.decoder.register_buffer("baseline", torch.zeros(()))
    model.decoder.register_buffer("seen", torch.zeros(3, dtype=torch.int64))
    model.decoder.register_buffer("scratch", torch.zeros(2), persistent=False)
    return model


def test_buffers_come_back_bit_for_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "build_model", with_buffers)
    made = model_of(compose("teach/copy", SIZES))
    buffers = dict(made.model.named_buffers())
    buffers["decoder.baseline"].fill_(-1 / 3)
    buffers["decoder.seen"].copy_(torch.tensor([1, -2, 1 << 40]))
    buffers["decoder.scratch"].fill_(7)
    save_trained(tmp_path / "model", made, training={}, card="x")
    found = dict(load_trained(tmp_path / "model").model.named_buffers())
    assert torch.equal(found["decoder.baseline"], buffers["decoder.baseline"])
    assert found["decoder.seen"].tolist() == [1, -2, 1 << 40]
    assert found["decoder.scratch"].tolist() == [0, 0]


def test_a_buffer_that_is_missing_or_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = compose("teach/copy", SIZES)
    save_trained(tmp_path / "plain", model_of(config), training={}, card="x")
    load_trained(tmp_path / "plain")
    monkeypatch.setattr(room, "build_model", with_buffers)
    save_trained(tmp_path / "buffers", model_of(config), training={}, card="x")
    with pytest.raises(BundleError, match=r"decoder\.baseline: missing"):
        load_trained(tmp_path / "plain")
    monkeypatch.setattr(room, "build_model", build_model)
    with pytest.raises(BundleError, match=r"decoder\.baseline: extra"):
        load_trained(tmp_path / "buffers")
