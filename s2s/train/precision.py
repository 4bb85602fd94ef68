"""In which precision matrix products are taken while a model is trained; weights and optimiser stay in float32."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch

from s2s.train.options import Precision

# oneDNN compiles its products in bf16 for each shape, and keeps 1,024 of them: few, where batches differ in shape.
_CACHE, _KEPT = "ONEDNN_PRIMITIVE_CACHE_CAPACITY", "4096"
# Parameters of a model whose products take long enough: with 3 million it was trained 1.0 to 1.3 times as fast in bf16,
# with 13 million (an LSTM) 1.55 times, with 8 million (a Transformer) 1.6 to 1.8 times (AMD EPYC with AVX512-BF16,
# 2026-12-01).
_LARGE = 5_000_000


def chosen(device: torch.device, precision: Precision) -> Literal["float32", "bf16"]:
    """What `trainer.precision` comes to on a device: auto is bf16 on a GPU that has it, else float32."""
    if precision != "auto":
        return precision
    return "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "float32"


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[object]:
    """The context in which a forward pass runs."""
    half = chosen(device, precision) == "bf16"
    return torch.autocast(device.type, torch.bfloat16) if half else nullcontext()


def fast_half() -> bool | None:
    """Whether this processor multiplies bf16 faster than float32 (AMX, AVX512-BF16); None where torch can't say."""
    known: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(known.get("amx_bf16") or known.get("avx512_bf16")) if known else None


def prepare_half(device: torch.device, precision: Precision) -> str:
    """To be called before the first product. What the user should know of this choice; empty for nothing."""
    if device.type != "cpu" or chosen(device, precision) != "bf16":
        return ""
    os.environ.setdefault(_CACHE, _KEPT)
    if fast_half() is False:
        return "this processor has no units for bf16 (AMX or AVX512-BF16): trainer.precision=float32 is faster"
    return ""


def half_is_worth_it(device: torch.device, precision: Precision, parameters: int) -> bool:
    """Whether a model of this many parameters, left to itself, would be trained faster in bf16 on this processor."""
    return precision == "auto" and device.type == "cpu" and parameters >= _LARGE and fast_half() is True
