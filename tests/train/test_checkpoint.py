"""Checkpoints: exact resume, and saves that are killed, damaged or out of disk."""

from __future__ import annotations

import math
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import s2s
from s2s import files
from s2s.errors import BundleError, ConfigError, RunError
from s2s.tensors import parse_tensors
from s2s.train import checkpoint
from s2s.train.checkpoint import check_resume, flatten_optimizer, latest, load, prune, save, unflatten_optimizer

ROOT = Path(s2s.__file__).resolve().parent.parent


def small(number: int) -> dict[str, dict[str, Tensor]]:
    return {"model": {"w": torch.full((3,), float(number))}, "rng": {"cpu": torch.get_rng_state()}}


def equal(a: Any, b: Any) -> bool:
    """Whether nested values are the same in type and bit for bit."""
    if type(a) is not type(b):
        return False
    if isinstance(a, Tensor):
        return a.dtype == b.dtype and a.shape == b.shape and torch.equal(a, b)
    if isinstance(a, dict):
        return list(a) == list(b) and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(equal, a, b))
    return a == b or (isinstance(a, float) and math.isnan(a) and math.isnan(b))


def build(kind: str) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Dropout(0.3), nn.Linear(8, 1))
    groups = [{"params": model[0].parameters(), "lr": 0.1 + 0.2}, {"params": model[3].parameters()}]
    if kind == "adamw":
        return model, torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.98), amsgrad=True)
    if kind == "adamw with a tensor as lr":
        return model, torch.optim.AdamW(model.parameters(), lr=torch.tensor(1e-3))
    return model, torch.optim.SGD(groups, lr=1e-2, momentum=0.9)


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> list[float]:
    """Losses of some steps on data drawn from torch's generator."""
    losses = []
    for _ in range(steps):
        loss = (model(torch.randn(5, 4)) - torch.randn(5, 1)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("kind", ["adamw", "adamw with a tensor as lr", "sgd"])
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(tmp_path: Path, kind: str) -> None:
    model, optimizer = build(kind)
    first = train(model, optimizer, 7)
    tensors, plain = flatten_optimizer(optimizer.state_dict())
    random.seed(3)
    states, python = flatten_optimizer({"python": random.getstate()})
    assert states == {}
    groups = {"model": model.state_dict(), "optimizer": tensors, "rng": {"cpu": torch.get_rng_state()}}
    path = save(tmp_path, 7, tensors=groups, meta={"optimizer": plain, "losses": first, "rng": python})
    rest = train(model, optimizer, 6)
    wanted = random.random()

    again, resumed = build(kind)
    train(again, resumed, 2)  # whatever stood there is replaced
    found, meta = load(path)
    again.load_state_dict(found["model"])
    restored = unflatten_optimizer(found["optimizer"], meta["optimizer"])
    resumed.load_state_dict(restored)
    torch.set_rng_state(found["rng"]["cpu"])
    random.setstate(unflatten_optimizer({}, meta["rng"])["python"])
    assert [loss.hex() for loss in meta["losses"]] == [loss.hex() for loss in first]
    assert [loss.hex() for loss in train(again, resumed, 6)] == [loss.hex() for loss in rest]
    assert equal(again.state_dict(), model.state_dict())
    assert equal(resumed.state_dict(), optimizer.state_dict())
    assert random.random() == wanted


def test_states_of_optimizers_and_schedulers_come_back_equal(tmp_path: Path) -> None:
    model, optimizer = build("adamw")
    train(model, optimizer, 3)
    value = {
        "optimizer": optimizer.state_dict(),
        "schedule": torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10).state_dict(),
        "odd": {0: (1, [2.5, None, True]), "0": float("inf"), "nan": float("nan"), "tensor": {"list": torch.ones(2)}},
    }
    tensors, plain = flatten_optimizer(value)
    path = save(tmp_path, 1, tensors={"optimizer": tensors}, meta={"state": plain})
    groups, meta = load(path)
    assert equal(unflatten_optimizer(groups["optimizer"], meta["state"]), value)
    assert tensors["optimizer.state.0.exp_avg"].shape == (8, 4)
    for bad in ({"f": len}, {(1, 2): 3}):
        with pytest.raises(TypeError):
            flatten_optimizer(bad)
    for damaged in ({"tensor": "none"}, {"dict": 3}, {"what": 1}, {}, {"float": "x"}, {"tensor": [1]}):
        with pytest.raises(BundleError):
            unflatten_optimizer(tensors, damaged)


