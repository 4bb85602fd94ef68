"""Where the YAML registry, the recipes and the corpus cards lie, and which names they give.

In a wheel they lie inside the package (`s2s/conf`, ...), in a checkout beside it.
"""

from __future__ import annotations

import os
from pathlib import Path

from s2s.errors import RunError

_PACKAGE = Path(__file__).resolve().parent


def _find(name: str) -> Path:
    for folder in (_PACKAGE / name, _PACKAGE.parent / name):
        if folder.is_dir():
            return folder
    raise RunError(f"the folder `{name}` of s2s is missing", where=str(_PACKAGE), hint="Install s2s again.")


def conf_dir() -> Path:
    """The config groups: `conf/attention/additive.yaml` and so on."""
    return _find("conf")


def recipes_dir() -> Path:
    """The recipes: `recipes/<task>/<name>/recipe.yaml`."""
    return _find("recipes")


def data_dir() -> Path:
    """The corpus cards and the samples that tests use."""
    return _find("data")


def cache_folder() -> Path:
    """What s2s has fetched or made and could fetch or make again: `$XDG_CACHE_HOME/s2s`, by default `~/.cache/s2s`."""
    root = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(root) if os.path.isabs(root) else Path.home() / ".cache") / "s2s"


def groups() -> list[str]:
    """Names of the config groups, sorted."""
    return sorted(folder.name for folder in conf_dir().iterdir() if folder.is_dir())


def group_files(group: str) -> dict[str, Path]:
    """Every choice of a config group by name, sorted. Raises KeyError for a group that does not exist."""
    folder = conf_dir() / group
    if group not in groups():
        raise KeyError(group)
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def recipe_files() -> dict[str, Path]:
    """Every recipe by name (`translate/debian-en-de`), sorted."""
    found = sorted(recipes_dir().glob("*/*/recipe.yaml"))
    return {f"{path.parent.parent.name}/{path.parent.name}": path for path in found}


def summary(path: Path) -> str:
    """The first comment line of a YAML file that is not a Hydra header (`# @package ...`); empty if there is none."""
    for line in path.read_text(encoding="utf-8").split("\n"):
        if line.startswith("#") and not line.startswith("# @"):
            return line.lstrip("# ").strip()
    return ""
