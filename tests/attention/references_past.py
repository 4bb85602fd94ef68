"""Naive references of the mechanisms that move along the source, or that remember what they attended: plain loops."""

import math

import torch
from attention_toys import dots, naive_energy, naive_key_value, normalised, scored

from s2s.attention.coverage import LinguisticCoverage, NeuralCoverage
from s2s.attention.dca import DynamicConvolution
from s2s.attention.past import LocationFilters
from s2s.attention.transition import ForwardWithAgent


def spread(previous, max_jump, real, move=None):
    """What each real position gets of the alignment before: sum over jumps 0..max_jump of real positions."""
    found = {}
    for n, j in enumerate(real):
        stay = previous.get(j, 0.0)
        step = sum(previous.get(real[n - k], 0.0) for k in range(1, max_jump + 1) if n >= k)
        found[j] = stay + step if move is None else (1 - move) * stay + move * step
    return found


def forward_step(align, previous, row, move=None):
    """One step of forward attention: the product with the normaliser's weights, or staying where that is zero."""
    real = sorted(row)
    if not real:
        return {}
    y = normalised(align.normaliser, row)
    product = {j: p * y[j] for j, p in spread(previous or {real[0]: 1.0}, align.max_jump, real, move).items()}
    total = sum(product.values())
    return {j: p / total for j, p in product.items()} if total > 0 else previous or {real[0]: row[real[0]] * 0 + 1}


def forward_rows(align, energies, length, query):
    rows, previous = [], {}
    for row in energies:
        previous = forward_step(align, previous, row)
        rows.append(previous)
    return rows


def stepwise_rows(head):
    """Stepwise monotonic attention with its bias of one head, in training without noise or (hard) in eval mode."""

    def rows(align, energies, length, query):
        bias, found, previous = align.bias[head(align)], [], None
        for row in energies:
            real = sorted(row)
            previous = previous or {j: 1.0 if j == min(real) else 0.0 for j in real}
            stay = {j: torch.sigmoid(e + bias) if align.training else float(e + bias > 0) for j, e in row.items()}
            if real:
                stay[real[-1]] = 1.0
            fresh = {}
            for n, j in enumerate(real):
                fresh[j] = previous[j] * stay[j]
                if n:
                    fresh[j] = fresh[j] + previous[real[n - 1]] * (1 - stay[real[n - 1]])
            previous = {j: a + 0 * bias for j, a in fresh.items()}
            found.append(previous)
        return found

    return rows


def _stepwise(module, query, encoded):
    # heads are visited in order, once for each source
    calls = iter(range(query.size(0) * module.heads))
    return scored(stepwise_rows(lambda align: next(calls) % module.heads))(module, query, encoded)


def temporal_rows(align, energies, length, query):
    rows, total = [], {}
    for row in energies:
        rows.append(
            normalised(align.normaliser, {j: e - torch.log(total[j]) if j in total else e for j, e in row.items()})
        )
        total = {j: torch.exp(e) + total.get(j, 0.0) for j, e in row.items()}
    return rows


def by_steps(start, step, after=None):
    """Reference of a `ScoredAttention` that must go step by step.

    start: (module, head, real positions, states) to a head's state; step: (module, head, state, query, material, real,
    states) to (weights {position: weight}, state); after: (module, states of all heads, context, query) to states.
    """

    def reference(module, query, encoded):
        contexts, weights, length, size = [], [], encoded.states.size(1), module.memory_size // module.heads
        for b in range(query.size(0)):
            source = encoded.states[b]
            material, values = naive_key_value(module.key_value, source)
            real = [j for j in range(length) if encoded.mask[b, j]]
            states = [start(module, h, real, source) for h in range(module.heads)]
            for q in query[b]:
                rows = []
                for h in range(module.heads):
                    row, states[h] = step(module, h, states[h], list(q), material, real, source)
                    rows.append([row.get(j, source.new_zeros(())) for j in range(length)])
                weights.append(sum(torch.stack(row) for row in rows) / module.heads)
                context = [
                    sum(rows[h][j] * values[j][h * size + d] for j in range(length))
                    for h in range(module.heads)
                    for d in range(size)
                ]
                if module.mix is not None:
                    context = [dots(row, context) for row in module.mix.weight]
                contexts.append(torch.stack(context))
                if after is not None:
                    states = after(module, states, context, list(q))
        shape = query.shape[:2]
        return torch.stack(contexts).view(*shape, -1), torch.stack(weights).view(*shape, -1)

    return reference


def _agent_start(module, h, real, source):
    return {}, 0.5


def _agent_step(module, h, state, q, material, real, source):
    row = {j: naive_energy(module.score, q, list(material[j]), j, h) for j in real}
    previous = forward_step(module.align, state[0], row, state[1])
    return previous, (previous, state[1])


def _agent_after(module, states, context, q):
    hidden = [
        torch.tanh(dots(row, [*context, *q]) + b)
        for row, b in zip(module.agent_hidden.weight, module.agent_hidden.bias, strict=True)
    ]
    moves = [
        torch.sigmoid(dots(row, hidden) + b) for row, b in zip(module.agent.weight, module.agent.bias, strict=True)
    ]
    return [(previous, move) for (previous, _), move in zip(states, moves, strict=True)]


def _forward(module, query, encoded):
    if isinstance(module, ForwardWithAgent):
        return by_steps(_agent_start, _agent_step, _agent_after)(module, query, encoded)
    return scored(forward_rows)(module, query, encoded)


