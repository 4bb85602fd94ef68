"""A trained model whose linear maps multiply in int8, see `s2s.int8`."""

from __future__ import annotations

import copy
from typing import cast

from torch import Tensor, nn

from s2s.attention.parts import with_parts
from s2s.int8 import Int8Weight
from s2s.model.recurrent import RecurrentLayer
from s2s.model.seq2seq import Seq2Seq


class Int8Linear(nn.Module):
    """Stands where a torch.nn.Linear stood."""

    def __init__(self, weight: Int8Weight, bias: Tensor | None) -> None:
        super().__init__()
        self.weight, self.bias, self.out_features = weight, bias, weight.size(0)

    def rows(self, ids: Tensor) -> Int8Linear:
        """The map to some of the outputs, (N,) int64."""
        return Int8Linear(self.weight.rows(ids), None if self.bias is None else self.bias[ids])

    def forward(self, x: Tensor) -> Tensor:
        """x (..., I) to (..., O)."""
        return self.weight.product(x, self.bias)


def in_int8(model: Seq2Seq) -> Seq2Seq:
    """A copy of a model for decoding; what isn't rounded is shared.

    Rounded are its torch.nn.Linear, the steps of recurrent layers, and the parameters that a module names in
    `step_weights` because it gives them to `s2s.gather.linear`. Not so embeddings, norms, biases, and layers that run a
    whole sequence by one fused call. Raises UsageError where torch has no int8 products.
    """
    return cast(Seq2Seq, with_parts(model, _rounded))


def _rounded(module: nn.Module) -> nn.Module | None:
    if type(module) is nn.Linear:
        return Int8Linear(Int8Weight(module.weight), module.bias)
    if isinstance(module, RecurrentLayer):
        return module.in_int8()
    names: tuple[str, ...] = getattr(module, "step_weights", ())
    if not names:
        return None
    copied = copy.copy(module)
    copied._modules = {name: child and with_parts(child, _rounded) for name, child in module._modules.items()}
    copied._parameters = {name: value for name, value in module._parameters.items() if name not in names}
    for name in names:
        setattr(copied, name, Int8Weight(cast(Tensor, getattr(module, name))))
    return copied
