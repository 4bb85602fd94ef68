"""Plain values to typed ones, with every problem kept, and the builders that the files in `conf/` name.

A builder is a public function of this package whose keyword-only parameters are its options: the signature is the
schema. Which builders exist is said by the YAML files of a group and by nothing else, so data that comes from elsewhere
can choose among them but never name code.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import importlib
import inspect
import json
import math
import os
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Union

import yaml

from s2s import paths
from s2s.errors import ConfigError, S2SError

# The module that holds the builders of each group.
MODULES = {
    "corpus": "s2s.text.corpus",
    "text": "s2s.text",
    "encoder": "s2s.model",
    "decoder": "s2s.model",
    "copy": "s2s.model.copying",
    "attention": "s2s.attention",
    "self_attention": "s2s.attention.self_attention",
}

# Names that people type, by group.
ALIASES: dict[str, dict[str, str]] = {
    "attention": {
        "bahdanau": "additive",
        "soft": "additive",
        "luong": "general",
        "multiplicative": "general",
        "global": "general",
        "local": "local_p",
        "transformer": "multihead",
    }
}

MISSING = "???"
_DEPTH = 32


@dataclass(frozen=True)
class BuilderNode:
    """A chosen builder and its options, all of them, so that later defaults change nothing.

    name: how plain data names it: the function's name, or `module.function` for a plug-in. target: module.function.
    """

    name: str
    target: str
    options: dict[str, Any]

    def build(self, *sizes: Any) -> Any:
        """Call the builder with what is known only at run time, and the options."""
        function = _function(self.target)
        return function(*sizes, **_grouped(function, self.options))


@dataclass(frozen=True)
class Problem:
    """What is wrong with the value at a key path (`trainer.steps`)."""

    path: str
    text: str


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name or key path that was most likely meant, or None."""
    candidates = sorted(known)
    same_leaf = [path for path in candidates if path.rpartition(".")[2] == name.rpartition(".")[2]]
    close = difflib.get_close_matches(name, same_leaf, n=1, cutoff=0)
    return next(iter(close or difflib.get_close_matches(name, candidates, n=1, cutoff=0.5)), None)


def unknown(kind: str, name: str, known: Iterable[str], *, where: str | None = None) -> ConfigError:
    """The error for a name that is not among the known ones: the nearest one and the list."""
    known = list(known)
    close = nearest(name, known)
    return ConfigError(
        f"unknown {kind} `{name}`",
        where=where,
        expected=f"one of {', '.join(known)}" if known else None,
        hint=f"Did you mean `{close}`?" if close else None,
    )


def group_names(group: str) -> list[str]:
    """The choices of a config group, sorted."""
    return list(paths.group_files(group))


def canonical(group: str, name: str, *, where: str | None = None) -> str:
    """A choice of a group for a name or alias. Raises ConfigError with the nearest one for an unknown name."""
    name = ALIASES.get(group, {}).get(name, name)
    if name not in paths.group_files(group):
        raise unknown(group, name, group_names(group), where=where)
    return name


@functools.lru_cache
def group_file(group: str, name: str) -> dict[str, Any]:
    """The content of a file of a group; not to be changed. Raises KeyError for an unknown name."""
    content = yaml.safe_load(paths.group_files(group)[name].read_text(encoding="utf-8"))
    return dict(content or {})


def group_defaults(group: str, name: str) -> dict[str, Any]:
    """The options that a file of a group sets. Raises ConfigError for an unknown name."""
    content = group_file(group, canonical(group, name))
    return {key: value for key, value in content.items() if key != "_target_"}


def targets(group: str) -> dict[str, str]:
    """The builders of a group: function name to `module.function`, as the YAML files of the group name them."""
    found = {}
    for choice in group_names(group):
        target = str(group_file(group, choice).get("_target_", ""))
        module, _, function = target.rpartition(".")
        if module != MODULES[group] or function.startswith("_"):
            raise ConfigError(
                "`_target_` is no builder of its room",
                where=f"conf/{group}/{choice}.yaml",
                expected=f"{MODULES[group]}.<function>",
                found=target or "nothing",
            )
        found[function] = target
    return found


