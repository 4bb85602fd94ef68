"""OpenNMT-py 3.5.1 (MIT), whose pins leave out new versions of torch: installed without its dependencies."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bench.measure import Measured
from bench.peers.base import BEAMS, EVERY, FORCED, Corpus, Shape, rate_of, steps_of

_CONFIG = """data:
  corpus: {{path_src: {train}.en, path_tgt: {train}.de}}
  valid: {{path_src: {dev}.en, path_tgt: {dev}.de}}
src_vocab: {vocabulary}
tgt_vocab: {vocabulary}
share_vocab: true
save_data: {folder}
save_model: {folder}/model
overwrite: true
seed: 1
bucket_size: 29000
num_workers: 0
normalization: tokens
valid_batch_size: 64
train_steps: {updates}
valid_steps: {updates}
save_checkpoint_steps: {updates}
report_every: 1
optim: adam
learning_rate: 0.001
max_grad_norm: 1.0
label_smoothing: 0.0
"""
_LSTM = """encoder_type: brnn
decoder_type: rnn
rnn_type: LSTM
enc_layers: 1
dec_layers: 1
enc_hid_size: 512
dec_hid_size: 512
word_vec_size: 256
global_attention: {attention}
input_feed: {feed:d}
bridge: true
dropout: [0.3]
batch_size: 64
batch_type: sents
"""
_TRANSFORMER = """encoder_type: transformer
decoder_type: transformer
position_encoding: true
enc_layers: 3
dec_layers: 3
heads: 4
hidden_size: 256
word_vec_size: 256
transformer_ff: 1024
dropout: [0.1]
attention_dropout: [0.1]
share_embeddings: true
share_decoder_embeddings: true
batch_size: 4096
batch_type: tokens
"""


class OpenNMT:
    """Its commands onmt_train and onmt_translate."""

    name = trained_by = "OpenNMT-py 3.5.1"
    shapes: Sequence[str] = EVERY
    beams: Sequence[int] = BEAMS
    packages: Sequence[str] = ("OpenNMT-py", "torch")
    output: str | None = "output"
    requirements: Sequence[str] = (
        *("configargparse", "pyyaml", "flask", "waitress", "rapidfuzz", "pyonmttok", "six", "tensorboard", "sacrebleu"),
        *("ctranslate2", "pyahocorasick", "fasttext-wheel", "spacy", "pynvml"),
    )
    bare: Sequence[str] = ("OpenNMT-py==3.5.1",)

    def train(self, shape: Shape, corpus: Corpus, folder: Path, python: Path) -> list[str]:
        vocabulary = folder / "vocabulary"
        corpus.write_counted(vocabulary)
        paths = {"train": corpus.folder / "train", "dev": corpus.folder / "val", "vocabulary": vocabulary}
        config = _CONFIG.format(**paths, folder=folder, updates=shape.updates)
        attention = {"additive": "mlp", "general": "general"}.get(shape.attention or "")
        config += _TRANSFORMER if attention is None else _LSTM.format(attention=attention, feed=shape.feed)
        (folder / "config.yaml").write_text(config, "utf-8")
        return [str(python.with_name("onmt_train")), "-config", str(folder / "config.yaml")]

    def updates(self, done: Measured, folder: Path) -> list[tuple[float, float]]:
        return steps_of(done.lines, r"Step\s+\d+/.*bsz:\s*\d+/\s*(\d+)/")

    def decode(self, shape: Shape, corpus: Corpus, folder: Path, python: Path, beam: int) -> list[str]:
        (model,) = folder.glob("model_step_*.pt")
        lengths = ["-min_length", str(FORCED), "-max_length", str(FORCED), "-batch_size", "64", "-report_time"]
        files = ["-src", str(corpus.path("test", "en")), "-output", str(folder / "output")]
        command = str(python.with_name("onmt_translate"))
        return [command, "-model", str(model), *files, "-beam_size", str(beam), *lengths]

    def sentences_a_second(self, done: Measured) -> float:
        return rate_of(done, r"Total translation time \(s\): ([\d.]+)")
