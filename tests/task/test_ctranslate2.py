"""Transformers run by CTranslate2: the same greedy tokens, no part that it lacks, and a folder for other programs."""

import dataclasses
import functools
import json

import pytest
import torch

ctranslate2 = pytest.importorskip("ctranslate2")

from s2s.app import compose  # noqa: E402
from s2s.errors import UsageError  # noqa: E402
from s2s.model.seq2seq import start_search  # noqa: E402
from s2s.search import SearchConfig, force  # noqa: E402
from s2s.task import ctranslate2_model  # noqa: E402
from s2s.task.ctranslate2_engine import CTranslate2Generator  # noqa: E402
from s2s.task.generate import Generator, Options  # noqa: E402
from s2s.task.model import Model  # noqa: E402
from s2s.task.request import Request  # noqa: E402
from s2s.task.trained import Trained, build_model  # noqa: E402
from s2s.text.corpus import generated  # noqa: E402
from s2s.text.vocabulary import Vocabulary  # noqa: E402

TRANSFORMER = ("encoder=transformer", "decoder=transformer", "attention=multihead")
PAIRS = generated(task="sort", train=100, dev=5, test=5, max_length=8).splits["train"]
LINES = [*dict.fromkeys(pair.source for pair in PAIRS)]


@functools.cache
def trained(*changes: str) -> Trained:
    """With random weights."""
    config = compose("teach/copy", [*TRANSFORMER, "text.joint=false", *changes])
    source, target = config.text.build().train([pair.source for pair in PAIRS], [pair.target for pair in PAIRS])
    torch.manual_seed(3)
    model = build_model(config, source.size, target.size)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))  # biases and gains too, and far from uniform outputs
    return Trained(model.eval().requires_grad_(False), source, target, config, ("a", "b"))


def both(model: Trained, requests, precision="float32", alignment=False, **search):
    config = dataclasses.replace(SearchConfig(max_length=12), **search)
    options = Options(alignment=alignment)
    engine = CTranslate2Generator(model, config, options, precision)
    return Generator([model], config, options)(requests), engine(requests)


SHAPES = [
    (),
    ("encoder.layers=1", "decoder.layers=3", "encoder.feed_forward=24"),
    ("attention.heads=1", "self_attention.heads=1"),
    ("encoder.learned_positions=101", "decoder.learned_positions=102", "model.tie=none"),
]


@pytest.mark.parametrize("shape", SHAPES)
def test_greedy_search_gives_the_same_tokens(shape):
    ours, theirs = both(trained(*shape), [*LINES, "", "  "], beam=1)
    assert len({result.text for result in ours}) > 10
    assert [(one.tokens, one.text, one.flags) for one in ours] == [(one.tokens, one.text, one.flags) for one in theirs]


@pytest.mark.parametrize("shape", SHAPES[:2])
def test_alignments_and_scores_are_those_of_torch(shape):
    ours, theirs = both(trained(*shape), LINES[:20], beam=1, alignment=True)
    for one, other in zip(ours, theirs, strict=True):
        assert other.log_prob == pytest.approx(one.log_prob, abs=1e-4)
        assert other.score == pytest.approx(one.score, abs=1e-4)
        torch.testing.assert_close(torch.tensor(other.alignment), torch.tensor(one.alignment))


def test_outputs_of_a_beam_have_the_scores_that_torch_gives_them():
    model = trained()
    _, found = both(model, LINES[:10], beam=4, nbest=3, alignment=True, length_penalty=1.0)
    assert any(len(result.nbest) == 3 for result in found)
    for line, result in zip(LINES, found, strict=False):
        scores = [one.score for one in result.nbest]
        finished = ["unfinished" not in one.flags for one in result.nbest]
        assert sorted(zip(finished, scores, strict=True), reverse=True) == list(zip(finished, scores, strict=True))
        ids = [*model.source.encode(line), 3]
        step, state = start_search(model.model, torch.tensor([ids]), torch.tensor([len(ids)]))
        for one in result.nbest:
            (forced,) = force(step, state, [one.tokens], SearchConfig(length_penalty=1.0))
            assert one.log_prob == pytest.approx(forced.log_prob, abs=1e-4)
            assert one.score == pytest.approx(forced.score, abs=1e-4)


def test_log_probabilities_are_among_the_tokens_that_may_be_generated():
    ours, theirs = both(trained(), LINES[:20], beam=1)
    assert all(other.log_prob >= one.log_prob - 1e-4 for one, other in zip(ours, theirs, strict=True))
    assert all(other.alignment is None for other in theirs)


def test_lengths_prefixes_and_blocks_are_kept():
    model = trained()
    prefix = model.target.decode(model.target.encode(LINES[3])[:2])
    ours, theirs = both(model, [Request(LINES[0]), Request(LINES[1], prefix), Request(LINES[2])], beam=1, max_length=3)
    assert [one.tokens for one in ours] == [one.tokens for one in theirs]
    assert [one.flags for one in ours] == [one.flags for one in theirs]
    assert any("unfinished" in one.flags for one in theirs)
    assert theirs[1].text.startswith(prefix)
    for search in ({"min_length": 7}, {"no_repeat_ngram": 1}, {"no_repeat_ngram": 2}):
        ours, theirs = both(model, LINES[:30], beam=1, **search)
        assert [one.tokens for one in ours] == [one.tokens for one in theirs]


