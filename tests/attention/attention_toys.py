"""Small sources and queries, and naive references of every mechanism: loops over batch, steps and positions."""

from __future__ import annotations

import torch
from torch import nn

from s2s.attention import build, names
from s2s.attention.multihead import ProjectedQuery
from s2s.attention.score import AdditiveScore, DotScore, GeneralScore, LocationScore
from s2s.errors import ConfigError
from s2s.registry import group_defaults
from s2s.types import Encoded, Memory

BATCH, STEPS, LENGTH = 2, 3, 4


def buildable(name, query, memory, **options):
    try:
        build(name, query_size=query, memory_size=memory, **options)
    except ConfigError:
        return False
    return True


# chance in training, which would hide that one call, a loop of steps and a naive reference agree
CHANCE = {"noise": 0.0, "soft_share": 0.0}


def certain(name):
    """The options of a mechanism that turn chance off."""
    return {option: value for option, value in CHANCE.items() if option in group_defaults("attention", name)}


# every file of conf/attention joins by itself, with equal widths and, where the mechanism takes them, unequal ones
CASES = [(name, 4, 4, certain(name)) for name in names()]
CASES += [
    (name, *next((sizes for sizes in ((3, 5), (2, 4)) if buildable(name, *sizes)), (3, 5)), certain(name))
    for name in names()
]
CASES += [
    ("additive", 3, 5, {"size": 2}),
    ("location", 5, 5, {"max_source": 3}),
    ("additive", 4, 4, {"heads": 2}),
    ("additive_normed", 4, 4, {"heads": 2, "kv": "split", "normaliser": "sigmoid"}),
    ("scaled_dot", 4, 4, {"heads": 4, "normaliser": "sparsemax"}),
    ("dot", 3, 5, {"kv": "project", "temperature": 0.5}),
    ("general", 4, 6, {"heads": 2, "normaliser": "entmax15"}),
    ("location", 5, 6, {"kv": "split", "normaliser": "sparsemax"}),
    ("multihead", 4, 4, {"score": "additive"}),
    ("multihead", 4, 6, {"score": "general", "heads": 1, "kv": "split"}),
    ("key_value", 4, 4, {"heads": 2, "normaliser": "entmax15"}),
]
CASES += [
    ("local_m", 4, 4, {"window": 1}),
    ("local_m", 4, 6, {"window": 1, "heads": 2, "normaliser": "sparsemax", "score": "additive"}),
    ("local_p", 4, 4, {"window": 1}),
    ("local_p", 4, 6, {"window": 2, "heads": 2, "renormalise": True, "kv": "project"}),
    ("local_p", 4, 4, {"window": 1, "renormalise": True, "normaliser": "entmax15", "score": "scaled_dot"}),
    ("hard", 4, 4, {"heads": 2, "score": "general", "kv": "split", **CHANCE}),
    ("hard", 4, 4, {"estimator": "straight_through", "normaliser": "sparsemax", **CHANCE}),
    ("hard", 3, 5, {"estimator": "gumbel", "tau": 0.7, **CHANCE}),
    ("static", 3, 4, {"hops": 3, "size": 2, "penalty": 0.5}),
    ("static", 3, 6, {"hops": 2, "kv": "split", "normaliser": "sigmoid"}),
    ("static", 3, 6, {"kv": "project", "temperature": 0.5}),
    ("reader", 3, 4, {"heads": 2, "score": "scaled_dot", "normaliser": "entmax15"}),
    ("reader", 3, 6, {"kv": "project", "score": "additive"}),
]
CASES += [
    ("monotonic", 4, 4, {"heads": 2, "preserve": False, "score": "scaled_dot", **certain("monotonic")}),
    ("mocha", 4, 4, {"chunk": 2, "heads": 2, "kv": "project", **certain("mocha")}),
    ("mocha", 3, 4, {"chunk": 3, "preserve": False, "kv": "split", **certain("mocha")}),
    ("milk", 4, 4, {"heads": 2, "preserve": False, "score": "general", **certain("milk")}),
    ("mma", 4, 4, {"kind": "hard", "heads": 2, **certain("mma")}),
    ("mma", 4, 6, {"kind": "chunk", "chunk": 2, "heads": 2, "score": "additive", **certain("mma")}),
    ("forced_forward", 4, 4, {"exhausted": "zero", "heads": 2}),
    ("forced_forward", 4, 4, {"mode": "soft", "heads": 2, "kv": "project", "temperature": 0.5}),
    ("forced_forward", 4, 4, {"mode": "soft", "normaliser": "sigmoid"}),
    ("forced_forward", 4, 4, {"mode": "threshold", "heads": 2, "normaliser": "entmax15"}),
    ("forced_forward", 4, 4, {"mode": "threshold", "threshold": 0.8, "exhausted": "zero"}),
]
CASES += [
    ("forward", 4, 4, {"max_jump": 2, "heads": 2, "score": "scaled_dot"}),
    ("forward", 4, 4, {"normaliser": "sparsemax", "heads": 2}),
    ("forward", 3, 5, {"normaliser": "sigmoid", "temperature": 0.5, "max_jump": 3, "kv": "project"}),
    ("forward", 3, 5, {"normaliser": "entmax15", "transition_agent": True}),
    ("forward", 4, 4, {"transition_agent": True, "heads": 2, "max_jump": 2, "kv": "split"}),
    ("stepwise", 4, 4, {"heads": 2, "score": "general", "kv": "split", "noise": 0.0}),
    ("gmm", 3, 5, {"version": "V0", "components": 2, "size": 2}),
    ("gmm", 3, 5, {"version": "V1", "components": 3}),
    ("dca", 4, 4, {"heads": 2, "filters": 2, "kernel": 3, "prior_length": 3}),
    ("dca", 3, 5, {"size": 2, "normaliser": "sparsemax", "kernel": 1}),
    ("location_aware", 4, 4, {"heads": 2, "kernel": 3, "filters": 2, "kv": "project", "normaliser": "sigmoid"}),
    ("location_aware", 3, 6, {"past": "cumulative", "kernel": 5, "kv": "split", "size": 2}),
    ("coverage", 4, 4, {"heads": 2, "loss_weight": 0.5, "kv": "project"}),
    ("coverage", 4, 4, {"kind": "linguistic", "heads": 2, "fertility": 3.0, "normaliser": "entmax15"}),
    ("coverage", 3, 4, {"kind": "neural", "heads": 1, "units": 3, "size": 2, "kv": "split"}),
    ("coverage", 4, 4, {"kind": "neural", "heads": 2, "units": 2}),
    ("temporal", 4, 4, {"heads": 2, "score": "scaled_dot", "temperature": 0.5}),
    ("temporal", 3, 5, {"normaliser": "sparsemax", "kv": "project"}),
    ("temporal", 3, 5, {"normaliser": "entmax15"}),
]
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


