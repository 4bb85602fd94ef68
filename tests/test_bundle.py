"""Model folders: round trips, every refusal, and saves that are killed or run out of disk."""

from __future__ import annotations

import ast
import hashlib
import io
import json
import os
import pickle
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import s2s
from s2s import bundle, files
from s2s.errors import BundleError, RunError
from s2s.tensors import write_tensors

ROOT = Path(s2s.__file__).resolve().parent.parent
CONFIG = {
    "task": {"name": "translation"},
    "encoder": {"name": "lstm", "layers": 2, "width": 8, "dropout": 0.1},
    "attention": {"name": "additive", "size": None},
    "training": {"steps": 12, "loss": 0.1 + 0.2},
}
FILES = {"source.spm": b"\x0a\x0e\x0a\x05<unk>" + bytes(50), "target.json": b'["<pad>"]'}


def tensors() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {f"layer{n}.weight": torch.randn(3, 2, generator=generator) for n in range(4)}


def save(folder: Path, **changed: Any) -> Path:
    parts: dict[str, Any] = {"config": CONFIG, "tensors": tensors(), "files": FILES, "card": "# A model\n"}
    bundle.save(folder, **{**parts, **changed})
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save(tmp_path / "model")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)], capture_output=True)
    if done.returncode:
        pytest.skip("needs the right to mount a tmpfs")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def same(found: bundle.Bundle) -> None:
    assert found.config == CONFIG
    assert found.files == FILES
    assert found.tensors.keys() == tensors().keys()
    assert all(torch.equal(found.tensors[name], tensor) for name, tensor in tensors().items())


def put(folder: Path, name: str, data: bytes) -> None:
    """Change a file and the manifest with it, as one does who means harm."""
    (folder / name).write_bytes(data)
    edit(folder, lambda m: m["files"].update({name: {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}}))


def edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    manifest = json.loads((folder / "manifest.json").read_bytes())
    change(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))


def refused(folder: Path, why: str) -> str:
    """`read` and `verify` both refuse the folder; gives the message."""
    with pytest.raises(BundleError, match=why) as caught:
        bundle.read(folder)
    assert str(caught.value) in bundle.verify(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_round_trip(folder: Path) -> None:
    found = bundle.read(folder)
    same(found)
    assert bundle.verify(folder) == []
    assert found.manifest["format_version"] == 1
    assert sorted(os.listdir(folder)) == sorted([*found.manifest["files"], "manifest.json"])
    assert (folder / "README.md").read_text() == "# A model\n"
    assert os.listdir(folder.parent) == ["model"]
    assert bundle.read_config(folder) == CONFIG
    save(folder, config={**CONFIG, "seed": 2})
    assert bundle.read(folder).config["seed"] == 2


def test_odd_places_work(tmp_path: Path) -> None:
    for name in ("with space/模型 ünï/it's [a] *", "d" * 120 + "/" + "e" * 120 + "/" + "f" * 120):
        same(bundle.read(save(tmp_path / name)))
        assert bundle.verify(save(tmp_path / name)) == []
    (tmp_path / "latest").symlink_to("with space")
    same(bundle.read(tmp_path / "latest" / "模型 ünï" / "it's [a] *"))


def test_loaded_weights_do_not_change_with_the_file(folder: Path) -> None:
    found = bundle.read(folder)
    (folder / "model.safetensors").write_bytes(b"\xff" * (folder / "model.safetensors").stat().st_size)
    same(found)


def test_a_read_only_place_is_read_and_refuses_a_save(small_disk: Path) -> None:
    folder = save(small_disk / "model")
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    same(bundle.read(folder))
    assert bundle.verify(folder) == []
    with pytest.raises(RunError, match="can't write here"):
        save(folder)
    same(bundle.read(folder))


def test_a_full_disk_keeps_the_old_bundle(small_disk: Path) -> None:
    folder = save(small_disk / "model")
    with pytest.raises(RunError, match=r"no room left.*MB free"):
        save(folder, tensors={"w": torch.zeros(1_000_000)})
    same(bundle.read(folder))
    assert os.listdir(small_disk) == ["model"]


KILLED = """
import os, signal, sys, time
import torch
from s2s import bundle, files
files.LEFTOVER_SECONDS = 0
os.fsync = lambda file: None  # it guards against a power cut, not a kill, and takes long on a busy disk
if sys.argv[2] == "False":
    files._exchange = lambda first, second: False
folder = sys.argv[1]

def save(number):
    bundle.save(folder, config={"number": number}, tensors={"w": torch.full((999,), float(number))},
                files={"source.spm": str(number).encode()}, card=str(number))

def read():
    found = bundle.read(folder)
    numbers = {found.config["number"], int(found.tensors["w"][0]), int(found.tensors["w"][-1]),
               int(found.files["source.spm"])}
    assert len(numbers) == 1, numbers
    return numbers.pop()

def start(number):
    process = os.fork()
    while process == 0:
        number += 1
        save(number)
    return process

def timed(number):
    began = time.monotonic()
    save(number)
    return time.monotonic() - began

took = min(timed(0) for _ in range(3))  # so that kills fall into every part of a save, on any disk
last = 0
for round in range(300):
    if round >= 16 and last > 0:
        break
    process = start(last)
    time.sleep(took * (0.2 + 0.23 * (round % 16)))
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    assert read() >= last
    last = read()
    assert bundle.verify(folder) == []
process = start(last)
try:
    seen = [read() for _ in range(80)]
finally:
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
assert seen == sorted(seen), seen
save(last + 1)
assert os.listdir(os.path.dirname(folder)) == ["model"], os.listdir(os.path.dirname(folder))
print("versions", last, len(set(seen)))
"""


@pytest.mark.parametrize("exchange", [True, False])
def test_kill_9_while_saving_leaves_a_saved_version_and_readers_never_see_half(tmp_path: Path, exchange: bool) -> None:
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", KILLED, str(tmp_path / "run" / "model"), str(exchange)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[1]) > 0


def test_a_save_that_fails_keeps_the_old_bundle(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(bundle, "write_manifest", stop)
    with pytest.raises(KeyboardInterrupt):
        save(folder, config={})
    same(bundle.read(folder))
    assert os.listdir(folder.parent) == ["model"]


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"tensors": {"w": torch.tensor([1.0, float("nan")])}}, "tensor w holds NaN or Inf"),
        ({"tensors": {"w": torch.tensor([float("inf")], dtype=torch.bfloat16)}}, "tensor w holds NaN or Inf"),
        ({"config": {"encoder": {"_target_": "s2s.model.lstm"}}}, "names code: _target_"),
        ({"config": {"lr": float("nan")}}, "no plain values"),
        ({"config": {"path": Path("x")}}, "no plain values"),
        ({"config": {"a": "x" * 2_000_000}}, "too big"),
        ({"files": {"../source.spm": b""}}, "is refused: ../source.spm"),
        ({"files": {"a/source.spm": b""}}, "is refused: a/source.spm"),
        ({"files": {"config.json": b""}}, "no name for a tokenizer file"),
        ({"files": {"card.md": b""}}, "no name for a tokenizer file"),
    ],
)
def test_what_would_not_load_is_not_saved(folder: Path, changed: dict[str, Any], why: str) -> None:
    with pytest.raises(BundleError, match=why):
        save(folder, **changed)
    same(bundle.read(folder))
    assert sorted(p.name for p in folder.parent.rglob("*.spm")) == ["source.spm"]


