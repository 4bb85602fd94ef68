"""The schema: what it takes, what it refuses and with which words."""

import dataclasses
import json
import re
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s2s import app, checks, config, paths, registry
from s2s.attention import Options
from s2s.errors import ConfigError


@pytest.fixture(scope="module")
def base():
    return app.compose("teach/copy")


@pytest.fixture
def plain(base):
    return config.to_plain(base)


def refused(data, **options):
    with pytest.raises(ConfigError) as caught:
        config.from_plain(data, **options)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2
    return str(caught.value)


def broken(base, **sections):
    """The problems of a config with some values of some sections replaced."""
    changed = {}
    for section, values in sections.items():
        node = getattr(base, section)
        if isinstance(node, config.BuilderNode):
            changed[section] = dataclasses.replace(node, options={**node.options, **values})
        else:
            changed[section] = dataclasses.replace(node, **values) if isinstance(values, dict) else values
    return checks.problems(dataclasses.replace(base, **changed))


def test_a_config_survives_plain_values_and_json(base, plain):
    assert config.from_plain(json.loads(json.dumps(plain))) == base
    assert "_target_" not in json.dumps(plain)
    assert plain["attention"]["name"] == "additive"


def test_options_are_kept_in_full_so_that_later_defaults_change_nothing(base):
    assert base.encoder.options["residual"] is False
    assert base.corpus.options["symbols"] == 20


@pytest.mark.parametrize(
    "path, value, words",
    [
        ("optim.lr", "1e-3x", 'wrong value of `optim.lr`: expected a number, found "1e-3x"'),
        ("decoder.input_feed", "yes", 'wrong value of `decoder.input_feed`: expected true or false, found "yes"'),
        ("trainer.steps", 1.5, "wrong value of `trainer.steps`: expected a whole number or null, found 1.5"),
        ("trainer.steps", True, "expected a whole number or null, found true"),
        ("optim.lr", float("nan"), "expected a number, found NaN"),
        ("optim.lr", float("inf"), "expected a number, found Infinity"),
        ("optim.lr", True, "expected a number, found true"),
        ("optim.schedule", "cosin", "expected one of cosine, linear, inverse_sqrt, constant"),
        ("optim.betas", [0.9], "expected a list of 2 values"),
        ("task.metrics", "bleu", "expected a list, each one of bleu, chrf, ter"),
        (
            "task.metrics",
            ["bleu", "blue"],
            "wrong value of `task.metrics.1`: expected one of bleu, chrf, ter, rouge1, rouge2, rougeL, rougeLsum,",
        ),
        ("corpus.seed", None, "wrong value of `corpus.seed`: expected a whole number, found null"),
        ("output", False, "expected text, found false; put it into quotes if it is text"),
        ("trainer", 3, "wrong value of `trainer`: expected keys with values, found 3"),
        ("attention", "general", "- override /attention: NAME"),
        ("encoder.width", "???", "`encoder.width` must be given, for example with encoder.width=VALUE"),
        ("modle.width", 3, "unknown key `modle.width`; did you mean `"),
        ("model.embeding", 3, "unknown key `model.embeding`; did you mean `model.embedding`?"),
        ("trainer.lr", 3, "unknown key `trainer.lr`; did you mean `optim.lr`?"),
        ("sede", 3, "unknown key `sede`; did you mean `seed`?"),
        ("attention.sizes", 3, "unknown key `attention.sizes`; did you mean `attention.size`?"),
        ("attention.window", 3, "unknown key `attention.window`; attention=additive has size, heads, kv"),
        ("attention.name", "adittive", "did you mean `additive`?"),
        ("attention.name", "s2s.attention.additive", "no builder of s2s"),
        ("attention.name", "os.system", "no builder of s2s"),
        ("attention.name", "__import__", "no builder of s2s"),
        ("attention.name", ["additive"], "must name a builder"),
        ("attention._target_", "s2s.attention.additive", "`_target_` is refused"),
        ("search._target_", "os.system", "`_target_` is refused"),
        ("search.nbest", [1], "wrong value of `search.nbest`"),
    ],
)
def test_a_wrong_value_is_named_with_what_was_expected(plain, path, value, words):
    section, _, key = path.rpartition(".")
    (plain.setdefault(section, {}) if section else plain)[key] = value
    assert words in refused(plain)


def test_all_problems_are_listed_at_once(plain):
    plain["optim"]["lr"] = "x"
    plain["sede"] = 3
    plain["attention"]["siz"] = 3
    del plain["corpus"]
    text = refused(plain)
    assert text.startswith("4 problems")
    for part in ("`optim.lr`", "`sede`", "`attention.siz`", "corpus=NAME, one of aeslc, catalogs, "):
        assert part in text