def test_checkpoints_are_kept_as_they_are(tmp_path: Path) -> None:
    numbers = [0.1, 1 / 3, 5e-324, 1.7976931348623157e308, -0.0, 2**60 + 1]
    groups = {"model": {"w": torch.tensor([1.0, float("nan"), float("-inf")])}, "ema": {}}
    found, meta = load(save(tmp_path, 3, tensors=groups, meta={"numbers": numbers, "finished": True, "none": None}))
    assert meta == {"numbers": numbers, "finished": True, "none": None}
    assert [float(x).hex() for x in meta["numbers"]] == [float(x).hex() for x in numbers]
    assert found["ema"] == {}
    assert torch.equal(found["model"]["w"].view(torch.int32), groups["model"]["w"].view(torch.int32))
    for bad in ({"best": float("inf")}, {"a": {1: 2}}):
        with pytest.raises((ValueError, TypeError)):
            save(tmp_path, 4, tensors={}, meta=bad)
    with pytest.raises(ValueError, match="group"):
        save(tmp_path, 4, tensors={"../model": {}}, meta={})
    assert os.listdir(tmp_path) == ["step-00000003"]


def test_latest_and_prune(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    assert latest(folder) is None
    assert prune(folder, 1) == []
    for step in (5, 100, 20, 123_456_789, 99_999_999):
        save(folder, step, tensors=small(step), meta={"step": step})
    save(folder, 20, tensors=small(-20), meta={"step": -20})
    (folder / "notes").mkdir()
    newest = latest(folder)
    assert newest is not None
    assert newest.name == "step-123456789"
    assert [path.name for path in prune(folder, 2)] == ["step-00000005", "step-00000020", "step-00000100"]
    assert sorted(os.listdir(folder)) == ["notes", "step-123456789", "step-99999999"]
    assert load(newest)[1] == {"step": 123_456_789}
    with pytest.raises(ValueError, match="at least 1"):
        prune(folder, 0)


def test_latest_passes_over_what_is_not_whole_and_says_so(tmp_path: Path) -> None:
    for step in range(1, 5):
        save(tmp_path, step, tensors=small(step), meta={})
    (tmp_path / "step-00000004" / "manifest.json").unlink()
    (tmp_path / "step-00000003" / "model.safetensors").unlink()
    (tmp_path / "step-00000002" / "meta.json").write_bytes(b"{}")
    with pytest.warns(UserWarning, match="passed over") as caught:
        assert latest(tmp_path) == tmp_path / "step-00000001"
    assert [f"step-0000000{n}" in str(w.message) for n, w in zip((4, 3, 2), caught, strict=True)] == [True] * 3


@pytest.mark.parametrize("name", ["model.safetensors", "meta.json", "manifest.json"])
def test_damage_is_found_on_load(tmp_path: Path, name: str) -> None:
    path = save(tmp_path, 1, tensors=small(1), meta={"a": 1})
    data = (path / name).read_bytes()
    for damaged in (data.replace(b"1", b"2", 1), data[:-2], b"", b"\x80\x04\x95" + data):
        (path / name).write_bytes(damaged)
        with pytest.raises(BundleError) as caught:
            load(path)
        assert str(path) in str(caught.value)
    (path / name).write_bytes(data)
    load(path)
    with pytest.raises(BundleError):
        load(tmp_path / "step-00000009")


def test_a_bundle_is_not_loaded_as_a_checkpoint_nor_the_other_way_round(tmp_path: Path) -> None:
    from s2s import bundle

    bundle.save(tmp_path / "model", config={}, tensors={}, files={}, card="")
    with pytest.raises(BundleError, match="expected s2s checkpoint; found s2s bundle"):
        load(tmp_path / "model")
    with pytest.raises(BundleError, match="expected s2s bundle; found s2s checkpoint"):
        bundle.resolve(save(tmp_path, 1, tensors=small(1), meta={}))


KILLED = """
import os, signal, sys, time
import torch
from s2s import files
from s2s.train.checkpoint import latest, load, prune, save
files.LEFTOVER_SECONDS = 0
os.fsync = lambda file: None  # it guards against a power cut, not a kill, and takes long on a busy disk
folder = sys.argv[1]


def write(step):
    save(folder, step, tensors={"model": {"w": torch.full((999,), float(step))}}, meta={"step": step})
    prune(folder, 2)


def timed(number):
    began = time.monotonic()
    write(number)
    return time.monotonic() - began

took = min(timed(1) for _ in range(3))  # so that kills fall into every part of a save, on any disk
step = 1
for round in range(300):
    if round >= 16 and step > 2:
        break
    writer = os.fork()
    while writer == 0:
        step += 1
        write(step)
    time.sleep(took * (0.2 + 0.23 * (round % 16)))
    os.kill(writer, signal.SIGKILL)
    os.waitpid(writer, 0)
    path = latest(folder)
    groups, meta = load(path)
    assert meta["step"] == int(path.name[5:]) == groups["model"]["w"][0] == groups["model"]["w"][-1]
    assert meta["step"] >= step
    step = meta["step"]
    assert all(name.startswith("step-") for name in os.listdir(folder)), os.listdir(folder)
prune(folder, 2)
assert len(os.listdir(folder)) == 2
print("steps", step)
"""


def test_kill_9_while_saving_leaves_whole_checkpoints_only(tmp_path: Path) -> None:
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "error::UserWarning"}
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[1]) > 0


