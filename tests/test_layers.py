"""Imports point up: a room imports only from rooms before it, and the package is light until a model is loaded."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import s2s

PACKAGE = Path(s2s.__file__).resolve().parent
MODULES = {
    ".".join(["s2s", *path.relative_to(PACKAGE).with_suffix("").parts]).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}

# Rooms in their order, those of a line side by side: a module imports from its own room and from the lines above it.
ORDER = [
    ["s2s"],  # the package itself: its version, and what it loads when asked
    ["s2s.errors"],
    ["s2s.types"],
    ["s2s.files", "s2s.paths"],
    ["s2s.kernels"],
    [
        "s2s.tensors",
        "s2s.registry",
        "s2s.state",
        "s2s.activations",
        "s2s.dropout",
        "s2s.products",
        "s2s.recording",
    ],
    ["s2s.gather"],
    ["s2s.text", "s2s.attention"],
    ["s2s.model"],
    ["s2s.bundle"],
    ["s2s.train", "s2s.search", "s2s.score"],
    ["s2s.config"],
    ["s2s.checks"],
    ["s2s.show"],
    ["s2s.task"],
    ["s2s.app", "s2s.serve"],
    ["s2s.command"],
    ["s2s.cli"],
    ["s2s.__main__"],
]
RANK = {room: rank for rank, rooms in enumerate(ORDER) for room in rooms}


def room(module):
    return ".".join(module.split(".")[:2])


def imports(path, module):
    """(imported module, whether it is imported with the module itself) of every import, wherever it stands."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    lazy, typing_only = set(), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            lazy |= {id(inner) for inner in ast.walk(node)}
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            typing_only |= {id(inner) for part in node.body for inner in ast.walk(part)}
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} imports relatively"
            base = node.module
            names = [f"{base}.{a.name}" if f"{base}.{a.name}" in MODULES else base for a in node.names]
        else:
            continue
        yield from ((name, id(node) not in lazy) for name in names)


IMPORTS = [(module, *found) for module, path in MODULES.items() for found in imports(path, module)]


def test_every_module_has_a_room():
    assert {room(module) for module in MODULES} <= set(RANK)
    assert len(IMPORTS) > 100


@pytest.mark.parametrize("module", [module for module in MODULES if module != "s2s"])
def test_imports_point_up(module):
    for importer, name, _ in IMPORTS:
        if importer == module and name.split(".")[0] == "s2s":
            allowed = room(name) == room(module) or RANK[room(name)] < RANK[room(module)]
            assert allowed, f"{module} imports {name}, which stands below it"


def test_the_package_itself_imports_nothing_of_its_rooms_until_asked():
    assert [name for module, name, at_once in IMPORTS if module == "s2s" and at_once and name.startswith("s2s")] == []


@pytest.mark.parametrize(
    "library, importers",
    [
        ("hydra", {"s2s.app"}),
        ("omegaconf", {"s2s.app"}),
        ("sentencepiece", {"s2s.text.tokenizer"}),
        ("matplotlib", {"s2s.show.plots"}),
        ("safetensors", {"s2s.tensors"}),
        ("prometheus_client", {"s2s.serve.metrics"}),
        ("uvicorn", {"s2s.command.serve"}),
    ],
)
def test_a_library_is_known_to_one_file(library, importers):
    found = {module for module, name, _ in IMPORTS if name.split(".")[0] == library}
    assert found <= importers


@pytest.mark.parametrize("library", ["matplotlib", "tensorboard", "rich", "torch.utils.tensorboard"])
def test_what_only_shows_is_imported_when_it_is_used(library):
    at_once = {module for module, name, first in IMPORTS if first and (name + ".").startswith(library + ".")}
    assert at_once == set()


@pytest.mark.parametrize("name", ["pickle", "dill", "shelve", "marshal"])
def test_nothing_is_pickled(name):
    assert {module for module, imported, _ in IMPORTS if imported.split(".")[0] == name} == set()


def loaded_by(code):
    """The modules that a fresh Python has loaded after `code`."""
    code = f"import sys\ntry:\n    {code}\nexcept SystemExit:\n    pass\nprint('MODULES', *sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=PACKAGE.parent, timeout=120, check=True
    )
    return set(done.stdout.split("MODULES ", 1)[1].split())


HEAVY = {
    "torch", "numpy", "hydra", "omegaconf", "matplotlib", "sentencepiece", "sacrebleu", "rouge_score", "safetensors",
    "rich", "tensorboard", "multiprocessing",
}  # fmt: skip


def test_the_package_and_the_help_are_light():
    assert loaded_by("import json").isdisjoint({"s2s"})
    for code in (
        "import s2s",
        "import s2s.cli; s2s.cli.main(['--help'])",
        "import s2s.cli; s2s.cli.main(['--version'])",
    ):
        loaded = loaded_by(code)
        assert "s2s" in loaded
        assert loaded & HEAVY == set(), code


def test_only_the_server_knows_http():
    others = {module for module, name, _ in IMPORTS if name.split(".")[0] in ("fastapi", "starlette", "pydantic")}
    assert {room(module) for module in others} == {"s2s.serve"}


@pytest.mark.parametrize("command", ["list", "train", "translate", "info", "serve"])
def test_the_help_of_a_command_is_light(command):
    loaded = loaded_by(f"import s2s.cli; s2s.cli.main(['{command}', '--help'])")
    assert f"s2s.command.{command}" in loaded
    assert loaded & {"torch", "hydra", "matplotlib", "fastapi"} == set()


def test_checking_a_config_does_not_pull_in_the_compiler_of_torch():
    changes = "['encoder=transformer', 'decoder=transformer', 'decoder.learned_positions=300', 'model.tie=none']"
    loaded = loaded_by(f"import s2s.app; s2s.app.compose('teach/copy', {changes})")
    assert "torch" in loaded
    assert "torch._dynamo" not in loaded  # it takes longer than all the rest


def test_loading_a_model_pulls_in_nothing_that_only_trains_or_shows():
    loaded = loaded_by("import s2s; s2s.load")
    assert "torch" in loaded
    assert loaded & {"hydra", "omegaconf", "matplotlib", "tensorboard", "rich"} == set()
    assert not {name for name in loaded if room(name) in ("s2s.show", "s2s.app", "s2s.command", "s2s.serve")}
