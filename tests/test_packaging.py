"""What travels in the wheel, and that a copy of it works away from the checkout."""

import ast
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

import s2s
from s2s import paths

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
# What is imported under another name than it is installed under.
DISTRIBUTIONS = {
    "yaml": "pyyaml",
    "hydra": "hydra-core",
    "rouge_score": "rouge-score",
    "prometheus_client": "prometheus-client",
}


def requirement(text):
    return re.split(r"[\s<>=!~;\[]", text, maxsplit=1)[0].lower().replace("_", "-")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    pytest.importorskip("hatchling", reason="building a wheel needs hatchling: pip install -e '.[dev]'")
    place = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(place)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    (built,) = place.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def unpacked(wheel, tmp_path_factory):
    place = tmp_path_factory.mktemp("unpacked")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(place)
    return place


def files_below(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def run(unpacked, folder, *arguments):
    """Run python on the unpacked copy, from a folder that has nothing to do with the checkout."""
    environment = {**os.environ, "PYTHONPATH": str(unpacked)}
    command = [sys.executable, *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", ["conf", "recipes", "data"])
def test_the_wheel_holds_all_of_the_data_folders(unpacked, name):
    # what git ignores, such as a run folder that was left there, needn't travel
    there = {path for path in files_below(ROOT / name) if "__pycache__" not in path and "/." not in f"/{path}"}
    assert there
    assert there <= files_below(unpacked / "s2s" / name)


def test_the_wheel_holds_the_package_with_assets_and_types_and_nothing_else(wheel, unpacked):
    there = {path for path in files_below(ROOT / "s2s") if "__pycache__" not in path}
    assert {
        "py.typed",
        "kernels/c/attention.c",
        "kernels/c/common.h",
        "show/report.html",
        "show/report.css",
        "show/report.js",
        "command/demo.py",
        "serve/page/index.html",
    } <= there
    assert there <= files_below(unpacked / "s2s")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert len(names) == len(set(names))
    tops = {name.split("/")[0] for name in names}
    assert tops == {"s2s", f"s2s-{s2s.__version__}.dist-info"}


def test_the_metadata_say_version_licence_and_command(unpacked):
    info = unpacked / f"s2s-{s2s.__version__}.dist-info"
    metadata = Parser().parsestr((info / "METADATA").read_text(encoding="utf-8"))
    assert metadata["Version"] == s2s.__version__
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Requires-Python"] == ">=3.11"
    assert "Apache License" in (info / "licenses" / "LICENSE").read_text(encoding="utf-8")
    assert "s2s = s2s.cli:main" in (info / "entry_points.txt").read_text(encoding="utf-8")


def test_an_unpacked_copy_answers_away_from_the_checkout(unpacked, tmp_path):
    assert run(unpacked, tmp_path, "-c", "import s2s; print(s2s.__file__)").strip().startswith(str(unpacked))
    listed = run(unpacked, tmp_path, "-m", "s2s", "list", "recipes")
    assert [line.split()[0] for line in listed.splitlines()] == list(paths.recipe_files())
    from s2s.attention import names

    told = run(unpacked, tmp_path, "-c", "from s2s.attention import names; print(*names())")
    assert told.split() == names()
    assert not list(tmp_path.iterdir())


def test_an_unpacked_copy_trains_and_translates(unpacked, tmp_path):
    small = [
        "trainer.steps=2",
        "optim.warmup=1",
        "trainer.samples=1",
        "corpus.train=50",
        "corpus.dev=5",
        "corpus.test=5",
    ]
    run(unpacked, tmp_path, "-m", "s2s", "train", "teach/copy", *small)
    (tmp_path / "in.txt").write_text("ba be\n", encoding="utf-8")
    model = "runs/teach/copy/latest"
    out = run(unpacked, tmp_path, "-m", "s2s", "translate", model, "-i", "in.txt")
    assert out.count("\n") == 1


def test_there_is_one_version():
    assert PROJECT["dynamic"] == ["version"]
    assert "version" not in PROJECT
    assert re.fullmatch(r"\d+\.\d+\.\d+", s2s.__version__)
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(r"^## (\d+\.\d+\.\d+)", changes, re.MULTILINE)[1] == s2s.__version__


def test_whatever_is_imported_is_declared():
    declared = {requirement(text) for text in PROJECT["dependencies"]}
    extras = PROJECT["optional-dependencies"]
    optional = {
        requirement(text)
        for name in ("tensorboard", "hub", "bertscore", "ctranslate2", "serve")
        for text in extras[name]
    }
    found = {}
    for path in sorted((ROOT / "s2s").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            modules = []
            if isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                modules = [node.module]
            for module in modules:
                found.setdefault(module.partition(".")[0], path.name)
    others = {name: file for name, file in found.items() if name != "s2s" and name not in sys.stdlib_module_names}
    assert "torch" in others
    others.pop("triton")  # it comes with the builds of torch that can use it
    others.pop("simuleval")  # it runs s2s, not s2s it, in an environment of its own: it pins old versions
    missing = {n: f for n, f in others.items() if DISTRIBUTIONS.get(n, n) not in declared | optional}
    assert not missing


def test_every_requirement_is_pinned_and_no_pin_is_local():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    wrong = [pin for pin in pins.items() if not re.fullmatch(r"[0-9][0-9a-z.]*", pin[1])]
    assert not wrong  # a build-local suffix such as +cpu is in no registry
    pinned = {requirement(name) for name in pins}
    asked = [*PROJECT["dependencies"], *(text for extra in PROJECT["optional-dependencies"].values() for text in extra)]
    assert {requirement(text) for text in asked} <= pinned