def builder(group: str, name: str, options: Mapping[str, Any]) -> tuple[Callable[..., Any], dict[str, Any]]:
    """The function of a choice of a group, and its keyword arguments: the options checked against its signature.

    Raises ConfigError for an unknown name or option, with the nearest one, and for a value of the wrong type.
    """
    reader = Reader()
    target = str(group_file(group, canonical(group, name)).get("_target_", ""))
    node = reader.bind(target.rpartition(".")[2], target, options, group)
    reader.raise_problems()
    function = _function(target)
    return function, _grouped(function, node.options)


def _function(target: str) -> Callable[..., Any]:
    module, _, name = target.rpartition(".")
    function: Callable[..., Any] = getattr(importlib.import_module(module), name)
    return function


def _accepted(function: Callable[..., Any]) -> dict[str, tuple[Any, Any, str | None]]:
    """A builder's options: (type, default, parameter that holds it).

    They are its keyword-only parameters; one that takes a frozen dataclass stands for the fields of it, with the values
    of the parameter's default, so that options which many builders share are written once.
    """
    hints = typing.get_type_hints(function)
    found: dict[str, tuple[Any, Any, str | None]] = {}
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind is not inspect.Parameter.KEYWORD_ONLY:
            continue
        hint = hints.get(name, Any)
        if dataclasses.is_dataclass(hint) and isinstance(hint, type):
            kinds = typing.get_type_hints(hint)
            for field in dataclasses.fields(hint):
                found[field.name] = (kinds[field.name], getattr(parameter.default, field.name), name)
        else:
            default = MISSING if parameter.default is inspect.Parameter.empty else parameter.default
            found[name] = (hint, default, None)
    return found


def options_of(function: Callable[..., Any]) -> dict[str, Any]:
    """A builder's options with their defaults; MISSING where there is none."""
    return {name: default for name, (_, default, _) in _accepted(function).items()}


