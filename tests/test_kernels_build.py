"""How the kernels of a CPU are built, and what happens without them."""

import ctypes
import os
import stat
import subprocess
import sys

import pytest
from exact import needs_c
from toys import TINY, call

from s2s import kernels
from s2s.kernels import build as builder

pytestmark = needs_c


def seen_by(folder, code, **environment):
    """What a process prints that has its cache in this folder."""
    given = {**os.environ, "XDG_CACHE_HOME": str(folder), **environment}
    command = [sys.executable, "-c", f"import torch\nfrom s2s.kernels.build import library\n{code}"]
    done = subprocess.run(command, env=given, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip(), done.stderr.strip()


def libraries(folder):
    return sorted((folder / "s2s" / "kernels").glob("*.so"))


SHOW = "print(library() is not None)"


def test_it_is_compiled_once_and_kept_for_its_owner_alone(tmp_path):
    assert seen_by(tmp_path, SHOW) == ("True", "")
    (kept,) = libraries(tmp_path)
    assert not stat.S_IMODE(kept.stat().st_mode) & 0o077
    assert not stat.S_IMODE(kept.parent.stat().st_mode) & 0o077
    assert seen_by(tmp_path, SHOW, PATH="", CC="") == ("True", "")  # without a compiler
    assert os.listdir(kept.parent) == [kept.name]


@pytest.mark.parametrize("what", ["file", "folder"])
def test_what_others_could_have_written_is_not_loaded(tmp_path, what):
    seen_by(tmp_path, SHOW)
    (kept,) = libraries(tmp_path)
    (kept if what == "file" else kept.parent).chmod(0o777)
    assert seen_by(tmp_path, SHOW, PATH="", CC="") == ("False", "")


def test_a_damaged_library_is_made_anew(tmp_path):
    seen_by(tmp_path, SHOW)
    (kept,) = libraries(tmp_path)
    kept.write_bytes(kept.read_bytes()[:100])
    assert seen_by(tmp_path, SHOW) == ("True", "")
    ctypes.CDLL(str(kept))


def test_a_home_that_cannot_be_written_costs_only_time(tmp_path):
    (tmp_path / "s2s").write_text("a file where a folder would be")
    assert seen_by(tmp_path, SHOW) == ("True", "")


def test_without_a_compiler_all_is_plain(tmp_path):
    code = f"{SHOW}\nfrom s2s.activations import tanh\nprint(tanh(torch.ones(1)).item() > 0.76)"
    assert seen_by(tmp_path, code, PATH="", CC="") == ("False\nTrue", "")


def test_the_environment_has_the_last_word(tmp_path):
    code = "from s2s import kernels\nimport torch\nprint(kernels.kind(torch.device('cpu')))"
    assert seen_by(tmp_path, code, S2S_KERNELS="") == ("C", "")
    assert seen_by(tmp_path, code, S2S_KERNELS="plain") == ("plain", "")
    code = f"from s2s.errors import UsageError\ntry:\n  exec({code!r})\nexcept UsageError as e:\n  print(e.where)"
    assert seen_by(tmp_path, code, S2S_KERNELS="fast") == ("S2S_KERNELS", "")


def test_training_tells_of_their_absence_and_of_a_change(tmp_path, monkeypatch):
    steps = ["optim.warmup=0", f"output={tmp_path}"]
    told = "for want of a C compiler"
    first = call("train", "teach/copy", *TINY, "trainer.steps=2", "trainer.save_every=2", *steps)
    assert told not in first.err
    run = next(path.parent for path in tmp_path.rglob("config.yaml") if path.parent.name != "latest")
    monkeypatch.setattr(kernels, "library", lambda: None)
    again = call("train", "--resume", str(run), "trainer.steps=4")
    assert again.code == 0, again.err
    assert told in again.err
    assert "began with kernels: C, and goes on with plain" in again.err
    monkeypatch.undo()
    assert told not in call("train", "teach/copy", *TINY, "trainer.steps=2", "kernels=plain", *steps).err


def test_a_compiler_that_fails_is_told_once(tmp_path):
    script = tmp_path / "cc"
    script.write_text("#!/bin/sh\necho it broke >&2\nexit 3\n")
    script.chmod(0o755)
    printed, told = seen_by(tmp_path, f"{SHOW}\n{SHOW}", CC=str(script))
    assert printed == "False\nFalse"
    assert told.count("it broke") == 1
    assert str(script) in told


def test_a_compiler_without_openmp_gives_kernels_of_one_thread(tmp_path):
    script = tmp_path / "cc"
    script.write_text(
        '#!/bin/sh\nfor a in "$@"; do [ "$a" = -fopenmp ] && exit 1; done\nexec ' + f'{builder._compiler()} "$@"\n'
    )
    script.chmod(0o755)
    use = "from s2s.activations import tanh\nx = torch.ones(20000)\nprint(torch.allclose(tanh(x), x.tanh()))"
    code = f"{SHOW}\n{use}"
    assert seen_by(tmp_path, code, CC=str(script)) == ("True\nTrue", "")
    script.write_text(f"#!/bin/sh\necho called >> {tmp_path}/calls\nexit 1\n")
    assert seen_by(tmp_path, code, CC=str(script)) == ("True\nTrue", "")
    assert not (tmp_path / "calls").exists()  # no start tries anew what failed


def test_libraries_of_other_processors_and_sources_have_other_names(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    builder._made(builder._compiler(), ("-O1", "-fPIC"))
    monkeypatch.setattr(builder, "_processor", lambda: "another")
    builder._made(builder._compiler(), ("-O1", "-fPIC"))
    builder._made(builder._compiler(), ("-O2", "-fPIC"))
    assert len(libraries(tmp_path)) == 3


def test_the_sources_compile_without_a_warning(tmp_path):
    command = [builder._compiler(), "-std=c99", "-O3", "-Wall", "-Wextra", "-Werror", "-fopenmp", "-fPIC", "-c"]
    sources = list(builder._SOURCES.glob("*.c"))
    assert sources
    for source in sources:
        done = subprocess.run([*command, str(source), "-o", str(tmp_path / "x.o")], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
