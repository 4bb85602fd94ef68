"""Weights laid out once for many products: in float32 or rounded to int8 on a CPU, in bf16 on a GPU.

A step loop multiplies a few rows by the same weights again and again. A plain product rearranges the weight each time
for the processor; here that is done once. It pays where rows are few and weights large.

In int8 each row of the input gets a scale of its own, each row of the weight another, and int8 products are summed
exactly in int32; so an output row is a function of its input row alone, which it isn't where a whole batch shares one
scale. Weights take only 7 bits, -63 to 63: then the 16-bit sums of pairs that processors without VNNI make can't
saturate, and every processor gives the same numbers.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from typing import Literal

import torch
from torch import Tensor

from s2s.errors import UsageError
from s2s.kernels import compiled, cpu

Precision = Literal["float32", "int8", "bf16"]  # of products while decoding; int8 on a CPU, bf16 on a GPU

_WORTH_PACKING = 1 << 17  # numbers in a weight: below, what a packed product costs beside its work weighs more
_LARGEST = 63  # of a weight
_ZERO = 128  # what stands for 0 in a row of the input: torch's CPU kernel takes unsigned inputs


def _has(operation: str) -> bool:
    """Whether torch has oneDNN here, and in it this operation."""
    mkldnn: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    library, name = operation.split(".")
    return mkldnn and hasattr(getattr(torch.ops, library), name)


class FixedWeight(ABC):
    """A weight (O, I) of linear maps as it is now: it doesn't follow the tensor, and has no gradient."""

    def __init__(self, weight: Tensor) -> None:
        self.shape = weight.shape

    def size(self, axis: int) -> int:
        """As of the tensor that it stands for."""
        return self.shape[axis]

    @abstractmethod
    def rows(self, ids: Tensor) -> FixedWeight:
        """The weight of some rows alone, (N, I)."""

    @abstractmethod
    def product(self, x: Tensor, added: Tensor | None = None) -> Tensor:
        """x (..., I) times the weight transposed, plus `added`, (O,) or (..., O): (..., O)."""


class PackedWeight(FixedWeight):
    """A weight in the layout that oneDNN multiplies by; as it is, where that is not to be had or too small to pay."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__(weight)
        self._plain = weight.detach()
        self._packed: Tensor | None = None
        worth = weight.numel() >= _WORTH_PACKING and weight.dtype == torch.float32 and weight.device.type == "cpu"
        if worth and _has("mkldnn._reorder_linear_weight"):
            turned = self._plain.t()
            if turned.is_contiguous() and not self._plain.is_contiguous() and compiled(turned):
                self._plain = cpu.transposed(turned)
            self._packed = torch.ops.mkldnn._reorder_linear_weight(self._plain)

    def rows(self, ids: Tensor) -> PackedWeight:
        """The weight of some rows alone, (N, I)."""
        return PackedWeight(self._plain[ids])

    def product(self, x: Tensor, added: Tensor | None = None) -> Tensor:
        """As the contract says, in the weight's dtype."""
        rows = x.reshape(-1, x.size(-1))
        out = (*x.shape[:-1], self.shape[0])
        if added is not None and added.dim() > 1:
            added = added.reshape(-1, self.shape[0])
        product: Tensor
        if self._packed is None or not len(rows):
            product = rows @ self._plain.t() if added is None else torch.addmm(added, rows, self._plain.t())
        elif added is None or added.dim() == 1:
            product = torch.ops.mkldnn._linear_pointwise.default(rows, self._packed, added, "none", [], "")
        else:
            product = torch.ops.mkldnn._linear_pointwise.binary(rows, added, self._packed, None, "add")
        return product.view(out)


class Int8Weight(FixedWeight):
    """A weight rounded to int8. Raises UsageError where torch has no such products."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__(weight)
        if weight.device.type != "cpu" or not _has("onednn.qlinear_prepack"):
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

    def product(self, x: Tensor, added: Tensor | None = None) -> Tensor:
        """As the contract says, in float32. A row that isn't finite gives none that is."""
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


class HalfWeight(FixedWeight):
    """A weight rounded to bf16, as is what it is multiplied by; sums are float32, and so is the result."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__(weight)
        self._half = weight.detach().to(torch.bfloat16)

    def rows(self, ids: Tensor) -> HalfWeight:
        """The weight of some rows alone, (N, I)."""
        return HalfWeight(self._half[ids])

    def product(self, x: Tensor, added: Tensor | None = None) -> Tensor:
        """As the contract says, in float32."""
        rows = x.reshape(-1, x.size(-1)).to(torch.bfloat16)
        if rows.device.type == "cuda":
            product = torch.mm(rows, self._half.t(), out_dtype=torch.float32)
        else:  # the same numbers, to compare with
            product = rows.float() @ self._half.t().float()
        product = product.view(*x.shape[:-1], self.shape[0])
        return product if added is None else product.add_(added)


FIXED: dict[Precision, type[FixedWeight]] = {"float32": PackedWeight, "int8": Int8Weight, "bf16": HalfWeight}
