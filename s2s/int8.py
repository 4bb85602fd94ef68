"""Weights in int8 for decoding on a CPU, with products that don't depend on a row's neighbours.

Each row of the input gets a scale of its own, each row of the weight another, and int8 products are summed exactly in
int32; so an output row is a function of its input row alone, which it isn't where a whole batch shares one scale.
Weights take only 7 bits, -63 to 63: then the 16-bit sums of pairs that processors without VNNI make can't saturate,
and every processor gives the same numbers.
"""

from __future__ import annotations

import copy
from typing import Literal

import torch
from torch import Tensor

from s2s.errors import UsageError

Precision = Literal["float32", "int8"]  # of products while decoding on a CPU

_LARGEST = 63  # of a weight
_ZERO = 128  # what stands for 0 in a row of the input: torch's CPU kernel takes unsigned inputs


def available() -> bool:
    """Whether torch has such products here."""
    mkldnn: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return mkldnn and hasattr(torch.ops.onednn, "qlinear_prepack")


class Int8Weight:
    """A weight (O, I) of linear maps, rounded. Raises UsageError where torch has no such products."""

    def __init__(self, weight: Tensor) -> None:
        if weight.device.type != "cpu" or not available():
            raise UsageError(
                "int8 needs a CPU and a torch with oneDNN",
                where="--precision int8",
                expected="--device cpu, and torch.backends.mkldnn.is_available()",
                hint="--precision float32",
            )
        exact = weight.detach().float()
        scales = exact.abs().amax(1).clamp_min(1e-12) / _LARGEST
        self._take((exact / scales.unsqueeze(1)).round_().to(torch.int8), scales)

    def _take(self, rounded: Tensor, scales: Tensor) -> None:
        self.shape, self._rounded, self._scales = rounded.shape, rounded, scales
        self._half = torch.tensor(_ZERO + 0.5)
        self._zeros = torch.zeros(len(rounded), dtype=torch.int64)
        self._packed = torch.ops.onednn.qlinear_prepack(rounded, None)

    def rows(self, ids: Tensor) -> Int8Weight:
        """The weight of some rows alone, (N, I)."""
        made = copy.copy(self)
        made._take(self._rounded[ids], self._scales[ids])
        return made

    def size(self, axis: int) -> int:
        """As of the tensor that it stands for."""
        return self.shape[axis]

    def product(self, x: Tensor, added: Tensor | None = None) -> Tensor:
        """x (..., I) times the weight transposed, plus `added`, (O,) or (..., O): (..., O) float32.

        A row that isn't finite gives none that is.
        """
        rows = x.reshape(-1, x.size(-1)).float()
        scales = rows.abs().amax(1, keepdim=True).clamp_min_(1e-12).div_(_ZERO - 1)
        rounded = torch.addcmul(self._half, rows, scales.reciprocal()).to(torch.uint8)  # cut off, so half up
        product: Tensor = torch.ops.onednn.qlinear_pointwise(
            rounded, 1.0, _ZERO, self._packed, self._scales, self._zeros, None, 1.0, 0, torch.float32, "none", [], ""
        )
        if added is None:
            product.mul_(scales)
        else:
            torch.addcmul(added if added.dim() == 1 else added.reshape(product.shape), product, scales, out=product)
        return product.view(*x.shape[:-1], self.shape[0])
