"""p of each written token, against the probabilities of the search."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from test_invariance import lines, trained

from s2s.search import SearchConfig
from s2s.task.gates import generated_shares
from s2s.task.generate import Generator, Options


@pytest.mark.parametrize("decoder", ["copying", "copying_transformer"])
def test_the_gate_is_that_of_the_search(decoder: str) -> None:
    model, steps = trained("additive", decoder), []
    copy = model.ready().copy
    assert copy is not None
    hook = copy.gate.register_forward_hook(lambda module, inputs, gate: steps.append(torch.sigmoid(gate.flatten())))
    generator = Generator([model], SearchConfig(beam=1, max_length=12), Options(alignment=True))
    copied = 0
    try:
        for text in lines()[:14]:
            steps.clear()
            (result,) = generator([text])
            found = torch.cat(steps).tolist()
            shares = generated_shares(model, result)
            assert len(shares) == len(result.tokens) == len(result.pieces)
            assert shares == pytest.approx(found, abs=1e-5)
            copied += any(token >= model.target.size for token in result.tokens[:-1])
            assert generated_shares(model, dataclasses.replace(result, flags=("split",))) == []
    finally:
        hook.remove()
    assert copied or decoder != "copying"  # also where a word without an id was read


def test_a_model_that_only_generates_has_none() -> None:
    model = trained("additive", "feed")
    (result,) = Generator([model], SearchConfig(beam=1), Options(alignment=True))([lines()[0]])
    assert generated_shares(model, result) == []