def test_a_folder_that_is_no_bundle_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").touch()
    with pytest.raises(BundleError):
        save(tmp_path / "home")
    (tmp_path / "home" / "manifest.json").write_text('{"name": "a web page"}')
    with pytest.raises(BundleError, match="of another kind"):
        save(tmp_path / "home")
    assert (tmp_path / "home" / "thesis.tex").exists()
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="can't be replaced by a folder"):
        save(tmp_path / "file")
    (tmp_path / "empty").mkdir()
    same(bundle.read(save(tmp_path / "empty")))


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "source.spm", "target.json", "README.md"])
def test_a_changed_or_missing_file_is_named(folder: Path, name: str) -> None:
    path = folder / name
    data = path.read_bytes()
    path.write_bytes(data[:-3] + bytes([data[-3] ^ 1]) + data[-2:])
    kind = "is not the tokenizer file" if name in FILES else "was changed or damaged"
    assert str(path) in refused(folder, f"{kind}.*expected SHA-256 [0-9a-f]+.*found [0-9a-f]+")
    path.write_bytes(data[:-1])
    assert str(path) in refused(folder, "wrong size|cut off")
    path.write_bytes(b"")
    refused(folder, "wrong size|cut off")
    path.unlink()
    assert str(path) in refused(folder, "No such file")
    path.symlink_to("/etc/passwd")
    assert str(path) in refused(folder, "is a link")


