"""Tiny models of every shape, and batches for them."""

from __future__ import annotations

from functools import partial
from itertools import product

import torch

from s2s.attention import build
from s2s.model import recurrent_decoder, recurrent_encoder, transformer_decoder, transformer_encoder
from s2s.model.copying import pointer
from s2s.model.seq2seq import seq2seq
from s2s.registry import builder, group_defaults
from s2s.text.batching import Example, collate
from s2s.types import Encoded

SOURCE, TARGET = 11, 9  # vocabulary sizes
STYLES = [("luong", True), ("luong", False), ("bahdanau", True)]
ATTENTIONS = ["none", "additive", "general", "location"]
PAST = ["key_value", "key_value_predict", "intra_decoder", "lstmn", "multihead"]  # of a recurrent decoder
# A whole model of each kind: encoder and decoder, and what they attend with
MIXED = [
    {"encoder": "transformer", "decoder": "transformer"},
    {"encoder": "transformer", "decoder": "transformer", "attention": "multihead", "layers": 3},
    {"encoder": "transformer", "decoder": "transformer", "attention": "location", "learned_positions": 3},
    {"encoder": "transformer", "bidirectional": False},
    {"decoder": "transformer", "attention": "general", "tie": "none"},
    *({"self_attention": name, "style": style, "input_feed": feed} for name in PAST for style, feed in STYLES),
    {"self_attention": "lstmn", "layers": 2, "residual": True},
    {"self_attention": "key_value", "layers": 2, "cell": "gru", "attention": "key_value_predict"},
]

CHANCE = ("noise", "soft_share")  # options of attentions that draw


def tiny(
    *,
    cell="lstm",
    style="luong",
    bridge="final",
    input_feed=True,
    layers=1,
    deep_output=True,
    residual=False,
    attention="additive",
    self_attention="auto",
    heads=2,
    encoder="recurrent",
    decoder="recurrent",
    tie="target",
    dropout=0.0,
    width=6,
    embedding=4,
    bidirectional=True,
    learned_positions=None,
    chance=True,
    seed=0,
    dtype=torch.float32,
):
    """A whole model with weights large enough that each of its parts matters, in eval mode.

    chance: whether its attention draws in training, where it may.
    """
    torch.manual_seed(seed)

    def attend(query_size, memory_size):
        options = {"heads": heads} if attention == "multihead" else {}
        if not chance:
            options |= {name: 0.0 for name in CHANCE if name in group_defaults("attention", attention)}
        return build(attention, query_size=query_size, memory_size=memory_size, **options)

    layered = {
        "layers": layers,
        "width": width,
        "dropout": dropout,
        "relu_dropout": dropout,
        "learned_positions": learned_positions,
    }
    recurrent = {"cell": cell, "layers": layers, "width": width, "dropout": dropout, "residual": residual}
    style_options = {"style": style, "bridge": bridge, "input_feed": input_feed, "deep_output": deep_output}
    model = seq2seq(
        source_size=TARGET if tie == "all" else SOURCE,
        target_size=TARGET,
        embedding=embedding,
        dropout=dropout,
        tie=tie,
        encoder=partial(transformer_encoder, bidirectional=bidirectional, **layered)
        if encoder == "transformer"
        else partial(recurrent_encoder, bidirectional=bidirectional, **recurrent),
        decoder=partial(transformer_decoder, **layered)
        if decoder == "transformer"
        else partial(recurrent_decoder, **recurrent, **style_options),
        attention=attend,
        self_attention=own(self_attention, heads),
    ).to(dtype)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.3)
    return model.eval()


def own(name, heads=2):
    """A self-attention by name, with its file's defaults, few heads and a window that is shorter than a toy."""
    changes = {"heads": heads, "window": 2}
    defaults = {key: changes.get(key) or value for key, value in group_defaults("self_attention", name).items()}
    function, options = builder("self_attention", name, defaults)
    return partial(function, **options)


def shapes():
    """Options of every decoder: cell x style and input feeding x depth x deep output x residual."""
    for cell, (style, feed), layers, deep, residual in product(
        ("lstm", "gru"), STYLES, (1, 2), (True, False), (True, False)
    ):
        if layers > 1 or not residual:
            options = {"cell": cell, "style": style, "input_feed": feed, "layers": layers}
            yield {**options, "deep_output": deep, "residual": residual}


def kind(options):
    """The name of one of `MIXED`."""
    return "-".join(str(value) if isinstance(value, str) else f"{key}_{value}" for key, value in options.items())


def named(options):
    style = "bahdanau" if options["style"] == "bahdanau" else "feed" if options["input_feed"] else "parallel"
    flags = [name for name in ("deep_output", "residual") if options[name]]
    return "-".join([options["cell"], style, str(options["layers"]), *flags, *filter(None, [options.get("attention")])])


def batch(lengths=((3, 4), (5, 2), (1, 3)), seed=0, pad_multiple=1):
    """Examples of (source, target) lengths, EOS not counted."""
    generator = torch.Generator().manual_seed(seed)

    def ids(count, size):
        return torch.randint(4, size, (count,), generator=generator).tolist()

    examples = [Example(ids(source, TARGET), ids(target, TARGET)) for source, target in lengths]
    return collate(examples, range(len(examples)), pad_multiple)


def copying(model, one):
    """A model that copies, and a batch of which it can: some targets stand in the source and nowhere else."""
    model.copy = pointer(model.decoder.output_size, model.decoder.context_size, bias=0.4)
    torch.nn.init.normal_(model.copy.gate.weight)
    copies, target = one.source.clone(), one.target_out.clone()
    copies[0, 0] = target[0, 1] = copies[1, 2] = TARGET
    copies[1, 3] = target[1, 1] = TARGET + 1
    return model, one._replace(copies=copies, target_out=target)


def encoded_rows(encoded, rows):
    return Encoded(*(part[rows] for part in encoded[:3]))


def flat(state):
    return [state] if isinstance(state, torch.Tensor) else [part for inner in state for part in flat(inner)]