def _grouped(function: Callable[..., Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Flat options as the keyword arguments of a builder. Raises what a dataclass of options refuses."""
    accepted, hints = _accepted(function), typing.get_type_hints(function)
    arguments: dict[str, Any] = {}
    for option, value in options.items():
        holder = accepted[option][2]
        if holder is None:
            arguments[option] = value
        else:
            arguments.setdefault(holder, {})[option] = value
    holders = {holder for _, _, holder in accepted.values() if holder is not None}
    return {name: hints[name](**value) if name in holders else value for name, value in arguments.items()}


def _expected(kind: Any) -> str:
    names = {bool: "true or false", int: "a whole number", float: "a number", str: "text", type(None): "null"}
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind in names:
        return names[kind]
    if origin is Literal:
        return f"one of {', '.join(map(str, arguments))}"
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(_expected(argument) for argument in arguments))
    if origin is tuple and Ellipsis not in arguments:
        return f"a list of {len(arguments)} values"
    if origin in (list, tuple, Sequence):
        return f"a list, each {_expected(arguments[0])}"
    if origin is os.PathLike:
        return "text"
    if dataclasses.is_dataclass(kind) or origin in (dict, Mapping) or kind is dict:
        return "keys with values"
    return getattr(kind, "__name__", str(kind))


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else f"{text[:57]}..."


class Reader:
    """Reads plain data into typed values. Problems are collected, never raised before `raise_problems`.

    plugins: modules that the user named; builders of them are allowed and only these modules are imported.
    plain: builders are named (`name: additive`) and never targeted: for data that may come from elsewhere.
    """

    def __init__(self, plugins: Sequence[str] = (), *, plain: bool = False) -> None:
        self.plugins, self.plain = tuple(plugins), plain
        self.problems: list[Problem] = []
        self._known: set[str] = set()
        self._unknown: list[str] = []

    def add(self, path: str, text: str) -> Any:
        """Note a problem; returns None, in place of the value."""
        self.problems.append(Problem(path, text))
        return None

    def raise_problems(self, where: Callable[[str], str | None] = lambda path: None) -> None:
        """Raise one ConfigError that lists every problem. where: says where the value of a key path was given."""
        for path in self._unknown:
            close = nearest(path, self._known)
            self.add(path, f"unknown key `{path}`" + (f"; did you mean `{close}`?" if close else ""))
        self._unknown = []
        if self.problems:
            raise listed([f"{origin}: {p.text}" if (origin := where(p.path)) else p.text for p in self.problems])

    def value(self, value: Any, kind: Any, path: str) -> Any:
        """The value as the given type, or a problem. Whole numbers serve as numbers, and 1e4 as a whole number."""
        self._known.add(path)
        if value == MISSING:
            return self.add(path, f"missing value: `{path}` must be given, for example with {path}=VALUE")
        origin, arguments = typing.get_origin(kind), typing.get_args(kind)
        if kind is Any or kind is inspect.Parameter.empty:
            return value
        if kind is BuilderNode:
            return self.builder(value, path)
        if dataclasses.is_dataclass(kind) and isinstance(value, dict):
            return self.fields(value, typing.cast(type, kind), path)
        if origin in (Union, types.UnionType):
            for argument in sorted(arguments, key=lambda argument: argument is not type(value)):
                trial = Reader(self.plugins, plain=self.plain)
                result = trial.value(value, argument, path)
                if not trial.problems and not trial._unknown:
                    return result
        elif origin is Literal:
            if any(value == argument and type(value) is type(argument) for argument in arguments):
                return value
        elif origin in (list, tuple, Sequence) and isinstance(value, list | tuple):
            kinds = [arguments[0]] * len(value) if origin is not tuple or Ellipsis in arguments else list(arguments)
            if len(kinds) == len(value):
                # entries are not keys of their own: none is suggested for a typo
                entries = [self.value(v, k, f"{path}.{i}") for i, (v, k) in enumerate(zip(value, kinds, strict=True))]
                self._known -= {f"{path}.{i}" for i in range(len(value))}
                return tuple(entries) if origin is tuple else entries
        elif origin in (dict, Mapping) and isinstance(value, dict):
            return {str(key): self.value(entry, arguments[1], f"{path}.{key}") for key, entry in value.items()}
        elif kind is int and isinstance(value, float) and value.is_integer() and abs(value) < 1 << 53:
            return int(value)
        elif kind is float and type(value) in (int, float):
            if math.isfinite(value):
                return float(value)
        elif inspect.isclass(kind) and type(value) is kind:
            return value
        quote = "; put it into quotes if it is text" if kind is str else ""
        return self.add(path, f"wrong value of `{path}`: expected {_expected(kind)}, found {_shown(value)}{quote}")

    def fields(self, data: Any, kind: type, path: str = "") -> Any:
        """A frozen dataclass from a dictionary; its fields and defaults are the schema."""
        hints = typing.get_type_hints(kind)
        given, values, before = dict(data), {}, len(self.problems)
        for field in dataclasses.fields(kind):
            key = f"{path}.{field.name}" if path else field.name
            hint = hints[field.name]
            required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
            if field.name in given:
                values[field.name] = self.value(given.pop(field.name), hint, key)
            elif required:
                self.value(MISSING if hint is not BuilderNode else None, hint, key)
            elif dataclasses.is_dataclass(hint) and hint is not BuilderNode:
                values[field.name] = self.fields({}, typing.cast(type, hint), key)
            self._known.add(key)
        for name, value in given.items():
            key = f"{path}.{name}" if path else str(name)
            self._unknown += [f"{key}.{leaf}" for leaf in value] if isinstance(value, dict) and value else [key]
        if len(self.problems) > before or any(name.startswith(path) for name in self._unknown):
            return None
        try:
            return kind(**values)
        except S2SError as error:  # a dataclass may check itself
            return self.add(path, str(error))

    def builder(self, data: Any, path: str) -> Any:
        """A builder node: `_target_` (in YAML) or `name`, and options."""
        self._known.add(path)
        if data is None:
            return self.add(path, f"missing value: choose {path}=NAME, one of {', '.join(group_names(path))}")
        if not isinstance(data, dict):
            hint = f"choose it with {path}=NAME, or in `defaults` with `- override /{path}: NAME`"
            return self.add(path, f"wrong value of `{path}`: expected options, found {_shown(data)}; {hint}")
        options = dict(data)
        named, target = options.pop("name", None), options.pop("_target_", None)
        known = targets(path)
        if self.plain and target is not None:
            return self.add(path, f"`{path}._target_` is refused: a model names its parts and never code")
        if named is None and target is None:
            return self.builder(None, path)
        if named is not None and target is not None:
            return self.add(path, f"`{path}` has both `name` and `_target_`; choose one with {path}=NAME")
        given = named if target is None else target
        if not isinstance(given, str):
            return self.add(path, f"`{path}` must name a builder, found {_shown(given)}")
        if (target in known.values()) if named is None else (named in known):
            function = given.rpartition(".")[2]
            return self.bind(function, known[function], options, path)
        if given.rpartition(".")[0] in self.plugins:
            return self._plugin(given, options, path)
        key = f"{path}._target_" if named is None else f"{path}.name"
        close = nearest(given, known.values() if named is None else known)
        hint = f"; did you mean `{close}`?" if close else "."
        return self.add(
            path,
            f"`{key}` names `{_shown(given)[1:-1]}`, which is no builder of s2s{hint} "
            f"Known: {', '.join(sorted(known))}. Code of your own is named with --plugin MODULE",
        )

    def _plugin(self, target: str, options: dict[str, Any], path: str) -> Any:
        try:
            function = _function(target)
        except (ImportError, AttributeError) as error:
            return self.add(path, f"the plug-in `{target}` cannot be loaded: {error}")
        if not inspect.isroutine(function) and not inspect.isclass(function):
            return self.add(path, f"the plug-in `{target}` is no function")
        return self.bind(target, target, options, path)

    def bind(self, name: str, target: str, options: Mapping[str, Any], path: str) -> BuilderNode:
        """Check options against the keyword-only parameters of a builder; those not given take their defaults."""
        accepted = _accepted(_function(target))
        bound = {}
        for option, (kind, default, _) in accepted.items():
            key = f"{path}.{option}"
            self._known.add(key)
            if option in options or default == MISSING:
                bound[option] = self.value(options.get(option, default), kind, key)
            else:
                bound[option] = default
        for option in options:
            if option not in accepted:
                close = nearest(option, accepted)
                hint = (
                    f"did you mean `{path}.{close}`?" if close else f"{path}={name} has {', '.join(accepted) or 'none'}"
                )
                self.add(f"{path}.{option}", f"unknown key `{path}.{option}`; {hint}")
        return BuilderNode(name, target, bound)


def listed(problems: Sequence[str]) -> ConfigError:
    """One error for several problems."""
    if len(problems) == 1:
        return ConfigError(problems[0])
    numbered = " ".join(f"({number}) {text}" for number, text in enumerate(problems, 1))
    return ConfigError(f"{len(problems)} problems in the configuration: {numbered}")


def check_plain(data: Any) -> None:
    """Refuse a value that is not plain data: other types, text keys missing, `_target_` anywhere, nested too deeply."""
    pending = [(data, "", 0)]
    while pending:
        value, path, depth = pending.pop()
        if depth > _DEPTH:
            raise ConfigError("the configuration is nested too deeply", where=path[:60])
        if isinstance(value, Mapping):
            for key, entry in value.items():
                if not isinstance(key, str):
                    raise ConfigError("a key is not text", where=path or None, found=_shown(key))
                if key == "_target_":
                    raise ConfigError("`_target_` is refused: plain data names no code", where=path or None)
                pending.append((entry, f"{path}.{key}" if path else key, depth + 1))
        elif isinstance(value, list | tuple):
            pending += [(entry, f"{path}.{number}", depth + 1) for number, entry in enumerate(value)]
        elif value is not None and type(value) not in (bool, int, float, str):
            raise ConfigError("a value is not plain", where=path or None, found=type(value).__name__)
