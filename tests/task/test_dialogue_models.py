"""Models of dialogues, trained for seconds: earlier turns are read, keywords stand in replies, reranking reorders."""

import json
import random
import shutil

import pytest
import torch
from toys import call

import s2s
from s2s.errors import BundleError, UsageError
from s2s.task.likelihood import log_likelihoods
from s2s.task.rerank import Rerank
from s2s.task.trained import load_trained
from s2s.text.keywords import words

OPENERS = ["hello", "hey", "hi", "yo"]
THINGS = {"dogs": "bones", "rain": "umbrellas", "pizza": "cheese", "tea": "milk"}
ARGS = (
    *(
        "threads=1",
        "device=cpu",
        "task=dialogue",
        "corpus=dialogues",
        "corpus.dev=0.05",
        "corpus.test=0.05",
        "text=words",
    ),
    *("text.joint=true", "model.embedding=32", "encoder.width=32", "decoder.width=32", "trainer.batch_tokens=400"),
    *("trainer.validate_every=1000", "trainer.samples=1", "optim.warmup=10", "optim.lr=1e-2", "trainer.max_source=40"),
    *("model.dropout=0.0", "trainer.valid_sentences=20", "search.beam=4"),
)


@pytest.fixture(scope="module")
def talks(tmp_path_factory):
    """Dialogues whose fourth turn greets as the second one did, and names what goes with the thing in the third."""
    rng = random.Random(1)
    path = tmp_path_factory.mktemp("talks") / "talks.jsonl"
    with path.open("w") as file:
        for number in range(500):
            greeting, thing = rng.choice(OPENERS), rng.choice(list(THINGS))
            first = f"{rng.choice(OPENERS)} {number % 7}"
            reply = f"{greeting} i like {THINGS[thing]}" if number % 2 else f"{greeting} {THINGS[thing]} again"
            file.write(json.dumps([first, greeting, f"tell about {thing}", reply]) + "\n")
    return path


@pytest.fixture(scope="module")
def trained(talks, tmp_path_factory):
    """A function that trains a model with changes, once each."""
    made = {}

    def train(*changes, steps=120):
        if changes not in made:
            output = tmp_path_factory.mktemp("run")
            done = call(
                *("train", "teach/copy", *ARGS, f"corpus.train={talks}", f"output={output}", f"trainer.steps={steps}"),
                *changes,
            )
            assert done.code == 0, done.err
            made[changes] = done.out.strip()
        return made[changes]

    return train


def ask(greeting, thing):
    return [
        {"role": "user", "content": "hi 3"},
        {"role": "assistant", "content": greeting},
        {"role": "user", "content": f"tell about {thing}"},
    ]


def right(model, **options):
    """How many replies greet as the own turn before did, and name what goes with the last turn."""
    found = 0
    for greeting in OPENERS:
        for thing, other in THINGS.items():
            reply = words(model.chat(ask(greeting, thing), **options))
            found += reply[:1] == [greeting] and other in reply
    return found


@pytest.mark.parametrize("changes", [(), ("model.hierarchical=true",)])
def test_earlier_turns_are_read(trained, changes):
    model = s2s.load(trained(*changes))
    assert right(model) >= 12
    last = [ask("hey", thing)[-1:] for thing in THINGS]
    greetings = {words(model.chat(one))[0] for one in last}
    assert len(greetings & set(OPENERS)) <= 2  # without the turn before, nobody knows how


def test_the_hierarchy_is_one_of_turns(trained):
    plain, upper = (load_trained(trained(*changes)) for changes in ((), ("model.hierarchical=true",)))
    assert plain.model.sentences is None
    ids = upper.source.encode("hi 3\nhey\ntell about tea")
    number = upper.model.sentences.sentences(torch.tensor([[*ids, 3]]))[0].tolist()
    turns = [len(part) for part in (["hi", "3", "</s>"], ["<s>", "hey", "</s>"], ["tell", "about", "tea", "</s>"])]
    assert number == [place for place, size in enumerate(turns) for _ in range(size)]


def test_reports_tell_of_replies(trained):
    done = call("eval", trained(), "--split", "test", "--json")
    facts = json.loads(done.out)
    names = [score["name"] for score in facts["scores"]]
    assert "distinct2" in names
    assert "generic" in names
    assert 1 < facts["dialogue"]["perplexity"] < 5
    assert facts["dialogue"]["keywords"] is None
    assert 0.5 < facts["dialogue"]["relevance"] <= 1


def test_likelihoods_are_those_of_forced_decoding(trained):
    one = load_trained(trained())
    texts = ("hi 3\nhey\ntell about tea", "hey i like milk")
    example, other = one.example(*texts), one.example("yo 1\nyo\ntell about rain", "yo umbrellas again")
    alone, together = log_likelihoods(one, [example])[0], log_likelihoods(one, [other, example])[1]
    assert len(alone) == 5
    assert alone.tolist() == pytest.approx(together.tolist(), abs=1e-5)
    model = s2s.load(trained())
    result = model.chat(ask("hey", "tea"), details=True)
    made = log_likelihoods(one, [one.example("hi 3\nhey\ntell about tea", result.text)])[0]
    assert float(made.sum()) == pytest.approx(result.log_prob, abs=1e-4)