def test_a_full_disk_keeps_older_checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path, 1, tensors=small(1), meta={"step": 1})

    def full(path: Path, tensors: Any) -> None:
        with open("/dev/full", "wb", buffering=0) as device:
            device.write(b"x")

    monkeypatch.setattr(checkpoint, "write_tensors", full)
    with pytest.raises(RunError, match="no room left"):
        save(tmp_path, 2, tensors=small(2), meta={})
    assert os.listdir(tmp_path) == ["step-00000001"]
    assert latest(tmp_path) == tmp_path / "step-00000001"


def test_an_old_leftover_is_cleaned(tmp_path: Path) -> None:
    leftover = tmp_path / ".step-00000007.tmp-1-abc"
    leftover.mkdir(parents=True)
    (leftover / "model.safetensors").write_bytes(b"half")
    os.utime(leftover, (0, 0))
    assert latest(tmp_path) is None
    assert os.listdir(tmp_path) == []
    assert files.LEFTOVER_SECONDS > 0


def test_resume_with_a_changed_config() -> None:
    saved: dict[str, Any] = {
        "encoder": {"name": "lstm", "width": 256},
        "trainer": {"steps": 10, "keep": 2},
        "betas": [0.9, 0.98],
        "seed": 1,
    }
    free = ["trainer.steps", "device"]
    check_resume(saved, saved, free, "runs/a")
    check_resume(saved, {**saved, "betas": (0.9, 0.98)}, free, "runs/a")
    check_resume(saved, {**saved, "trainer": {"steps": 20, "keep": 2}, "device": "cuda"}, free, "runs/a")
    check_resume(saved, {**saved, "trainer": {"steps": 20}}, ["trainer"], "runs/a")
    changed = {**saved, "encoder": {"name": "lstm", "width": 512}}
    del changed["seed"]
    with pytest.raises(ConfigError, match=r"runs/a: .*encoder.width: 256 -> 512 \| seed: 1 -> absent") as caught:
        check_resume(saved, changed, free, "runs/a")
    assert caught.value.exit_code == 2
    with pytest.raises(ConfigError, match="and 5 more"):
        check_resume({str(n): n for n in range(15)}, {}, [], "runs/a")
    with pytest.raises(ConfigError, match=r"trainer.stepsize: absent -> 1"):
        check_resume({"trainer": {"steps": 1}}, {"trainer": {"steps": 1, "stepsize": 1}}, ["trainer.steps"], "runs/a")


def test_files_are_plain_safetensors(tmp_path: Path) -> None:
    path = save(tmp_path, 1, tensors=small(1), meta={})
    assert sorted(os.listdir(path)) == ["manifest.json", "meta.json", "model.safetensors", "rng.safetensors"]
    assert parse_tensors((path / "model.safetensors").read_bytes(), "x")["w"].tolist() == [1.0] * 3