def test_every_problem_is_listed_and_unlisted_files_are_reported(folder: Path) -> None:
    (folder / "source.spm").write_bytes(b"other")
    (folder / "target.json").unlink()
    (folder / "model.pt").write_bytes(b"PK\x03\x04")
    problems = bundle.verify(folder)
    assert len(problems) == 3
    for name in ("source.spm", "target.json", "model.pt"):
        assert sum(name in problem for problem in problems) == 1
    shutil.rmtree(folder)
    save(folder)
    (folder / "odd\x1b[2J").touch()
    same(bundle.read(folder))
    (problem,) = bundle.verify(folder)
    assert "not listed" in problem
    assert "\x1b" not in problem


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("../secret.json", "path that is refused"),
        ("/etc/passwd.json", "path that is refused"),
        ("sub/a.json", "path that is refused"),
        ("..", "path that is refused"),
        ("", "path that is refused"),
        (".hidden.json", "path that is refused"),
        ("C:\\a.json", "path that is refused"),
        ("..\\a.json", "path that is refused"),
        ("a\n.json", "path that is refused"),
        ("a\x00.json", "path that is refused"),
        ("n" * 200 + ".json", "path that is refused"),
        ("manifest.json", "path that is refused"),
        ("weights.pt", "pickle is not loaded"),
        ("pytorch_model.bin", "pickle is not loaded"),
        ("code.py", "unknown kind"),
    ],
)
def test_paths_in_the_manifest(folder: Path, name: str, why: str) -> None:
    (folder.parent / "secret.json").write_text("{}")
    edit(folder, lambda m: m["files"].update({name: {"size": 2, "sha256": hashlib.sha256(b"{}").hexdigest()}}))
    refused(folder, why)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda m: m.update(format_version=2, needs="9.1"), "needs s2s >= 9.1"),
        (lambda m: m.update(format_version=2, needs="\x1b[2J"), r"needs s2s >= \\x1b"),
        (lambda m: m.update(format_version="1"), "is damaged"),
        (lambda m: m.update(format_version=True), "is damaged"),
        (lambda m: m.update(files=[]), "is damaged"),
        (lambda m: m.update(format="other"), "of another kind"),
        (lambda m: m["files"].pop("config.json"), "does not list config.json"),
        (lambda m: m["files"].pop("model.safetensors"), "does not list model.safetensors"),
        (lambda m: m["files"]["config.json"].update(size=-1), "damaged at config.json"),
        (lambda m: m["files"]["config.json"].update(size=1e300), "damaged at config.json"),
        (lambda m: m["files"]["config.json"].update(sha256="ab"), "damaged at config.json"),
        (lambda m: m["files"].update({"config.json": 3}), "damaged at config.json"),
    ],
)
def test_manifests_that_lie(folder: Path, change: Callable[[dict[str, Any]], object], why: str) -> None:
    edit(folder, change)
    assert "\x1b" not in refused(folder, why)


def test_a_manifest_that_is_no_json_object_or_a_link_is_refused(folder: Path) -> None:
    good = (folder / "manifest.json").read_bytes()
    for text in (b"", b"[]", b"3", b"null", b"[" * 100_000, good[:-20], b" " * (1 << 21), b"\xff"):
        (folder / "manifest.json").write_bytes(text)
        refused(folder, "manifest.json")
    (folder.parent / "real.json").write_bytes(good)
    (folder / "manifest.json").unlink()
    refused(folder, "No such file")
    (folder / "manifest.json").symlink_to(folder.parent / "real.json")
    refused(folder, "is a link")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b'{"encoder": {"_target_": "os.system"}}', "names code: _target_"),
        (b'{"a": [[{"b": {"_partial_": true}}]]}', "names code: _partial_"),
        (b'{"_args_": []}', "names code: _args_"),
        (b'{"a": {"_recursive_": 1}}', "names code"),
        (b'{"a": {"_convert_": "all"}}', "names code"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a":' * 5_000 + b"1" + b"}" * 5_000, "nested too deeply"),
        (b'{"a": 1, "a": 2}', "stands twice"),
        (b'{"a": NaN}', "no finite number"),
        (b"[]", "is no config"),
        (b'{"a": "' + b"x" * (1 << 20) + b'"}', "too big"),
        (b'{"encoder": {"layers": 1000000000}}', "asks for 1000000000 in encoder .layers."),
        (b'{"decoder": {"layers": 5}}', "at most 4, since the weights are 4 tensors of 24 numbers"),
        (b'{"model": {"deep": [{"width": 1000000000000}]}}', "asks for 1000000000000 in model"),
        (b"!!python/object/apply:os.system [id]", "is no JSON"),
    ],
)
def test_hostile_configs(folder: Path, text: bytes, why: str) -> None:
    put(folder, "config.json", text)
    assert "config.json" in refused(folder, why)
    if "asks for" not in why and "at most" not in why:
        with pytest.raises(BundleError, match=why):
            bundle.read_config(folder)


def test_hostile_weights_with_a_true_hash(folder: Path) -> None:
    buffer = io.BytesIO()
    torch.save(tensors(), buffer)
    put(folder, "model.safetensors", buffer.getvalue())
    refused(folder, "pickle is not loaded")
    write_tensors(folder / "bad", {"w": torch.tensor([1.0, float("inf")])})
    put(folder, "model.safetensors", (folder / "bad").read_bytes())
    (folder / "bad").unlink()
    put(folder, "config.json", b"{}")
    refused(folder, "tensor w holds NaN or Inf")


