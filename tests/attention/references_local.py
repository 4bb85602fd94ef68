"""Naive references of local, hard and static attention. `attention_toys` imports this at its end."""

import torch
from attention_toys import dots, naive_key_value, normalised, scored, soft_rows


def in_window(align, row, place):
    """Weights within the window around a place; the nearest positions where it is empty."""
    if not row:
        return {}
    reach = max(align.window, min(abs(j - place) for j in row))
    return normalised(align.normaliser, {j: e for j, e in row.items() if abs(j - place) <= reach})


def local_m_rows(align, energies, length, query):
    return [in_window(align, row, min(t, length - 1)) for t, row in enumerate(energies)]


def local_p_rows(heads):
    """The rows of each head in turn: what is drawn from a module belongs to head `next(heads)`."""

    def rows(align, energies, length, query):
        head = next(heads)
        size = len(align.vector) // align.heads
        found = []
        for t, row in enumerate(energies):
            part = range(head * size, (head + 1) * size)
            logit = sum(align.vector[a] * torch.tanh(dots(align.weight[a], query[t])) for a in part)
            place = length / (1 + torch.exp(-logit))
            weights = in_window(align, row, place.item())
            sigma = align.window / 2
            bent = {j: w * torch.exp(-((j - place) ** 2) / (2 * sigma**2)) for j, w in weights.items()}
            total = sum(bent.values()) if align.sums_to_one else 1.0
            found.append({j: w / total for j, w in bent.items()})
        return found

    return rows


def local_p(module, query, encoded):
    heads = iter(list(range(module.heads)) * query.size(0))
    return scored(local_p_rows(heads))(module, query, encoded)


def hard_rows(align, energies, length, query):
    """Without noise and without soft rows; in eval mode the best position whatever the estimator."""
    found = []
    for row in energies:
        best = max(row, key=lambda j: row[j].item()) if row else None
        soft = normalised(align.normaliser, row) if row else {}
        one = {j: (soft[j] * 0).detach() + (j == best) for j in row}
        if not align.training or align.estimator == "reinforce":
            found.append(one)
        elif align.estimator == "straight_through":
            found.append({j: soft[j] + (one[j] - soft[j]).detach() for j in row})
        else:
            powers = {j: soft[j] ** (1 / align.tau) for j in row}
            found.append({j: power / sum(powers.values()) for j, power in powers.items()})
    return found


def once(read):
    """A reference of static attention. read: module, states, final, real positions to context (V,), weights or None."""

    def reference(module, query, encoded):
        contexts, weights = [], []
        for b, states in enumerate(encoded.states):
            real = [j for j in range(len(states)) if encoded.mask[b, j]]
            context, row = read(module, states, encoded.final[b], real)
            contexts.append(torch.stack([context] * query.size(1)))
            weights.append(row if row is None else torch.stack([row] * query.size(1)))
        return torch.stack(contexts), None if weights[0] is None else torch.stack(weights)

    return reference


def static_read(module, states, final, real):
    material, values = naive_key_value(module.key_value, states)
    context, mean = [], states.new_zeros(len(states))
    for vector in module.vectors:
        energies = {}
        for j in real:
            pairs = zip(module.inner.weight, module.inner.bias, strict=True)
            energies[j] = dots(vector, [torch.tanh(dots(row, material[j]) + bias) for row, bias in pairs])
        weights = normalised(module.normaliser, energies)
        context += [sum(weights[j] * values[j][d] for j in real) for d in range(module.key_value.value_size)]
        mean = mean + torch.stack([weights.get(j, mean.new_zeros(())) for j in range(len(states))]) / len(
            module.vectors
        )
    return torch.stack(context), mean


def feature_read(module, states, final, real):
    inner = module.layer.inner
    powers = {
        j: [
            torch.exp(torch.tanh(dots(row, states[j]) + bias))
            for row, bias in zip(inner.weight, inner.bias, strict=True)
        ]
        for j in real
    }
    context = []
    for d in range(states.size(1)):
        total = sum(powers[j][d] for j in real) + 1e-7
        context.append(sum(powers[j][d] / total * states[j, d] for j in real))
    return torch.stack(context), None


def reader(module, query, encoded):
    found, weights = scored(soft_rows)(module.inner, encoded.final.unsqueeze(1), encoded)
    answers = []
    for answer, question in zip(found[:, 0], encoded.final, strict=True):
        pairs = zip(module.found.weight, module.asked.weight, strict=True)
        answers.append(torch.tanh(torch.stack([dots(one, answer) + dots(other, question) for one, other in pairs])))
    context = torch.stack(answers).unsqueeze(1)
    return context.expand(-1, query.size(1), -1), weights.expand(-1, query.size(1), -1)


LOCAL = {
    "local_m": scored(local_m_rows),
    "local_p": local_p,
    "hard": scored(hard_rows),
    "static": once(static_read),
    "static_feature": once(feature_read),
    "reader": reader,
}