def _additive(score, q, k, h, term):
    size = len(score.vector) // score.heads
    total = 0.0
    for a in range(size):
        row = h * size + a
        unit = dots(score.query_weight[row], q) + dots(score.key_weight[row], k) + score.bias[row] + term[a]
        total = total + score.vector[row] * torch.tanh(unit)
    return total


def _around(previous, j, kernel):
    return [previous.get(j + d, 0.0) for d in range(-(kernel // 2), kernel // 2 + 1)]


def _past_start(module, h, real, source):
    past = module.past
    if isinstance(past, NeuralCoverage):
        return {j: [source.new_zeros(())] * past.units for j in real}
    if isinstance(past, LocationFilters | DynamicConvolution):
        return {real[0]: 1.0} if real else {}
    return {}


def _past_step(module, h, state, q, material, real, source):
    past, row = module.past, {}
    if isinstance(past, DynamicConvolution):
        hidden = [torch.tanh(dots(w, q) + b) for w, b in zip(past.hidden.weight, past.hidden.bias, strict=True)]
        made = torch.stack([dots(w, hidden) for w in past.dynamic.weight]).view(past.static.shape)[h]
        last = len(past.prior) - 1
        for j in real:
            around = _around(state, j, past.kernel)
            seen = [dots(filter_, around) for filter_ in (*past.static[h].t(), *made.t())]
            term = [dots(w, seen) for w in past.weight[h].t()]
            prior = sum(past.prior[last - k] * state.get(j - k, 0.0) for k in range(last + 1))
            unit = [torch.tanh(x + b) for x, b in zip(term, module.score.bias[h], strict=True)]
            row[j] = dots(module.score.vector[h], unit) + torch.log(torch.as_tensor(prior).clamp_min(1e-6))
    else:
        for j in real:
            if isinstance(past, LocationFilters):
                seen = [dots(filter_, _around(state, j, past.kernel)) for filter_ in past.filters[h].t()]
            elif isinstance(past, NeuralCoverage):
                seen = state[j]
            else:
                seen = [state.get(j, 0.0)]
            row[j] = _additive(module.score, q, list(material[j]), h, [dots(w, seen) for w in past.weight[h].t()])
    weights = normalised(module.normaliser, row) if row else {}
    return weights, _past_after(past, h, state, weights, q, source)


def _past_after(past, h, state, weights, q, source):
    if isinstance(past, NeuralCoverage):
        return {j: _gru(past, state[j], a, source[j], q) for j, a in weights.items()}
    if isinstance(past, DynamicConvolution) or (isinstance(past, LocationFilters) and not past.cumulative):
        return weights
    if isinstance(past, LinguisticCoverage):
        fertility = {j: past.most * torch.sigmoid(dots(past.fertility.weight[h], source[j])) for j in weights}
        return {j: state.get(j, 0.0) + a / fertility[j] for j, a in weights.items()}
    return {j: state.get(j, 0.0) + a for j, a in weights.items()}


def _gru(past, c, a, state, q):
    units, parts = past.units, []
    inputs = [
        past.of_weights[n] * a + dots(past.of_source[n], state) + dots(past.of_query[n], q) + past.bias[n]
        for n in range(3 * units)
    ]
    hidden = [dots(past.recurrent[n], c) for n in range(3 * units)]
    for n in range(units):
        reset = torch.sigmoid(inputs[n] + hidden[n])
        keep = torch.sigmoid(inputs[units + n] + hidden[units + n])
        fresh = torch.tanh(inputs[2 * units + n] + reset * hidden[2 * units + n])
        parts.append((1 - keep) * fresh + keep * c[n])
    return parts


def _gmm(module, query, encoded):
    contexts, weights, K = [], [], module.components
    for b in range(query.size(0)):
        means = [0.0] * K
        for q in query[b]:
            hidden = [torch.tanh(dots(w, q) + c) for w, c in zip(module.hidden.weight, module.hidden.bias, strict=True)]
            raw = [dots(w, hidden) + c for w, c in zip(module.output.weight, module.output.bias, strict=True)]
            share, step, width = raw[:K], raw[K : 2 * K], raw[2 * K :]
            if module.version == "V0":
                height = [torch.exp(x) for x in share]
                sigma = [torch.sqrt(torch.exp(-x) / 2) for x in width]
            else:
                total = sum(torch.exp(x) for x in share)
                soft = module.version == "V2"
                sigma = [torch.log(1 + torch.exp(x)) if soft else torch.sqrt(torch.exp(x)) for x in width]
                height = [
                    torch.exp(x) / total / (math.sqrt(2 * math.pi) * s) for x, s in zip(share, sigma, strict=True)
                ]
            move = [torch.log(1 + torch.exp(x)) if module.version == "V2" else torch.exp(x) for x in step]
            means = [m + d for m, d in zip(means, move, strict=True)]
            row, place = [], 0
            for j in range(encoded.states.size(1)):
                place += int(encoded.mask[b, j])
                value = sum(height[k] * torch.exp(-((place - means[k]) ** 2) / (2 * sigma[k] ** 2)) for k in range(K))
                row.append(value if encoded.mask[b, j] else 0 * value)
            total = sum(row)
            row = torch.stack(row) / (total if total > 1 else 1)
            weights.append(row)
            contexts.append(row @ encoded.states[b])
    shape = query.shape[:2]
    return torch.stack(contexts).view(*shape, -1), torch.stack(weights).view(*shape, -1)


_past = by_steps(_past_start, _past_step)

PAST = {
    "forward": _forward,
    "stepwise": _stepwise,
    "gmm": _gmm,
    "dca": _past,
    "location_aware": _past,
    "coverage": _past,
    "temporal": scored(temporal_rows),
}
