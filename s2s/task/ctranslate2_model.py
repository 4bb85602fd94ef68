"""A Transformer as a model of CTranslate2 (https://opennmt.net/CTranslate2), which runs it faster than torch does."""

from __future__ import annotations

import importlib
import math
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from s2s.attention.align import SoftAlignment
from s2s.attention.base import ScoredAttention
from s2s.attention.multihead import ProjectedQuery
from s2s.attention.score import DotScore
from s2s.attention.self_attention import MultiHead, SelfAttention
from s2s.errors import UsageError
from s2s.model.transformer import FeedForward, Positions, TransformerEncoder
from s2s.model.transformer_decoder import DecoderLayer, TransformerDecoder
from s2s.products import Precision
from s2s.task.trained import Trained
from s2s.text import tokenizer
from s2s.text.vocabulary import Tokenizer
from s2s.types import SPECIALS

_POSITIONS = 1024  # that a model is given, unless it needs more


def package() -> ModuleType:
    """CTranslate2. Raises UsageError where it isn't installed."""
    try:
        return importlib.import_module("ctranslate2")
    except ImportError:
        hint = "Type: pip install 's2s[ctranslate2]'"
        raise UsageError("CTranslate2 isn't installed", where="ctranslate2", hint=hint) from None


def vocabulary(side: Tokenizer) -> list[str]:
    """A text of its own for each id: its piece, with its number behind it where that stands for another id already."""
    made = dict.fromkeys(SPECIALS)
    for number, piece in enumerate(side.pieces(range(len(SPECIALS), side.size)), len(SPECIALS)):
        while piece in made:
            piece = f"{piece}#{number}"
        made[piece] = None
    return list(made)


def export(trained: Trained, folder: Path, *, precision: Precision = "float32", longest: int = _POSITIONS) -> None:
    """Write a model that CTranslate2 loads, and the tokenizers that its tokens come from.

    longest: tokens that a source or an output may have, at least. Raises UsageError for a model with parts that
    CTranslate2 lacks.
    """
    spec = _specification(trained, max(_POSITIONS, longest))
    spec.validate()
    spec.optimize(quantization=None if precision == "float32" else precision)
    folder.mkdir(parents=True, exist_ok=True)
    spec.save(str(folder))
    for name, data in tokenizer.dump(trained.source, trained.target).items():
        (folder / name).write_bytes(data)


def load(trained: Trained, *, precision: Precision, threads: int, longest: int) -> Any:
    """A `ctranslate2.Translator` of the model, where the model is. Raises what `export` raises.

    threads: batches that run side by side with a thread each, which is faster than several threads for one.
    """
    with tempfile.TemporaryDirectory() as folder:
        export(trained, Path(folder), precision=precision, longest=longest)
        return package().Translator(
            folder, device=trained.device.type, compute_type=precision, inter_threads=threads, intra_threads=1
        )


def _specification(trained: Trained, longest: int) -> Any:
    specs, model = package().specs, trained.model
    encoder, decoder = model.encoder, model.decoder
    if not isinstance(encoder, TransformerEncoder) or not isinstance(decoder, TransformerDecoder):
        raise _lacks("a recurrent encoder or decoder")
    for name, there in (
        ("copy", model.copy is not None),
        ("model.selective", model.selective is not None),
        ("model.features", model.features is not None),
        ("model.hierarchical", model.sentences is not None),
        ("encoder.bidirectional=false", not encoder.bidirectional),
        ("encoder.width unlike model.embedding", encoder.project is not None),
        ("decoder.width unlike model.embedding", decoder.project is not None or decoder.readout is not None),
    ):
        if there:
            raise _lacks(name)
    first = encoder.layers[0].attention
    heads = first.heads if isinstance(first, MultiHead) else 1
    shown = decoder.alignment_layer - 1
    spec = specs.TransformerSpec(
        specs.TransformerEncoderSpec(len(encoder.layers), heads),
        specs.TransformerDecoderSpec(len(decoder.layers), heads, alignment_layer=shown, alignment_heads=heads),
    )
    spec.encoder.embeddings[0].weight = _array(model.source_embedding.weight)
    spec.decoder.embeddings.weight = _array(decoder.embedding.weight)
    _stack(spec.encoder, encoder.positions, encoder.norm, longest)
    _stack(spec.decoder, decoder.positions, decoder.norm, longest)
    for part, layer in zip(spec.encoder.layer, encoder.layers, strict=True):
        _self_attention(part.self_attention, layer.attention, layer.attention_norm, heads)
        _feed_forward(part.ffn, layer.feed_forward, layer.feed_forward_norm)
    for part, block in zip(spec.decoder.layer, decoder.layers, strict=True):
        _self_attention(part.self_attention, block.self_attention, block.self_attention_norm, heads)
        _cross_attention(part.attention, block, heads)
        _feed_forward(part.ffn, block.feed_forward, block.feed_forward_norm)
    _linear(spec.decoder.projection, model.output.weight, model.output.bias)
    spec.register_source_vocabulary(vocabulary(trained.source))
    spec.register_target_vocabulary(vocabulary(trained.target))
    spec.config.add_source_eos = True
    return spec


