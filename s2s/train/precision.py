"""In which precision matrix products are taken while a model is trained; weights and optimiser stay in float32."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch

from s2s.train.options import Precision

# oneDNN compiles its products in bf16 for each shape, and keeps 1,024 of them: few, where batches differ in shape.
_CACHE, _KEPT = "ONEDNN_PRIMITIVE_CACHE_CAPACITY", "4096"


def chosen(device: torch.device, precision: Precision) -> Literal["float32", "bf16"]:
    """What `trainer.precision` comes to on a device: auto is bf16 on a GPU that has it, else float32."""
    if precision != "auto":
        return precision
    return "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "float32"


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[object]:
    """The context in which a forward pass runs."""
    half = chosen(device, precision) == "bf16"
    return torch.autocast(device.type, torch.bfloat16) if half else nullcontext()


def matrix_units() -> bool | None:
    """Whether this processor has matrix units for bf16 (AMX); None where torch, being old, can't say."""
    known: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(known.get("amx_bf16")) if known else None


def prepare_half(device: torch.device, precision: Precision) -> str:
    """To be called before the first product. What the user should know of this choice; empty for nothing."""
    if device.type != "cpu" or chosen(device, precision) != "bf16":
        return ""
    os.environ.setdefault(_CACHE, _KEPT)
    if matrix_units() is False:
        return "this processor has no matrix units for bf16 (AMX): trainer.precision=float32 is faster"
    return ""
