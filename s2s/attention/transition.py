"""Alignments that move along the source: at every step mass stays where it is or moves forward, by little.

Positions that the mask leaves out are stepped over: the next position is the next real one.
"""

from __future__ import annotations

from contextlib import nullcontext

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from s2s.attention.align import Aligned, Alignment, begun
from s2s.attention.base import Attention, ScoredAttention
from s2s.attention.functional import lengths_of
from s2s.attention.keyvalue import KeyValue
from s2s.attention.normalise import Normaliser
from s2s.attention.options import LARGEST, Options, number, plain_softmax, whole
from s2s.attention.score import Score, ScoreName, make_score
from s2s.gather import gathered, linear
from s2s.types import AttentionOutput, Memory, State

DEFAULT = Options()

# The logarithm of no weight. Its exp is 0 in every float type; unlike minus infinity it makes no NaN in sums and in
# gradients, and an energy added to it changes nothing.
_NOTHING = -1e30


def predecessors(mask: Tensor) -> Tensor:
    """1 + the real position before each real position of mask (B, S), S >= 1; 0 where there is none. (B, S) int64."""
    places = mask * torch.arange(1, mask.size(1) + 1, device=mask.device)
    return F.pad(places.cummax(1).values[:, :-1], (1, 0)) * mask


def moved(row: Tensor, before: Tensor, nothing: float = 0.0) -> Tensor:
    """What stood one position earlier, (..., S); before: `predecessors`, expanded to the row's shape."""
    return F.pad(row, (1, 0), value=nothing).gather(-1, before)


class Forward(Alignment):
    """a'_ij = (sum_{k=0..max_jump} a_{i-1,j-k}) y_ij, renormalised, with y_i the normaliser's weights of step i.

    Zhang, Ling & Dai 2018, arXiv 1807.06736 (max_jump 1). It is done with logarithms, so that weights that
    have become tiny are not lost: what the last alignment reaches, and nothing else, keeps a weight. Where a sparse
    normaliser leaves nothing of that, the alignment stays as it was. The state is log a, (B, H, S).
    """

    def __init__(self, normaliser: Normaliser, max_jump: int) -> None:
        super().__init__()
        self.normaliser, self.max_jump = normaliser, whole("max_jump", max_jump)

    def initial_state(self, mask: Tensor, heads: int) -> State:
        """Nowhere yet."""
        return torch.full((mask.size(0), heads, mask.size(1)), _NOTHING, device=mask.device)

    def likelihood(self, energies: Tensor, mask: Tensor) -> Tensor:
        """log y (B, H, T, S) up to a constant of each step, in float32 at least."""
        exact = energies.to(torch.promote_types(energies.dtype, torch.float32))
        allowed = mask[:, None, None]
        if self.normaliser.name in ("sparsemax", "entmax15"):
            weights = self.normaliser(exact, allowed)
            allowed = weights > 0
            logs = torch.where(allowed, weights, 1.0).log()
        else:
            logs = exact / self.normaliser.temperature
            if self.normaliser.name == "sigmoid":
                logs = F.logsigmoid(logs)
        return logs.masked_fill(~allowed, _NOTHING)

    def advance(self, logs: Tensor, likelihood: Tensor, before: Tensor, move: Tensor | None = None) -> Tensor:
        """log a_i of log a_{i-1} and log y_i, (B, H, S). move: logit of the probability of moving, (B, H)."""
        stay, step = logs, moved(logs, before, _NOTHING)
        jump = step
        for _ in range(self.max_jump - 1):
            jump = moved(jump, before, _NOTHING)
            step = torch.logaddexp(step, jump)
        if move is not None:
            stay, step = stay + F.logsigmoid(-move).unsqueeze(-1), step + F.logsigmoid(move).unsqueeze(-1)
        joint = torch.logaddexp(stay, step) + likelihood
        reached = joint > _NOTHING / 2
        following = torch.log_softmax(joint, -1).masked_fill(~reached, _NOTHING)
        if self.normaliser.name in ("sparsemax", "entmax15"):
            return torch.where(reached.any(-1, keepdim=True), following, logs)
        return following

    def forward(self, energies: Tensor, mask: Tensor, state: State, query: Tensor) -> Aligned:
        """Step by step, with what depends on energies alone done at once."""
        assert isinstance(state, Tensor)
        if not energies.numel():
            return Aligned(energies, state, {})
        likelihood = self.likelihood(energies, mask)
        logs = begun(state, mask, _NOTHING, 0.0).to(likelihood.dtype)
        before = predecessors(mask).unsqueeze(1).expand_as(logs)
        rows = []
        for step in likelihood.unbind(2):
            logs = self.advance(logs, step, before)
            rows.append(logs)
        return Aligned(torch.stack(rows, 2).exp().to(energies.dtype), logs, {})


