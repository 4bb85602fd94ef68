"""Recipes and overrides to configs: composition, sweeps, typos, and files that want harm."""

import os
import pathlib
import tempfile

import pytest
import yaml
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hypothesis import given, settings
from hypothesis import strategies as st

from s2s import app, config, paths, registry
from s2s.errors import ConfigError


def refused(recipe, overrides=(), plugins=()):
    with pytest.raises(ConfigError) as caught:
        app.compose(str(recipe), overrides, plugins)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def recipe_file(folder, text, name="mine.yaml"):
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture
def stands(tmp_path, monkeypatch):
    """The user stands in an empty folder; nothing may appear there but what the test writes."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


# ---- composing


def test_nothing_is_made_and_nobody_is_moved(stands):
    app.compose("teach/copy", ["output=elsewhere", "seed=2"])
    app.sweep("teach/copy", ["seed=1,2"])
    assert os.getcwd() == str(stands)
    assert list(stands.iterdir()) == []
    assert not GlobalHydra.instance().is_initialized()
    assert not [name for name in ConfigStore.instance().repo if name.startswith("s2s")]


def test_an_embedding_program_keeps_its_hydra():
    from hydra import compose, initialize_config_dir

    with initialize_config_dir(config_dir=str(paths.conf_dir()), version_base="1.3"):
        app.compose("teach/copy")
        with pytest.raises(ConfigError):
            app.compose("teach/copy", ["sede=1"])
        assert compose("config").seed == 1


def test_composing_twice_gives_the_same():
    assert app.compose("teach/copy", ["seed=3"]) == app.compose("teach/copy", ["seed=3"])
    assert app.compose("teach/copy").seed == 1


def test_overrides_set_values_and_swap_parts():
    made = app.compose("teach/copy", ["attention=general", "optim.lr=1e-3", "+trainer.patience=3", "search=greedy"])
    assert (made.attention.name, made.optim.lr, made.trainer.patience, made.search.beam) == ("general", 1e-3, 3, 1)
    assert app.compose("teach/copy", ["search.no_repeat_ngram=3"]).search.no_repeat_ngram == 3  # no file has the key
    assert app.compose("teach/copy", ["~trainer.steps", "trainer.minutes=1"]).trainer.steps is None


@pytest.mark.parametrize("alias, name", registry.ALIASES["attention"].items())
def test_aliases_are_what_people_type(alias, name, tmp_path):
    assert app.compose("teach/copy", [f"attention={alias}"]) == app.compose("teach/copy", [f"attention={name}"])
    path = recipe_file(tmp_path, f"defaults:\n- /teach/copy/recipe\n- override /attention: {alias}\n")
    assert app.compose(str(path)).attention.name == name


def test_a_recipe_of_ones_own_relative_to_where_one_stands(stands):
    (stands / "sub").mkdir()
    recipe_file(stands / "sub", "# mine\ndefaults:\n- /config\n- override /corpus: generated\ntrainer: {steps: 1e4}\n")
    made = app.compose("sub/mine.yaml", ["corpus.task=sort"])
    assert (made.name, made.trainer.steps, made.corpus.options["task"]) == ("mine", 10000, "sort")
    assert app.compose("./sub/mine.yaml") == app.compose(str(stands / "sub" / "mine.yaml"))


def test_relative_paths_stay_relative_to_where_one_stands(stands):
    made = app.compose("translate/multi30k", ["corpus.path=some/folder", "output=../out"])
    assert (made.corpus.options["path"], made.output) == ("some/folder", "../out")


def test_a_recipe_may_build_on_another(tmp_path):
    text = "defaults:\n- /translate/multi30k/recipe\n- override /attention: dot\n- _self_\nmodel: {dropout: 0.1}\n"
    made, parent = app.compose(str(recipe_file(tmp_path, text))), app.compose("translate/multi30k")
    assert (made.attention.name, made.model.dropout) == ("dot", 0.1)
    assert made.corpus == parent.corpus
    assert made.optim == parent.optim


def test_a_choice_wins_over_the_recipe_where_it_says_something(caplog):
    recipe = app.compose("teach/copy")
    gru = app.compose("teach/copy", ["encoder=gru"])
    assert gru.encoder.options == {**recipe.encoder.options, "cell": "gru"}  # the recipe's width stays
    assert app.compose("teach/copy", ["optim=sgd"]).optim.lr == 1.0
    assert app.compose("teach/copy", ["optim=sgd"]).optim.label_smoothing == 0.0
    caplog.clear()
    multi30k = app.compose("teach/copy", ["corpus=multi30k"])  # another builder: corpus.task means nothing to it
    assert "task" not in multi30k.corpus.options
    assert "takes the place of the recipe's corpus.task" in caplog.text


def test_config_yaml_is_enough_to_run_again(stands):
    made = app.compose("translate/multi30k", ["attention=location", "seed=7", "output=a b", "text=characters"])
    path = recipe_file(stands, app.to_yaml(made), "config.yaml")
    assert app.compose("config.yaml") == made
    assert yaml.safe_load(path.read_text(encoding="utf-8"))["attention"]["name"] == "location"
    other = app.compose("config.yaml", ["attention=additive", "seed=8", "attention.size=5"])
    assert other.attention == app.compose("teach/copy", ["attention.size=5"]).attention
    assert (other.seed, other.text, other.optim) == (8, made.text, made.optim)
    assert app.compose("config.yaml", ["optim=sgd"]).optim.name == "sgd"


@settings(max_examples=15, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=12), st.floats(1e-12, 900))
def test_config_yaml_keeps_every_text_and_number(text, number):
    plain = config.to_plain(BASE)
    plain["output"], plain["optim"]["lr"] = text, number
    if text == "???":
        return
    made = config.from_plain(plain)
    with tempfile.TemporaryDirectory() as folder:
        path = recipe_file(pathlib.Path(folder), app.to_yaml(made), "config.yaml")
        assert app.compose(str(path)) == made


BASE = app.compose("teach/copy")


@pytest.mark.parametrize(
    "text", ["${seed}", "\\${seed}", "a\\\\${b", "no", "1e-3", "null", "é #x: y", "'q\"", "~", "2020"]
)
def test_text_that_looks_like_something_else_survives_config_yaml(stands, text):
    plain = config.to_plain(BASE)
    plain["output"] = text
    made = config.from_plain(plain)
    recipe_file(stands, app.to_yaml(made), "config.yaml")
    assert app.compose("config.yaml").output == text


@pytest.mark.parametrize(
    "override, value",
    [
        ("output=a=b", "a=b"),
        ("output=my data/x", "my data/x"),
        ("output=/data/café/日本", "/data/café/日本"),
        ("output=a#b & c; d|e!*?$HOME~", "a#b & c; d|e!*?$HOME~"),
        ("output='a, b (c) [d] {e}'", "a, b (c) [d] {e}"),
        ('output="it\'s"', "it's"),
        ('output="no"', "no"),
        ("output=no", "no"),
        ('output="1e3"', "1e3"),
        ("output='null'", "null"),
        (r"output=C:\data\x", r"C:\data\x"),
        ("output=a:b", "a:b"),
        ("output='  a  '", "  a  "),
        ("output=<b>`x`</b>", "<b>`x`</b>"),
        ("output='üñ,©'", "üñ,©"),
    ],
)
def test_signs_in_overrides(override, value):
    assert app.compose("teach/copy", [override]).output == value


@pytest.mark.parametrize("override", ["output=[", "output=a,(", "=x", "output", "", "output='a", "é{=3", "a b=c"])
def test_an_override_that_cannot_be_read_is_shown(override):
    text = refused("teach/copy", [override])
    assert "override `" in text


# ---- typos


@pytest.mark.parametrize(
    "override, words",
    [
        ("attention=adittive", "Did you mean `additive`?"),
        ("attention=null", "one of additive, additive_normed, concat, coverage"),
        ("corpus=debain", "Did you mean `debian`?"),
        ("modle.dropout=0.1", "unknown key `modle.dropout`; did you mean `model.dropout`?"),
        ("atention=general", "unknown key `atention`; did you mean `attention`?"),
        ("lr=0.1", "unknown key `lr`; did you mean `optim.lr`?"),
        ("+new.key=1", "unknown key `new.key`"),
        ("seed.x=1", "`seed`"),
        ("optim.lr=1e-3x", "expected a number"),
        ("encoder.bidirectional=yes", "expected true or false"),
        ("attention=a,b", "Add -m"),
        ("attention@model=dot", "unknown key"),
        ("hydra.run.dir=/", "no settings of Hydra"),
        ("hydra/launcher=basic", "no settings of Hydra"),
        ("corpus=files", "corpus.train=VALUE"),
        ("~attention", "choose attention=NAME"),
        ("output=${nope}", "nope"),
        ("attention._target_=os.system", "no builder of s2s"),
        ("attention._target_=s2s.model.recurrent_encoder", "no builder of s2s"),
        ("attention._target_=s2s.attention.builders._additive", "no builder of s2s"),
        ("attention=os.system", "unknown attention `os.system`"),
        ("++attention={_target_: os.system}", "no builder of s2s"),
        ("corpus.symbols={_target_: os.system}", "expected a whole number"),
    ],
)
def test_a_wrong_override_is_named_with_what_was_meant(override, words):
    text = refused("teach/copy", [override])
    assert words in text
    assert f"override `{override}`" in text or "nope" in words


def test_a_wrong_recipe_is_named_with_what_was_meant(stands):
    assert "Did you mean `translate/multi30k`?" in refused("translate/multi30")
    assert "no such" in refused("nothing.yaml") or "cannot be read" in refused("nothing.yaml")
    assert "unknown recipe" in refused("../teach/copy")
    for text, words in [
        ("modle: {width: 3}", "unknown key `modle.width`"),
        ("attention: general", "- override /attention: NAME"),
        ("trainer:", "expected keys with values, found null"),
        ("optim: {lr: 1e-3x}", 'found "1e-3x"'),
        ("hydra: {callbacks: {x: {_target_: os.system}}}", "no settings of Hydra"),
        ("corpus: {_target_: os.system}", "no builder of s2s"),
        ("output: no", "expected text, found false"),
    ]:
        recipe_file(stands, f"defaults: [/teach/copy/recipe, _self_]\n{text}\n")
        message = refused("mine.yaml")
        assert words in message
        assert message.startswith("mine.yaml: ")


@pytest.mark.parametrize(
    "defaults, words",
    [
        ("[/config, override /attention: adittive]", "Did you mean `additive`?"),
        ("[/config, override /atention: dot]", "Did you mean `attention`?"),
        ("[/config, override hydra/launcher: x]", "unknown group"),
        ("[/confg]", "Did you mean `/config`?"),
        ("[/etc/passwd]", "unknown file in `defaults`"),
        ("[_self_, /config]", "at its end"),
        ("/config", "must be a list"),
        ("[[x]]", "wrong entry"),
        ("[{a: b, c: d}]", "wrong entry"),
    ],
)
def test_a_wrong_defaults_list_names_the_file(stands, defaults, words):
    recipe_file(stands, f"defaults: {defaults}\nseed: 1\n")
    text = refused("mine.yaml")
    assert words in text
    assert text.startswith("mine.yaml: ")


def test_all_problems_of_a_recipe_and_its_overrides_are_listed_at_once(stands):
    recipe_file(stands, "defaults: [/teach/copy/recipe]\noptim: {lrr: 1}\nsede: 3\n")
    text = refused("mine.yaml", ["trainer.steps=x"])
    assert text.startswith("3 problems")
    assert "mine.yaml: unknown key `optim.lrr`" in text
    assert "override `trainer.steps=x`: wrong value" in text


def test_impossible_combinations_are_listed_before_data_is_loaded():
    overrides = ["encoder.width=63", "decoder.style=bahdanau", "decoder.input_feed=false", "search.nbest=9"]
    assert refused("translate/debian-en-de", overrides).startswith("3 problems")


def test_old_keys_in_files_and_overrides(stands, monkeypatch, caplog):
    monkeypatch.setitem(config.RENAMED, "trainer.max_steps", "trainer.steps")
    recipe_file(stands, "defaults: [/teach/copy/recipe]\ntrainer: {max_steps: 400}\n")
    assert app.compose("mine.yaml").trainer.steps == 400
    assert "mine.yaml: `trainer.max_steps` is now `trainer.steps`" in caplog.text
    assert app.compose("mine.yaml", ["trainer.max_steps=500"]).trainer.steps == 500


# ---- sweeps


def test_a_sweep_is_the_grid():
    overrides = ["attention=additive,general", "seed=range(1,3)", "optim.lr=1e-3", "output='a,b'"]
    runs = app.sweep("teach/copy", overrides)
    made = [app.compose("teach/copy", run) for run in runs]
    assert [(one.attention.name, one.seed) for one in made] == [
        ("additive", 1),
        ("additive", 2),
        ("general", 1),
        ("general", 2),
    ]
    assert {(one.output, one.optim.lr) for one in made} == {("a,b", 1e-3)}


@pytest.mark.parametrize(
    "override, wanted",
    [
        ("output=choice(a,'b c')", ["a", "b c"]),
        ("output='x, y',\"z=1\"", ["x, y", "z=1"]),
        ("output=a", ["a"]),
        ("output=glob(*)", None),
        ("output=interval(0,1)", None),
    ],
)
def test_the_values_of_a_sweep(override, wanted):
    if wanted is None:
        with pytest.raises(ConfigError):
            app.sweep("teach/copy", [override])
    else:
        assert [app.compose("teach/copy", run).output for run in app.sweep("teach/copy", [override])] == wanted


def test_a_sweep_finds_the_typo_before_the_first_run():
    with pytest.raises(ConfigError, match="Did you mean `general`"):
        app.sweep("teach/copy", ["attention=additive,generel"])
    with pytest.raises(ConfigError, match="at most"):
        app.sweep("teach/copy", ["seed=range(0,100000)"])


# ---- plug-ins


def test_a_plugin_is_imported_only_when_it_is_named(stands, monkeypatch):
    (stands / "app_test_plugin.py").write_text(
        "open('imported', 'w').close()\nfrom s2s.attention import additive\n"
        "def peaked(query_size, memory_size, *, size: int = 2): return additive(query_size, memory_size, size=size)\n"
    )
    monkeypatch.syspath_prepend(str(stands))
    assert "unknown attention" in refused("teach/copy", ["attention=app_test_plugin.peaked"])
    assert "--plugin" in refused("teach/copy", ["attention._target_=app_test_plugin.peaked"])
    app.compose("teach/copy", [], ["app_test_plugin"])
    assert not (stands / "imported").exists()
    made = app.compose("teach/copy", ["attention=app_test_plugin.peaked", "attention.size=3"], ["app_test_plugin"])
    assert (stands / "imported").exists()
    assert (made.attention.name, made.attention.options) == ("app_test_plugin.peaked", {"size": 3})
    recipe_file(stands, app.to_yaml(made), "config.yaml")
    assert "--plugin" in refused("config.yaml")
    assert app.compose("config.yaml", [], ["app_test_plugin"]) == made


# ---- files that want harm


def bomb():
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    "text, words",
    [
        (bomb(), "too many YAML aliases"),
        ("seed: !!python/object/apply:os.system ['touch harm']", "YAML tag"),
        ("seed: !!python/name:os.system", "YAML tag"),
        ("seed: !custom 3", "YAML tag"),
        ("a: " + "[" * 5000 + "]" * 5000, "nested too deeply"),
        ("a: " + "{b: " * 100 + "}" * 100, "nested too deeply"),
        ("x" * 300_000, "too large"),
        ("seed: [1", "not YAML"),
        ("seed: 1\nseed: 2", "duplicate key seed"),
        ("seed: 1\n---\nseed: 2", "not YAML"),
        ("- a\n- b", "no keys"),
        ("", "no keys"),
        ("3: 4", "not text"),
        ("a: &a {b: *a}", "holds itself"),
        ("seed: 1\n\tx: 2", "not YAML"),
        ("seed: ${seed}\ndefaults: [/teach/copy/recipe]", "nterpolation"),
        ("\x01", "not YAML"),
    ],
)
def test_a_harmful_or_broken_file_is_refused_in_one_line(stands, text, words):
    recipe_file(stands, text)
    message = refused("mine.yaml")
    assert words in message
    assert "mine.yaml" in message
    assert not (stands / "harm").exists()


def test_a_file_that_is_no_text_is_refused(stands):
    (stands / "mine.yaml").write_bytes(b"\xff\xfe\x00")
    assert "not UTF-8: byte 0" in refused("mine.yaml")
    (stands / "folder.yaml").mkdir()
    assert "cannot be read" in refused("folder.yaml")


def test_a_huge_file_is_not_read_whole(stands):
    with (stands / "mine.yaml").open("wb") as stream:
        stream.truncate(100 << 20)  # sparse
    assert "too large" in refused("mine.yaml")
