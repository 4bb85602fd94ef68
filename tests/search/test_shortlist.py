"""A lexical shortlist: who may be translated by what, outputs from it alone, and no say for the neighbours."""

import dataclasses

import pytest
import torch
from toys import call, trained

from s2s.errors import BundleError, UsageError
from s2s.search.constraints import Constraints
from s2s.search.shortlist import make_shortlist
from s2s.task.generate import Generator, Options
from s2s.task.model import Model
from s2s.task.request import Request
from s2s.task.trained import load_trained
from s2s.text.lexicon import Lexicon, frequent_tokens, parse_lexicon
from s2s.train.links import translations
from s2s.types import SPECIALS


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shortlist")
    return trained(folder, "teach/copy", "trainer.lexicon=3", "trainer.steps=60")


def test_translations_are_the_words_that_stand_together():
    pairs = [([4 + a, 4 + b], [20 + a, 20 + b]) for a in range(6) for b in range(6)] * 3
    found = translations(pairs, 2)
    assert [own[0] for own in found[4:]] == [20 + a for a in range(6)]
    assert all(len(own) == 2 for own in found[4:])
    assert found[:4] == [[]] * 4
    assert translations([], 2) == []


def test_candidates_of_a_source_and_what_is_frequent():
    lexicon = Lexicon([[], [], [], [], [9, 8, 7], [6]], frequent_tokens([[5, 5, 11], [5, 11, 12]]))
    assert lexicon.frequent == [5, 11, 12]
    assert lexicon.of([4, 5, 99], 2) == {5, 11, 12, 9, 8, 6}
    again = parse_lexicon(lexicon.to_bytes(), "lexicon.json", 20)
    assert again.of([4, 5], 1) == lexicon.of([4, 5], 1)


@pytest.mark.parametrize(
    "data",
    [
        b"[]",
        b'{"format": 2, "candidates": [], "frequent": []}',
        b'{"format": 1, "candidates": [[20]], "frequent": []}',
        b'{"format": 1, "candidates": [[-1]], "frequent": []}',
        b'{"format": 1, "candidates": {}, "frequent": []}',
        b'{"format": 1, "candidates": [["4"]], "frequent": []}',
        b'{"format": 1, "candidates": [], "frequent": 3}',
    ],
)
def test_a_damaged_lexicon_is_named(data):
    with pytest.raises(BundleError, match=r"lexicon\.json"):
        parse_lexicon(data, "lexicon.json", 20)


def test_each_source_has_its_own_tokens_and_what_it_is_asked_for():
    wanted = Constraints(prefix=(9,), phrases=(((30, 31),),), banned=((9, 8), (50,)))
    made = make_shortlist([{7, 8}, {12}], [None, wanted])
    assert made.ids.tolist() == [*range(len(SPECIALS)), 7, 8, 9, 12, 30, 31]
    assert [made.ids[row].tolist()[4:] for row in made.allowed] == [[7, 8], [9, 12, 30, 31]]
    local = made.constraints(wanted)
    assert local == Constraints(prefix=(6,), phrases=(((8, 9),),), banned=((6, 5),))
    assert made.tokens(local.phrases[0][0]) == [30, 31]
    assert made.constraints(None) is None


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_outputs_come_from_the_list_and_depend_on_no_neighbour(run, precision):
    model = load_trained(run)
    model = dataclasses.replace(model, lexicon=Lexicon(model.lexicon.candidates, []))
    texts = ["ba be bi", "bo bu", "", "da de di do", "du ba"]
    options = Options(precision=precision)
    for search in ({"beam": 4, "nbest": 2}, {"beam": 1, "sample": True, "seed": 5}):
        config = dataclasses.replace(model.config.search, shortlist=1, **search)
        together = Generator([model], config, options)(texts)
        alone = [Generator([model], config, options).window([text], [number]) for number, text in enumerate(texts)]
        assert [one.tokens for one in together] == [own.tokens for (own,) in alone]
        for result in together:
            allowed = model.lexicon.of(model.source.encode(result.input), 1) | set(range(len(SPECIALS)))
            assert set(result.tokens) <= allowed
            assert len(allowed) < model.target.size


def test_a_list_of_everything_changes_nothing(run):
    model = load_trained(run)
    everything = Lexicon([list(range(model.target.size))] * model.source.size, [])
    whole = dataclasses.replace(model, lexicon=everything)
    texts = ["ba be bi", "bo bu", "da de di do"]
    plain = Model([model]).generator(beam=3)(texts)
    short = Model([whole]).generator(beam=3, shortlist=model.target.size)(texts)
    assert [one.tokens for one in short] == [one.tokens for one in plain]
    assert [one.score for one in short] == pytest.approx([one.score for one in plain], abs=1e-5)


def test_constraints_are_met_beyond_the_list(run):
    model = load_trained(run)
    narrow = dataclasses.replace(model, lexicon=Lexicon([], []))
    with torch.no_grad():
        (result,) = Model([narrow]).generator(beam=3, shortlist=1, max_length=8)(
            [Request("ba be", prefix="du", constraints=("di",), banned=("bo",))]
        )
    assert result.text.startswith("du")
    assert "di" in result.text
    assert "constraint_unmet" not in result.flags


def test_the_command_line_takes_it_and_a_model_without_a_lexicon_refuses(run):
    done = call("translate", run, "--shortlist", "1", stdin=b"ba be bi\n")
    assert done.code == 0, done.err
    assert done.lines[0] == Model([load_trained(run)]).translate("ba be bi", shortlist=1)
    without = Model([dataclasses.replace(load_trained(run), lexicon=None)])
    with pytest.raises(UsageError, match=r"trainer\.lexicon"):
        without.generator(shortlist=5)


def test_the_lexicon_has_as_many_candidates_as_were_asked_for(run):
    assert max(map(len, load_trained(run).lexicon.candidates)) == 3
