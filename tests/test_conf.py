"""Every file of conf/ and recipes/ composes, and binds to the real signature of its builder."""

import argparse
import dataclasses
import functools
import inspect

import pytest
import yaml

from s2s import app, config, paths, registry
from s2s.command import list as list_command
from s2s.errors import ConfigError

RECIPES = list(paths.recipe_files())
ATTENTIONS = registry.group_names("attention")
UNSUMMED = {"gmm", "local_p", "none", "static_feature"}  # whose weights sum to less than one, or that have none
BUILT = [(group, name) for group in registry.MODULES for name in registry.group_names(group)]
GIVEN = {"corpus": ["corpus.train=data/x", "corpus.source=en", "corpus.target=de"]}  # what some corpora must be told
PLAIN = [
    (group, name) for group in paths.groups() if group not in registry.MODULES for name in paths.group_files(group)
]


def test_the_registry_holds_what_the_house_promises():
    assert set(ATTENTIONS) >= {"none", "additive", "additive_normed", "dot", "scaled_dot", "general", "concat"}
    assert "location" in ATTENTIONS
    assert set(registry.group_names("corpus")) >= {
        "debian",
        "debian_synopsis",
        "aeslc",
        "hub",
        "cnn_dailymail",
        "xsum",
        "samsum",
        "chitchat",
        "dialogues",
        "files",
        "tsv",
        "jsonl",
        "multi30k",
        "catalogs",
        "generated",
    }
    assert registry.group_names("text") == ["characters", "sentencepiece", "words"]
    assert set(RECIPES) >= {"translate/debian-en-de", "translate/debian-en-de-all", "translate/multi30k"}
    assert set(paths.groups()) == {*registry.MODULES, "optim", "trainer", "search", "task"}


@pytest.mark.parametrize("group, name", BUILT)
def test_a_builder_file_binds_to_its_signature(group, name):
    content = yaml.safe_load(paths.group_files(group)[name].read_text(encoding="utf-8"))
    function, values = registry.builder(
        group, name, {k: "x" if v == "???" else v for k, v in registry.group_defaults(group, name).items()}
    )
    assert content.pop("_target_") == f"{registry.MODULES[group]}.{function.__name__}"
    keywords = {p.name for p in inspect.signature(function).parameters.values() if p.kind is p.KEYWORD_ONLY}
    assert set(values) == keywords
    options = registry.options_of(function)
    if group == "attention":
        assert content == options  # each file shows all that can be set, at its default
    assert set(content) <= set(options)


@pytest.mark.parametrize("group, name", BUILT + PLAIN)
def test_a_group_file_composes(group, name):
    given = GIVEN["corpus"] if group == "corpus" and name in ("files", "tsv", "jsonl") else []
    given = ["corpus.train=data/x"] if name == "dialogues" else given
    given = ["corpus.dataset=x", "corpus.source=x", "corpus.target=y"] if name == "hub" else given
    made = app.compose("teach/copy", [f"{group}={name}", *given])
    chosen = getattr(made, group)
    if group in registry.MODULES:
        assert chosen.target == registry.group_file(group, name)["_target_"]
    else:
        plain, wanted = config.to_plain(made)[group], registry.group_file(group, name)
        own = yaml.safe_load(paths.recipe_files()["teach/copy"].read_text(encoding="utf-8")).get(group, {})
        assert {k: plain[k] for k in wanted if k not in own} == {
            k: float(v) if isinstance(plain[k], float) else v for k, v in wanted.items() if k not in own
        }


composed = functools.cache(app.compose)


