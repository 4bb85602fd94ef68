"""A trained model whose linear maps multiply by fixed weights, see `s2s.products`."""

from __future__ import annotations

import copy
from typing import cast

from torch import Tensor, nn

from s2s.attention.parts import with_parts
from s2s.model.recurrent import RecurrentLayer
from s2s.model.seq2seq import Seq2Seq
from s2s.products import FIXED, FixedWeight, Precision


class FixedLinear(nn.Module):
    """Stands where a torch.nn.Linear stood."""

    def __init__(self, weight: FixedWeight, bias: Tensor | None) -> None:
        super().__init__()
        self.weight, self.bias, self.out_features = weight, bias, weight.size(0)

    def rows(self, ids: Tensor) -> FixedLinear:
        """The map to some of the outputs, (N,) int64."""
        return FixedLinear(self.weight.rows(ids), None if self.bias is None else self.bias[ids])

    def forward(self, x: Tensor) -> Tensor:
        """x (..., I) to (..., O)."""
        return self.weight.product(x, self.bias)


def with_fixed_weights(model: Seq2Seq, precision: Precision) -> Seq2Seq:
    """A copy of a model, for decoding; what isn't fixed is shared.

    Fixed are its torch.nn.Linear, the steps of recurrent layers, and the parameters that a module names in
    `step_weights` because it gives them to `s2s.gather.linear`. Not so embeddings, norms, biases, and recurrent layers
    where they run a whole sequence by one fused call. Raises UsageError where torch has no products of this precision.
    """
    kind = FIXED[precision]

    def fixed(module: nn.Module) -> nn.Module | None:
        if type(module) is nn.Linear:
            return FixedLinear(kind(module.weight), module.bias)
        if isinstance(module, RecurrentLayer):
            return module.with_fixed_weights(kind)
        names: tuple[str, ...] = getattr(module, "step_weights", ())
        if not names:
            return None
        copied = copy.copy(module)
        copied._modules = {name: child and with_parts(child, fixed) for name, child in module._modules.items()}
        copied._parameters = {name: value for name, value in module._parameters.items() if name not in names}
        for name in names:
            setattr(copied, name, kind(cast(Tensor, getattr(module, name))))
        return copied

    return cast(Seq2Seq, with_parts(model, fixed))