def naive_energy(score, q, k, j, h):
    """Energy of head h for a query q (Q,) and the material of a key k (K,) at position j, or None if out of reach."""
    return ENERGIES[type(score)](score, q, k, j, h)


def _projected(score, q, k, j, h):
    return naive_energy(score.score, [dots(row, q) for row in score.weight], k, j, h)


def _location(score, q, k, j, h):
    return dots(score.weight[j], q) if j < len(score.weight) else None


def _additive(score, q, k, j, h):
    size = len(score.vector) // score.heads
    vector = score.vector[h * size : (h + 1) * size]
    if score.gain is not None:
        vector = score.gain[h] * vector / dots(vector, vector).sqrt()
    total = 0.0
    for a in range(size):
        unit = dots(score.query_weight[h * size + a], q) + dots(score.key_weight[h * size + a], k)
        total = total + vector[a] * torch.tanh(unit if score.bias is None else unit + score.bias[h * size + a])
    return total


def _dot(score, q, k, j, h):
    size = len(q) // score.heads
    return sum(q[i] * k[i] for i in range(h * size, (h + 1) * size)) * score.scale


def _general(score, q, k, j, h):
    return _dot(score, q, [dots(row, k) for row in score.weight], j, h)


ENERGIES = {
    ProjectedQuery: _projected,
    LocationScore: _location,
    AdditiveScore: _additive,
    DotScore: _dot,
    GeneralScore: _general,
}


def dots(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True))


def naive_softmax(row):
    """Weights {position: weight} of energies {position: energy}."""
    powers = {j: torch.exp(e) for j, e in row.items()}
    total = sum(powers.values())
    return {j: power / total for j, power in powers.items()}


def naive_sigmoid(row):
    squashed = {j: 1 / (1 + torch.exp(-e)) for j, e in row.items()}
    total = sum(squashed.values())
    return {j: s / total for j, s in squashed.items()}


def naive_sparsemax(row):
    """Martins & Astudillo 2016, algorithm 1."""
    order = sorted(row, key=lambda j: -row[j].item())
    for count in range(len(order), 0, -1):
        support = order[:count]
        threshold = (sum(row[j] for j in support) - 1) / count
        if row[support[-1]] > threshold:
            break
    return {j: row[j] - threshold if j in support else 0 * row[j] for j in row}


