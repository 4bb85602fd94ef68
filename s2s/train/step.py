"""One update: batches to losses to gradients to new weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from s2s.errors import ConfigError, NonFiniteError
from s2s.model.copying import PointerGenerator
from s2s.model.seq2seq import Seq2Seq, at_positions, real_positions
from s2s.tensors import persistent_buffers
from s2s.train.loss import Copied, Loss, best_tokens, guided_alignment, smoothed_cross_entropy, symmetric_divergence
from s2s.train.options import OptimConfig, Precision
from s2s.train.precision import autocast
from s2s.train.profile import part
from s2s.types import Batch, DecoderOutput


class BatchLoss(NamedTuple):
    """Sums over a batch. Only nll carries no gradient."""

    loss: Tensor  # () over target tokens: cross-entropy, and what attention adds
    nll: Tensor  # () over target tokens, natural log
    guided: Tensor | None  # () over target tokens with links: guided alignment, not weighted yet; None = off


@dataclass(frozen=True)
class Update:
    """What one update saw. norm: of the gradient before clipping.

    loss: what was minimised, nll: negative log-likelihood; means over target tokens, natural log.
    """

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


def clip_gradients(parameters: Sequence[nn.Parameter], limit: float | None) -> Tensor:
    """Scales the gradients down until their joint norm is at most `limit`; returns what it was, ().

    limit: None or 0 leaves them as they are (Pascanu et al. 2013, arXiv 1211.5063, algorithm 1).
    """
    gradients = [p.grad for p in parameters if p.grad is not None]
    if gradients and gradients[0].device.type == "cpu":  # a third of the time of torch's norm, and nearer to the truth
        flat = (gradient.flatten() for gradient in gradients)
        norm = torch.stack([gradient.dot(gradient) for gradient in flat]).sum().sqrt()
    else:
        norm = nn.utils.get_total_norm(gradients)
    if limit:
        nn.utils.clip_grads_with_norm_(parameters, limit, norm)
    return norm


def batch_loss(model: Seq2Seq, batch: Batch, config: OptimConfig, *, added: bool = True) -> BatchLoss:
    """Loss of a batch, summed over its tokens. added: whether with what attention adds.

    With rdrop = a: mean of two passes' losses + a / 2 times the divergence between them (Liang et al. 2021,
    arXiv 2106.14448, eq. 3, halved, so that the loss keeps its size). Raises ConfigError where attention
    has no weights to guide.
    """
    passes, features = [], []
    for _ in range(2 if config.rdrop and model.training else 1):
        one, states = _one_pass(model, batch, config, added)
        passes.append(one)
        features.append(states)
    if len(passes) == 1:
        return passes[0]
    divergence = symmetric_divergence(model.log_probs(features[0]), model.log_probs(features[1]))
    loss = (passes[0].loss + passes[1].loss + config.rdrop * divergence) / 2
    guided = None
    if passes[0].guided is not None and passes[1].guided is not None:
        guided = (passes[0].guided + passes[1].guided) / 2
    return BatchLoss(loss, (passes[0].nll + passes[1].nll) / 2, guided)


def _one_pass(model: Seq2Seq, batch: Batch, config: OptimConfig, added: bool) -> tuple[BatchLoss, Tensor]:
    """The losses of one pass, and its features at the N real target positions, (N, O)."""
    lengths = batch.target_lengths
    links = batch.links if config.guided_alignment else None
    output = model(batch, need_weights=links is not None)
    (loss, nll, log_prob), features = target_loss(model, batch, output, config.label_smoothing)
    if added:
        aux = {name: real_positions(value, lengths) for name, value in output.aux.items()}
        own = model.decoder.loss(aux, log_prob)
        loss = loss if own is None else loss + own
    guided = None
    if links is not None:
        if output.weights is None:
            raise ConfigError("this attention has no weights to guide", where="optim.guided_alignment")
        guided = guided_alignment(real_positions(output.weights, lengths), real_positions(links, lengths))
    return BatchLoss(loss, nll, guided), features


def target_loss(model: Seq2Seq, batch: Batch, output: DecoderOutput, smoothing: float = 0.0) -> tuple[Loss, Tensor]:
    """The loss of the N real target tokens, generated or copied, and the features that they come from, (N, O)."""
    lengths = batch.target_lengths
    features, targets = real_positions(output.features, lengths), real_positions(batch.target_out, lengths)
    copied = None
    if model.copy is not None:
        real = at_positions(output, lambda value: real_positions(value, lengths))
        copied = copied_targets(model.copy, batch, real, torch.repeat_interleave(lengths), targets)
    weight, bias = model.output.weight, model.output.bias
    loss = smoothed_cross_entropy(features, weight, bias, targets, smoothing=smoothing, copied=copied)
    return loss, features


def copied_targets(
    copy: PointerGenerator, batch: Batch, output: DecoderOutput, rows: Tensor, targets: Tensor
) -> Copied:
    """What copying gives to N targets of a batch.

    output: at these N positions, (N, ...). rows: of the batch that they stand in, (N,). Raises ConfigError for a batch
    that doesn't say what can be copied.
    """
    if batch.copies is None:
        raise ConfigError("this model copies, and the batch doesn't say what", where="copy")
    return Copied(*copy.target_log_probs(output, batch.copies[rows], targets))


@torch.no_grad()
def own_inputs(model: Seq2Seq, batch: Batch, share: float) -> Batch:
    """The batch with each target input but BOS replaced, with probability `share`, by what the model predicts there.

    Scheduled sampling (Bengio et al. 2015, arXiv 1506.03099) in two parallel passes (Mihaylova & Martins 2019,
    arXiv 1906.07651): the prediction is the most probable token after the right inputs. Draws from torch's random
    state; padding stays padding.
    """
    features = real_positions(model(batch).features, batch.target_lengths)
    places = torch.arange(batch.target_in.size(1), device=features.device)
    real = places < batch.target_lengths.unsqueeze(1)
    predicted = batch.target_out.masked_scatter(real, best_tokens(features, model.output.weight, model.output.bias))
    drawn = torch.rand(real.shape, device=features.device) < share
    replaced = (drawn & real)[:, 1:]
    mixed = torch.where(replaced, predicted[:, :-1], batch.target_in[:, 1:])
    return batch._replace(target_in=torch.cat([batch.target_in[:, :1], mixed], 1))


def update(
    model: Seq2Seq,
    batches: Sequence[Batch],
    optimizer: torch.optim.Optimizer,
    config: OptimConfig,
    *,
    rate: float,
    precision: Precision = "float32",
    sampling: float = 0.0,
    added: bool = True,
) -> Update:
    """One update from one or more micro-batches, normalised by all their target tokens.

    Guided alignment is normalised by the target tokens that have links. sampling: share of the inputs that are the
    model's own predictions, see `own_inputs`; both passes of R-Drop get the same ones. added: whether what
    attention adds to the loss counts (`OptimConfig.attention_loss_from`). A query, loss or gradient that
    isn't finite leaves weights, persistent buffers and optimiser as they were; the caller sees it in `finite`.
    """
    device = next(model.parameters()).device
    tokens = sum(int(batch.target_lengths.sum()) for batch in batches)
    linked = sum(int(batch.links.any(-1).sum()) for batch in batches if batch.links is not None)
    guidance = config.guided_alignment / max(1, linked)
    loss_sum, nll_sum, guided_sum = (torch.zeros((), device=device) for _ in range(3))
    buffers = persistent_buffers(model).values()
    before = [buffer.clone() for buffer in buffers]
    optimizer.zero_grad(set_to_none=True)
    try:
        for batch in batches:
            with part("data"):
                batch = batch.to(device)
            if sampling:
                with autocast(device, precision):  # its own: autocast would keep weights without gradient from here
                    batch = own_inputs(model, batch, sampling)
            with part("output layer"), autocast(device, precision):  # encoder and decoder are parts inside
                one = batch_loss(model, batch, config, added=added)
            loss = one.loss / max(1, tokens)
            if one.guided is not None:
                loss = loss + guidance * one.guided
                guided_sum += one.guided.detach()
            with part("backward"):
                loss.backward()  # type: ignore[no-untyped-call]
            loss_sum += one.loss.detach()
            nll_sum += one.nll
        with part("optimizer"):
            norm = clip_gradients(list(model.parameters()), config.clip)
        sums = torch.stack([loss_sum, nll_sum, norm.to(loss_sum.dtype), guided_sum]).tolist()  # one synchronisation
    except NonFiniteError:
        sums = [math.nan] * 4
    loss_mean = sums[0] / max(1, tokens) + guidance * sums[3]
    made = Update(loss_mean, sums[1] / max(1, tokens), sums[2], tokens)
    if not made.finite:
        with torch.no_grad():
            for buffer, value in zip(buffers, before, strict=True):
                buffer.copy_(value)
    elif tokens:
        for group in optimizer.param_groups:
            group["lr"] = rate
        with part("optimizer"):
            optimizer.step()
    return made
