"""Tiny models of every shape, and batches for them."""

from __future__ import annotations

from functools import partial
from itertools import product

import torch

from s2s.attention import build
from s2s.model import recurrent_decoder, recurrent_encoder
from s2s.model.seq2seq import seq2seq
from s2s.text.batching import Example, collate
from s2s.types import Encoded

SOURCE, TARGET = 11, 9  # vocabulary sizes
STYLES = [("luong", True), ("luong", False), ("bahdanau", True)]
ATTENTIONS = ["none", "additive", "general", "location"]


def tiny(
    *,
    cell="lstm",
    style="luong",
    input_feed=True,
    layers=1,
    deep_output=True,
    residual=False,
    attention="additive",
    tie="target",
    dropout=0.0,
    width=6,
    embedding=4,
    bidirectional=True,
    seed=0,
    dtype=torch.float32,
):
    """A whole model with weights large enough that each of its parts matters, in eval mode."""
    torch.manual_seed(seed)

    def attend(query_size, memory_size):
        return build(attention, query_size=query_size, memory_size=memory_size)

    model = seq2seq(
        source_size=TARGET if tie == "all" else SOURCE,
        target_size=TARGET,
        embedding=embedding,
        dropout=dropout,
        tie=tie,
        encoder=partial(
            recurrent_encoder,
            cell=cell,
            layers=layers,
            width=width,
            bidirectional=bidirectional,
            dropout=dropout,
            residual=residual,
        ),
        decoder=partial(
            recurrent_decoder,
            cell=cell,
            layers=layers,
            width=width,
            style=style,
            input_feed=input_feed,
            deep_output=deep_output,
            dropout=dropout,
            residual=residual,
        ),
        attention=attend,
        decoder_width=width,
    ).to(dtype)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.3)
    return model.eval()


def shapes():
    """Options of every decoder: cell x style and input feeding x depth x deep output x residual."""
    for cell, (style, feed), layers, deep, residual in product(
        ("lstm", "gru"), STYLES, (1, 2), (True, False), (True, False)
    ):
        if layers > 1 or not residual:
            options = {"cell": cell, "style": style, "input_feed": feed, "layers": layers}
            yield {**options, "deep_output": deep, "residual": residual}


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


def encoded_rows(encoded, rows):
    return Encoded(*(part[rows] for part in encoded))


def flat(state):
    return [state] if isinstance(state, torch.Tensor) else [part for inner in state for part in flat(inner)]
