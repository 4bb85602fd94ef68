"""eole 0.6.4 (MIT), the successor of OpenNMT-py."""

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
overwrite: true
seed: 1
report_every: 1
training:
  world_size: 0
  gpu_ranks: []
  compute_dtype: fp32
  model_path: {folder}/model
  bucket_size: 29000
  num_workers: 0
  batch_size: {batch}
  batch_type: {kind}
  normalization: tokens
  valid_batch_size: 64
  train_steps: {updates}
  valid_steps: {updates}
  save_checkpoint_steps: {updates}
  optim: adam
  learning_rate: 0.001
  max_grad_norm: 1.0
  label_smoothing: 0.0
  accum_count: [1]
  dropout: [{dropout}]
  dropout_steps: [0]
  attention_dropout: [{attention_dropout}]
model:
"""
_LSTM = """  architecture: custom
  input_feed: {feed:d}
  embeddings: {{word_vec_size: 256, position_encoding_type: null}}
  encoder: {{encoder_type: brnn, layers: 1, hidden_size: 512, rnn_type: LSTM}}
  decoder: {{decoder_type: rnn, layers: 1, hidden_size: 512, rnn_type: LSTM, global_attention: {attention},
    bidirectional_encoder: true}}
"""
_TRANSFORMER = """  architecture: transformer
  layers: 3
  hidden_size: 256
  heads: 4
  transformer_ff: 1024
  share_embeddings: true
  share_decoder_embeddings: true
  embeddings: {word_vec_size: 256, position_encoding_type: SinusoidalInterleaved}
"""
_PREDICT = """model_path: [{folder}/model]
src: {source}
output: {folder}/output
world_size: 0
gpu_ranks: []
beam_size: {beam}
batch_size: 64
batch_type: sents
min_length: {forced}
max_length: {forced}
report_time: true
compute_dtype: fp32
"""


class Eole:
    """Its commands `eole train` and `eole predict`."""

    name = trained_by = "eole 0.6.4"
    shapes: Sequence[str] = EVERY
    beams: Sequence[int] = BEAMS
    packages: Sequence[str] = ("eole", "torch")
    output: str | None = "output"
    requirements: Sequence[str] = ("eole==0.6.4", "aiohttp")
    bare: Sequence[str] = ()

    def train(self, shape: Shape, corpus: Corpus, folder: Path, python: Path) -> list[str]:
        vocabulary = folder / "vocabulary"
        corpus.write_counted(vocabulary)
        attention = {"additive": "mlp", "general": "general"}.get(shape.attention or "")
        recurrent = attention is not None
        config = _CONFIG.format(
            train=corpus.folder / "train",
            dev=corpus.folder / "val",
            vocabulary=vocabulary,
            folder=folder,
            updates=shape.updates,
            batch=64 if recurrent else 4096,
            kind="sents" if recurrent else "tokens",
            dropout=0.3 if recurrent else 0.1,
            attention_dropout=0.0 if recurrent else 0.1,
        )
        (folder / "config.yaml").write_text(
            config + (_LSTM.format(attention=attention, feed=shape.feed) if recurrent else _TRANSFORMER)
        )
        return [str(python.with_name("eole")), "train", "--config", str(folder / "config.yaml")]

    def updates(self, done: Measured, folder: Path) -> list[tuple[float, float]]:
        return steps_of(done.lines, r"Step\s+\d+/.*bsz:\s*\d+/\s*(\d+)/")

    def decode(self, shape: Shape, corpus: Corpus, folder: Path, python: Path, beam: int) -> list[str]:
        config = _PREDICT.format(folder=folder, source=corpus.path("test", "en"), beam=beam, forced=FORCED)
        (folder / "predict.yaml").write_text(config)
        return [str(python.with_name("eole")), "predict", "--config", str(folder / "predict.yaml")]

    def sentences_a_second(self, done: Measured) -> float:
        return rate_of(done, r"prediction time including all \(s\): ([\d.]+)")
