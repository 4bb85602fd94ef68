"""A model with its tokenizers and its config: built for training, saved as a bundle, loaded from one."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from s2s import bundle
from s2s.config import Config, from_plain, to_plain
from s2s.errors import BundleError, S2SError, UsageError
from s2s.model.fixed import with_fixed_weights
from s2s.model.seq2seq import Seq2Seq, seq2seq
from s2s.products import Precision
from s2s.tensors import match, persistent_buffers, sketched
from s2s.text import tokenizer
from s2s.text.batching import Example, make_example
from s2s.text.copying import Copier
from s2s.text.keywords import FILE as KEYWORDS
from s2s.text.keywords import Keywords, parse_keywords
from s2s.text.lexicon import FILE as LEXICON
from s2s.text.lexicon import Lexicon, parse_lexicon
from s2s.text.lines import clean
from s2s.text.turns import ABOUT, Turns, clean_turns, shorten
from s2s.text.vocabulary import Tokenizer
from s2s.types import Overlong


@dataclass(frozen=True)
class Trained:
    """A model that can be used: what a bundle holds, ready to run."""

    model: Seq2Seq
    source: Tokenizer
    target: Tokenizer
    config: Config
    languages: tuple[str, str]
    keywords: Keywords | None = None  # of a dialogue model that was trained with some
    lexicon: Lexicon | None = None  # of a model that was trained with `trainer.lexicon`

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.model.parameters()).device

    @functools.cached_property
    def _ready(self) -> dict[Precision, tuple[object, Seq2Seq]]:
        return {}

    def ready(self, precision: Precision = "float32") -> Seq2Seq:
        """The model for decoding, with weights laid out for its products, anew whenever they have changed.

        In float32 on a GPU it is the model itself. Raises UsageError where a precision can't be had.
        """
        if precision == "bf16" and self.device.type != "cuda":
            raise UsageError(
                "bf16 needs a GPU", where="--precision bf16", expected="--device cuda", hint="--precision int8"
            )
        if self.device.type != "cpu" and precision == "float32":
            return self.model
        weights = self.weights()
        if self._ready.get(precision, ((), None))[0] != weights:
            self._ready[precision] = weights, with_fixed_weights(self.model, precision)
        return self._ready[precision][1]

    def weights(self) -> tuple[tuple[int, int], ...]:
        """Where each weight is and how often it was changed: another value wherever a weight is another one."""
        return tuple((weight.data_ptr(), weight._version) for weight in self.model.parameters())

    @functools.cached_property
    def searched(self) -> dict[tuple[str, str], tuple[object, Any]]:
        """What `s2s.task.searched` keeps of it, and for which weights."""
        return {}

    @functools.cached_property
    def copier(self) -> Copier | None:
        """What says which tokens are copied; None for a model that only generates."""
        return None if self.model.copy is None else Copier(self.source, self.target)

    def example(self, source: str, target: str, overlong: Overlong = "refuse") -> Example:
        """A pair of texts as ids; the source as `entered` gives it, shortened as training would by this `overlong`."""
        limit = self.config.trainer.max_source
        source, ids, _ = shorten(source, self.source.encode(source), overlong, limit, self.turns)
        return make_example(source, ids, target, self.target.encode(target), self.copier)

    @property
    def turns(self) -> int:
        """Most turns of a context; see `turns`."""
        return turns(self.config)

    def entered(self, text: str) -> tuple[str, int]:
        """A source as the model may see it, and how many characters were changed for that; see `clean`."""
        if not isinstance(self.source, Turns):
            cleaned, changed = clean(text)
            return self.recased(cleaned), changed
        cleaned, changed = clean_turns(text)
        return about(self.recased(cleaned), self.keywords, self.config.task.topics), changed

    def recased(self, text: str) -> str:
        """A text as the corpus had it: lower-cased, if that was (`corpus.lowercase`)."""
        return text.lower() if self.config.corpus.options.get("lowercase") is True else text


def turns(config: Config) -> int:
    """Most turns of a context, as the corpus had them; 1 where it had single ones."""
    most = config.corpus.options.get("turns", 1)
    return most if isinstance(most, int) else 1


def for_task(config: Config, tokenizers: tuple[Tokenizer, Tokenizer]) -> tuple[Tokenizer, Tokenizer]:
    """The tokenizers of a model, the source's for contexts where its task is dialogue."""
    source, target = tokenizers
    return (Turns(source), target) if config.task.name == "dialogue" else (source, target)


