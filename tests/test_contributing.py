"""The worked example of CONTRIBUTING.md, taken at its word: its lines are added to a copy of the project and tested."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BLOCK = re.compile(r"^```(?:python|yaml)\n# (\S+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A copy of the project with the example's lines at the ends of the files that they name."""
    copy = tmp_path_factory.mktemp("project")
    for folder in ("s2s", "conf", "recipes", "tests/attention"):
        shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", copy)
    blocks = BLOCK.findall((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"))
    assert [name for name, _ in blocks] == [
        "s2s/attention/score.py",
        "s2s/attention/soft.py",
        "s2s/attention/__init__.py",
        "conf/attention/cosine.yaml",
        "tests/attention/attention_toys.py",
    ]
    for name, lines in blocks:
        assert (copy / name).exists() == (name != "conf/attention/cosine.yaml")
        with open(copy / name, "a", encoding="utf-8") as file:
            file.write(f"\n\n{lines}" if name.endswith(".py") else lines)
    return copy


def run(project, *command):
    environment = {**os.environ, "PYTHONPATH": str(project), "OMP_NUM_THREADS": "1"}
    made = subprocess.run(
        [sys.executable, "-m", *command], cwd=project, env=environment, capture_output=True, text=True, timeout=300
    )
    return made.returncode, made.stdout + made.stderr


def test_the_example_keeps_the_contract(project):
    code, output = run(
        project,
        "pytest",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:xdist",
        "tests/attention/test_contract.py",
        "-k",
        "cosine",
    )
    assert code == 0, output[-3000:]
    assert int(re.search(r"(\d+) passed", output)[1]) > 30


def test_the_example_is_listed_and_trains(project):
    code, output = run(project, "s2s", "list", "attention")
    assert code == 0
    assert "cosine" in output
    assert "with a learned strength" in output
    overrides = [
        "attention=cosine",
        "attention.heads=2",
        "trainer.steps=2",
        "optim.warmup=0",
        "corpus.train=20",
        "threads=1",
    ]
    code, output = run(project, "s2s", "train", "teach/copy", *overrides, "output=out")
    assert code == 0, output[-3000:]
