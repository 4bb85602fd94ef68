"""BERTScore against a naive one, with a tiny encoder of random weights in a folder."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import pytest
import torch

from s2s.errors import ConfigError, DataError, UsageError
from s2s.score.metrics import Scoring, compute

WORDS = ["the", "a", "cat", "dog", "sat", "ran", "on", "under", "mat", "roof"]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    transformers, tokenizers = pytest.importorskip("transformers"), pytest.importorskip("tokenizers")
    folder = tmp_path_factory.mktemp("encoder")
    marks = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    vocabulary = {token: number for number, token in enumerate([*marks, *WORDS])}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_max_length=12,
    ).save_pretrained(folder)
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=12,
        initializer_range=0.5,
    )
    transformers.BertModel(config).save_pretrained(folder)
    return str(folder)


def vectors(folder: str, text: str, layer: int) -> tuple[list[torch.Tensor], list[bool]]:
    """The unit vector of each token of one text alone, and whether it is a mark."""
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModel.from_pretrained(folder).eval()
    ids = tokenizer(text)["input_ids"]
    with torch.no_grad():
        states = model(torch.tensor([ids]), output_hidden_states=True).hidden_states[layer][0]
    return [state / state.norm() for state in states], [number in (2, 3) for number in ids]


def naive(folder: str, hypothesis: str, reference: str, layer: int) -> float:
    (ours, our_marks), (theirs, their_marks) = (vectors(folder, text, layer) for text in (hypothesis, reference))
    precision = [max(float(x @ y) for y in theirs) for x, mark in zip(ours, our_marks, strict=True) if not mark]
    recall = [max(float(x @ y) for x in ours) for y, mark in zip(theirs, their_marks, strict=True) if not mark]
    p, r = sum(precision) / len(precision), sum(recall) / len(recall)
    return 2 * p * r / (p + r)


@pytest.mark.parametrize("layer", [1, 3])
def test_it_is_the_naive_one(encoder: str, layer: int) -> None:
    hypotheses = ["the cat sat on the mat", "a dog", "", "roof"]
    references = [["the cat ran under a roof", "the dog ran", "a", "roof"], ["a cat", "a dog", "a", ""]]
    scoring = Scoring(bert_model=encoder, bert_layer=layer)
    (found,) = compute(["bertscore"], hypotheses, references, scoring, intervals=True)
    best = [
        max((naive(encoder, one, other, layer) for other in others if one and other), default=0.0)
        for one, *others in zip(hypotheses, *references, strict=True)
    ]
    assert best[1] == pytest.approx(1.0)
    assert best[3] == pytest.approx(1.0)
    assert found.value == pytest.approx(100 * sum(best) / 4, abs=1e-3)
    assert found.low <= found.value <= found.high
    assert f"model:{encoder}|layer:{layer}|idf:no" in found.signature
    assert "transformers-" in found.signature


def test_neighbours_change_nothing(encoder: str) -> None:
    scoring = Scoring(bert_model=encoder)
    (alone,) = compute(["bertscore"], ["a cat"], [["the dog ran on"]], scoring)
    (together,) = compute(["bertscore"], ["a cat"] * 3, [["the dog ran on"] * 3], scoring)
    (mixed,) = compute(["bertscore"], ["a cat", "the mat"], [["the dog ran on", "the mat"]], scoring)
    assert together.value == pytest.approx(alone.value, abs=1e-4)
    assert 2 * mixed.value - 100 == pytest.approx(alone.value, abs=1e-3)


def test_a_text_that_is_too_long_is_told(encoder: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        compute(["bertscore"], ["cat " * 30], [["dog"]], Scoring(bert_model=encoder))
    assert "1 texts are longer than the encoder takes (12)" in caplog.text


def test_what_is_wrong_is_said(encoder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, s2s) -> None:
    with pytest.raises(UsageError, match="1 to 3; found 4"):
        compute(["bertscore"], ["a"], [["a"]], Scoring(bert_model=encoder, bert_layer=4))
    with pytest.raises(DataError, match=r"can't be loaded.*--bert-model"):
        compute(["bertscore"], ["a"], [["a"]], Scoring(bert_model=str(tmp_path)))
    (tmp_path / "x").write_text("a cat\n", encoding="utf-8")
    done = s2s("score", tmp_path / "x", tmp_path / "x", "-m", "bertscore", "--bert-model", encoder, "--json")
    assert done.code == 0, done.err
    assert '"value": 100' in done.out or '"value": 99.99' in done.out
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ConfigError, match=r'pip install "s2s\[bertscore\]"'):
        compute(["bertscore"], ["a"], [["a"]], Scoring(bert_model=encoder))


def test_weights_in_pickle_are_not_loaded(encoder: str, tmp_path: Path) -> None:
    import shutil

    folder = shutil.copytree(encoder, tmp_path / "pickled")
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")
    with pytest.raises(DataError, match="safetensors"):
        compute(["bertscore"], ["a"], [["a"]], Scoring(bert_model=str(folder)))