def test_mutual_information_reorders(trained):
    model = s2s.load(trained())
    reverse, alone = trained("corpus.direction=backward"), trained("corpus.direction=none", "attention=none")
    for greeting, thing in (("hey", "tea"), ("yo", "dogs")):
        plain = model.chat(ask(greeting, thing), details=True, nbest=4)
        for asked in (
            Rerank(reverse=reverse, weight=0.5),
            Rerank(language_model=alone, weight=0.7, first=2),
            Rerank(language_model=alone, reverse=reverse, weight=0.3, length=0.5),
        ):
            found = model.chat(ask(greeting, thing), details=True, nbest=4, rerank=asked)
            assert sorted(one.text for one in found.nbest) == sorted(one.text for one in plain.nbest)
            scores = [one.score for one in found.nbest]
            assert scores == sorted(scores, reverse=True)
            for one in found.nbest:
                score = one.log_prob * (1 - asked.weight if asked.reverse else 1) + asked.length * len(one.tokens)
                if asked.language_model:
                    other = load_trained(alone)
                    own = log_likelihoods(other, [other.example("-", one.text)])[0]
                    score -= asked.weight * float(own[: asked.first].sum())
                if asked.reverse:
                    other = load_trained(reverse)
                    own = log_likelihoods(other, [other.example(one.text, f"tell about {thing}")])[0]
                    score += asked.weight * float(own.sum())
                assert one.score == pytest.approx(score, abs=1e-3)
    drawn = {"sample": True, "temperature": 2.0}
    one = model.chat(ask("hey", "tea"), details=True, **drawn)
    best = model.chat(ask("hey", "tea"), details=True, **drawn, rerank=Rerank(reverse=reverse, draws=8))
    several = model.chat(ask("hey", "tea"), details=True, **drawn, nbest=8, rerank=Rerank(reverse=reverse))
    assert best.text == several.nbest[0].text
    assert best.nbest == ()
    assert one.text in {other.text for other in several.nbest}
    command = ("eval", trained(), "--mmi-reverse", reverse, "--mmi-weight", "0.4", "--top-p", "0.9", "--draws", "3")
    assert call(*command).code == 0
    for wrong, told in (
        (("--mmi-reverse", alone), "direction=backward"),
        (("--mmi-lm", reverse), "direction=none"),
        (("--mmi-lm", alone, "--mmi-weight", "2"), "0 to 1"),
        (("--mmi-lm", alone, "--mmi-first", "0"), "at least 1"),
    ):
        done = call("eval", trained(), *wrong)
        assert done.code == 2
        assert told in done.err


def test_each_reply_holds_its_keyword(trained):
    backward = trained("task.reply=to_keyword", "task.eval_splits=[]")
    model = s2s.load(trained())
    generator = model.reply_generator(keyword_model=backward)
    known = load_trained(backward).keywords
    for greeting in OPENERS:
        for thing in [*THINGS, "nothing"]:
            result = model.chat(ask(greeting, thing), details=True, keyword_model=backward)
            keyword = generator.keyword(f"tell about {thing}")
            assert keyword in known.frequent
            assert keyword in words(result.text)
            assert thing == "nothing" or keyword in known.best(f"tell about {thing}", 3)
    assert model.chat(ask("hey", "tea"), keyword_model=backward, prefix="yo").startswith("yo")
    assert model.chat([{"role": "user", "content": " "}], keyword_model=backward) == ""
    drawn = model.chat(ask("hey", "tea"), keyword_model=backward, sample=True, temperature=3.0)
    assert generator.keyword("tell about tea") in words(drawn)
    done = call("eval", trained(), "--keyword-model", backward, "--json")
    assert json.loads(done.out)["dialogue"]["keywords"] == 1.0
    with pytest.raises(UsageError, match="to_keyword"):
        model.chat(ask("hey", "tea"), keyword_model=trained())
    assert call("eval", trained(), "--keyword-model", trained()).code == 2


def test_topics_are_read_with_the_message(trained):
    run = trained("task.topics=2", "copy=pointer")
    one = load_trained(run)
    text, _ = one.entered("hi\ntell about TEA\x1f dogs")
    assert text.split("\x1f")[0] == "hi\ntell about TEA dogs"
    assert text.split("\x1f")[1].split() == one.keywords.best("tell about TEA dogs", 2)
    model = s2s.load(run)
    keywords = [THINGS[thing] in model.chat(ask(greeting, thing)) for greeting in OPENERS for thing in THINGS]
    assert sum(keywords) >= 12
    result = model.chat(ask("hey", "tea"), details=True)
    assert result.input == "hi 3\nhey\ntell about tea"
    assert result.source_pieces[-4:-1] == ("<s>", *one.keywords.best("tell about tea", 2))


def test_a_bundle_without_its_keywords_is_refused(trained, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(f"{trained('task.topics=2', 'copy=pointer')}/model", folder)
    (folder / "keywords.json").unlink()
    with pytest.raises(BundleError):
        load_trained(folder)


def test_wrong_options_are_refused():
    for changes, told in (
        (("task.topics=3",), "for dialogues"),
        (("task.reply=to_keyword",), "for dialogues"),
        (("task=dialogue", "task.overlong=split"), "has no meaning"),
        (("task.overlong=turns",), "has no meaning"),
    ):
        done = call("train", "teach/copy", *changes, "trainer.steps=1")
        assert done.code == 2
        assert told in done.err