def test_whole_numbers_serve_as_numbers_and_1e4_as_a_whole_number(plain):
    plain["optim"]["lr"], plain["trainer"]["steps"] = 1, 1e4
    made = config.from_plain(plain)
    assert made.optim.lr == 1.0
    assert isinstance(made.optim.lr, float)
    assert made.trainer.steps == 10000
    assert isinstance(made.trainer.steps, int)


def test_deep_nesting_and_foreign_types_are_refused(plain):
    deep = []
    for _ in range(10_000):
        deep = [deep]
    assert "nested too deeply" in refused({**plain, "output": deep})
    assert "not plain" in refused({**plain, "output": object()})
    assert "key is not text" in refused({**plain, 3: 4})


def test_a_plugin_is_read_only_when_the_user_names_its_module(plain, tmp_path, monkeypatch):
    (tmp_path / "conf_test_plugin.py").write_text("def peaked(query_size, memory_size, *, size: int = 2): ...\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    plain["attention"] = {"name": "conf_test_plugin.peaked", "size": 3}
    assert "--plugin" in refused(plain)
    assert "conf_test_plugin" not in sys.modules
    assert "--plugin" in refused(plain, plugins=["json"])
    made = config.from_plain(plain, plugins=["conf_test_plugin"])
    assert made.attention.options == {"size": 3}
    assert config.to_plain(made)["attention"] == plain["attention"]
    plain["attention"]["name"] = "conf_test_plugin.missing"
    assert "cannot be loaded" in refused(plain, plugins=["conf_test_plugin"])


def test_old_keys_are_read_and_named(plain, monkeypatch):
    monkeypatch.setitem(config.RENAMED, "trainer.max_steps", "trainer.steps")
    monkeypatch.setitem(config.RENAMED, "rate", "optim.lr")
    plain["trainer"]["max_steps"] = plain["trainer"].pop("steps")
    plain["rate"] = plain["optim"].pop("lr")
    before = json.dumps(plain)
    made = config.from_plain(plain)
    assert (made.trainer.steps, made.optim.lr) == (300, 5e-3)
    assert json.dumps(plain) == before
    assert config.migrate(plain)[1] == ["`trainer.max_steps` is now `trainer.steps`", "`rate` is now `optim.lr`"]
    plain["trainer"]["steps"] = 1
    assert "both are given" in refused(plain)


def test_the_base_has_no_problems(base):
    assert checks.problems(base) == []


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"trainer": {"steps": None}}, "no limit"),
        ({"decoder": {"style": "bahdanau", "input_feed": False}}, "style luong"),
        ({"encoder": {"width": 63}}, "even"),
        ({"model": {"tie": "all"}}, "text.joint=true"),
        ({"optim": {"warmup": 301}}, "longer than `trainer.steps`"),
        ({"optim": {"schedule": "inverse_sqrt", "warmup": 0}}, "inverse_sqrt"),
        ({"optim": {"ema": 0.9, "average": 2}}, "exclude each other"),
        ({"optim": {"rdrop": 1.0}}, "dropout"),
        ({"optim": {"guided_alignment": 0.5}}, "needs `trainer.links`"),
        ({"optim": {"guided_alignment": -0.5}, "trainer": {"links": None}}, "`optim.guided_alignment` is out of range"),
        ({"optim": {"scheduled_sampling": 1.1}}, "`optim.scheduled_sampling` is out of range"),
        ({"trainer": {"links": "auto"}}, "read by `optim.guided_alignment` only"),
        ({"optim": {"lr": -1.0}}, "`optim.lr` is out of range"),
        ({"optim": {"ema": 1.0}}, "expected 0 <= value < 1"),
        ({"optim": {"betas": (0.9, 1.0)}}, "`optim.betas`"),
        ({"optim": {"clip": 0.0}}, "more than 0"),
        ({"search": {"nbest": 6}}, "search.nbest"),
        ({"search": {"sample": True}}, "search.beam"),
        ({"trainer": {"metric": "ter"}}, "not among `task.metrics`"),
        ({"trainer": {"valid_sentences": 0, "metric": "bleu"}}, "valid_sentences"),
        ({"trainer": {"subword_sample": 0.1}}, "text=words"),
        ({"trainer": {"batch_tokens": 100}}, "cannot hold one target"),
        ({"trainer": {"validate_minutes": 1.0}}, "exclude each other"),
        ({"trainer": {"keep": 0}}, "`trainer.keep` is out of range"),
        ({"text": {"size": 2}}, "text.size"),
        ({"task": {"metrics": ["bleu", "bleu"]}}, "twice"),
        ({"seed": -1}, "`seed` is out of range"),
        ({"name": "../x"}, "relative path"),
        ({"name": "/x"}, "relative path"),
        ({"name": "a\nb"}, "relative path"),
    ],
)
def test_an_impossible_combination_is_the_one_problem_found(base, changes, words):
    found = broken(base, **changes)
    assert len(found) == 1
    assert words in found[0]


