"""A trained model with other parts in the place of some, without changing it."""

from __future__ import annotations

import copy
from collections.abc import Callable

from torch import nn


def with_parts(module: nn.Module, make: Callable[[nn.Module], nn.Module | None]) -> nn.Module:
    """A copy of a module in which some modules are others; the rest is shared. The module itself if there are none.

    make: what takes a module's place; None to look at its children instead.
    """
    if (made := make(module)) is not None:
        return made
    children = {name: child and with_parts(child, make) for name, child in module._modules.items()}
    if all(child is module._modules[name] for name, child in children.items()):
        return module
    copied = copy.copy(module)
    copied._modules = children
    return copied
