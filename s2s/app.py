"""Recipes and overrides to a `Config`: the composition root, and the only file that imports Hydra.

Overrides have Hydra's grammar. `KEY=VALUE` sets a key of the schema, `GROUP=NAME` swaps a part (`attention=general`).
In a shell, put an override into single quotes when it holds anything but letters, digits and `._/-=`; inside, put the
value into double quotes too when it holds `, ( ) [ ] { } '` or is to be text although it looks like something else:

    'corpus.path=my data/café #2'          spaces, signs and letters of any script need the shell's quotes only
    corpus.path=a=b                        an equals sign stands for itself
    'corpus.path="a, b (c)"'               a value in quotes of its own is taken as text, whatever it holds
    'name="1e3"' threads=null              numbers, true, false and null in quotes are text; null is nothing
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
from dataclasses import dataclass
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
from s2s.checks import problems
from s2s.config import Config
from s2s.errors import ConfigError
from s2s.registry import BuilderNode, Reader, canonical, group_file, listed, unknown

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
    Where an override chooses another file of a group, what this file changes wins over the recipe's own keys, and
    options of another builder go. Raises ConfigError for whatever is wrong, all of it at once: unknown keys and choices
    with the nearest valid one, missing values, wrong types, then combinations that cannot work.
    """
    source = _load(recipe)
    changes = [_change(override, plugins) for override in _parse(overrides)]
    for change in changes:
        if change.group is not None:
            lost = _swap(source, change.group, change.choice)
            if lost and not source.recorded:
                log.warning("override `%s` takes the place of the recipe's %s", change.given, ", ".join(lost))
    data = _compose(source, [change.text for change in changes if change.group is None])

    def where(key: str) -> str:
        for change in reversed(changes):
            if f"{key}.".startswith(f"{change.key}.") or f"{change.key}.".startswith(f"{key}."):
                return f"override `{change.given}`"
        return recipe

    config = schema.from_dict(data, plugins=plugins, where=where)
    found = problems(config)
    if found:
        raise listed(found)
    return config


def compose_corpus(name: str, overrides: Sequence[str] = ()) -> BuilderNode:
    """The builder of a corpus with its own options, `KEY=VALUE` or `corpus.KEY=VALUE`, and nothing of a recipe.

    Raises ConfigError that lists all that is wrong.
    """
    source = _Source(f"corpus {name}", {"corpus": canonical("corpus", name)}, {})
    changes = [_change(override, ()) for override in _parse([f"corpus.{o.removeprefix('corpus.')}" for o in overrides])]
    reader = Reader()
    node: BuilderNode = reader.builder(_compose(source, [change.text for change in changes])["corpus"], "corpus")
    reader.raise_problems()
    return node


def sweep(recipe: str, overrides: Sequence[str], plugins: Sequence[str] = ()) -> list[list[str]]:
    """The overrides of every run of a sweep: all combinations of the values that commas, `choice()` or `range()` give.

    Every run is composed, so that the last one of a night does not fail for a typo. Raises ConfigError, see `compose`.
    """
    choices: list[list[str]] = []
    for override in _parse(overrides):
        key = override.get_key_element()
        try:
            values = list(override.sweep_string_iterator()) if override.is_sweep_override() else None
        except HydraException:  # glob() and interval() have no values of their own
            where = f"override `{override.input_line}`"
            raise ConfigError("this sweep has no values", where=where, expected="a,b or choice() or range()") from None
        choices.append([str(override.input_line)] if values is None else [f"{key}={value}" for value in values])
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


@dataclass
class _Source:
    """What is composed: a recipe's choice in each group and its own keys.

    recorded: it is the complete record of a run, which chooses nothing by file.
    """

    where: str
    choices: dict[str, str | None]
    body: dict[str, Any]
    recorded: bool = False


def _load(recipe: str) -> _Source:
    """A recipe that is given by name or path, with those that it builds on merged into it."""
    known = paths.recipe_files()
    path = known.get(recipe, Path(recipe))
    name = next((name for name, file in known.items() if file.resolve() == path.resolve()), None)
    if recipe not in known and path.suffix not in (".yaml", ".yml"):
        raise unknown("recipe", recipe, [*known, "the path of a YAML file"])
    if name is None:
        name = path.resolve().parent.name if path.stem in ("recipe", "config") else path.stem
    source = _read_recipe(path, ())
    source.body.setdefault("name", name)
    return source