@pytest.mark.parametrize(
    "overrides, words",
    [
        (["attention=dot", "encoder.width=32"], "take attention=general"),
        (["attention=scaled_dot", "encoder.width=32"], "as wide as the keys (32); found 64"),
        (["attention=location", "attention.max_source=100"], "`attention.max_source`"),
        (["attention=none", "search.coverage_penalty=1"], "coverage_penalty"),
        (
            ["attention=none", "optim.guided_alignment=1", "trainer.links=auto"],
            "attention=none has none such: take attent",
        ),
        (["attention=local_p", "optim.guided_alignment=1", "trainer.links=auto"], "take attention.renormalise=true"),
        (["attention=hard", "optim.guided_alignment=1", "trainer.links=auto"], "take `attention.estimator=gumbel`"),
        (
            [
                "attention=mocha",
                "attention.estimator=straight_through",
                "optim.guided_alignment=1",
                "trainer.links=auto",
            ],
            "take `attention.estimator=expected`",
        ),
        (
            [
                "attention=additive",
                "optim.guided_alignment=1",
                "trainer.links=auto",
                "text=sentencepiece",
                "trainer.subword_sample=0.1",
            ],
            "set `trainer.subword_sample` to 0",
        ),
    ],
)
def test_an_attention_that_does_not_fit_is_refused(overrides, words):
    with pytest.raises(ConfigError, match=re.escape(words)):
        app.compose("teach/copy", overrides)


def test_combinations_are_listed_together(base):
    found = broken(base, trainer={"steps": None}, encoder={"width": 63}, search={"nbest": 6})
    assert len(found) == 3


def test_every_number_of_the_schema_has_a_range():
    # a new knob that no range is thought of for is a silent absurdity later
    ranged = {path for path, *_ in checks._RANGES} | set(checks._POSITIVE)
    for section, kind in (
        ("model", config.ModelConfig),
        ("optim", config.OptimConfig),
        ("trainer", config.TrainerConfig),
    ):
        for field in dataclasses.fields(kind):
            if ("int" in str(field.type) or "float" in str(field.type)) and "Literal" not in str(field.type):
                assert f"{section}.{field.name}" in ranged | {"optim.betas"}


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(["trainer", "optim", "attention", "encoder", "search", "task", "corpus", "model"]), st.data())
def test_any_json_is_read_or_refused_in_one_line(section, data):
    plain = config.to_plain(BASE)
    key = data.draw(st.sampled_from(sorted(plain[section])) | st.text(max_size=5))
    leaf = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
    plain[section][key] = data.draw(st.recursive(leaf, lambda x: st.lists(x, max_size=3), max_leaves=5))
    try:
        made = config.from_plain(plain)
    except ConfigError as error:
        assert "\n" not in str(error)  # noqa: PT017 (either outcome is right)
        return
    assert config.from_plain(config.to_plain(made)) == made
    assert isinstance(checks.problems(made), list)


BASE = app.compose("teach/copy")


def test_a_builder_node_builds(base):
    attention = base.attention.build(8, 6)
    assert type(attention).__name__ == "ScoredAttention"


def test_builder_for_attention_takes_aliases_and_checks_options():
    function, values = registry.builder("attention", "bahdanau", {"size": 4})
    assert function.__name__ == "additive"
    assert values == {"size": 4, "options": Options()}
    _, values = registry.builder("attention", "multihead", {"heads": 2, "dropout": 0.5})
    assert values == {"score": "scaled_dot", "options": Options(heads=2, kv="project", dropout=0.5)}
    with pytest.raises(ConfigError, match=r"unknown attention `adittive`.*Did you mean `additive`"):
        registry.builder("attention", "adittive", {})
    with pytest.raises(ConfigError, match=r"`attention.siz`; did you mean `attention.size`"):
        registry.builder("attention", "additive", {"siz": 4})


def test_importing_the_schema_is_light():
    code = (
        "import sys, s2s.registry; assert not {'torch', 'hydra', 'omegaconf', 'sentencepiece'} & set(sys.modules);"
        "import s2s.config; assert not {'hydra', 'omegaconf', 'sentencepiece'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_only_app_imports_hydra():
    package = paths.conf_dir().parent / "s2s"
    found = {
        str(file.relative_to(package))
        for file in package.rglob("*.py")
        for line in file.read_text(encoding="utf-8").split("\n")
        if re.match(r"\s*(import|from) (hydra|omegaconf)", line)
    }
    assert found == {"app.py"}
