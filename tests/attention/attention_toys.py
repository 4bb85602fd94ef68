"""Small sources and queries, and naive references of every mechanism: loops over batch, steps and positions."""

from __future__ import annotations

import torch
from torch import nn

from s2s.attention import build, names
from s2s.errors import ConfigError
from s2s.types import Encoded, Memory

BATCH, STEPS, LENGTH = 2, 3, 4


def buildable(name, query, memory, **options):
    try:
        build(name, query_size=query, memory_size=memory, **options)
    except ConfigError:
        return False
    return True


# every file of conf/attention joins by itself, with equal widths and, where the mechanism takes them, unequal ones
CASES = [(name, query, memory, {}) for name in names() for query, memory in ((5, 5), (3, 5))]
CASES += [("additive", 3, 5, {"size": 2}), ("location", 5, 5, {"max_source": 3})]
CASES = [case for case in CASES if buildable(case[0], case[1], case[2], **case[3])]
IDS = ["-".join([name, f"{query}x{memory}", *map(str, options.values())]) for name, query, memory, options in CASES]


def made(case, *, seed=0, dtype=torch.float32, **more):
    """The mechanism of a case, its parameters drawn large enough that weights are far from even."""
    name, query, memory, options = case
    torch.manual_seed(seed)
    module = build(name, query_size=query, memory_size=memory, **options, **more).to(dtype)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn_like(parameter) / 2)
    return module


def drawn(case, *, batch=BATCH, steps=STEPS, length=LENGTH, lengths=None, seed=1, dtype=torch.float32):
    """A query (B, T, Q) and an encoded source (B, S, D); lengths: real positions of each row, all by default."""
    generator = torch.Generator().manual_seed(seed)
    query = torch.randn(batch, steps, case[1], generator=generator, dtype=torch.float64).to(dtype)
    states = torch.randn(batch, length, case[2], generator=generator, dtype=torch.float64).to(dtype)
    real = torch.tensor([length] * batch if lengths is None else lengths)
    mask = torch.arange(length) < real.unsqueeze(1)
    return query, Encoded(states, states.sum(1), mask)


def attend(module, query, encoded, *, chunks=None, need_weights=True):
    """Context and weights of one call, or of a call for each chunk of steps that threads the state."""
    memory = module.remember(encoded)
    state = module.initial_state(memory)
    contexts, weights = [], []
    for part in query.split(chunks or [query.size(1)], 1):
        output = module(part, memory, state, need_weights=need_weights)
        state = output.state
        contexts.append(output.context)
        weights.append(output.weights)
    return torch.cat(contexts, 1), None if weights[0] is None else torch.cat(weights, 1)


def rows_of(memory, rows):
    return Memory(*(part[rows] for part in memory[:3]), tuple(part[rows] for part in memory.extra))


class Whole(nn.Module):
    """remember and one call, as a function of query and states: what gradcheck wants."""

    def __init__(self, attention, mask):
        super().__init__()
        self.attention, self.mask = attention, mask

    def forward(self, query, states):
        context, weights = attend(self.attention, query, Encoded(states, states.sum(1), self.mask))
        return context if weights is None else (context, weights)


def _additive(module, q, k, j):
    score = module.score
    inner = 0.0
    vector = score.vector
    if score.gain is not None:
        vector = score.gain * vector / (vector * vector).sum().sqrt()
    for a in range(len(vector)):
        unit = sum(score.query_weight[a, i] * q[i] for i in range(len(q)))
        unit = unit + sum(score.key_weight[a, i] * k[i] for i in range(len(k)))
        inner = inner + vector[a] * torch.tanh(unit if score.bias is None else unit + score.bias[a])
    return inner


def _dot(module, q, k, j):
    return sum(q[i] * k[i] for i in range(len(q)))


def _scaled_dot(module, q, k, j):
    return _dot(module, q, k, j) / len(q) ** 0.5


def _general(module, q, k, j):
    return sum(q[i] * module.score.weight[i, n] * k[n] for i in range(len(q)) for n in range(len(k)))


def _location(module, q, k, j):
    weight = module.score.weight
    return sum(weight[j, i] * q[i] for i in range(len(q))) if j < len(weight) else None


ENERGIES = {
    "additive": _additive,
    "additive_normed": _additive,
    "concat": _additive,
    "dot": _dot,
    "scaled_dot": _scaled_dot,
    "general": _general,
    "location": _location,
}


def _soft(energy):
    def reference(module, query, encoded):
        states, mask = encoded.states, encoded.mask
        contexts, weights = [], []
        for b in range(query.size(0)):
            for t in range(query.size(1)):
                energies = {
                    j: energy(module, query[b, t], states[b, j], j) for j in range(states.size(1)) if mask[b, j]
                }
                powers = {j: torch.exp(e) for j, e in energies.items() if e is not None}
                total = sum(powers.values())
                row = [powers[j] / total if j in powers else states.new_zeros(()) for j in range(states.size(1))]
                weights.append(torch.stack(row))
                contexts.append(sum(row[j] * states[b, j] for j in range(states.size(1))))
        shape = query.shape[:2]
        return torch.stack(contexts).view(*shape, -1), torch.stack(weights).view(*shape, -1)

    return reference


def _none(module, query, encoded):
    zero = 0 * query.sum() + 0 * encoded.states.sum()
    return zero.expand(*query.shape[:2], encoded.states.size(2)), None


# (module, query, encoded) -> (context, weights), by loops over the parameters and the equations of the paper
REFERENCES = {"none": _none, **{name: _soft(energy) for name, energy in ENERGIES.items()}}
