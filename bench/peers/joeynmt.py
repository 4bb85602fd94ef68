"""JoeyNMT 2.3.0 (Apache-2.0)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import yaml

from bench.measure import Measured
from bench.peers.base import BEAMS, EVERY, FORCED, Corpus, Shape, rate_of, steps_of

_LOOP = Path(__file__).with_name("joeynmt_loop.py")


class JoeyNMT:
    """Its commands `joeynmt train` and `joeynmt test`, the latter by joeynmt_loop.py."""

    name = trained_by = "JoeyNMT 2.3.0"
    shapes: Sequence[str] = EVERY
    beams: Sequence[int] = BEAMS
    packages: Sequence[str] = ("joeynmt", "torch")
    output: str | None = "output.test"
    requirements: Sequence[str] = ("joeynmt==2.3.0", "importlib_metadata", "sentencepiece==0.2.0")
    bare: Sequence[str] = ()

    def train(self, shape: Shape, corpus: Corpus, folder: Path, python: Path) -> list[str]:
        (folder / "vocabulary").write_text("".join(f"{piece}\n" for piece in corpus.vocabulary()), "utf-8")
        self._write(folder / "train.yaml", shape, corpus, folder, beam=5)
        return [str(python), "-m", "joeynmt", "train", str(folder / "train.yaml"), "--skip-test"]

    def updates(self, done: Measured, folder: Path) -> list[tuple[float, float]]:
        # it tells a rate and no tokens: the tokens are the rate times the seconds since the line before
        found = steps_of(done.lines, r"Step:\s+\d+,.*Tokens per Sec:\s+(\d+)")
        before = [found[0][0], *(seconds for seconds, _ in found)] if found else []
        return [(seconds, rate * (seconds - last)) for (seconds, rate), last in zip(found, before, strict=False)]

    def decode(self, shape: Shape, corpus: Corpus, folder: Path, python: Path, beam: int) -> list[str]:
        self._write(folder / "test.yaml", shape, corpus, folder, beam=beam)
        words = [str(FORCED), "test", str(folder / "test.yaml"), "-o", str(folder / "output")]
        return [str(python), "-P", str(_LOOP), *words]  # -P: joeynmt.py beside it is not the package

    def sentences_a_second(self, done: Measured) -> float:
        return rate_of(done, r"Generation took ([\d.]+)")

    def _write(self, path: Path, shape: Shape, corpus: Corpus, folder: Path, *, beam: int) -> None:
        def side(language: str) -> dict[str, object]:
            plain = {"tokenizer_type": "subword-nmt", "tokenizer_cfg": {"pretokenizer": "none"}}
            return {
                "lang": language,
                "level": "word",
                "voc_file": str(folder / "vocabulary"),
                "max_length": 100,
                **plain,
            }

        def part(**more: object) -> dict[str, object]:
            if shape.attention is None:
                sizes = {"type": "transformer", "num_layers": 3, "num_heads": 4, "hidden_size": 256, "ff_size": 1024}
                return {
                    **sizes,
                    "embeddings": {"embedding_dim": 256, "scale": True},
                    "dropout": 0.1,
                    "layer_norm": "pre",
                }
            common = {"type": "recurrent", "rnn_type": "lstm", "embeddings": {"embedding_dim": 256}, "num_layers": 1}
            return {**common, "dropout": 0.3, **more}

        tied = shape.attention is None
        attention = {"additive": "bahdanau", "general": "luong"}.get(shape.attention or "")
        decoder = part(
            hidden_size=512, hidden_dropout=0.3, input_feeding=shape.feed, init_hidden="bridge", attention=attention
        )
        config = {
            "name": "bench",
            "joeynmt_version": "2.3.0",
            "model_dir": str(folder / "model"),
            "use_cuda": False,
            "fp16": False,
            "random_seed": 1,
            "data": {
                "train": str(corpus.folder / "train"),
                "dev": str(corpus.folder / "val"),
                "test": str(corpus.folder / "test"),
                "dataset_type": "plain",
                "src": side("en"),
                "trg": side("de"),
            },
            "testing": {
                "beam_size": beam,
                "beam_alpha": -1,
                "batch_size": 64,
                "batch_type": "sentence",
                "eval_metrics": ["bleu"],
                "min_output_length": FORCED,
                "max_output_length": FORCED,
            },
            "training": {
                "optimizer": "adam",
                "learning_rate": 0.001,
                "scheduling": "exponential",  # an epoch: the others ask for an argument that torch no longer has
                "clip_grad_norm": 1.0,
                "batch_size": 4096 if tied else 64,
                "batch_type": "token" if tied else "sentence",
                "normalization": "tokens",
                "epochs": 100,
                "updates": shape.updates,
                "validation_freq": shape.updates,
                "logging_freq": 1,
                "early_stopping_metric": "loss",
                "overwrite": True,
                "print_valid_sents": [0],
                "keep_best_ckpts": 5,
            },
            "model": {
                "initializer": "xavier_uniform",
                "tied_embeddings": tied,
                "tied_softmax": tied,
                "encoder": part(hidden_size=256, bidirectional=True),
                "decoder": decoder,
            },
        }
        path.write_text(yaml.safe_dump(config), encoding="utf-8")