def test_pickle_under_the_name_of_the_weights_or_the_tokenizer(folder: Path) -> None:
    for name in ("model.safetensors", "source.spm", "target.json", "config.json"):
        good = (folder / name).read_bytes()
        (folder / name).write_bytes(pickle.dumps({"a": "x" * 50}))
        refused(folder, "pickle is not loaded")
        (folder / name).write_bytes(good)
    same(bundle.read(folder))


def test_random_damage_is_refused_or_harmless(folder: Path) -> None:
    rng, refusals = random.Random(3), 0
    good = {path.name: path.read_bytes() for path in folder.iterdir()}
    for number in range(240):
        name = sorted(good)[number % len(good)]
        damaged = bytearray(good[name])
        for _ in range(rng.randint(1, 3)):
            damaged[rng.randrange(len(damaged))] ^= rng.randrange(1, 256)
        (folder / name).write_bytes(damaged)
        try:
            same(bundle.read(folder))
            assert name == "manifest.json"
        except BundleError:
            refusals += 1
        assert bool(bundle.verify(folder)) or name == "manifest.json"
        (folder / name).write_bytes(good[name])
    assert refusals >= 200
    same(bundle.read(folder))


def test_random_damage_with_a_true_hash_never_crashes(folder: Path) -> None:
    rng = random.Random(4)
    good = {path.name: path.read_bytes() for path in folder.iterdir()}
    for number in range(200):
        name = ("config.json", "model.safetensors")[number % 2]
        damaged = bytearray(good[name])
        for _ in range(rng.randint(1, 3)):
            damaged[rng.randrange(min(300, len(damaged)))] = rng.randrange(256)
        put(folder, name, bytes(damaged))
        try:
            bundle.read(folder)
            assert bundle.verify(folder) == []
        except BundleError:
            assert bundle.verify(folder) != []
        put(folder, name, good[name])


def test_resolve_finds_the_bundle_of_a_run(tmp_path: Path) -> None:
    run = tmp_path / "runs" / "a" / "2026-1"
    save(run / "model")
    (run.parent / "latest").symlink_to("2026-1")
    for path in (run, run / "model", run.parent / "latest"):
        same(bundle.read(bundle.resolve(path)))
    os.rename(run / "model", run / ".model.previous")  # killed between two renames
    same(bundle.read(bundle.resolve(run)))


def test_resolve_says_what_it_found(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").touch()
    (tmp_path / "runs" / "latest").mkdir(parents=True)
    (tmp_path / "other").mkdir()
    for number in range(7):
        (tmp_path / "other" / f"file{number}").touch()
    (tmp_path / "empty").mkdir()
    (tmp_path / "gone").symlink_to("nothing")
    (tmp_path / "model.pt").write_bytes(b"")
    (tmp_path / "model.bin").write_bytes(b"PK\x03\x04rest")
    (tmp_path / "text").write_bytes(b"hello")
    for name, why in {
        ".": "has saved no model yet.*s2s train --resume",
        "runs": "holds runs, not a model.*latest",
        "other": "holds no model.*found file0, file1, file2, file3, file4 and 2 more",
        "empty": "an empty folder",
        "gone": "link to nothing.*found nothing",
        "model.pt": "pickle is not loaded",
        "model.bin": "pickle is not loaded",
        "text": "is a file",
        "none": "No such file",
    }.items():
        with pytest.raises(BundleError, match=why) as caught:
            bundle.resolve(tmp_path / name)
        assert "a run folder or a bundle folder" in str(caught.value) or "safetensors" in str(caught.value)
        assert str(tmp_path / name) in str(caught.value)
        assert caught.value.exit_code == 2
    assert files.present(tmp_path / "none") == tmp_path / "none"


FORBIDDEN_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
FORBIDDEN_CALLS = {
    *("eval", "exec", "torch.load", "torch.jit.load", "torch.hub.load", "torch.package.PackageImporter"),
    *(
        "yaml.load",
        "yaml.load_all",
        "yaml.unsafe_load",
        "yaml.full_load",
        "np.load",
        "numpy.load",
        "pandas.read_pickle",
    ),
}


def test_nothing_in_s2s_can_load_pickle_or_run_text_as_code() -> None:
    found = []
    for path in sorted((ROOT / "s2s").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_bytes())):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            if isinstance(node, (ast.Attribute, ast.Name)) and ast.unparse(node) in FORBIDDEN_CALLS:
                names = [ast.unparse(node)]
            bad = [n for n in names if n in FORBIDDEN_CALLS or n.split(".")[0] in FORBIDDEN_MODULES]
            found += [f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}: {name}" for name in bad]
    assert found == []
