"""Fused versions of what is plain elsewhere, in Triton: chosen by `kernels=auto`, never the only version.

Triton comes with torch's builds for CUDA, and is imported only when a kernel runs.
"""

from __future__ import annotations

import functools
import importlib.util
from contextvars import ContextVar

import torch

from s2s.types import Kernels

_choice: ContextVar[Kernels] = ContextVar("kernels", default="auto")
_interpreted: ContextVar[bool] = ContextVar("kernels_interpreted", default=False)


def use(kernels: Kernels, *, interpreted: bool = False) -> None:
    """From here on: auto takes a fused version wherever one can run, plain never does.

    interpreted: on a CPU too, by Triton's interpreter (TRITON_INTERPRET=1 before Triton is imported), to try them out.
    """
    _choice.set(kernels)
    _interpreted.set(interpreted)


def usable(device: torch.device) -> bool:
    """Whether fused versions run there."""
    if device.type != "cuda" and not _interpreted.get():
        return False
    return _choice.get() == "auto" and _has_triton()


@functools.cache
def _has_triton() -> bool:
    return importlib.util.find_spec("triton") is not None