def about(context: str, keywords: Keywords | None, count: int) -> str:
    """A context whose last turn says which keywords go with it; as it was where there are none."""
    if keywords is None or not count:
        return context
    found = keywords.best(context.split("\n")[-1], count)
    return f"{context}{ABOUT}{' '.join(found)}" if found else context


def build_model(config: Config, source_size: int, target_size: int) -> Seq2Seq:
    """A fresh model of a config. Raises ConfigError for sizes that don't fit."""
    return seq2seq(
        source_size=source_size,
        target_size=target_size,
        embedding=config.model.embedding,
        dropout=config.model.dropout,
        tie=config.model.tie,
        encoder=config.encoder.build,
        decoder=config.decoder.build,
        attention=config.attention.build,
        self_attention=config.self_attention.build,
        copy=config.copy.build,
        selective=config.model.selective,
        features=config.model.features,
        hierarchical=config.model.hierarchical,
    )


def pick_device(name: str) -> torch.device:
    """auto: a GPU if there is one. Raises UsageError where a GPU is asked for and there is none."""
    if name == "cuda" and not torch.cuda.is_available():
        raise UsageError("there is no CUDA device here", where="device", found="cuda", hint="Take device=cpu or auto")
    if name not in ("auto", "cpu", "cuda"):
        raise UsageError("unknown device", where="device", expected="auto, cpu or cuda", found=name)
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def _tensors(model: Seq2Seq) -> dict[str, Tensor]:
    """What a bundle holds of a model: its parameters and its persistent buffers."""
    return {**dict(model.named_parameters()), **persistent_buffers(model)}


def save_trained(folder: Path, trained: Trained, *, training: Mapping[str, Any], card: str) -> None:
    """Write the model as a bundle, as its weights stand now. training: facts for `s2s info`. See `bundle.save`."""
    config = {
        **to_plain(trained.config),
        "languages": list(trained.languages),
        "vocabulary": [trained.source.size, trained.target.size],
        "training": dict(training),
    }
    tensors = {name: value.detach() for name, value in _tensors(trained.model).items()}
    files = tokenizer.dump(trained.source, trained.target)
    if trained.keywords is not None:
        files[KEYWORDS] = trained.keywords.to_bytes()
    if trained.lexicon is not None:
        files[LEXICON] = trained.lexicon.to_bytes()
    bundle.save(folder, config=config, tensors=tensors, files=files, card=card)


def load_trained(path: str | Path, *, device: str = "auto", plugins: Sequence[str] = ()) -> Trained:
    """The model in a run folder or bundle folder. Raises BundleError for whatever is wrong with it.

    plugins: modules of the user whose builders the model may name; nothing that a bundle names is imported otherwise.
    """
    place = pick_device(device)
    folder = bundle.resolve(path)
    read = bundle.read(folder)
    where = str(folder / "config.json")
    try:
        known = {field.name for field in dataclasses.fields(Config)}
        config = from_plain({key: value for key, value in read.config.items() if key in known}, plugins=plugins)
    except S2SError as error:
        raise BundleError(str(error), where=where) from error
    source, target = for_task(config, tokenizer.load(read.files))
    languages, sizes = read.config.get("languages"), read.config.get("vocabulary")
    if sizes != [source.size, target.size]:
        raise BundleError(
            "the tokenizers don't fit the model",
            where=where,
            expected=f"vocabulary {sizes}",
            found=f"{[source.size, target.size]}",
        )
    if not (isinstance(languages, list) and len(languages) == 2 and all(isinstance(x, str) for x in languages)):
        raise BundleError("`languages` must be two language codes", where=where, found=repr(languages)[:80])
    with sketched():  # nothing is allocated until the file is known to fit
        sketch = build_model(config, source.size, target.size)
    match({name: (tuple(value.shape), value.dtype) for name, value in _tensors(sketch).items()}, read.tensors)
    model = build_model(config, source.size, target.size)
    with torch.no_grad():
        for name, value in _tensors(model).items():
            value.copy_(read.tensors[name])
    model.requires_grad_(False).eval().to(place)
    keywords = parse_keywords(read.files[KEYWORDS], KEYWORDS) if KEYWORDS in read.files else None
    if keywords is None and (config.task.topics or config.task.reply != "whole"):
        raise BundleError("the model has no keywords", where=str(folder), expected=KEYWORDS)
    lexicon = parse_lexicon(read.files[LEXICON], LEXICON, target.size) if LEXICON in read.files else None
    return Trained(model, source, target, config, (languages[0], languages[1]), keywords, lexicon)
