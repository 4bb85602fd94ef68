"""Naive references of the monotonic and forced-forward attentions. `attention_toys` imports this at its end."""

import math

import torch
from attention_toys import naive_energy, naive_key_value, normalised, scored

from s2s.attention.forced_forward import Pointer


def expected_stops(align, row, head, previous, length):
    """One row of Raffel et al. 2017, eq. 8-9, and so the next `previous`."""
    found, q, passed = {}, 0.0, 1.0
    for j in range(length):
        q = q * passed + previous.get(j, 0.0)
        p = 1 / (1 + torch.exp(-(row[j] + align.bias[head]))) if j in row else 0.0
        if align.preserve and j == length - 1:
            p = 1.0
        found[j] = p * q
        passed = 1 - p
    return found


def hard_stop(align, row, head, previous, length):
    """The same in decoding: the first position from the last one on whose probability is above 1/2."""
    start = [j for j, weight in previous.items() if weight]
    if not start:
        return {}
    for j in range(start[0], length):
        if j in row and row[j] + align.bias[head] > 0:
            return {j: row[j] * 0 + 1}
    return {length - 1: row[length - 1] * 0 + 1} if align.preserve and length else {}


def stops(align, energies, head, length):
    previous, found = {0: 1.0}, []
    for row in energies:
        previous = (expected_stops if align.training else hard_stop)(align, row, head, previous, length)
        found.append({j: weight for j, weight in previous.items() if j in row})
    return found


def looking_back(row, energies, window):
    """Weights of the second softmax; row: stops; energies: the second ones; window: positions, infinite for all."""
    found = dict.fromkeys(energies, 0.0)
    for k, stop in row.items():
        before = [j for j in energies if k - window < j <= k]
        total = sum(torch.exp(energies[j]) for j in before)
        for j in before:
            found[j] = found[j] + stop * torch.exp(energies[j]) / total
    return found


def monotonic(module, query, encoded):
    """Each head's rows; with a second score where the module has one."""
    order = iter([(b, h) for b in range(query.size(0)) for h in range(module.heads)])

    def rows(align, energies, length, queries):
        b, head = next(order)
        found = stops(align, energies, head, length)
        if hasattr(module, "second"):
            material, _ = naive_key_value(module.key_value, encoded.states[b])
            window = math.inf if module.window is None else module.window
            for t, row in enumerate(energies):
                second = {j: naive_energy(module.second, list(queries[t]), list(material[j]), j, head) for j in row}
                found[t] = looking_back(found[t], second, window)
        return tensors(found, energies)

    return scored(rows)(module, query, encoded)


def tensors(found, energies):
    """Weights that are plain numbers as tensors."""
    return [
        {j: weight + 0 * row[j] for j, weight in weights.items()} for weights, row in zip(found, energies, strict=True)
    ]


def pointer_rows(align, energies, length, query):
    """Every way of a pointer that only moves forward."""
    pointer, found = {-1: 1.0}, []
    for row in energies:
        moved, stayed = dict.fromkeys(row, 0.0), {}
        for k, mass in pointer.items():
            behind = [j for j in row if j > k]
            if not behind:
                stayed[k] = mass
            elif align.training:
                total = sum(torch.exp(row[j]) for j in behind)
                for j in behind:
                    moved[j] = moved[j] + mass * torch.exp(row[j]) / total
            elif mass:
                best = max(behind, key=lambda j: row[j].item())
                moved[best] = mass
        pointer = {k: moved.get(k, 0.0) + stayed.get(k, 0.0) for k in {*moved, *stayed}}
        found.append({j: pointer[j] if align.exhausted == "last" else moved[j] for j in row})
    return tensors(found, energies)


def allowed(align, row, used, place):
    """Positions that are left in each mode of `Forward`."""
    if align.mode == "threshold":
        return [j for j in row if used[j] < align.threshold]
    if align.mode == "strict":
        return [j for j in row if j > place]
    if align.mode == "window":
        last = min(row) if place < 0 else place
        return [j for j in row if last - align.back <= j < last + align.ahead]
    return list(row)


def forward_rows(align, energies, length, query):
    used, place, found = dict.fromkeys(energies[0] if energies else {}, 0.0), -1, []
    for row in energies:
        weights = dict.fromkeys(row, 0.0)
        if left := allowed(align, row, used, place):
            bent = {j: row[j] for j in left}
            if align.mode == "soft":
                bent = {j: row[j] + torch.log(torch.clamp(1 - used[j] + 0 * row[j], min=1e-4)) for j in left}
            weights.update(normalised(align.inner.normaliser, bent))
            place = max(weights, key=lambda j: float(torch.as_tensor(weights[j]).detach()))
        elif row and align.exhausted == "last":
            weights[place] = 1.0
        used = {j: used[j] + weights[j] for j in row}
        found.append(weights)
    return tensors(found, energies)


def forced_forward(module, query, encoded):
    rows = pointer_rows if isinstance(module.align, Pointer) else forward_rows
    return scored(rows)(module, query, encoded)


MONOTONIC = {
    **dict.fromkeys(("monotonic", "mocha", "milk", "mma"), monotonic),
    "forced_forward": forced_forward,
}
