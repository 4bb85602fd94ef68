"""Fused versions of what is plain elsewhere, in Triton: chosen by `kernels=auto`, never the only version.

Triton comes with torch's builds for CUDA, and is imported only when a kernel runs.
"""

from __future__ import annotations

import functools
import importlib.util
import logging
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
    return _choice.get() == "auto" and _runs(device.type)


@functools.cache
def _runs(device_type: str) -> bool:
    """Whether Triton is there and runs a kernel, which takes a C compiler. If it is there and fails, that is told."""
    if importlib.util.find_spec("triton") is None:
        return False
    try:
        from s2s.kernels.probe import add_one

        return add_one(torch.zeros(1, device=device_type)) == 1.0
    except Exception as error:  # whatever a compiler or a driver may say
        reason = str(error).strip().split("\n")[0]
        logging.getLogger("s2s").warning("no kernel is used, as Triton doesn't run here: %s", reason)
        return False
