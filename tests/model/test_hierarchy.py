"""Attention to sentences above attention to words: against the equations, and inside a model."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from model_toys import SOURCE, batch, tiny

from s2s.app import compose
from s2s.attention import build
from s2s.attention.reweight import Reweighted
from s2s.errors import ConfigError, UsageError
from s2s.model.hierarchy import SentenceLevel
from s2s.task.stream import Stream
from s2s.task.trained import Trained, build_model
from s2s.text.sentences import sentence_marks, split_sentences
from s2s.text.tokenizer import train_sentencepiece
from s2s.text.vocabulary import Vocabulary
from s2s.types import EOS, Encoded

TEXTS = [
    "A small tool. It reads files! Does it write? Yes",
    "Version 3.5 is here. Nothing else",
    "一つ目。二つ目。三つ目",
    "no end at all",
    "It ends here.",
]


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("kind", ["sentencepiece", "words"])
def test_sentences_are_told_from_ids(text, kind):
    if kind == "words":
        tokenizer = Vocabulary("words", sorted({word for each in TEXTS for word in each.split()}))
    else:
        tokenizer = train_sentencepiece(TEXTS * 20, size=320)
    level = SentenceLevel(tokenizer.size, 4)
    level.fit(sentence_marks(tokenizer))
    ids = tokenizer.encode(text)
    found = level.sentences(torch.tensor([[*ids, EOS, 0, 0]]))[0].tolist()
    pieces: dict[int, list[int]] = {}
    for number, sentence in zip(ids, found, strict=False):
        pieces.setdefault(sentence, []).append(number)
    expected = [part.strip() for part in split_sentences(text)]
    if kind == "words":
        expected = [text] if "。" in text else expected  # one word
    assert [tokenizer.decode(part) for part in pieces.values()] == expected
    assert found[len(ids)] == found[len(ids) - 1]  # the end belongs to the last


def naive_prior(level, states, length, number):
    """The weight of each position of one source, sentence by sentence."""
    count = max(number[:length]) + 1
    means = torch.stack(
        [torch.stack([states[i] for i in range(length) if number[i] == s]).mean(0) for s in range(count)]
    )
    above = level.encoder(means.unsqueeze(0), torch.tensor([count])).states[0]
    energies = [
        torch.tanh(level.inner.weight @ (above[s] + level.place.weight[s]) + level.inner.bias) @ level.vector
        for s in range(count)
    ]
    weights = torch.softmax(torch.stack(energies), 0)
    return torch.stack([weights[number[i]] for i in range(length)])


def test_the_weights_of_sentences_are_those_of_the_equations_and_padding_changes_nothing():
    torch.manual_seed(0)
    level = SentenceLevel(9, 5)
    level.vector.data.normal_()
    level.fit([0, 1, 0, 0, 1, 1, 3, 5, 0])  # 6 may end a sentence, 7 does
    source = torch.tensor([[4, 6, 5, 7, 8, 6, 3, 0], [4, 4, 6, 3, 0, 0, 0, 0], [6, 4, 6, 5, 6, 4, 7, 3]])
    lengths = [7, 4, 8]
    numbers = [[0, 0, 1, 1, 2, 2, 2], [0, 0, 0, 0], [0, 1, 1, 2, 2, 3, 3, 3]]
    mask = torch.arange(8) < torch.tensor(lengths).unsqueeze(1)
    states = torch.randn(3, 8, 5)
    found = level(Encoded(states, torch.zeros(3, 5), mask), source).prior
    for row, (length, number) in enumerate(zip(lengths, numbers, strict=True)):
        torch.testing.assert_close(found[row, :length], naive_prior(level, states[row], length, number))


@pytest.mark.parametrize("name", ["additive", "general", "coverage", "local_p", "temporal"])
def test_words_are_scaled_by_their_sentence_and_keep_their_sum(name):
    torch.manual_seed(0)
    inner = build(name, query_size=4, memory_size=6)
    attention = Reweighted(inner).eval()
    mask = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    prior = torch.rand(2, 5) + 0.1
    encoded, query = Encoded(torch.randn(2, 5, 6), torch.zeros(2, 6), mask), torch.randn(2, 1, 4)
    plain_memory, memory = inner.remember(encoded), attention.remember(encoded._replace(prior=prior))
    plain = inner(query, plain_memory, inner.initial_state(plain_memory))
    found = attention(query, memory, attention.initial_state(memory))
    for row in range(2):
        own = plain.weights[row, 0] * prior[row]
        torch.testing.assert_close(found.weights[row, 0], own / own.sum() * plain.weights[row, 0].sum())
        torch.testing.assert_close(found.context[row, 0], found.weights[row, 0] @ memory.values[row])
    even = attention.remember(encoded._replace(prior=torch.full((2, 5), 0.3)))
    same = attention(query, even, attention.initial_state(even))
    torch.testing.assert_close(same.context, plain.context)


def test_a_sentence_that_weighs_nothing_is_not_attended_to_and_all_learns():
    model = tiny()
    model.decoder.attention = Reweighted(model.decoder.attention)
    model.sentences = SentenceLevel(SOURCE, model.encoder.width)
    model.sentences.fit([0, 1, 0, 0, *[1, 3] * 4][:SOURCE])
    model(batch()).features.square().sum().backward()
    assert all(part.grad is not None and part.grad.isfinite().all() for part in model.sentences.parameters())
    assert model.sentences.vector.grad.abs().sum() > 0


def test_it_is_an_option_that_refuses_what_it_cannot_scale():
    words = Vocabulary("words", list("abcdefgh"))
    for changes in (["encoder=gru"], ["encoder=transformer"], ["attention=coverage"], ["attention=location_aware"]):
        config = compose("teach/copy", [*changes, "model.hierarchical=true"])
        assert build_model(config, words.size, words.size).sentences is not None
    for changes in (["attention=multihead"], ["attention=none"], ["attention=static"]):
        with pytest.raises(ConfigError, match=r"model\.hierarchical"):
            compose("teach/copy", [*changes, "model.hierarchical=true"])
    changes = ["attention=mocha", "encoder.bidirectional=false", "decoder.bridge=zero", "model.hierarchical=true"]
    config = compose("teach/copy", changes)
    trained = Trained(build_model(config, words.size, words.size).eval(), words, words, config, ("a", "b"))
    with pytest.raises(UsageError, match=r"model\.hierarchical=false"):
        Stream(trained)
    Stream(trained, wait_k=math.inf)
    with pytest.raises(UsageError, match="weights of sentences"):
        Reweighted(build("additive", query_size=4, memory_size=4)).remember(
            Encoded(torch.zeros(1, 2, 4), torch.zeros(1, 4), torch.ones(1, 2, dtype=torch.bool))
        )
    plain = dataclasses.replace(config, model=dataclasses.replace(config.model, hierarchical=False))
    assert build_model(plain, words.size, words.size).sentences is None


def test_a_run_of_its_own(tmp_path, s2s):
    from toys import TINY

    done = s2s("train", "teach/copy", *TINY, "model.hierarchical=true", "trainer.steps=12", f"output={tmp_path}")
    assert done.code == 0, done.err
    translated = s2s("translate", done.out.strip(), "--forward", "strict", stdin="ba be bi\n\nbu\n")
    assert (translated.code, len(translated.lines)) == (0, 3)