class ForwardWithAgent(ScoredAttention):
    """Forward attention whose chance of moving is learned: Zhang, Ling & Dai 2018, "transition agent".

    a'_ij = ((1 - u_{i-1}) a_{i-1,j} + u_{i-1} sum_{k=1..max_jump} a_{i-1,j-k}) y_ij with u_i = sigmoid(MLP[c_i; q_i])
    the probability of MOVING, one for each head, and u_{-1} = 1/2. The paper's MLP also sees the last output, y_{i-1};
    the query stands for it here. As u_i needs the context c_i, it goes step by step. State: log a and the logit of u.
    """

    def __init__(
        self, score: Score, align: Forward, key_value: KeyValue, query_size: int, *, heads: int, dropout: float
    ) -> None:
        super().__init__(score, align, key_value, heads=heads, dropout=dropout)
        self.forward_align = align
        self.agent_hidden = nn.Linear(self.memory_size + query_size, query_size)
        self.agent = nn.Linear(query_size, heads)

    def initial_state(self, memory: Memory) -> State:
        """Nowhere yet, and u = 1/2."""
        logs = self.align.initial_state(memory.mask, self.heads)
        return logs, torch.zeros(memory.mask.size(0), self.heads, device=memory.mask.device)

    def attend(self, query: Tensor, memory: Memory, state: State, need_weights: bool) -> AttentionOutput:
        """Step by step; energies at once."""
        energies = self.score(query, self.by_head(memory.keys))
        if not energies.numel():
            return self.read(energies, memory, state, {}, need_weights)
        likelihood = self.forward_align.likelihood(energies, memory.mask)
        logs, move = state
        assert isinstance(logs, Tensor)
        assert isinstance(move, Tensor)
        logs, move = begun(logs, memory.mask, _NOTHING, 0.0).to(likelihood.dtype), move.to(likelihood.dtype)
        before = predecessors(memory.mask).unsqueeze(1).expand_as(logs)
        outputs = []
        with gathered() if query.size(1) > 1 else nullcontext():
            for step in range(query.size(1)):
                logs = self.forward_align.advance(logs, likelihood[:, :, step], before, move)
                weights = logs.exp().to(energies.dtype).unsqueeze(2)
                outputs.append(self.read(weights, memory, (), {}, need_weights))
                move = self.transition(outputs[-1].context[:, 0], query[:, step]).to(likelihood.dtype)
        aux = {key: torch.cat([output.aux[key] for output in outputs], 1) for key in outputs[0].aux}
        kept = [output.weights for output in outputs if output.weights is not None]
        context = torch.cat([output.context for output in outputs], 1)
        return AttentionOutput(context, torch.cat(kept, 1) if kept else None, (logs, move), aux)

    def transition(self, context: Tensor, query: Tensor) -> Tensor:
        """Logit of u (B, H) of context (B, V) and query (B, Q)."""
        seen = torch.cat([context, query.to(context.dtype)], -1)
        hidden = torch.tanh(linear(seen, self.agent_hidden.weight, self.agent_hidden.bias))
        return linear(hidden, self.agent.weight, self.agent.bias)


