"""Recipes and overrides to a `Config`: the composition root, and the only file that imports Hydra.

Overrides have Hydra's grammar. `KEY=VALUE` sets a key of the schema, `GROUP=NAME` swaps a part (`attention=general`).
In a shell, put an override into single quotes when it holds anything but letters, digits and `._/-=`; inside, quote the
value too when it holds `, ( ) [ ] { } : ' " #` or starts or ends with a space:

    'corpus.path=my data/café'             spaces within a value and letters of any script need the shell's quotes only
    corpus.path=a=b                        an equals sign stands for itself
    'corpus.path="a, b (c)"'               a value in quotes of its own is taken as text, whatever it holds
    'corpus.target="no"' seed=null         null is nothing; numbers, true, false and null in quotes are text
    'task.metrics=[bleu,chrf,ter]'         a list; without the brackets, commas mean a sweep and need -m

Nothing here changes the working folder or makes one; relative paths are relative to where the user stands.
"""

from __future__ import annotations

import itertools
import logging
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hydra
import yaml
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from s2s import config as schema
from s2s import paths
from s2s.config import Config
from s2s.errors import ConfigError
from s2s.registry import canonical, listed, unknown

_MAX_BYTES = 256 * 1024  # a recipe is a page; anything near this is no recipe
_MAX_ALIASES = 10  # few enough that nested anchors cannot grow
_MAX_DEPTH = 20
_MAX_SWEEP = 10_000
_PRIMARY = "s2s_recipe"

log = logging.getLogger(__name__)


def compose(recipe: str, overrides: Sequence[str] = (), plugins: Sequence[str] = ()) -> Config:
    """The config of a recipe with overrides.

    recipe: a name below `recipes/` or the path of a YAML file (a recipe, or the `config.yaml` of a run folder).
    plugins: modules whose builders are allowed as well (`attention=module.function`).
    Raises ConfigError for whatever is wrong, all of it at once: unknown keys and choices with the nearest valid one,
    missing values, wrong types, then combinations that cannot work.
    """
    name, path = _locate(recipe)
    chosen = _rewrite(_parse(overrides), plugins)
    content = _recipe(path, name, {key for override in chosen for key in override.groups})
    data = _compose(content, [text for override in chosen for text in override.texts], recipe)

    def where(key: str) -> str | None:
        for override in reversed(chosen):
            if f"{key}.".startswith(f"{override.key}.") or f"{override.key}.".startswith(f"{key}."):
                return f"override `{override.given}`"
        return str(recipe)

    config = schema.from_dict(data, plugins=plugins, where=where)
    found = schema.problems(config)
    if found:
        raise listed(found)
    return config


def sweep(recipe: str, overrides: Sequence[str], plugins: Sequence[str] = ()) -> list[list[str]]:
    """The overrides of every run of a sweep: all combinations of the values that commas, `choice()` or `range()` give.

    Every run is composed, so that the last one of a night does not fail for a typo. Raises ConfigError, see `compose`.
    """
    choices: list[list[str]] = []
    for override in _parse(overrides):
        if not override.is_sweep_override():
            choices.append([override.input_line])
        elif override.is_discrete_sweep():
            key = override.get_key_element()
            choices.append([f"{key}={value}" for value in override.sweep_string_iterator()])
        else:
            raise ConfigError("a sweep needs single values", where=f"override `{override.input_line}`")
    size = 1
    for choice in choices:
        size *= len(choice)
    if size > _MAX_SWEEP:
        raise ConfigError(f"the sweep has {size} runs", expected=f"at most {_MAX_SWEEP}")
    runs = [list(run) for run in itertools.product(*choices)]
    for run in runs:
        compose(recipe, run, plugins)
    return runs


def to_yaml(config: Config) -> str:
    """The text of a run folder's `config.yaml`; `compose` reads it back to the same config."""
    text = OmegaConf.to_yaml(OmegaConf.create(_escape(schema.to_plain(config))))
    return f"# {config.name}, to be run again with: s2s train FILE [KEY=VALUE ...]\n{text}"