def _lacks(what: str) -> UsageError:
    return UsageError(
        "CTranslate2 can't run this model",
        where="ctranslate2",
        expected="encoder=transformer decoder=transformer attention=multihead, as the conf files have them",
        found=what,
    )


def _stack(spec: Any, positions: Positions, norm: nn.LayerNorm, longest: int) -> None:
    """What encoder and decoder have around their layers."""
    spec.scale_embeddings = True
    places = torch.arange(longest, device=norm.weight.device)
    spec.position_encodings.encodings = _array(positions(places, torch.float32))
    _norm(spec.layer_norm, norm)


def _self_attention(spec: Any, attention: SelfAttention, norm: nn.LayerNorm, heads: int) -> None:
    if not isinstance(attention, MultiHead) or not attention.fused or attention.heads != heads:
        raise _lacks(f"another self-attention than softmax over scaled_dot with {heads} heads")
    _norm(spec.layer_norm, norm)
    _linear(spec.linear[0], attention.inner.weight)  # of query, key and value, joined as CTranslate2 joins them
    _linear(spec.linear[1], attention.mix.weight)


def _cross_attention(spec: Any, layer: DecoderLayer, heads: int) -> None:
    attention, mix = layer.attention, layer.mix
    if not isinstance(attention, ScoredAttention) or not isinstance(attention.score, ProjectedQuery):
        raise _lacks("another attention than multihead")
    score, align = attention.score.score, attention.align
    scaled = type(score) is DotScore and score.scale == math.sqrt(heads / attention.memory_size)
    normaliser = align.normaliser if isinstance(align, SoftAlignment) else None
    softmax = normaliser is not None and (normaliser.name, normaliser.temperature) == ("softmax", 1.0)
    if not (scaled and softmax and attention.key_value.kind == "project"):
        raise _lacks(f"another attention than softmax over scaled_dot with kv=project and {heads} heads")
    _norm(spec.layer_norm, layer.attention_norm)
    _linear(spec.linear[0], attention.score.weight)
    _linear(spec.linear[1], torch.cat([attention.key_value.key.weight, attention.key_value.value.weight]))
    mixing = attention.mix if mix is None else mix  # the layer mixes where there is one head
    assert mixing is not None
    _linear(spec.linear[2], mixing.weight)


def _feed_forward(spec: Any, layers: FeedForward, norm: nn.LayerNorm) -> None:
    _norm(spec.layer_norm, norm)
    for part, layer in ((spec.linear_0, layers[0]), (spec.linear_1, layers[3])):
        assert isinstance(layer, nn.Linear)
        _linear(part, layer.weight, layer.bias)


def _norm(spec: Any, norm: nn.LayerNorm) -> None:
    spec.gamma, spec.beta = _array(norm.weight), _array(norm.bias)


def _linear(spec: Any, weight: Tensor, bias: Tensor | None = None) -> None:
    spec.weight = _array(weight)
    if bias is not None:
        spec.bias = _array(bias)


def _array(weight: Tensor) -> Any:
    return weight.detach().float().cpu().numpy().copy()  # which CTranslate2 may round in place
