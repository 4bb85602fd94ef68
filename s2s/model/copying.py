"""Copying from the source beside generating from the vocabulary, by what attention looks at."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from s2s.errors import ConfigError
from s2s.types import DecoderOutput

# Less than this counts as this much: a token that attention hardly sees costs a finite loss and gets no gradient.
_LEAST = 1e-9

# (width of the features, width of the context) -> what copies, or None.
CopyBuilder = Callable[[int, int], "PointerGenerator | None"]


class PointerGenerator(nn.Module):
    """Each token is generated with probability p, else copied from the source: See et al. 2017, arXiv 1704.04368.

    P(w) = p softmax(w) + (1 - p) sum_{j: x_j = w} a_j (eq. 9), with the attention a and p = sigmoid(w . [o; c] + b)
    (eq. 8; the features o of the output layer stand for the decoder's state and input). A token that stands at
    several positions gets the attention of all. The end of the source is copied too: then the output ends.
    """

    def __init__(self, feature_size: int, context_size: int, *, bias: float) -> None:
        super().__init__()
        self.gate = nn.Linear(feature_size + context_size, 1)
        nn.init.zeros_(self.gate.weight)
        nn.init.constant_(self.gate.bias, bias)

    def log_gates(self, features: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """features (..., O), context (..., V) to log p and log (1 - p), both (...) in float32 or better."""
        gate = _exact(self.gate(torch.cat([features, context.to(features.dtype)], -1)).squeeze(-1))
        return F.logsigmoid(gate), F.logsigmoid(-gate)

    def target_log_probs(self, output: DecoderOutput, copies: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """For N target tokens: log p, and the log-probability that one is copied and is the target, both (N,).

        output: of these N tokens, (N, ...), with weights (N, S). copies: (N, S), see `s2s.types.Batch`; targets: (N,).
        """
        weights = _exact(attended(output))
        log_generate, log_copy = self.log_gates(output.features, output.context)
        mass = weights.masked_fill(copies != targets.unsqueeze(1), 0.0).sum(1)
        return log_generate, log_copy + mass.clamp_min(_LEAST).log()

    def log_probs(self, generated: Tensor, output: DecoderOutput, copies: Tensor, extra: int) -> Tensor:
        """Log-probabilities (N, V + extra) of a step, where `extra` ids can only be copied.

        generated: those of the vocabulary, (N, V). output: of one step, (N, ...). copies: (N, S).
        """
        weights = _exact(attended(output))
        log_generate, log_copy = self.log_gates(output.features, output.context)
        mass = weights.new_zeros(weights.size(0), generated.size(1) + extra).scatter_add(1, copies, weights)
        never = generated.new_full((generated.size(0), extra), -torch.inf)
        mixed = torch.cat([generated + log_generate.unsqueeze(1), never], 1)
        return torch.logaddexp(mixed, log_copy.unsqueeze(1) + mass.log())


def _exact(values: Tensor) -> Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))


def attended(output: DecoderOutput) -> Tensor:
    """The weights of an output that has some. Raises ConfigError for one that hasn't."""
    if output.weights is None:
        raise ConfigError("copying needs attention weights", where="copy", hint="Take attention=additive or copy=none")
    return output.weights


def none(feature_size: int, context_size: int) -> None:
    """Builder of `copy=none`: all tokens are generated."""
    return None


def pointer(feature_size: int, context_size: int, *, bias: float = 0.0) -> PointerGenerator:
    """Builder of `copy=pointer`. bias: what b starts at; above 0 generating is likelier at first, below 0 copying."""
    if not abs(bias) <= 20:
        raise ConfigError("wrong bias of the gate", where="copy.bias", expected="-20 to 20", found=str(bias))
    return PointerGenerator(feature_size, context_size, bias=bias)
