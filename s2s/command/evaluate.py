"""`s2s eval MODEL`: decode and score a split of the corpus that the model was trained on."""

from __future__ import annotations

import argparse
import dataclasses
import json

from s2s.command import text
from s2s.errors import UsageError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `s2s eval`."""
    parser.add_argument("model", metavar="MODEL", help="a run folder or a bundle folder")
    parser.add_argument("--split", default="test", metavar="NAME", help="of the corpus (test)")
    parser.add_argument("--json", action="store_true", help="print one JSON object, numbers in full")
    parser.add_argument("-o", "--output", metavar="FILE", help="where to keep the outputs, one a line")
    text.add_device_arguments(parser)
    text.add_engine_arguments(parser)
    text.add_search_arguments(parser)
    text.add_rerank_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Print a line a metric, with interval and signature, by the path that validation takes.

    The corpus is made again from the model's config; where it isn't what the model was trained on, a note says so.
    Raises S2SError for a wrong model, option, corpus or split.
    """
    from s2s.task.evaluate import evaluate
    from s2s.task.model import load
    from s2s.task.prepare import load_corpus
    from s2s.task.present import told_of_replies

    text.set_threads(args)
    if args.output is not None:
        text.check_output(args.output)
    model = load(args.model, device=args.device, plugins=args.plugin)
    changes = {
        "engine": args.engine,
        "precision": args.precision,
        "graphs": args.graphs,
        **text.rerank_changes(args),
        **text.search_changes(args),
    }
    alignment = args.engine == "torch"  # the other one would need a second pass for it
    generator = model.generator(batch_size=args.batch_size, alignment=alignment, **changes)
    config = model.trained[0].config
    corpus = load_corpus(config)
    if args.split not in corpus.splits:
        raise UsageError(
            "the corpus has no such split", where=f"--split {args.split}", expected=f"one of {', '.join(corpus.splits)}"
        )
    pairs, trained_on = corpus.splits[args.split], _trained_on(args.model)
    if trained_on not in (None, corpus.fingerprint()):
        text.note(f"corpus {corpus.name} isn't what the model was trained on: scores can't be compared with the run's")
    done = evaluate(generator, pairs, config.task, intervals=True)
    if args.output is not None:
        text.write_lines((result.text for result in done.results), args.output)
    if args.json:
        facts = {
            "model": args.model,
            "corpus": corpus.name,
            "split": args.split,
            "pairs": len(pairs),
            "same_corpus": None if trained_on is None else trained_on == corpus.fingerprint(),
            "scores": [dataclasses.asdict(score) for score in done.scores],
            "flags": done.flags(),
            **done.facts(),
        }
        print(json.dumps(facts, ensure_ascii=False, indent=1))
    else:
        for score in done.scores:
            print(score)
        text.note(f"{len(pairs):,} pairs of {args.split}, {done.speed:,.0f} sentences/s")
        if done.dialogue is not None:
            text.note(told_of_replies(args.split, done.dialogue))
        text.note_flags(done.flags())
    return 0


def _trained_on(model: str) -> str | None:
    """The fingerprint of the corpus that the run's log begins with; None where no log lies beside the model."""
    from s2s.bundle import resolve
    from s2s.train.log import read_log

    for event in read_log(resolve(model).resolve().parent / "log.jsonl"):
        if event["event"] == "start" and isinstance(event.get("corpus"), str):
            return str(event["corpus"])
    return None
