"""Features of the source: each vector by hand, and what a model does with them."""

from __future__ import annotations

import math
import random

import pytest
import torch
from model_toys import batch, tiny

from s2s.app import compose
from s2s.errors import ConfigError, UsageError
from s2s.model.features import SourceFeatures, rarities
from s2s.task.model import load
from s2s.task.stream import Stream
from s2s.task.trained import Trained, build_model
from s2s.text.vocabulary import Vocabulary, beginnings
from s2s.types import EOS, Batch


def test_vectors_by_hand():
    torch.manual_seed(0)
    features = SourceFeatures(["position", "frequency", "length"], 12, 9, 3)
    features.fit([[4, 5], [4, 6], [4, 5], [4, 4]], [True] * 9)
    source = torch.tensor([[4, 5, 4, 3, 0], [7, 7, 7, 7, 3]])
    found = features(source, torch.tensor([0, 300]))
    # 4 stands in all four sources, 5 in two of them (log 2 / log 4 of the way), the others in at most one
    rarity = {4: 0, 5: 8, 7: 15, 3: 15, 0: 15}
    counts = {(0, 4): 1, (1, 7): 3}  # classes: 1, 2, 3, 4, 5-6, ...
    for row in range(2):
        for place, token in enumerate(source[row].tolist()):
            expected = (
                features.position.weight[place]
                + features.count.weight[counts.get((row, token), 0)]
                + features.idf.weight[rarity[token]]
                + features.length.weight[0 if row == 0 else 100]
            )
            torch.testing.assert_close(found[row, place], expected)


def test_classes_of_rarity():
    sources = [[4, 5, 5], [4, 6], [4], *[[4]] * 61]
    classes = rarities(sources, 9)
    assert classes[4] == 0
    assert classes[5] == classes[6] == classes[8] == classes[1] == 15
    assert rarities([[4, 5], [4, 6], *[[7]] * 6], 9)[4] == int(16 * math.log(4) / math.log(8))
    assert rarities([[4]], 6).tolist() == [15, 15, 15, 15, 0, 15]


def test_words_are_counted_without_the_end_and_some_rows_are_not_told():
    features = SourceFeatures(["length"], 9, 8, 2)
    features.fit([], [True, True, True, True, True, False, True, False])
    target = torch.tensor([[4, 5, 5, 6, EOS, 0], [4, 9, 12, 5, 7, EOS]])  # 9 and 12 are copied words
    one = Batch(target, torch.tensor([5, 6]), target, target, torch.tensor([5, 6]), (0, 1))
    assert features.eval().words(one) is None
    features.train()
    torch.manual_seed(0)
    seen = torch.stack([features.words(one) for _ in range(400)])
    assert set(seen[:, 0].tolist()) == {0, 2}
    assert set(seen[:, 1].tolist()) == {0, 3}
    assert 0.1 < (seen == 0).float().mean() < 0.3
    assert SourceFeatures(["position"], 9, 8, 2).words(one) is None


@pytest.mark.parametrize("name", ["position", "frequency", "length"])
def test_padding_changes_nothing_and_all_vectors_learn(name):
    model = tiny()
    plain = model(batch()).features
    model.features = SourceFeatures([name], 11, 9, 4)
    source, lengths = torch.tensor([[4, 5, 4, 3]]), torch.tensor([4])
    alone = model.encode(source, lengths)
    padded = model.encode(torch.tensor([[4, 5, 4, 3, 0, 0], [4] * 6]), torch.tensor([4, 6]))
    torch.testing.assert_close(alone.states[0], padded.states[0, :4])
    changed = model(batch()).features
    assert not torch.allclose(plain, changed)
    changed.sum().backward()
    assert all(part.grad.abs().sum() > 0 for part in model.features.parameters())


def test_what_is_refused():
    for names, message in ((["tfidf"], "unknown feature"), (["position", "position"], "twice")):
        with pytest.raises(ConfigError, match=message):
            SourceFeatures(names, 9, 9, 4)
    with pytest.raises(ConfigError, match=r"model\.features"):
        compose("teach/copy", ["model.features=[tfidf]"])
    words = Vocabulary("words", list("abcdefgh"))
    changes = ["attention=mocha", "encoder.bidirectional=false", "decoder.bridge=zero", "model.features=[position]"]
    config = compose("teach/copy", changes)
    trained = Trained(build_model(config, words.size, words.size).eval(), words, words, config, ("a", "b"))
    with pytest.raises(UsageError, match=r"model\.features: .*--wait-k inf"):
        Stream(trained)
    Stream(trained, wait_k=math.inf)


@pytest.fixture(scope="module")
def asked(tmp_path_factory, s2s):
    """A model of pairs whose output is the first words of the source, as many as nothing but chance says."""
    from toys import TINY

    folder = tmp_path_factory.mktemp("length")
    draw = random.Random(0)
    pairs = []
    for _ in range(4000):
        source = draw.choices("abcdefgh", k=6)
        pairs.append(f"{' '.join(source)}\t{' '.join(source[: draw.randint(1, 6)])}\n")
    (folder / "pairs.tsv").write_text("".join(pairs), encoding="utf-8")
    corpus = ("corpus=tsv", f"corpus.train={folder / 'pairs.tsv'}", "corpus.source=x", "corpus.target=y", "text=words")
    options = ("model.features=[length,frequency]", "optim.lr=1e-2", "trainer.steps=400", f"output={folder}")
    tiny = [option for option in TINY if not option.startswith("corpus.")]
    done = s2s("train", "teach/copy", *tiny, *corpus, *options)
    assert done.code == 0, done.err
    return done.out.strip()


def test_a_model_writes_as_many_words_as_it_is_asked_for(asked, s2s):
    model = load(asked)
    assert model.trained[0].model.features.begins.tolist() == [*beginnings(model.trained[0].target), True]
    assert 0 < model.trained[0].model.features.rarity[4] < 15
    sources = [" ".join(random.Random(seed).sample("abcdefgh", k=6)) for seed in range(20)]
    right = 0
    for words in range(1, 7):
        right += sum(len(output.split()) == words for output in model.translate(sources, words=words))
    assert right >= 96  # of 120; 20 by chance
    done = s2s("translate", asked, "--words", "2", stdin="a b c d e f\n")
    assert done.lines == ["a b"]


def test_another_model_cannot_be_asked(reverse_run, s2s):
    done = s2s("translate", reverse_run, "--words", "2", stdin="ba be\n")
    assert done.code == 2
    assert "model.features=[length]" in done.err
    assert "--max-length" in done.err
