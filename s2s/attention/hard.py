"""Hard attention: one source position a step, drawn in training and the most probable one in decoding."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from s2s.attention.align import Aligned, Alignment
from s2s.attention.base import Attention, ScoredAttention
from s2s.attention.functional import masked_softmax
from s2s.attention.keyvalue import KeyValue
from s2s.attention.normalise import Normaliser
from s2s.attention.options import LARGEST, Options, choice, number
from s2s.attention.score import Score, ScoreName, make_score
from s2s.types import State

DEFAULT = Options()
Estimator = Literal["reinforce", "straight_through", "gumbel"]


class OnePosition(Alignment):
    """All the weight on one position s of each step, row and head: argmax_j log a_j + noise G_j, G from Gumbel(0, 1).

    a: the normaliser's weights. In training, noise 1 draws s from a, noise 0 takes its argmax, and in between s comes
    from a^(1 / noise), normalised. With probability `soft_share` a row keeps a itself as its weights, in all its steps.
    Eval mode takes the argmax. aux, in training: "entropy" of a and, for reinforce, "log_prob" = log a_s, zero in rows
    that keep a; both (B, T, H).

    estimator: how the gradient reaches the energies. reinforce: by `HardAttention.loss` alone. straight_through: as if
    the weights were a (Bengio et al. 2013, arXiv 1308.3432). gumbel: the weights are softmax((log a + noise G) / tau)
    instead (Jang et al. 2017, arXiv 1611.01144).
    """

    def __init__(
        self, normaliser: Normaliser, estimator: Estimator, *, noise: float, soft_share: float, tau: float
    ) -> None:
        super().__init__()
        choice("estimator", estimator, ("reinforce", "straight_through", "gumbel"))
        self.normaliser, self.estimator = normaliser, estimator
        self.noise, self.soft_share = number("noise", noise, 0.0, 1.0), number("soft_share", soft_share, 0.0, 1.0)
        self.tau = number("tau", tau, 0.0, LARGEST, open_low=True)

    def initial_state(self, mask: Tensor, heads: int) -> State:
        """Which rows keep their soft weights: (B, 1) bool in training."""
        if not self.training or not self.soft_share:
            return ()
        return torch.rand(mask.size(0), 1, device=mask.device) < self.soft_share

    def forward(self, energies: Tensor, mask: Tensor, state: State, query: Tensor) -> Aligned:
        """Each step by itself."""
        if not mask.size(1):
            return Aligned(energies, state, {})
        exact = energies.to(torch.promote_types(energies.dtype, torch.float32))
        allowed = mask[:, None, None]
        if not self.training:
            place = exact.detach().masked_fill(~allowed, -torch.inf).argmax(-1, keepdim=True)
            return Aligned(one_hot(place, exact, allowed).to(energies.dtype), state, {})
        soft = self.normaliser(exact, allowed)
        logs = soft.clamp_min(torch.finfo(soft.dtype).tiny).log()
        perturbed = logs
        if self.noise:
            # minus the logarithm of an exponential variable is a Gumbel one; it must stay finite
            drawn = torch.empty_like(soft).exponential_().clamp_min(torch.finfo(soft.dtype).tiny)
            perturbed = logs - self.noise * drawn.log()
        place = perturbed.detach().masked_fill(soft == 0, -torch.inf).argmax(-1, keepdim=True)
        aux = {"entropy": -(soft * logs).sum(-1).transpose(1, 2)}
        if self.estimator == "gumbel":
            weights = masked_softmax(perturbed / self.tau, allowed)
        else:
            weights = one_hot(place, soft, allowed)
        if self.estimator == "straight_through":
            weights = soft + (weights - soft).detach()
        if self.estimator == "reinforce":
            found = logs.gather(-1, place).squeeze(-1).masked_fill(~allowed.any(-1), 0.0)
            aux["log_prob"] = found.transpose(1, 2)
        if isinstance(state, Tensor):
            kept = state[:, :, None]
            weights = torch.where(kept.unsqueeze(-1), soft, weights)
            if self.estimator == "reinforce":
                aux["log_prob"] = aux["log_prob"].masked_fill(kept, 0.0)
        return Aligned(weights.to(energies.dtype), state, aux)


def one_hot(place: Tensor, like: Tensor, allowed: Tensor) -> Tensor:
    """Weights like `like` (..., S) with a one at place (..., 1); zeros where nothing is allowed, (..., S) bool."""
    return torch.zeros_like(like).scatter_(-1, place, 1.0).masked_fill(~allowed, 0.0)


class HardAttention(ScoredAttention):
    """Attention to one position. Xu et al. 2015, arXiv 1502.03044, section 4.1, in the form of its public code.

    What a step earns is the log-probability of its own target token, so that a draw isn't credited with what it changes
    in later steps; the baseline is a moving average of that, kept with the parameters.
    """

    baseline: Tensor

    def __init__(
        self,
        score: Score,
        align: OnePosition,
        key_value: KeyValue,
        *,
        heads: int,
        dropout: float,
        reward: float,
        entropy: float,
    ) -> None:
        super().__init__(score, align, key_value, heads=heads, dropout=dropout)
        self.reward, self.entropy = number("reward", reward, 0.0, LARGEST), number("entropy", entropy, 0.0, LARGEST)
        self.register_buffer("baseline", torch.zeros(()))

    def loss(self, aux: dict[str, Tensor], log_prob: Tensor) -> Tensor | None:
        """-sum reward (log p(y) - b) log a_s + entropy H(a) over tokens and heads; b <- 0.9 b + 0.1 mean log p(y).

        The policy term has a gradient but a value of zero: its value would say nothing of how good the model is.
        """
        added = None
        if self.entropy and "entropy" in aux:
            added = -self.entropy * aux["entropy"].sum()
        if "log_prob" in aux and len(log_prob):
            gain = (log_prob.detach() - self.baseline).unsqueeze(1)
            policy = -self.reward * (gain * aux["log_prob"]).sum()
            policy = policy - policy.detach()
            added = policy if added is None else added + policy
            mean = log_prob.detach().mean()
            # a step that training throws away as not finite must not spoil the average
            self.baseline.lerp_(torch.where(mean.isfinite(), mean, self.baseline).to(self.baseline.dtype), 0.1)
        return added


def hard(
    query_size: int,
    memory_size: int,
    *,
    score: ScoreName = "additive",
    estimator: Estimator = "reinforce",
    noise: float = 1.0,
    soft_share: float = 0.5,
    tau: float = 1.0,
    reward: float = 1.0,
    entropy: float = 0.0,
    options: Options = DEFAULT,
) -> Attention:
    """Xu et al. 2015 (arXiv 1502.03044, section 4.1).

    estimator, noise, soft_share, tau (of gumbel): as in `OnePosition`. reward: weight of the policy term of reinforce;
    entropy: of the entropy of the weights, which training then raises.
    """
    key_value = KeyValue(options.kv, memory_size, query_size)
    align = OnePosition(
        Normaliser(options.normaliser, options.temperature), estimator, noise=noise, soft_share=soft_share, tau=tau
    )
    return HardAttention(
        make_score(score, query_size, key_value.key_size, heads=options.heads),
        align,
        key_value,
        heads=options.heads,
        dropout=options.dropout,
        reward=reward,
        entropy=entropy,
    )
