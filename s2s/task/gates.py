"""How likely a model that copies was to generate each token of an output instead."""

from __future__ import annotations

import torch

from s2s.task.trained import Trained
from s2s.text.batching import Example, collate
from s2s.text.turns import shorten
from s2s.types import EOS, UNK, Overlong, Result


@torch.no_grad()
def generated_shares(trained: Trained, result: Result) -> list[float]:
    """p of each token of a result, EOS included; empty for a model that doesn't copy, and for a text in parts.

    p is the gate's (See et al. 2017, arXiv 1704.04368, eq. 8) while the output is forced: how much of the whole
    distribution is generated, whichever token was taken.
    """
    model = trained.model
    if model.copy is None or not result.tokens or {"split", "merged"} & set(result.flags):
        return []
    text, _ = trained.entered(result.input)
    overlong: Overlong = "turns" if "turns_dropped" in result.flags else "truncate"
    _, ids, _ = shorten(text, trained.source.encode(text), overlong, len(result.source_pieces) - 1, trained.turns)
    read = [token if token < trained.target.size else UNK for token in result.tokens if token != EOS]
    output = model(collate([Example(ids, read)], [0]).to(trained.device), need_weights=True)
    log_generate, _ = model.copy.log_gates(output.features, output.context)
    return [float(share) for share in log_generate[0, : len(result.tokens)].exp()]
