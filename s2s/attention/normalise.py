"""Normalisers: energies to weights that sum to one. Masked positions get nothing; rows without others get zeros."""

from __future__ import annotations

from typing import Any, Literal, cast, get_args

import entmax
import torch
from torch import Tensor
from torch.nn import functional as F

from s2s.attention.functional import masked_softmax

NormaliserName = Literal["softmax", "sparsemax", "entmax15", "sigmoid"]
NAMES: tuple[str, ...] = get_args(NormaliserName)

# Sparsemax and entmax 1.5 give no weight to an energy that is this much below the highest (theirs are 1 and 2).
_FAR = 8.0


class Normaliser:
    """Energies (..., S) and a mask that fits them to weights (..., S), after a division by the temperature.

    softmax; sparsemax (Martins & Astudillo 2016, arXiv 1602.02068): the nearest point of the simplex, exact zeros;
    entmax15 (Peters et al. 2019, arXiv 1905.05702): between the two; sigmoid: sigmoid(e) over their sum (Chorowski et
    al. 2015, arXiv 1506.07503, section 2.3 "smoothing").
    """

    def __init__(self, name: NormaliserName = "softmax", temperature: float = 1.0) -> None:
        self.name, self.temperature = name, temperature

    def __call__(self, energies: Tensor, mask: Tensor) -> Tensor:
        """Weights (..., S); a row whose every position is masked gives zeros and zero gradients."""
        if self.temperature != 1.0:
            energies = energies / self.temperature
        if self.name == "softmax":
            return masked_softmax(energies, mask)
        if self.name == "sigmoid":
            exact = energies.to(torch.promote_types(energies.dtype, torch.float32))
            return masked_softmax(F.logsigmoid(exact), mask).to(energies.dtype)
        return _sparse(self.name, energies, mask)


def _sparse(name: str, energies: Tensor, mask: Tensor) -> Tensor:
    """Sparsemax or entmax 1.5, by sorting, exact."""
    if energies.size(-1) == 0:
        return energies
    function = cast(Any, {"sparsemax": entmax.sparsemax, "entmax15": entmax.entmax15}[name])
    exact = energies.to(torch.promote_types(energies.dtype, torch.float32))
    mask = mask.expand_as(exact)
    # minus infinity makes NaN there; far below the highest energy is as good: no weight and no gradient
    highest = exact.detach().masked_fill(~mask, -torch.inf).amax(-1, keepdim=True)
    highest = highest.masked_fill(~mask.any(-1, keepdim=True), 0.0)
    weights: Tensor = function(torch.where(mask, exact - highest, -_FAR), dim=-1)
    return weights.masked_fill(~mask, 0.0).to(energies.dtype)
