"""Work on a GPU, recorded once and replayed: one launch for hundreds of operations.

A recurrent model is hundreds of tiny operations, and launching them costs more than what they compute. A CUDA graph
launches all of them at once, but always the same ones on the same memory.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch

MULTIPLE = 8  # lengths are padded to at least a multiple of it: fewer shapes, and sizes that tensor cores like

Work = Callable[[], None]


class CaptureError(Exception):
    """Work can't be recorded. The message says why."""


class Recorder(Protocol):
    """Makes something that can be run again and again out of work on fixed tensors."""

    def record(self, work: Work) -> Work:
        """May run `work` some times first. Raises RuntimeError for work that can't be recorded."""


class CudaRecorder:
    """Records CUDA graphs that share one pool of memory: nothing in it outlives a replay, so they may overlap.

    Follows "CUDA semantics: CUDA Graphs" of torch's documentation: some runs on a side stream, so that libraries have
    chosen their kernels and workspaces, then capture on that stream.
    """

    WARM_UP = 2  # runs before capture

    def __init__(self, device: torch.device) -> None:
        self.stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self.pool = torch.cuda.graph_pool_handle()

    def record(self, work: Work) -> Work:
        """Run `work`, capture it, and give the replay."""
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):
            for _ in range(self.WARM_UP):
                work()
        torch.cuda.current_stream().wait_stream(self.stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self.pool, stream=self.stream):
            work()
        return graph.replay


def recorder(device: torch.device) -> Recorder | None:
    """What records on a device; None where there is nothing to gain."""
    return CudaRecorder(device) if device.type == "cuda" else None


def recorded(recorder: Recorder, work: Work) -> Work:
    """The replay of work. Raises CaptureError."""
    try:
        return recorder.record(work)
    except RuntimeError as error:
        raise CaptureError(str(error).strip().split("\n")[0]) from error