# all in the default recipe and in the one with another shape of encoder and decoder, and in turn in the others
@pytest.mark.parametrize(
    "recipe, attention",
    [
        (recipe, attention)
        for number, attention in enumerate(ATTENTIONS)
        for recipe in dict.fromkeys(
            ("translate/debian-en-de", "translate/multi30k-online", RECIPES[number % len(RECIPES)])
        )
    ],
)
def test_every_attention_composes_in_the_recipes(recipe, attention):
    swap = [f"attention={attention}"]
    if attention in ("none", "key_value_predict") and composed(recipe).decoder.name == "transformer_decoder":
        with pytest.raises(ConfigError, match="Take decoder=lstm"):
            app.compose(recipe, swap)
        return
    if attention in UNSUMMED and composed(recipe).copy.name != "none":
        with pytest.raises(ConfigError, match="copy=pointer needs attention weights"):  # nothing to copy by
            app.compose(recipe, swap)
        swap.append("copy=none")
    made = app.compose(recipe, swap)
    assert made.attention.name == attention
    assert made.name == recipe
    # the style belongs to the decoder
    assert made.decoder == composed(recipe).decoder


@pytest.mark.parametrize("search", paths.group_files("search"))
@pytest.mark.parametrize("recipe", ["teach/copy", "chat/chitchat"])
def test_every_search_composes(recipe, search):
    made = app.compose(recipe, [f"search={search}"]).search
    assert made.sample == (search in ("sample", "reply"))


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_patches_no_attention(recipe):
    # options of one mechanism would break the next one that is swapped in
    assert "attention" not in app.read_yaml(paths.recipe_files()[recipe])


@pytest.mark.parametrize(
    "group, name, kind",
    [
        ("optim", "adamw", config.OptimConfig),
        ("trainer", "default", config.TrainerConfig),
        ("task", "translation", config.TaskConfig),
    ],
)
def test_the_default_files_show_every_key_with_its_default(group, name, kind):
    content = app.read_yaml(paths.group_files(group)[name])
    defaults = {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(kind()).items()}
    assert content == defaults


def test_the_base_file_says_the_defaults_of_the_schema():
    content = app.read_yaml(paths.conf_dir() / "config.yaml")
    content.pop("defaults")
    assert content.pop("model") == dataclasses.asdict(config.ModelConfig())
    defaults = {f.name: f.default for f in dataclasses.fields(config.Config)}
    assert content == {key: defaults[key] for key in content}


def test_the_recipes_are_what_their_names_say():
    short = composed("translate/debian-en-de")
    assert short.corpus.options["max_words"] == 15
    assert short.attention.name == "additive"
    everything = composed("translate/debian-en-de-all")
    assert everything.corpus.options["max_words"] is None
    assert everything.text == short.text
    multi30k = composed("translate/multi30k")
    assert multi30k.corpus.name == "multi30k"
    assert multi30k.corpus.options["lowercase"]
    assert multi30k.task.lowercase
    assert app.compose("teach/copy").corpus.options["task"] == "copy"
    assert app.compose("teach/reverse").corpus.options["task"] == "reverse"


@pytest.mark.parametrize("path", [*paths.recipe_files().values(), *paths.group_files("attention").values()])
def test_every_file_that_is_listed_says_what_it_is(path):
    assert len(paths.summary(path)) > 10
    assert not paths.summary(path).startswith("@")


@pytest.mark.parametrize("kind", ["recipes", "attention", "corpora", None])
def test_list_prints_a_line_each(capsys, kind):
    parser = argparse.ArgumentParser()
    list_command.add_arguments(parser)
    assert list_command.run(parser.parse_args([kind] if kind else [])) == 0
    out = capsys.readouterr().out
    parts = {name: registry.group_names(name) for name in ("self_attention", "copy", "encoder", "decoder")}
    names = {"recipes": RECIPES, "attention": ATTENTIONS, **parts, "corpora": registry.group_names("corpus")}
    wanted = names[kind] if kind else [name for group in names.values() for name in group]
    rows = [line for line in out.split("\n") if line and not line.endswith(":")]
    assert [row.split()[0] for row in rows] == wanted
    if kind:
        columns = {len(row) - len(row[len(name) :].lstrip()) for row, name in zip(rows, wanted, strict=True)}
        assert len(columns) == 1
    if kind == "attention":
        assert "also: bahdanau, soft" in out


@pytest.mark.parametrize("group", list(registry.ALIASES))
def test_aliases_lead_to_what_is_there_and_hide_nothing(group):
    names = registry.group_names(group)
    assert set(registry.ALIASES[group].values()) <= set(names)
    assert not set(registry.ALIASES[group]) & set(names)
