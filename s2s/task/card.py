"""The model card: README.md of a bundle."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from s2s.config import Config
from s2s.task.trained import Trained
from s2s.text.corpus import Corpus


def model_card(trained: Trained, corpus: Corpus, facts: Mapping[str, Any]) -> str:
    """What the model is, what it was trained on and how well it does, as Markdown."""
    config = trained.config
    dev = ", ".join(f"{name} {value}" for name, value in facts["dev"].items())
    pairs = ", ".join(f"{name} {len(found):,}" for name, found in corpus.splits.items())
    lines = [
        f"# {config.name}",
        "",
        f"A {config.task.name} model, {trained.languages[0]} to {trained.languages[1]}, trained with s2s.",
        "",
        f"- attention: {config.attention.name}; encoder: {config.encoder.name}; decoder: {_decoder(config)}",
        f"- parameters: {sum(p.numel() for p in trained.model.parameters()):,}",
        f"- corpus: {corpus.name} ({pairs} pairs)",
        *(f"- {key}: {value}" for key, value in corpus.facts.items()),
        f"- trained for {facts['step']} updates, {facts['target_tokens']:,} target tokens, {facts['minutes']} minutes",
        f"- on dev: {dev}",
        "",
        "Use it with `s2s translate FOLDER` or `s2s.load(FOLDER).translate(text)`. It knows little outside its corpus:",
        "check what it writes before you rely on it.",
        "",
    ]
    return "\n".join(lines)


def _decoder(config: Config) -> str:
    """Name and, of a recurrent one, style."""
    style = config.decoder.options.get("style")
    return config.decoder.name if style is None else f"{config.decoder.name}, style {style}"
