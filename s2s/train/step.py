"""One update: batches to losses to gradients to new weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import nn

from s2s.model.seq2seq import Seq2Seq, real_positions
from s2s.train.loss import Loss, smoothed_cross_entropy, symmetric_divergence
from s2s.train.options import OptimConfig
from s2s.types import Batch


@dataclass(frozen=True)
class Update:
    """What one update saw. loss, nll: means over target tokens, natural log. norm: of the gradient before clipping."""

    loss: float
    nll: float
    norm: float
    tokens: int

    @property
    def finite(self) -> bool:
        """Whether the update could be made."""
        return math.isfinite(self.loss) and math.isfinite(self.norm)


def make_optimizer(model: nn.Module, config: OptimConfig) -> torch.optim.Optimizer:
    """The optimiser of a model. Biases, gains and other vectors are not decayed."""
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    groups = [
        {"params": [p for _, p in named if p.dim() > 1], "weight_decay": config.weight_decay},
        {"params": [p for _, p in named if p.dim() <= 1], "weight_decay": 0.0},
    ]
    if config.name == "sgd":
        return torch.optim.SGD(groups, lr=config.lr, fused=True)
    kind = torch.optim.AdamW if config.name == "adamw" else torch.optim.Adam
    return kind(groups, lr=config.lr, betas=(config.betas[0], config.betas[1]), eps=config.eps, fused=True)


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """The context in which a forward pass runs. precision: float32 or bf16, or auto (bf16 on a GPU that has it)."""
    if precision == "auto":
        precision = "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "float32"
    return torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else nullcontext()


def batch_loss(model: Seq2Seq, batch: Batch, config: OptimConfig) -> Loss:
    """Loss of a batch, summed over its target tokens.

    With rdrop = a: mean of two passes' losses + a / 2 times the divergence between them (Liang et al. 2021,
    arXiv 2106.14448, eq. 3, halved, so that the loss keeps its size).
    """
    targets = real_positions(batch.target_out, batch.target_lengths)
    passes, features = [], []
    for _ in range(2 if config.rdrop and model.training else 1):
        features.append(real_positions(model(batch).features, batch.target_lengths))
        weight, bias = model.output.weight, model.output.bias
        passes.append(smoothed_cross_entropy(features[-1], weight, bias, targets, smoothing=config.label_smoothing))
    if len(passes) == 1:
        return passes[0]
    divergence = symmetric_divergence(model.log_probs(features[0]), model.log_probs(features[1]))
    loss = (passes[0].loss + passes[1].loss + config.rdrop * divergence) / 2
    return Loss(loss, (passes[0].nll + passes[1].nll) / 2)


def update(
    model: Seq2Seq,
    batches: Sequence[Batch],
    optimizer: torch.optim.Optimizer,
    config: OptimConfig,
    *,
    rate: float,
    precision: str = "float32",
) -> Update:
    """One update from one or more micro-batches, normalised by all their target tokens.

    A loss or gradient that isn't finite leaves weights and optimiser as they were; the caller sees it in `finite`.
    """
    device = next(model.parameters()).device
    tokens = sum(int(batch.target_lengths.sum()) for batch in batches)
    loss_sum, nll_sum = torch.zeros((), device=device), torch.zeros((), device=device)
    optimizer.zero_grad(set_to_none=True)
    for batch in batches:
        with autocast(device, precision):
            loss = batch_loss(model, batch.to(device), config)
        (loss.loss / max(1, tokens)).backward()  # type: ignore[no-untyped-call]
        loss_sum += loss.loss.detach()
        nll_sum += loss.nll
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip if config.clip else math.inf)
    values = torch.stack([loss_sum, nll_sum, norm.to(loss_sum.dtype)]).tolist()  # one synchronisation
    made = Update(values[0] / max(1, tokens), values[1] / max(1, tokens), values[2], tokens)
    if made.finite and tokens:
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
    return made