def forward(
    query_size: int,
    memory_size: int,
    *,
    score: ScoreName = "additive",
    max_jump: int = 1,
    transition_agent: bool = False,
    options: Options = DEFAULT,
) -> Attention:
    """Zhang, Ling & Dai 2018 (arXiv 1807.06736): soft attention that moves forward by at most max_jump a step.

    max_jump 1 reaches source position i + 1 at step i at the earliest and can't skip: right where the target is at
    least as long as the source (speech); translation needs more. transition_agent: as in `ForwardWithAgent`.
    """
    align = Forward(Normaliser(options.normaliser, options.temperature), max_jump)
    key_value = KeyValue(options.kv, memory_size, query_size)
    made = make_score(score, query_size, key_value.key_size, heads=options.heads)
    if transition_agent:
        return ForwardWithAgent(made, align, key_value, query_size, heads=options.heads, dropout=options.dropout)
    return ScoredAttention(made, align, key_value, heads=options.heads, dropout=options.dropout)


class Stepwise(Alignment):
    """a_ij = a_{i-1,j} p_ij + a_{i-1,j-1} (1 - p_{i,j-1}), p_ij = sigmoid(e_ij + bias + noise) the chance of STAYING.

    He, Deng & He 2019, arXiv 1906.00672. p = 1 at the last position, so weights sum to one. In eval mode the decision
    is hard: stay where e + bias > 0, else move by exactly one. The first step starts from the first position and may
    move as every other. noise: of a normal distribution, in training. The state is a, (B, H, S).
    """

    def __init__(self, heads: int, *, noise: float, bias: float) -> None:
        super().__init__()
        self.noise = number("noise", noise, 0.0, LARGEST)
        self.bias = nn.Parameter(torch.full((heads,), number("bias", bias, -LARGEST, LARGEST)))

    def initial_state(self, mask: Tensor, heads: int) -> State:
        """Nowhere yet."""
        return torch.zeros(mask.size(0), heads, mask.size(1), device=mask.device)

    def forward(self, energies: Tensor, mask: Tensor, state: State, query: Tensor) -> Aligned:
        """Step by step, with what depends on energies alone done at once."""
        assert isinstance(state, Tensor)
        if not energies.numel():
            return Aligned(energies, state, {})
        exact = energies.to(torch.promote_types(energies.dtype, torch.float32)) + self.bias.view(-1, 1, 1)
        if not self.training:
            stay = (exact > 0).to(exact.dtype)
        elif self.noise:
            stay = torch.sigmoid(exact + self.noise * torch.randn_like(exact))
        else:
            stay = torch.sigmoid(exact)
        end = torch.arange(1, mask.size(1) + 1, device=mask.device) >= lengths_of(mask).unsqueeze(1)
        stay = stay.masked_fill(end[:, None, None], 1.0)
        row = begun(state, mask).to(exact.dtype)
        before = predecessors(mask).unsqueeze(1).expand_as(row)
        rows = []
        for step in stay.unbind(2):
            kept = row * step
            row = kept + moved(row - kept, before)
            rows.append(row)
        return Aligned(torch.stack(rows, 2).to(energies.dtype), row, {})


def stepwise(
    query_size: int,
    memory_size: int,
    *,
    score: ScoreName = "additive_normed",
    noise: float = 2.0,
    bias: float = 0.0,
    options: Options = DEFAULT,
) -> Attention:
    """He, Deng & He 2019 (arXiv 1906.00672): at every step stay on a source position or move to the next one.

    bias: what the learned offset of the energies starts with. Public code for speech takes 3.5 (stays with .97, as a
    sound lasts many frames). A text is about as long as its translation: that start would see only its first words.
    """
    plain_softmax("stepwise", options)
    key_value = KeyValue(options.kv, memory_size, query_size)
    return ScoredAttention(
        make_score(score, query_size, key_value.key_size, heads=options.heads),
        Stepwise(options.heads, noise=noise, bias=bias),
        key_value,
        heads=options.heads,
        dropout=options.dropout,
    )