def _escape(value: Any) -> Any:
    """Text as it is, where OmegaConf would otherwise read `${...}` as a reference."""
    if isinstance(value, dict):
        return {key: _escape(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_escape(entry) for entry in value]
    return re.sub(r"(\\*)\$\{", r"\1\1\\${", value) if isinstance(value, str) else value


# ---- recipes


def _locate(recipe: str) -> tuple[str, Path]:
    """The name and file of a recipe that is given by name or path."""
    known = paths.recipe_files()
    if recipe in known:
        return recipe, known[recipe]
    path = Path(recipe)
    if path.suffix in (".yaml", ".yml"):
        if not path.is_file():
            raise ConfigError("there is no such recipe file", where=recipe, hint="See the recipes: s2s list recipes")
        for name, file in known.items():
            if path.resolve() == file.resolve():
                return name, path
        return (path.resolve().parent.name if path.stem in ("recipe", "config") else path.stem), path
    raise unknown("recipe", recipe, [*known, "a path to a YAML file"])


def _recipe(path: Path, name: str, swapped: set[str]) -> dict[str, Any]:
    """A recipe's content, checked and ready for Hydra. swapped: groups that an override chooses.

    A file without a defaults list is the record of a run: it is complete, and choosing a group replaces what was
    recorded for it.
    """
    content = read_yaml(path)
    defaults = content.pop("defaults", None)
    if "hydra" in content:
        raise ConfigError("unknown key `hydra`: s2s has no settings of Hydra", where=str(path))
    content, notes = schema.migrate(content)
    for note in notes:
        log.warning("%s: %s", path, note)
    content = {"name": name, **content}
    if defaults is None:
        recorded = {key: value for key, value in content.items() if key not in swapped}
        return {"defaults": ["_self_", *({f"/{group}": None} for group in paths.groups())], **recorded}
    if not isinstance(defaults, list):
        raise ConfigError("`defaults` must be a list", where=str(path), hint="It starts with `- /config`.")
    entries = [_default(entry, str(path)) for entry in defaults]
    return {"defaults": entries if "_self_" in entries else [*entries, "_self_"], **content}


def _default(entry: Any, where: str) -> Any:
    """An entry of a defaults list, with an alias replaced. Raises ConfigError for what is not there."""
    if isinstance(entry, str):
        files = ["config", *(f"{name}/recipe" for name in paths.recipe_files())]
        if entry != "_self_" and entry.removeprefix("/") not in files:
            raise unknown("file in `defaults`", entry, ["_self_", *(f"/{name}" for name in files)], where=where)
        return entry if entry == "_self_" else f"/{entry.removeprefix('/')}"
    if not isinstance(entry, Mapping) or len(entry) != 1:
        raise ConfigError(
            "an entry of `defaults` is neither", where=where, expected="a file or `override /GROUP: NAME`"
        )
    (key, name), *_ = entry.items()
    group = str(key).removeprefix("override ").strip().removeprefix("/")
    if group not in paths.groups():
        raise unknown("group in `defaults`", group, paths.groups(), where=where)
    if name is None:
        return {key: None}
    return {key: canonical(group, str(name), where=where)}


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file of plain values, checked before anything is built from it.

    Raises ConfigError for a file that is too large, has tags (`!!python/object`), many or nested anchors, deep nesting
    or no keys.
    """
    where = str(path)
    try:
        with path.open("rb") as stream:
            data = stream.read(_MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"the file cannot be read: {error.strerror}", where=where) from None
    if len(data) > _MAX_BYTES:
        raise ConfigError("the file is too large for a config", where=where, expected=f"at most {_MAX_BYTES} bytes")
    try:
        text = data.decode("utf-8-sig")
        _check_events(text, where)
        content = OmegaConf.to_container(OmegaConf.create(text), resolve=False)
    except UnicodeDecodeError as error:
        raise ConfigError(f"the file is not UTF-8: byte {error.start}", where=where) from None
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ConfigError(f"the file is not YAML: {error.problem}", where=f"{where}{line}") from None
    except (yaml.YAMLError, OmegaConfBaseException, ValueError) as error:
        raise ConfigError(f"the file is not YAML: {_first_line(error)}", where=where) from None
    if not isinstance(content, dict):
        raise ConfigError("the file holds no keys", where=where, expected="lines like `seed: 1`")
    odd = [key for key in content if not isinstance(key, str)]
    if odd:
        raise ConfigError(f"the key {odd[0]!r} is not text", where=where)
    return {str(key): value for key, value in content.items()}


def _check_events(text: str, where: str) -> None:
    aliases = depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        place = f"{where}:{event.start_mark.line + 1}"
        if isinstance(event, yaml.AliasEvent):
            aliases += 1
            if aliases > _MAX_ALIASES:
                raise ConfigError("too many YAML aliases", where=place, expected=f"at most {_MAX_ALIASES}")
        elif isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > _MAX_DEPTH:
                raise ConfigError("nested too deeply", where=place, expected=f"at most {_MAX_DEPTH} levels")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if getattr(event, "tag", None) is not None:
            raise ConfigError(f"the YAML tag `{event.tag}` is refused", where=place, expected="plain values")


# ---- overrides


class _Chosen:
    """An override as given, its key path, what Hydra is told, and the groups that it chooses."""

    def __init__(self, given: str, key: str, texts: list[str], groups: tuple[str, ...] = ()) -> None:
        self.given, self.key, self.texts, self.groups = given, key, texts, groups


def _parse(overrides: Sequence[str]) -> list[Override]:
    parsed = []
    for text in overrides:
        try:
            parsed += OverridesParser.create().parse_overrides([text])
        except (HydraException, ValueError):
            raise ConfigError(
                "this override cannot be read",
                where=f"override `{text}`",
                expected="KEY=VALUE",
                hint=f"""A value with special characters goes in quotes: '{text.partition("=")[0] or "KEY"}="..."'""",
            ) from None
    return parsed


def _rewrite(overrides: Sequence[Override], plugins: Sequence[str]) -> list[_Chosen]:
    """What Hydra is told for each override: aliases replaced, every other key set even where no file has it yet."""
    groups, chosen = paths.groups(), []
    for override in overrides:
        given = str(override.input_line).strip()
        where = f"override `{given}`"
        key, _, value_text = given.lstrip("+~").partition("=")
        if override.is_sweep_override():
            raise ConfigError(
                "several values for one key",
                where=where,
                hint=f"Add -m to sweep over them, or write a list as {key}=[...].",
            )
        if key.partition(".")[0].partition("/")[0] == "hydra":
            raise ConfigError("unknown key `hydra`: s2s has no settings of Hydra", where=where)
        if override.package is not None:
            raise unknown("key", key, groups, where=where)
        value = override.value()
        if override.is_delete():
            chosen.append(_Chosen(given, key, [given]))
        elif key in groups and value is None:
            chosen.append(_Chosen(given, key, [given], (key,)))
        elif key in groups and not isinstance(value, dict | list):
            name = str(value)
            if name.rpartition(".")[0] in plugins and "." in name:
                texts = [f"{key}=null", f"++{key}._target_={name}"]
            else:
                texts = [f"{key}={canonical(key, name, where=where)}"]
            chosen.append(_Chosen(given, key, texts, (key,)))
        else:
            new = schema.RENAMED.get(key, key)
            if new != key:
                log.warning("%s: `%s` is now `%s`", where, key, new)
            chosen.append(_Chosen(given, new, [f"++{new}={value_text}"]))
    return chosen


# ---- Hydra


@contextmanager
def _hydra(content: Mapping[str, Any]) -> Iterator[None]:
    """Hydra's global state, ours for a moment: whatever an embedding program had there comes back."""
    store, held = ConfigStore.instance(), GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    store.store(name=_PRIMARY, node=dict(content))
    try:
        with hydra.initialize_config_dir(config_dir=str(paths.conf_dir()), job_name="s2s", version_base="1.3"):
            yield
    finally:
        store.repo.pop(f"{_PRIMARY}.yaml", None)
        GlobalHydra.instance().hydra = held


def _compose(content: Mapping[str, Any], overrides: Sequence[str], recipe: str) -> dict[str, Any]:
    """The composed values, references resolved; missing ones stay `???`."""
    folder = re.sub(r'([\\"])', r"\\\1", f"file://{paths.recipes_dir()}")
    try:
        with _hydra(content), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            composed = hydra.compose(_PRIMARY, [f'hydra.searchpath=["{folder}"]', *overrides])
            data = OmegaConf.to_container(composed, resolve=True, throw_on_missing=False)
    except (HydraException, OmegaConfBaseException, RecursionError) as error:
        raise ConfigError(_first_line(error.__cause__ or error), where=recipe) from None
    assert isinstance(data, dict)
    return {str(key): value for key, value in data.items()}


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).split("\n") if line.strip()), type(error).__name__)