def test_int8_changes_little_and_nothing_by_neighbours():
    model = trained()
    before = {name: value.clone() for name, value in model.model.state_dict().items()}
    ours, theirs = both(model, LINES, precision="int8", beam=1)
    near = sum(one.tokens[0] == other.tokens[0] for one, other in zip(ours, theirs, strict=True))
    assert near > len(LINES) / 2
    assert any(one.log_prob != pytest.approx(other.log_prob, abs=1e-4) for one, other in zip(ours, theirs, strict=True))
    config = SearchConfig(max_length=12, beam=1)
    alone = CTranslate2Generator(model, config, Options(batch_size=1), "int8")
    assert [one.tokens for one in alone(LINES[:20])] == [one.tokens for one in theirs[:20]]
    for name, value in model.model.state_dict().items():  # CTranslate2 rounds what it is given in place
        assert torch.equal(value, before[name]), name


@pytest.mark.parametrize(
    "changes, told",
    [
        (("encoder=lstm", "decoder=lstm"), "recurrent"),
        (("encoder=lstm",), "recurrent"),
        (("attention=additive",), "another attention than multihead"),
        (("attention.score=general",), "scaled_dot"),
        (("attention.score=dot",), "scaled_dot"),
        (("attention.kv=shared",), "kv=project"),
        (("attention.normaliser=sparsemax",), "softmax"),
        (("attention.temperature=2",), "softmax"),
        (("attention.heads=2",), "and 4 heads"),
        (("self_attention.score=general",), "self-attention"),
        (("encoder.width=128",), "encoder.width"),
        (("decoder.width=128",), "decoder.width"),
        (("encoder.bidirectional=false",), "bidirectional"),
        (("copy=pointer",), "copy"),
        (("model.selective=true",), "selective"),
        (("model.features=[position]",), "features"),
        (("model.hierarchical=true",), "hierarchical"),
    ],
)
def test_what_ctranslate2_lacks_is_named(changes, told, tmp_path):
    with pytest.raises(UsageError, match=told):
        ctranslate2_model.export(trained(*changes), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "search, told",
    [
        ({"sample": True, "beam": 1}, "sample"),
        ({"coverage_penalty": 0.2}, "coverage_penalty"),
        ({"beam": 4, "beam_groups": 2, "diversity": 0.5}, "beam_groups"),
        ({"forward": "strict"}, "forward"),
    ],
)
def test_a_search_that_it_lacks_is_refused(search, told):
    with pytest.raises(UsageError, match=told):
        both(trained(), LINES[:1], **search)


def test_constraints_and_company_are_refused():
    model = Model([trained()])
    for request in (Request(LINES[0], constraints=("a",)), Request(LINES[0], banned=("a",))):
        with pytest.raises(UsageError, match="constraints"):
            model.generator(engine="ctranslate2")([request])
    with pytest.raises(UsageError, match="one model"):
        Model([trained(), trained()]).generator(engine="ctranslate2")
    with pytest.raises(UsageError, match="unknown engine"):
        model.generator(engine="onnx")
    with pytest.raises(UsageError, match="unknown precision"):
        model.generator(engine="ctranslate2", precision="int4")


def test_a_text_beyond_the_usual_number_of_positions():
    model, words = trained(), " ".join(LINES).split()
    config = SearchConfig(beam=1, max_length=1200, min_length=1100, max_ratio=0.0, max_extra=1200)
    options = Options(max_source=1300)
    text = " ".join((words * 10)[:1300])
    (ours,), (theirs,) = (
        made([text])
        for made in (Generator([model], config, options), CTranslate2Generator(model, config, options, "float32"))
    )
    assert len(theirs.tokens) >= 1100
    assert theirs.tokens[:20] == ours.tokens[:20]


def test_every_id_has_a_text_of_its_own():
    side = Vocabulary("words", ["a", "</s>", "<s>#5", "<s>", "b"])
    texts = ctranslate2_model.vocabulary(side)
    assert len(texts) == len(set(texts)) == side.size
    assert texts[4] == "a"
    assert texts[3] == "</s>"


def test_without_the_package_it_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ctranslate2", None)
    with pytest.raises(UsageError, match=r"pip install 's2s\[ctranslate2\]'"):
        Model([trained()]).generator(engine="ctranslate2")


def test_an_exported_folder_works_by_itself(tmp_path):
    model = trained()
    ctranslate2_model.export(model, tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["add_source_eos"] is True
    translator = ctranslate2.Translator(str(tmp_path), device="cpu")
    (ours,), _ = both(model, LINES[:1], beam=1)
    pieces = model.source.pieces(model.source.encode(LINES[0]))
    (found,) = translator.translate_batch([pieces], beam_size=1, max_decoding_length=12)
    assert found.hypotheses[0] == [piece for piece in ours.pieces if piece != "</s>"]
