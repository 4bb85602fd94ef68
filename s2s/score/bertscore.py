"""BERTScore (Zhang et al. 2020, arXiv 1904.09675): how near the words of two texts are to a pretrained encoder.

The encoder comes through the library `transformers` (the extra `bertscore`), from a folder or the public hub, as
safetensors only; no code that comes with it is run.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from torch import Tensor

from s2s.errors import ConfigError, DataError, UsageError
from s2s.score.resampling import Array, Statistics

MODEL, LAYER = "FacebookAI/roberta-large", 17  # what the paper's authors recommend for English
_log = logging.getLogger(__name__)

_BATCH = 64  # texts that are encoded together


def bertscore_statistics(
    hypotheses: Sequence[str],
    references: Sequence[Sequence[str]],
    *,
    model: str = MODEL,
    layer: int | None = None,
) -> Statistics:
    """Rows (N, 2): the best F1 of a line over its references and 1, so that a sum of rows scores as a mean.

    R = mean over the reference's tokens of the highest cosine with a token of the hypothesis, P the other way round, F1
    their harmonic mean (section 3; neither idf weights nor rescaling). The marks that the encoder puts around a text
    can be matched but are not counted. A blank line scores 0, and a text longer than the encoder takes is cut off, with
    a warning. model: a folder, or a name on the hub. layer: whose
    states are compared, from 1; None: 17 for the default model, else the last. Raises ConfigError without the library,
    DataError if the model can't be had, UsageError for a layer that it lacks.
    """
    encode = _encoder(model, LAYER if layer is None and model == MODEL else layer)
    known: dict[str, tuple[Tensor, Tensor]] = {}
    texts = sorted({text for stream in (hypotheses, *references) for text in stream if text.strip()}, key=len)
    for start in range(0, len(texts), _BATCH):
        part = texts[start : start + _BATCH]
        known.update(zip(part, encode(part), strict=True))
    rows = np.ones((len(hypotheses), 2))
    for row, (hypothesis, *targets) in enumerate(zip(hypotheses, *references, strict=True)):
        pairs = [(known[hypothesis], known[one]) for one in targets if hypothesis.strip() and one.strip()]
        rows[row, 0] = max((f1(*pair) for pair in pairs), default=0.0)

    def score(sums: Array) -> float:
        return float(100.0 * sums[0] / sums[1])

    def sign(settings: Mapping[str, int]) -> str:
        options = {"nrefs": len(references), **settings, "model": model, "layer": layer or "default", "idf": "no"}
        options |= {
            "rescale": "no",
            "agg": "mean",
            "multi": "max",
            "version": f"transformers-{version('transformers')}",
        }
        return "|".join(f"{key}:{value}" for key, value in options.items())

    return Statistics("bertscore", rows, score, sign, score(rows.sum(0)))


def f1(hypothesis: tuple[Tensor, Tensor], reference: tuple[Tensor, Tensor]) -> float:
    """F1 of two texts, each with unit vectors (L, D) and which of them count (L,) bool."""
    cosines = hypothesis[0] @ reference[0].t()
    precision = float(cosines.amax(1)[hypothesis[1]].mean())
    recall = float(cosines.amax(0)[reference[1]].mean())
    return 2 * precision * recall / (precision + recall) if precision + recall > 0 else 0.0


def _encoder(name: str, layer: int | None) -> Any:
    """A function from texts to (unit vectors, which count) of each."""
    try:
        from transformers import AutoModel, AutoTokenizer
    except ImportError as error:
        raise ConfigError(
            "BERTScore needs the library transformers, which isn't installed",
            where="bertscore",
            hint='Install it: pip install "s2s[bertscore]"',
        ) from error
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
        model = AutoModel.from_pretrained(name, trust_remote_code=False, use_safetensors=True).eval()
    except Exception as error:  # the library and what it calls raise whatever they like
        raise DataError(
            f"the encoder can't be loaded: {type(error).__name__}: {' '.join(str(error).split())[:300]}",
            where=name,
            hint="Check --bert-model and the network, or name a folder that holds an encoder as safetensors",
        ) from error
    layers = int(model.config.num_hidden_layers)
    chosen = layers if layer is None else layer
    if not 1 <= chosen <= layers:
        raise UsageError("no such layer", where="--bert-layer", expected=f"1 to {layers}", found=str(layer))

    @torch.no_grad()
    def encode(texts: Sequence[str]) -> list[tuple[Tensor, Tensor]]:
        longest = tokenizer.model_max_length
        cut = sum(len(tokenizer(text, verbose=False)["input_ids"]) > longest for text in texts)
        if cut:
            _log.warning("bertscore: %d texts are longer than the encoder takes (%d) and are cut off", cut, longest)
        given = tokenizer(
            list(texts), return_tensors="pt", padding=True, truncation=True, return_special_tokens_mask=True
        )
        special = given.pop("special_tokens_mask").bool()
        states = model(**given, output_hidden_states=True).hidden_states[chosen]
        states = torch.nn.functional.normalize(states.float(), dim=-1)
        real = given["attention_mask"].bool()
        return [
            (one[here], ~marks[here]) if bool((~marks[here]).any()) else (one[here], here[here])
            for one, here, marks in zip(states, real, special, strict=True)
        ]

    return encode
