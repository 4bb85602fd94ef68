"""s2s: encoder-decoder models with every attention mechanism, one word apart.

    import s2s
    model = s2s.load("runs/translate/debian-en-de/latest")
    model.translate("a text editor")

Importing the package is light; torch is loaded when a model is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["S2SError", "__version__", "load"]

if TYPE_CHECKING:
    from s2s.errors import S2SError
    from s2s.task.model import load


def __getattr__(name: str) -> Any:
    if name == "load":
        from s2s.task.model import load

        return load
    if name == "S2SError":
        from s2s.errors import S2SError

        return S2SError
    raise AttributeError(f"module 's2s' has no attribute {name!r}")
