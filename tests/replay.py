"""A recorder that does on a CPU what CUDA graphs do: it notes operations and the memory they use, and repeats them."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from s2s import kernels
from s2s.attention import base
from s2s.model.transformer import Positions

# What asks the device for a number, and so can't be captured.
ASKING = {"_local_scalar_dense", "nonzero", "is_nonzero", "masked_select", "_unique2", "unique_dim"}
RESHAPING = {"squeeze_", "unsqueeze_", "t_", "transpose_"}  # of a tensor in place: its memory stays what it is


class _Noted(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.operations = []

    def __torch_dispatch__(self, function, kinds, arguments=(), options=None):
        if function.overloadpacket.__name__ in ASKING:
            raise RuntimeError(f"operation not permitted when stream is capturing ({function})\nmore")
        # other tensors on the same memory, as one's shape may be changed in place later
        noted = tree_map_only(torch.Tensor, torch.Tensor.detach, (arguments, options or {}))
        given = function(*arguments, **(options or {}))
        if function.overloadpacket.__name__ not in RESHAPING:
            given_now = tree_map_only(torch.Tensor, torch.Tensor.detach, given)
            self.operations.append((torch.is_grad_enabled(), function, *noted, given_now))
        return given

    def replay(self):
        """No line of Python runs anew: a branch or a number of the recording stays as it was."""
        for learning, function, arguments, options, given in self.operations:
            with torch.set_grad_enabled(learning):  # an LSTM keeps what its backward pass needs only then
                found = function(*arguments, **options)
            for there, here in zip(tree_leaves(given), tree_leaves(found), strict=True):
                if isinstance(there, torch.Tensor) and there.data_ptr() != here.data_ptr():
                    there.copy_(here)


class ReplayingRecorder:
    """Use with `as_on_a_gpu`, without which attentions look at their queries."""

    def __init__(self):
        self.recorded = self.replayed = 0

    def record(self, work):
        self.recorded += 1
        work()
        noted = _Noted()
        with noted:
            work()

        def replay():
            self.replayed += 1
            noted.replay()

        return replay


@pytest.fixture
def as_on_a_gpu(monkeypatch):
    """Nobody looks into a tensor, whether queries are finite or where the last place is: a GPU would have to wait."""
    monkeypatch.setattr(base, "check_finite", lambda query: None)
    monkeypatch.setattr(kernels, "library", lambda: None)  # kernels of a CPU, which the recorder doesn't see
    monkeypatch.setattr(Positions, "_kept", Positions._sinusoids)
