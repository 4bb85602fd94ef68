"""Losses, as sums over tokens: accumulated micro-batches and ranks are normalised by all their tokens together."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from s2s.kernels import compiled, cpu

# Elements (rows x vocabulary) of logits held at once: 16 MB in float32 on a CPU, few enough for its cache and enough
# for its matrix products; 128 MB on a GPU.
_CHUNK = 1 << 22
_CHUNK_GPU = 1 << 25
_ROWS = 256  # at least, however large the vocabulary: products of fewer are slower


class Loss(NamedTuple):
    """loss: what is minimised; nll: negative log-likelihood without smoothing, natural log. Both summed over tokens.

    Only loss carries a gradient.
    """

    loss: Tensor  # ()
    nll: Tensor  # ()
    log_prob: Tensor  # (N,) of each target token


def _chunks(features: Tensor, vocabulary: int) -> Iterator[slice]:
    """Slices of the rows of `features` whose logits are held at once."""
    rows = max(_ROWS, (_CHUNK if features.device.type == "cpu" else _CHUNK_GPU) // vocabulary)
    return (slice(start, start + rows) for start in range(0, features.size(0), rows))


def _stride(vocabulary: int) -> int:
    """Numbers from one row of logits to the next: whole cache lines, and an odd number of them.

    Matrix products take up to a third longer where rows start within a line, and a little longer where many start in
    the same sets of a cache.
    """
    return ((vocabulary + 15) // 16 | 1) * 16


def _cross_entropy(
    logits: Tensor,
    targets: Tensor,
    *,
    log_generate: Tensor | None,
    log_copied: Tensor | None,
    counts: Tensor | None,
    smoothing: float,
    learning: bool,
) -> cpu.CrossEntropy:
    """As `s2s.kernels.cpu.cross_entropy`, on any device, in float32 at least; the bias is in the logits already."""
    known = targets < logits.size(1)
    target = targets.where(known, 0).unsqueeze(1)
    log_probs = logits.gather(1, target).squeeze(1)
    highest = logits.amax(1, keepdim=True)
    probabilities = logits.sub_(highest).exp_()
    total = probabilities.sum(1)
    norms = highest.squeeze(1) + total.log()
    log_probs, shares = log_probs - norms, torch.ones_like(norms)
    if log_generate is not None and log_copied is not None:
        generated = (log_probs + log_generate).masked_fill(~known, -torch.inf)
        log_probs = torch.logaddexp(generated, log_copied)
        shares = (generated - log_probs).exp()
    if not learning:
        return cpu.CrossEntropy(norms, log_probs, shares, None)
    drawn = (1 - smoothing) * shares
    scale = (drawn + smoothing) / total
    if counts is not None:
        drawn, scale = drawn * counts, scale * counts
    gradient = probabilities.mul_(scale.unsqueeze(1)).scatter_add_(1, target, -drawn.unsqueeze(1))
    return cpu.CrossEntropy(norms, log_probs, shares, gradient.sum(0))


class _SmoothedCrossEntropy(torch.autograd.Function):
    """Output layer and loss in one, a chunk of rows at a time: logits are never whole in memory.

    The gradients are taken in the forward pass, while a chunk's probabilities are at hand:
    d loss / d logits = softmax - (1 - eps) onehot - eps / V (Szegedy et al. 2016, arXiv 1512.00567, section 7).
    With copying, r is the share of the target's probability that is generated, and
    d loss / d logits = (1 - eps) r (softmax - onehot) + eps (softmax - 1 / V).
    """

    @staticmethod
    def forward(
        ctx: Any,
        features: Tensor,
        weight: Tensor,
        bias: Tensor,
        targets: Tensor,
        smoothing: float,
        log_generate: Tensor | None,
        log_copied: Tensor | None,
        counts: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        vocabulary, count = weight.size(0), features.size(0)
        total_count = count if counts is None else counts.sum()
        needed = any(ctx.needs_input_grad)
        half = torch.is_autocast_enabled(features.device.type)
        dtype = torch.get_autocast_dtype(features.device.type) if half else weight.dtype
        matrix, inputs = weight.to(dtype), features.to(dtype)
        exact = torch.promote_types(weight.dtype, torch.float32)
        spread = smoothing / vocabulary
        d_inputs = torch.empty_like(inputs) if needed else None
        d_weight = torch.empty_like(weight) if needed else None
        d_bias = torch.zeros_like(bias) if needed else None
        norms, log_prob = features.new_empty(count, dtype=exact), features.new_empty(count, dtype=exact)
        shares = features.new_empty(count, dtype=exact)  # of the probability that is generated
        fused = compiled(weight, bias) and weight.is_contiguous() and dtype in (torch.float32, torch.bfloat16)
        room: Tensor | None = None  # one for all chunks, of one size in most updates: others leave holes between them
        for part in _chunks(features, vocabulary):
            rows = inputs[part]
            room = matrix.new_empty(rows.size(0), _stride(vocabulary)) if room is None else room
            logits = room[: rows.size(0), :vocabulary]
            given: dict[str, Any] = {
                "log_generate": None if log_generate is None else log_generate[part].to(exact),
                "log_copied": None if log_copied is None else log_copied[part].to(exact),
                "counts": None if counts is None else counts[part],
                "smoothing": smoothing,
                "learning": needed,
            }
            if fused:
                torch.mm(rows, matrix.t(), out=logits)
                found = cpu.cross_entropy(logits, bias, targets[part], **given)
            else:
                logits = torch.addmm(bias.to(dtype), rows, matrix.t(), out=logits).to(exact)
                found = _cross_entropy(logits, targets[part], **given)
            norms[part], log_prob[part], shares[part] = found.norms, found.log_probs, found.shares
            if d_inputs is not None and d_weight is not None and d_bias is not None and found.d_bias is not None:
                d_bias += found.d_bias
                gradient = logits.to(dtype)
                torch.mm(gradient, matrix, out=d_inputs[part])
                if dtype == d_weight.dtype:
                    d_weight.addmm_(gradient.t(), rows, beta=float(part.start > 0))
                elif part.start:
                    d_weight += gradient.t() @ rows
                else:
                    d_weight.copy_(gradient.t() @ rows)
        if not count and d_weight is not None:
            d_weight.zero_()
        nll = -(log_prob if counts is None else log_prob * counts).sum()
        loss = nll
        if smoothing:
            # sum of all logits of a row = features . (sum of the weight's rows) + sum of the bias: no pass over V
            row_sum = weight.sum(0)
            even = norms * vocabulary - features.to(exact) @ row_sum.to(exact) - bias.sum()
            even = (even if counts is None else even * counts).sum()
            loss = (1 - smoothing) * nll + spread * even
            if d_inputs is not None and d_weight is not None and d_bias is not None:
                evenly = (spread * row_sum).to(dtype)
                d_inputs -= evenly if counts is None else counts.to(dtype).unsqueeze(1) * evenly
                rows = features.to(weight.dtype)
                d_weight -= spread * (rows.sum(0) if counts is None else counts.to(weight.dtype) @ rows)
                d_bias -= spread * total_count
        if needed:
            ctx.save_for_backward(d_inputs.to(features.dtype), d_weight, d_bias, shares, counts)  # type: ignore[union-attr]
            ctx.smoothing, ctx.copies = smoothing, log_copied is not None
        nll = nll.clone() if loss is nll else nll
        ctx.mark_non_differentiable(nll, log_prob)
        return loss, nll, log_prob

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        d_features, d_weight, d_bias, shares, counts = ctx.saved_tensors
        d_generate = d_copied = None
        if ctx.copies:
            scale = -(1 - ctx.smoothing) * gradient * (1 if counts is None else counts)
            d_generate, d_copied = scale * shares, scale * (1 - shares)
        return d_features * gradient, d_weight * gradient, d_bias * gradient, None, None, d_generate, d_copied, None


class Copied(NamedTuple):
    """What copying gives to N targets. Both carry a gradient."""

    log_generate: Tensor  # (N,) log-probability that a token is generated, not copied
    log_copied: Tensor  # (N,) log-probability that it is copied and is the target


def smoothed_cross_entropy(
    features: Tensor,
    weight: Tensor,
    bias: Tensor,
    targets: Tensor,
    *,
    smoothing: float = 0.0,
    copied: Copied | None = None,
    counts: Tensor | None = None,
) -> Loss:
    """Cross-entropy of softmax(features weight^T + bias) with label smoothing, summed over N tokens.

    features: (N, O); weight: (V, O); bias: (V,); targets: (N,) int64. smoothing: share of the target mass that is
    spread evenly over the vocabulary. copied: then a token's probability is generate * softmax + copied, and targets
    may have ids from V on, which can only be copied; what is smoothed is the softmax. N = 0 gives zero loss and zero
    gradients. counts: (N,) how often each token counts, 0 for padding that has to stay because shapes are fixed; None:
    once.
    """
    log_generate, log_copied = copied or (None, None)
    given = (features, weight, bias, targets, smoothing, log_generate, log_copied, counts)
    return Loss(*_SmoothedCrossEntropy.apply(*given))  # type: ignore[no-untyped-call]


def smoothed_cross_entropy_plain(
    features: Tensor,
    weight: Tensor,
    bias: Tensor,
    targets: Tensor,
    *,
    smoothing: float = 0.0,
    copied: Copied | None = None,
) -> Loss:
    """The same with whole logits and autograd: the reference."""
    log_probs = F.log_softmax(F.linear(features, weight, bias), -1)
    known = targets < weight.size(0)
    picked = log_probs.gather(1, targets.where(known, 0).unsqueeze(1)).squeeze(1)
    if copied is not None:
        generated = (picked + copied.log_generate).where(known, -torch.inf)
        picked = torch.logaddexp(generated, copied.log_copied)
    loss = -(1 - smoothing) * picked.sum() - smoothing * log_probs.mean(1).sum()
    return Loss(loss, -picked.detach().sum(), picked.detach())


@torch.no_grad()
def best_tokens(features: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The most probable token of softmax(features weight^T + bias) for each of N positions, (N,) int64.

    features: (N, O); weight: (V, O); bias: (V,). Logits are never whole in memory.
    """
    parts = [F.linear(features[part], weight, bias).argmax(1) for part in _chunks(features, weight.size(0))]
    return torch.cat(parts) if parts else features.new_empty(0, dtype=torch.int64)


def symmetric_divergence(first: Tensor, second: Tensor) -> Tensor:
    """R-Drop's term: (KL(p || q) + KL(q || p)) / 2, summed over N tokens (Liang et al. 2021, arXiv 2106.14448, eq. 2).

    first, second: log-probabilities (N, V) of the same tokens under two dropout masks.
    """
    return ((first.exp() - second.exp()) * (first - second)).sum() / 2


def guided_alignment(weights: Tensor, links: Tensor) -> Tensor:
    """Cross-entropy between given alignments and attention, summed over N tokens (Chen et al. 2016, arXiv 1607.01628).

    -sum_t sum_s a_ts log w_ts (section 3, the cross-entropy cost): the attention w (N, S) is drawn to the soft links
    a (N, S), whose rows sum to 1, or to 0 for a token without links, which costs nothing. Weights below 1e-9 cost as
    much as 1e-9 and get no gradient.
    """
    return -(links * weights.to(torch.promote_types(weights.dtype, torch.float32)).clamp_min(1e-9).log()).sum()
