"""Text to ids and back: tokenizers, corpora, batches.

The builders that `conf/text/` names are found here; they are imported at first use, so that importing a reader of
lines does not load torch and sentencepiece.
"""

from __future__ import annotations

import importlib
from typing import Any

_BUILDERS = {
    "sentencepiece": "s2s.text.tokenizer",
    "words": "s2s.text.vocabulary",
    "characters": "s2s.text.vocabulary",
}


def __getattr__(name: str) -> Any:
    if name in _BUILDERS:
        return getattr(importlib.import_module(_BUILDERS[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