def naive_entmax15(row):
    """Peters et al. 2019, algorithm 2: p = [z / 2 - tau]_+ ^ 2, tau from the support's mean and spread."""
    half = {j: e / 2 for j, e in row.items()}
    order = sorted(half, key=lambda j: -half[j].item())
    for count in range(1, len(order) + 1):
        support = order[:count]
        mean = sum(half[j] for j in support) / count
        spread = sum((half[j] - mean) ** 2 for j in support)
        if spread >= 1:
            break
        threshold = mean - ((1 - spread) / count).sqrt()
        if count == len(order) or half[order[count]] <= threshold:
            break
    return {j: (half[j] - threshold) ** 2 if j in support else 0 * half[j] for j in half}


NORMALISERS = {
    "softmax": naive_softmax,
    "sigmoid": naive_sigmoid,
    "sparsemax": naive_sparsemax,
    "entmax15": naive_entmax15,
}


def normalised(normaliser, row):
    """A normaliser's weights of one row of energies {position: energy}."""
    return NORMALISERS[normaliser.name]({j: e / normaliser.temperature for j, e in row.items()})


def soft_rows(align, energies, length, query):
    """Rows of weights {position: weight} of one source and head; energies: a row {position: energy} for each step."""
    return [normalised(align.normaliser, row) for row in energies]


def scored(rows):
    """The reference of a `ScoredAttention`, from that of its alignment.

    rows: (align, energies [{position: energy} of the real positions, a step], length of the source, query (T, Q))
    to [{position: weight}, a step].
    """

    def reference(module, query, encoded):
        contexts, weights = [], []
        length = encoded.states.size(1)
        for b in range(query.size(0)):
            material, values = naive_key_value(module.key_value, encoded.states[b])
            real = [j for j in range(length) if encoded.mask[b, j]]
            per_head = []
            for h in range(module.heads):
                energies = []
                for t in range(query.size(1)):
                    row = {j: naive_energy(module.score, list(query[b, t]), list(material[j]), j, h) for j in real}
                    energies.append({j: e for j, e in row.items() if e is not None})
                per_head.append(rows(module.align, energies, max(real, default=-1) + 1, query[b]))
            for t in range(query.size(1)):
                zero = encoded.states.new_zeros(())
                found = [[per_head[h][t].get(j, zero) for j in range(length)] for h in range(module.heads)]
                weights.append(sum(torch.stack(row) for row in found) / module.heads)
                size = module.memory_size // module.heads
                context = [
                    sum(found[h][j] * values[j][h * size + d] for j in range(length))
                    for h in range(module.heads)
                    for d in range(size)
                ]
                if module.mix is not None:
                    context = [dots(row, context) for row in module.mix.weight]
                contexts.append(torch.stack(context))
        shape = query.shape[:2]
        return torch.stack(contexts).view(*shape, -1), torch.stack(weights).view(*shape, -1)

    return reference


def naive_key_value(key_value, states):
    """Material of keys and values, both lists of (S,) vectors."""
    if key_value.kind == "project":
        keys, values = ([[dots(row, s) for row in m.weight] for s in states] for m in (key_value.key, key_value.value))
        return keys, values
    if key_value.kind == "split":
        half = states.size(1) // 2
        return [list(s[:half]) for s in states], [list(s[half:]) for s in states]
    return [list(s) for s in states], [list(s) for s in states]


def _none(module, query, encoded):
    zero = 0 * query.sum() + 0 * encoded.states.sum()
    return zero.expand(*query.shape[:2], encoded.states.size(2)), None


def _predict(module, query, encoded):
    return scored(soft_rows)(module.inner, query[..., : query.size(2) // 2], encoded)


# at the end, as it takes what is above
from references_local import LOCAL  # noqa: E402
from references_monotonic import MONOTONIC  # noqa: E402
from references_past import PAST  # noqa: E402

# (module, query, encoded) -> (context, weights), by loops over the parameters and the equations of the paper
REFERENCES = {
    "none": _none,
    **dict.fromkeys(
        (
            "additive",
            "additive_normed",
            "concat",
            "dot",
            "scaled_dot",
            "general",
            "location",
            "multihead",
            "key_value",
        ),
        scored(soft_rows),
    ),
    "key_value_predict": _predict,
    **LOCAL,
    **MONOTONIC,
    **PAST,
}
