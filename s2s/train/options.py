"""The plain knobs of training: frozen dataclasses that are the schema of `conf/optim` and `conf/trainer`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Metric = Literal[
    "bleu",
    "chrf",
    "ter",
    "rouge1",
    "rouge2",
    "rougeL",
    "rougeLsum",
    "bleu1",
    "bleu2",
    "distinct1",
    "distinct2",
    "distinct3",
    "entropy1",
    "entropy2",
    "entropy3",
    "generic",
]
Precision = Literal["auto", "float32", "bf16"]


@dataclass(frozen=True)
class OptimConfig:
    """The optimiser, its learning rate over time, and the loss."""

    name: Literal["adamw", "adam", "sgd"] = "adamw"
    lr: float = 2e-3  # peak
    betas: tuple[float, float] = (0.9, 0.98)  # not used by sgd
    eps: float = 1e-8
    weight_decay: float = 0.01
    schedule: Literal["cosine", "linear", "inverse_sqrt", "constant"] = "cosine"
    warmup: int = 100  # steps of linear rise to the peak
    final: float = 0.0  # of cosine and linear: the last learning rate as a share of the peak
    clip: float | None = 1.0  # largest norm of the gradient; null = off
    label_smoothing: float = 0.1
    rdrop: float = 0.0  # weight of R-Drop (arXiv 2106.14448); 0 = off
    guided_alignment: float = 0.0  # weight of guided alignment (arXiv 1607.01628), needs trainer.links; 0 = off
    scheduled_sampling: float = 0.0  # share of inputs that are own predictions, at the end (arXiv 1506.03099); 0 = off
    attention_loss_from: float = 0.0  # share of training after which the losses of attention count (coverage, latency)
    ema: float = 0.0  # decay of the moving average of the weights; 0 = off
    average: int = 0  # how many of the last checkpoints are averaged at the end; 0 = off


@dataclass(frozen=True)
class TrainerConfig:
    """How long training runs, in which batches, and what is written. The first limit that is reached ends it."""

    steps: int | None = None  # updates
    epochs: float | None = None  # passes over the training split
    minutes: float | None = None  # by the clock; lr follows it, so resuming is exact only without this limit
    clock: Literal["wall", "cpu"] = "wall"  # cpu: time of this process on all cores, fair on a machine with other work
    batch_tokens: int = 1200  # target tokens a batch, padding not counted
    accumulate: int = 1  # batches an update
    pad_multiple: int = 1  # lengths are padded to a multiple of this
    max_source: int = 100  # tokens; longer pairs are left out of training and counted
    max_target: int = 100
    validate_every: int | None = None  # steps; with neither this nor the next, once an epoch
    validate_minutes: float | None = None
    valid_sentences: int = 500  # dev sentences that are decoded for the metrics
    metric: Literal["loss", Metric] | None = None  # on dev, chooses the best model; null = the first of task.metrics
    patience: int | None = None  # validations without a better metric before training stops; null = never
    log_every: int = 20  # steps
    save_every: int | None = None  # steps; null = at every validation
    keep: int = 2  # newest checkpoints that are kept
    precision: Precision = "auto"  # of products; auto: bf16 on a GPU that has it, else float32
    graphs: Literal["auto", "off"] = "auto"  # auto: updates are CUDA graphs on a GPU where the model allows it
    max_bad_steps: int = 10  # in a row without a finite loss before training stops; with graphs seen when logged
    subword_sample: float = 0.0  # alpha of subword regularisation (arXiv 1804.10959; BPE-dropout for bpe); 0 = off
    links: str | None = None  # auto, or a file: i-j word links of each training pair, for optim.guided_alignment
    lexicon: int = 0  # candidates of a source token kept for search.shortlist, from at most 200,000 pairs; 0 = none
    tensorboard: bool = False
    samples: int = 10  # translations that are kept for the report
