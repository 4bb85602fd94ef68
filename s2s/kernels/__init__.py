"""Fused versions of what is plain elsewhere: chosen by `kernels=auto`, never the only version.

On a GPU they are in Triton, which comes with torch's builds for CUDA and is imported only when a kernel runs. On a CPU
they are in C, compiled where there is a compiler (`s2s.kernels.build`). With S2S_KERNELS=plain in the environment none
runs, whatever is chosen.
"""

from __future__ import annotations

import functools
import importlib.util
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import get_args

import torch
from torch import Tensor

from s2s.errors import UsageError
from s2s.kernels.build import library
from s2s.types import Kernels

_choice: ContextVar[Kernels] = ContextVar("kernels", default="auto")
_add: ContextVar[Callable[[int], None] | None] = ContextVar("kernels_add", default=None)
_interpreted: ContextVar[bool] = ContextVar("kernels_interpreted", default=False)


def use(kernels: Kernels, *, interpreted: bool = False) -> None:
    """From here on: auto takes a fused version wherever one can run, plain never does.

    interpreted: on a CPU too, by Triton's interpreter (TRITON_INTERPRET=1 before Triton is imported), to try them out.
    """
    _choice.set(kernels)
    _interpreted.set(interpreted)


@contextmanager
def counted(add: Callable[[int], None]) -> Iterator[None]:
    """Inside, `add` hears of the operations of products that kernels make, which torch's counter doesn't see."""
    token = _add.set(add)
    try:
        yield
    finally:
        _add.reset(token)


def count(operations: int) -> None:
    """Tells of the operations of a kernel's products, a multiplication and an addition each counted."""
    add = _add.get()
    if add is not None:
        add(operations)


def kind(device: torch.device) -> str:
    """What kernels run there, if any: C, Triton or plain."""
    if device.type == "cpu" and compiled():
        return "C"
    return "Triton" if usable(device) else "plain"


def missing(device: torch.device) -> bool:
    """Whether kernels would run there if there were a C compiler."""
    return device.type == "cpu" and _wanted() and library() is None


def _wanted() -> bool:
    return _choice.get() == "auto" and _environment() == "auto"


@functools.cache
def _environment() -> str:
    """Raises UsageError for a value that says nothing."""
    chosen = os.environ.get("S2S_KERNELS") or "auto"
    if chosen not in get_args(Kernels):
        raise UsageError(
            "unknown kernels", where="S2S_KERNELS", expected=" or ".join(get_args(Kernels)), found=repr(chosen)
        )
    return chosen


def usable(device: torch.device) -> bool:
    """Whether those in Triton run there."""
    if device.type != "cuda" and not _interpreted.get():
        return False
    return _wanted() and _runs(device.type)


def compiled(*tensors: Tensor) -> bool:
    """Whether the versions in C, `s2s.kernels.cpu`, run and take these tensors: float32 on a CPU.

    All that a kernel is given must be named: under autocast one may be in half precision, and another one not.
    """
    if not _wanted():
        return False
    for tensor in tensors:
        if tensor.dtype != torch.float32 or tensor.device.type != "cpu":
            return False
    return library() is not None


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