def _read_recipe(path: Path, children: tuple[Path, ...]) -> _Source:
    where = str(path)
    if path in children:
        raise ConfigError("the recipe builds on itself", where=where)
    content = read_yaml(path)
    defaults = content.pop("defaults", None)
    body, notes = schema.migrate(content)
    for note in notes:
        log.warning("%s: %s", where, note)
    if "hydra" in body:
        raise ConfigError("unknown key `hydra`: s2s has no settings of Hydra", where=where)
    if defaults is None:
        return _Source(where, {}, body, recorded=True)
    if not isinstance(defaults, list) or "_self_" in defaults[:-1]:
        raise ConfigError("`defaults` must be a list, with `_self_` at its end if at all", where=where)
    source = _Source(where, {}, {})
    for entry in defaults:
        if isinstance(entry, str):
            _build_on(source, entry, (*children, path))
        else:
            _swap(source, *_group_entry(entry, where))
    merged = OmegaConf.merge(OmegaConf.create(source.body), OmegaConf.create(body))
    source.body = dict(OmegaConf.to_container(merged, resolve=False))  # type: ignore[arg-type]
    return source


def _build_on(source: _Source, entry: str, children: tuple[Path, ...]) -> None:
    """Add what a file in a defaults list brings: `/config`, or a recipe (`/translate/debian-en-de/recipe`)."""
    recipes = {f"/{name}/recipe": file for name, file in paths.recipe_files().items()}
    if entry == "/config":
        for default in read_yaml(paths.conf_dir() / "config.yaml")["defaults"]:
            if isinstance(default, dict):
                source.choices = {**default, **source.choices}
    elif entry in recipes:
        parent = _read_recipe(recipes[entry], children)
        source.choices.update(parent.choices)
        source.body = parent.body
    elif entry != "_self_":
        raise unknown("file in `defaults`", entry, ["/config", *recipes, "_self_"], where=source.where)


def _group_entry(entry: Any, where: str) -> tuple[str, str | None]:
    """The group and choice of an entry like `override /attention: general`, with an alias replaced."""
    if not isinstance(entry, dict) or len(entry) != 1:
        raise ConfigError("wrong entry in `defaults`", where=where, expected="/config or `override /GROUP: NAME`")
    ((key, name),) = entry.items()
    group = str(key).removeprefix("override ").strip().removeprefix("/")
    if group not in paths.groups():
        raise unknown("group in `defaults`", group, paths.groups(), where=where)
    return group, None if name is None else canonical(group, str(name), where=where)


def _swap(source: _Source, group: str, choice: str | None) -> list[str]:
    """Choose in a group: another file, a plug-in's builder (`module.function`), or nothing.

    Returns the recipe's own keys that this puts out of force.
    """
    own = source.body.get(group)
    before, source.choices[group] = source.choices.get(group), choice
    if not isinstance(own, dict):
        return []
    kept: dict[str, Any] = {}
    if before is not None and choice is not None and "." not in before + choice:
        old, new = group_file(group, before), group_file(group, choice)
        if old.get("_target_") == new.get("_target_"):
            kept = {key: value for key, value in own.items() if key not in new or old.get(key, own) == new[key]}
    source.body[group] = kept
    return [f"{group}.{key}" for key in own if key not in kept]


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
        place = _place(where, error.problem_mark)
        raise ConfigError(f"the file is not YAML: {error.problem}", where=place) from None
    except (yaml.YAMLError, OmegaConfBaseException, ValueError) as error:
        raise ConfigError(f"the file is not YAML: {_first_line(error)}", where=where) from None
    if not isinstance(content, dict) or not content:
        raise ConfigError("the file holds no keys", where=where, expected="lines like `seed: 1`")
    odd = [key for key in content if not isinstance(key, str)]
    if odd:
        raise ConfigError(f"the key {odd[0]!r} is not text", where=where)
    return {str(key): value for key, value in content.items()}


def _place(where: str, mark: Any) -> str:
    return where if mark is None else f"{where}:{mark.line + 1}"


def _check_events(text: str, where: str) -> None:
    aliases, opened = 0, []  # opened: the anchors of the collections that we are in, None for one without
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        place = _place(where, event.start_mark)
        if isinstance(event, yaml.AliasEvent):
            aliases += 1
            if aliases > _MAX_ALIASES:
                raise ConfigError("too many YAML aliases", where=place, expected=f"at most {_MAX_ALIASES}")
            if event.anchor in opened:
                raise ConfigError(f"the YAML alias `*{event.anchor}` holds itself", where=place)
        elif isinstance(event, yaml.CollectionStartEvent):
            opened.append(event.anchor)
            if len(opened) > _MAX_DEPTH:
                raise ConfigError("nested too deeply", where=place, expected=f"at most {_MAX_DEPTH} levels")
        elif isinstance(event, yaml.CollectionEndEvent):
            opened.pop()
        tag = getattr(event, "tag", None)
        if tag is not None:
            raise ConfigError(f"the YAML tag `{tag}` is refused", where=place, expected="plain values")


