"""What a run is made of: frozen dataclasses are the schema of the plain knobs, builder signatures that of the parts.

`from_dict` reads what Hydra composed, `from_plain` what a bundle holds; both list every problem at once. Which values
can't work together is said by `s2s.checks`. Nothing here imports Hydra, so it works in a notebook.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from s2s.errors import ConfigError
from s2s.registry import BuilderNode, Reader, builder, check_plain, group_defaults, group_names
from s2s.search.options import SearchConfig
from s2s.train.options import Metric, OptimConfig, TrainerConfig
from s2s.types import Feature, Kernels, Overlong

__all__ = [
    "BuilderNode",
    "Config",
    "ModelConfig",
    "OptimConfig",
    "SearchConfig",
    "TaskConfig",
    "TrainerConfig",
    "builder",
    "from_dict",
    "from_plain",
    "group_defaults",
    "group_names",
    "to_plain",
]

# Keys that have another name since an earlier version: old key path to new. Old configs and bundles are read by it.
RENAMED: dict[str, str] = {}


@dataclass(frozen=True)
class TaskConfig:
    """What is done with the corpus and how it is scored."""

    name: Literal["translation", "summarisation", "dialogue"] = "translation"
    metrics: list[Metric] = field(default_factory=lambda: ["bleu", "chrf"])
    lowercase: bool = False  # scores ignore case (sacrebleu -lc)
    tokenize: Literal["13a", "intl", "zh", "ja-mecab", "ko-mecab", "flores200", "char", "none"] = "13a"  # of BLEU
    rouge_tokenize: Literal["auto", "rouge_score", "unicode"] = "auto"  # of ROUGE
    stem: bool = False  # ROUGE compares stems (English)
    overlong: Overlong = "split"  # sources above trainer.max_source; truncate, turns: in training too
    topics: int = 0  # dialogue: keywords that a message is given with (arXiv 1606.08340)
    reply: Literal["whole", "to_keyword"] = "whole"  # dialogue; to_keyword: from one of its words back to the first
    extract_words: int | None = None  # summarisation: of the extracts scored beside a model; null = of a mean summary
    eval_splits: list[str] = field(default_factory=lambda: ["test", "test_raw"])  # scored at the end where they exist


@dataclass(frozen=True)
class ModelConfig:
    """What encoder and decoder share."""

    embedding: int = 192  # width of the embeddings
    dropout: float = 0.2  # on embeddings and before the output layer
    tie: Literal["none", "target", "all"] = "target"  # output layer = target embedding; all: = source embedding too
    # added to the source's embeddings: position, frequency (of tokens), length (of the output: search.words)
    features: list[Feature] = field(default_factory=list)
    hierarchical: bool = False  # attention is scaled by static attention to sentences (arXiv 1602.06023)
    selective: bool = False  # a gate after the encoder lets through what belongs into the output (arXiv 1704.07073)


@dataclass(frozen=True)
class Config:
    """Everything that a run needs to be run again."""

    name: str
    corpus: BuilderNode
    text: BuilderNode
    encoder: BuilderNode
    decoder: BuilderNode
    attention: BuilderNode
    self_attention: BuilderNode = field(default_factory=lambda: _default_node("self_attention", "auto"))
    copy: BuilderNode = field(default_factory=lambda: _default_node("copy", "none"))
    seed: int = 1
    device: Literal["auto", "cpu", "cuda"] = "auto"
    kernels: Kernels = "auto"  # of training; auto: fused ones where they can run
    threads: int | None = None  # null = one a core
    profile: bool = False  # look at where the time of some updates goes: profile.json and a part of the report
    prepared: str | None = None  # a folder of s2s prepare, from which the corpus is taken
    output: str = "runs"  # folder of the run folders, relative to where the user stands
    task: TaskConfig = field(default_factory=TaskConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    search: SearchConfig = field(default_factory=SearchConfig)


def _default_node(group: str, name: str) -> BuilderNode:
    """A choice with the defaults of its file, for configs from before the group was there."""
    reader = Reader(plain=True)
    node: BuilderNode = reader.builder({"name": name, **group_defaults(group, name)}, group)
    reader.raise_problems()
    return node


def from_dict(
    data: Mapping[str, Any],
    *,
    plugins: Sequence[str] = (),
    where: Callable[[str], str | None] = lambda path: None,
) -> Config:
    """A config from composed plain values, builder nodes by `_target_` or `name`.

    plugins: modules whose builders are allowed too. where: says where the value of a key path was given, for messages.
    Raises ConfigError listing every unknown key, missing value and wrong type.
    """
    return _read(data, Reader(plugins), where)


def from_plain(data: Mapping[str, Any], *, plugins: Sequence[str] = ()) -> Config:
    """The config that `to_plain` gave. Nothing named in it is imported: names are looked up among known builders.

    A plug-in's builder is read only if its module is among `plugins`. Keys with an old name are renamed. Raises
    ConfigError listing every problem.
    """
    check_plain(data)
    renamed, _ = migrate(data)
    return _read(renamed, Reader(plugins, plain=True), lambda path: None)


def _read(data: Mapping[str, Any], reader: Reader, where: Callable[[str], str | None]) -> Config:
    config = reader.fields(data, Config)
    reader.raise_problems(where)
    assert isinstance(config, Config)
    return config


def to_plain(config: Config) -> dict[str, Any]:
    """Plain values (dict, list, text, numbers, null); builder nodes as {"name": ..., options}. Names no code."""

    def plain(value: Any) -> Any:
        if isinstance(value, BuilderNode):
            return {"name": value.name, **{key: plain(option) for key, option in value.options.items()}}
        if dataclasses.is_dataclass(value):
            return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
        if isinstance(value, Mapping):
            return {str(key): plain(entry) for key, entry in value.items()}
        if isinstance(value, list | tuple):
            return [plain(entry) for entry in value]
        return value

    return dict(plain(config))


def migrate(data: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The same data under today's keys, and a line for each key that was renamed (`RENAMED`).

    Raises ConfigError if an old key and its new one are both given.
    """
    result: dict[str, Any] = copy.deepcopy(dict(data))
    notes = []
    for old, new in RENAMED.items():
        value, found = _take(result, old)
        if not found:
            continue
        *sections, leaf = new.split(".")
        place = result
        for section in sections:
            place = place.setdefault(section, {})
        if leaf in place:
            raise ConfigError(f"`{old}` is now `{new}`, and both are given", hint=f"Remove `{old}`.")
        place[leaf] = value
        notes.append(f"`{old}` is now `{new}`")
    return result, notes


def _take(data: dict[str, Any], path: str) -> tuple[Any, bool]:
    section, _, leaf = path.rpartition(".")
    place: Any = data
    for key in section.split(".") if section else []:
        place = place.get(key) if isinstance(place, dict) else None
    if not isinstance(place, dict) or leaf not in place:
        return None, False
    value = place.pop(leaf)
    if section and not place and "." not in section:
        del data[section]
    return value, True
