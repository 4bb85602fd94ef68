"""`s2s train --dry-run`: all the checks and one update of the largest shape, without a run folder."""

from __future__ import annotations

import torch

from s2s.config import Config
from s2s.show.machine import peak_memory_mb
from s2s.task.prepare import load_corpus, load_tokenizers, prepare
from s2s.task.training import set_up, start_run
from s2s.train.step import update


def dry_run(config: Config) -> str:
    """What the run would be: sizes of data and model, and the memory that its largest batch needs."""
    device = set_up(config)
    corpus = load_corpus(config)
    prepared = prepare(config, corpus, load_tokenizers(config, corpus))
    run = start_run(config, prepared, device)
    rows = prepared.plan(config).largest()
    batch = prepared.batch(config)(rows, 0)
    before = peak_memory_mb() or 0.0
    made = update(
        run.model.train(),
        [batch],
        run.optimizer,
        config.optim,
        rate=config.optim.lr,
        precision=config.trainer.precision,
    )
    after = torch.cuda.max_memory_allocated() / 2**20 if device.type == "cuda" else (peak_memory_mb() or 0.0)
    lines = [
        *(f"{name}: {len(pairs):,} pairs" for name, pairs in corpus.splits.items()),
        *(f"{name}: {count:,} pairs are too long and left out" for name, count in prepared.too_long.items() if count),
        *(f"{name}: {count:,} sources are cut off" for name, count in prepared.cut.items() if count),
        f"vocabulary: {prepared.source.size:,} source, {prepared.target.size:,} target",
        f"parameters: {sum(p.numel() for p in run.model.parameters()):,}",
        f"batches an epoch: {len(prepared.plan(config).epoch(0)):,}",
        f"largest batch: source {tuple(batch.source.shape)}, target {tuple(batch.target_in.shape)}",
        f"loss of it: {made.loss:.3f} a token",
        f"peak memory: {after:.0f} MB" + ("" if device.type == "cuda" else f" ({before:.0f} MB before the batch)"),
    ]
    return "\n".join(lines)
