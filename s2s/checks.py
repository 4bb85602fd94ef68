"""What can't work in a config: values out of range, and combinations of parts and options that don't fit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from s2s.config import Config
from s2s.errors import S2SError
from s2s.registry import BuilderNode, group_defaults
from s2s.types import OVERLONG, SPECIALS

# Key path -> lowest and highest value that makes sense; the highest is refused where the mark is "<".
_RANGES: tuple[tuple[str, float, str, float], ...] = (
    ("seed", 0, "<=", 2**63 - 1),
    ("threads", 1, "<=", 4096),
    ("model.embedding", 1, "<=", 1 << 16),
    ("model.dropout", 0, "<", 1),
    ("encoder.layers", 1, "<=", 64),
    ("encoder.width", 1, "<=", 1 << 16),
    ("encoder.dropout", 0, "<", 1),
    ("decoder.layers", 1, "<=", 64),
    ("decoder.width", 1, "<=", 1 << 16),
    ("decoder.dropout", 0, "<", 1),
    ("encoder.relu_dropout", 0, "<", 1),
    ("decoder.relu_dropout", 0, "<", 1),
    ("encoder.feed_forward", 1, "<=", 1 << 18),
    ("decoder.feed_forward", 1, "<=", 1 << 18),
    ("encoder.learned_positions", 1, "<=", 1 << 20),
    ("decoder.learned_positions", 1, "<=", 1 << 20),
    ("attention.dropout", 0, "<", 1),
    ("self_attention.dropout", 0, "<", 1),
    ("self_attention.heads", 1, "<=", 1 << 16),
    ("self_attention.window", 1, "<=", 1 << 20),
    ("self_attention.size", 1, "<=", 1 << 16),
    ("optim.lr", 0, "<=", 1000),
    ("optim.eps", 0, "<=", 1),
    ("optim.weight_decay", 0, "<=", 100),
    ("optim.warmup", 0, "<=", 1e9),
    ("optim.final", 0, "<=", 1),
    ("optim.label_smoothing", 0, "<", 1),
    ("optim.rdrop", 0, "<=", 1000),
    ("optim.guided_alignment", 0, "<=", 1000),
    ("optim.scheduled_sampling", 0, "<=", 1),
    ("optim.attention_loss_from", 0, "<", 1),
    ("optim.ema", 0, "<", 1),
    ("optim.average", 0, "<=", 1000),
    ("task.extract_words", 1, "<=", 1e6),
    ("task.topics", 0, "<=", 1000),
    ("trainer.steps", 1, "<=", 1e12),
    ("trainer.batch_tokens", 1, "<=", 1e9),
    ("trainer.accumulate", 1, "<=", 1e6),
    ("trainer.pad_multiple", 1, "<=", 1024),
    ("trainer.max_source", 1, "<=", 1e6),
    ("trainer.max_target", 1, "<=", 1e6),
    ("trainer.validate_every", 1, "<=", 1e12),
    ("trainer.valid_sentences", 0, "<=", 1e9),
    ("trainer.patience", 1, "<=", 1e9),
    ("trainer.log_every", 1, "<=", 1e9),
    ("trainer.save_every", 1, "<=", 1e12),
    ("trainer.keep", 1, "<=", 1000),
    ("trainer.max_bad_steps", 1, "<=", 1e6),
    ("trainer.subword_sample", 0, "<=", 1),
    ("trainer.samples", 0, "<=", 1000),
    ("trainer.lexicon", 0, "<=", 1e6),
)
_POSITIVE = ("trainer.epochs", "trainer.minutes", "trainer.validate_minutes", "optim.clip")


def _get(config: Config, path: str) -> Any:
    """The value at a key path; None where the chosen builder has no such option."""
    section, _, leaf = path.rpartition(".")
    node = getattr(config, section) if section else config
    return node.options.get(leaf) if isinstance(node, BuilderNode) else getattr(node, leaf)


def problems(config: Config) -> list[str]:
    """Every value out of range and every combination that cannot work, a line each; empty if all is well.

    Parts whose options are fine are built, without memory, and say themselves what doesn't fit.
    """
    found: list[str] = []
    for check in _CHECKS:
        found += check(config)
    parts = [*_check_ranges(config), *_check_parts(config), *_check_self_attention(config)]
    return found if parts else [*found, *_check_build(config)]


def _check_ranges(config: Config) -> Iterator[str]:
    for path, low, mark, high in _RANGES:
        value = _get(config, path)
        if value is not None and not (low <= value and (value < high or (mark == "<=" and value == high))):
            yield f"`{path}` is out of range: expected {low} <= value {mark} {high:g}, found {value}"
    for path in _POSITIVE:
        value = _get(config, path)
        if value is not None and value <= 0:
            yield f"`{path}` is out of range: expected more than 0, found {value}"
    if not all(0 <= beta < 1 for beta in config.optim.betas):
        yield f"`optim.betas` is out of range: expected 0 <= value < 1, found {list(config.optim.betas)}"
    parts = config.name.split("/")
    if not config.name.isprintable() or "\\" in config.name or any(part in ("", ".", "..") for part in parts):
        yield f"`name` must be a relative path without `..`, found {config.name!r}: run folders are named by it"


def _check_task(config: Config) -> Iterator[str]:
    task = config.task
    if task.overlong not in (fitting := OVERLONG[task.name]):
        yield f"`task.overlong={task.overlong}` has no meaning for task={task.name}: take one of {', '.join(fitting)}"
    if task.name != "dialogue" and (task.topics or task.reply != "whole"):
        yield "`task.topics` and `task.reply` are for dialogues: leave them at 0 and whole, or take task=dialogue"


def _check_training(config: Config) -> Iterator[str]:
    trainer, optim = config.trainer, config.optim
    if trainer.steps is None and trainer.epochs is None and trainer.minutes is None:
        yield "no limit: give `trainer.steps`, `trainer.epochs` or `trainer.minutes`"
    if trainer.steps is not None and optim.warmup > trainer.steps:
        yield f"`optim.warmup` ({optim.warmup} steps) is longer than `trainer.steps` ({trainer.steps})"
    if optim.schedule == "inverse_sqrt" and optim.warmup == 0:
        yield "`optim.schedule=inverse_sqrt` needs `optim.warmup` of at least 1 step"
    if optim.ema > 0 and optim.average > 0:
        yield "`optim.ema` and `optim.average` exclude each other: set one of them to 0"
    if optim.rdrop > 0 and not any(
        _get(config, path)
        for path in (
            "model.dropout",
            "encoder.dropout",
            "encoder.relu_dropout",
            "decoder.dropout",
            "decoder.relu_dropout",
            "attention.dropout",
            "self_attention.dropout",
        )
    ):
        yield "`optim.rdrop` compares two passes with dropout, and no dropout is above 0"
    if optim.rdrop > 0 and config.copy.name != "none":
        yield f"`optim.rdrop` compares what is generated and knows nothing of copy={config.copy.name}: set it to 0"
    if optim.guided_alignment > 0:
        if trainer.links is None:
            yield "`optim.guided_alignment` needs `trainer.links`: auto, or a file with the links of the training pairs"
        if trainer.subword_sample > 0:
            yield "`optim.guided_alignment` needs one segmentation of each text: set `trainer.subword_sample` to 0"
        if config.prepared is not None:
            yield "`optim.guided_alignment` needs the links of the whole corpus in memory: set `prepared` to null"
    elif trainer.links is not None:
        yield "`trainer.links` is read by `optim.guided_alignment` only, which is 0"
    if trainer.validate_every is not None and trainer.validate_minutes is not None:
        yield "`trainer.validate_every` and `trainer.validate_minutes` exclude each other: set one of them to null"
    if trainer.batch_tokens <= trainer.max_target:
        yield (
            f"`trainer.batch_tokens` ({trainer.batch_tokens}) cannot hold one target of `trainer.max_target` "
            f"({trainer.max_target}) tokens and its end"
        )
    if trainer.metric not in (None, "loss", *config.task.metrics):
        yield f"`trainer.metric={trainer.metric}` is not among `task.metrics` ({', '.join(config.task.metrics)})"
    if trainer.metric not in (None, "loss") and trainer.valid_sentences == 0:
        yield f"`trainer.metric={trainer.metric}` needs `trainer.valid_sentences` of at least 1"


def _check_text(config: Config) -> Iterator[str]:
    try:
        config.text.build()  # reads nothing yet, and knows its own ranges
    except S2SError as error:
        yield str(error)
    if config.trainer.subword_sample > 0 and config.text.name in ("words", "characters"):
        yield f"`trainer.subword_sample` needs subwords: text={config.text.name} has one segmentation only"
    if config.model.tie == "all" and not config.text.options.get("joint", False):
        yield "`model.tie=all` needs one vocabulary for both sides: `text.joint=true`"
    if config.copy.name != "none" and config.text.name == "sentencepiece" and not config.text.options["joint"]:
        yield f"copy={config.copy.name} with subwords needs one vocabulary for both sides: `text.joint=true`"
    if len(set(config.task.metrics)) < len(config.task.metrics):
        yield f"`task.metrics` names a metric twice: {', '.join(config.task.metrics)}"


def _check_parts(config: Config) -> Iterator[str]:
    encoder, decoder, attention = config.encoder.options, config.decoder.options, config.attention
    if config.encoder.name == "recurrent_encoder" and encoder["bidirectional"] and encoder["width"] % 2:
        yield f"`encoder.width` ({encoder['width']}) is that of both directions together, so it must be even"
    if decoder.get("style") == "bahdanau" and decoder.get("input_feed") is False:
        yield "`decoder.style=bahdanau` always goes step by step: `decoder.input_feed=false` belongs to style luong"
    if attention.name == "location" and attention.options["max_source"] <= config.trainer.max_source:
        yield (
            f"attention=location sees {attention.options['max_source']} source tokens (`attention.max_source`), fewer "
            f"than `trainer.max_source` ({config.trainer.max_source}) and the end of the sentence"
        )


def _check_self_attention(config: Config) -> Iterator[str]:
    for part, key in (("encoder", "trainer.max_source"), ("decoder", "trainer.max_target")):
        learned, longest = _get(config, f"{part}.learned_positions"), _get(config, key)
        if learned is not None and learned <= longest:
            yield f"`{part}.learned_positions` ({learned}) must be more than `{key}` ({longest}): the end counts too"
    node, names = config.self_attention, (config.encoder.name, config.decoder.name)
    if node.name == "auto" and not any(name.startswith("transformer") for name in names):
        changed = [key for key, value in group_defaults("self_attention", "auto").items() if node.options[key] != value]
        if changed:
            yield (
                f"`self_attention.{changed[0]}` is read by Transformer layers, and there are none: take "
                "self_attention=multihead for a recurrent decoder that attends to its past"
            )


def _check_build(config: Config) -> Iterator[str]:
    """What the builders refuse: sizes and parts that don't fit each other."""
    from s2s.attention.base import Attention
    from s2s.model.seq2seq import seq2seq
    from s2s.tensors import sketched

    model, size = config.model, len(SPECIALS) + 1
    try:
        with sketched():  # nothing is allocated
            built = seq2seq(
                source_size=size,
                target_size=size,
                embedding=model.embedding,
                dropout=model.dropout,
                tie=model.tie,
                encoder=config.encoder.build,
                decoder=config.decoder.build,
                attention=config.attention.build,
                self_attention=config.self_attention.build,
                copy=config.copy.build,
                selective=model.selective,
                features=model.features,
                hierarchical=model.hierarchical,
            )
    except S2SError as error:
        yield str(error)
        return
    attentions = [module for module in built.decoder.modules() if isinstance(module, Attention)]
    needing = ["`optim.guided_alignment`"] if config.optim.guided_alignment > 0 else []
    needing += [f"copy={config.copy.name}"] if built.copy is not None else []
    if needing and not all(one.has_weights and one.sums_to_one for one in attentions):
        name, options = config.attention.name, config.attention.options
        mends = [f"attention.{key}=true" for key in ("renormalise", "preserve") if key in options]
        for one in needing:
            yield (
                f"{one} needs attention weights that sum to one, and attention={name} has none such: "
                f"take {mends[0] if mends else 'attention=additive'}"
            )
    estimator = config.attention.options.get("estimator")
    if config.optim.guided_alignment > 0 and estimator in ("reinforce", "straight_through"):
        other = "gumbel" if config.attention.name == "hard" else "expected"
        yield (
            f"`optim.guided_alignment` trains weights, and positions drawn with `attention.estimator={estimator}` have "
            f"none between 0 and 1: take `attention.estimator={other}`"
        )


def _check_search(config: Config) -> Iterator[str]:
    yield from config.search.problems()
    if config.search.coverage_penalty > 0 and config.attention.name == "none":
        yield "`search.coverage_penalty` needs attention weights, and attention=none has none"


_CHECKS: tuple[Callable[[Config], Iterator[str]], ...] = (
    _check_ranges,
    _check_task,
    _check_training,
    _check_text,
    _check_parts,
    _check_self_attention,
    _check_search,
)