# ---- overrides


@dataclass(frozen=True)
class _Change:
    """An override: as given, its key path, what Hydra is told, and the choice if it makes one in a group."""

    given: str
    key: str
    text: str
    group: str | None = None
    choice: str | None = None


def _parse(overrides: Sequence[str]) -> list[Override]:
    return [_parse_one(text) for text in overrides]


def _parse_one(text: str) -> Override:
    parser = OverridesParser.create()
    # Hydra's bare words are ASCII; what holds other letters or signs is taken as text where nothing is ambiguous
    bare = re.fullmatch(r"""([+~]*[\w./@]+)=([^"',()\[\]{}\n]*[^"',()\[\]{}\n\\])""", text)
    for attempt in [text, f'{bare[1]}="{bare[2].strip()}"'] if bare else [text]:
        try:
            return parser.parse_override(attempt)
        except (HydraException, ValueError):
            continue
    raise ConfigError(
        "this override cannot be read",
        where=f"override `{text}`",
        expected="KEY=VALUE",
        hint="Put a value with special characters into quotes of its own: 'KEY=\"VALUE\"'",
    )


def _change(override: Override, plugins: Sequence[str]) -> _Change:
    """What an override does. Keys that no file has yet are set too: the schema judges them afterwards."""
    given = str(override.input_line).strip()
    where = f"override `{given}`"
    key, _, value_text = given.lstrip("+~").partition("=")
    if override.is_sweep_override():
        hint = f"Add -m to sweep over them, or write a list as {key}=[...]."
        raise ConfigError("several values for one key", where=where, hint=hint)
    if re.match(r"hydra\b", key):
        raise ConfigError("unknown key `hydra`: s2s has no settings of Hydra", where=where)
    if override.package is not None or not key:
        raise unknown("key", key, paths.groups(), where=where)
    value = override.value()
    if override.is_delete():
        return _Change(given, key, given, group=key if key in paths.groups() else None)
    if key in paths.groups() and not isinstance(value, dict | list):
        name = "null" if value is None else str(value)
        if name.rpartition(".")[0] not in plugins:
            name = canonical(key, name, where=where)
        return _Change(given, key, "", group=key, choice=name)
    new = schema.RENAMED.get(key, key)
    if new != key:
        log.warning("%s: `%s` is now `%s`", where, key, new)
    return _Change(given, new, f"++{new}={value_text}")


# ---- Hydra


def _primary(source: _Source) -> dict[str, Any]:
    """The config that Hydra starts from."""
    body, defaults = dict(source.body), []
    for group, choice in source.choices.items():
        if choice is not None and "." in choice:
            body[group] = {"_target_": choice, **(body.get(group) or {})}
            choice = None
        elif source.recorded:
            body.pop(group, None)
        defaults.append({f"/{group}": choice} if source.recorded else {f"override /{group}": choice})
    return {"defaults": ["_self_", *defaults] if source.recorded else ["/config", *defaults, "_self_"], **body}


@contextmanager
def _hydra(primary: Mapping[str, Any]) -> Iterator[None]:
    """Hydra's global state, ours for a moment: whatever an embedding program had there comes back."""
    store, held = ConfigStore.instance(), GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    store.store(name=_PRIMARY, node=dict(primary))
    try:
        with hydra.initialize_config_dir(config_dir=str(paths.conf_dir()), job_name="s2s", version_base="1.3"):
            yield
    finally:
        store.repo.pop(f"{_PRIMARY}.yaml", None)
        GlobalHydra.instance().hydra = held


def _compose(source: _Source, overrides: Sequence[str]) -> dict[str, Any]:
    """The composed values, references resolved; missing ones stay `???`."""
    try:
        with _hydra(_primary(source)), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            data = OmegaConf.to_container(hydra.compose(_PRIMARY, list(overrides)), resolve=True)
    except (HydraException, OmegaConfBaseException, RecursionError) as error:
        raise ConfigError(_first_line(error.__cause__ or error), where=source.where) from None
    assert isinstance(data, dict)
    return {str(key): value for key, value in data.items()}


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).split("\n") if line.strip()), type(error).__name__)
