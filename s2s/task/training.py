"""One training run from config to report: the composition of all rooms."""

from __future__ import annotations

import functools
import json
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from s2s.config import BuilderNode, Config, to_plain
from s2s.errors import BundleError, DataError
from s2s.files import RunLock, read_json, write_atomic
from s2s.kernels import kind, missing, use
from s2s.show.machine import machine_facts, peak_memory_mb
from s2s.task.card import model_card
from s2s.task.evaluate import Evaluation, dev_loss, evaluate, score_extracts
from s2s.task.generate import Generator, Options
from s2s.task.prepare import Prepared, load_corpus, load_tokenizers, prepare
from s2s.task.present import draw_samples, report
from s2s.task.run_folder import point_latest
from s2s.task.trained import Trained, build_model, load_trained, pick_device, save_trained
from s2s.text import tokenizer
from s2s.text.corpus import Corpus, reference_streams
from s2s.text.sentences import sentence_marks
from s2s.text.turns import Turns, turn_marks
from s2s.text.vocabulary import Tokenizer, beginnings
from s2s.train import checkpoint
from s2s.train.display import Display
from s2s.train.log import RunLog, read_log, training_speed
from s2s.train.loop import Data, Run, fit
from s2s.train.precision import chosen, half_is_worth_it, prepare_half
from s2s.types import Score

# Keys that a resumed run may change: they say how long and where, not what is learned.
FREE = (
    "device",
    "kernels",
    "threads",
    "prepared",
    "profile",
    "output",
    "name",
    "task.eval_splits",
    "trainer.steps",
    "trainer.epochs",
    "trainer.minutes",
    "trainer.patience",
    "trainer.validate_every",
    "trainer.validate_minutes",
    "trainer.save_every",
    "trainer.keep",
    "trainer.graphs",
    "trainer.log_every",
    "trainer.tensorboard",
    "trainer.samples",
)

PROFILE = "profile.json"
_MAX_PROFILE = 1 << 16  # bytes


def train(config: Config, folder: Path, config_text: str, display: Display, *, changed_corpus: bool = False) -> Path:
    """Train in `folder` (new, or of a run to go on with), score the best model, write the report. Returns `folder`.

    changed_corpus: go on although the corpus isn't what it was. Raises S2SError for all that can go wrong; what was
    reached before stays in the folder.
    """
    began = time.monotonic()
    with RunLock(folder):
        device = set_up(config)
        if told := prepare_half(device, config.trainer.precision):
            display.note(f"warning: {told}")
        if missing(device):
            display.note("no kernels, for want of a C compiler (cc, gcc or clang): up to an eighth slower")
        last = checkpoint.latest(folder / "checkpoints")
        corpus = load_corpus(config)
        prepared = prepare(config, corpus, _tokenizers(config, corpus, folder, display))
        run = start_run(config, prepared, device)
        if half_is_worth_it(device, config.trainer.precision, sum(p.numel() for p in run.model.parameters())):
            display.note("trainer.precision=bf16 trains a model of this size faster on this processor")
        log = RunLog(folder / "log.jsonl", tensorboard=folder / "tensorboard" if config.trainer.tensorboard else None)
        for warning in corpus.report.warnings:
            display.note(f"warning: {warning}")
        if last is None:
            write_atomic(folder / "config.yaml", config_text.encode())
            write_atomic(folder / "log.jsonl", b"")
            log.write("start", step=0, **_data_facts(prepared, run))
        else:
            _resume(run, last, prepared, folder, display, changed_corpus)
            if run.position.finished and (folder / "scores.json").exists():
                display.note(f"already finished at step {run.position.step} ({run.position.finished})")
                return folder
            log.rewind(run.position.step)
            write_atomic(folder / "config.yaml", config_text.encode())
        source, target, languages = prepared.source, prepared.target, _languages(corpus)
        trained = Trained(run.model, source, target, config, languages, prepared.keywords)
        # its lexicon is learned when it is first asked for, not before the first step
        whole = functools.cache(lambda: replace(trained, lexicon=prepared.lexicon))
        fit(
            run,
            Data(prepared.plan(config), prepared.batch(config)),
            folder / "checkpoints",
            log=log,
            display=display,
            validate=_validation(config, whole, prepared),
            keep_best=_keeper(whole, run, folder, corpus),
        )
        _keep_profile(run, folder)
        finish(folder, config, config_text, prepared, log, seconds=time.monotonic() - began)
        log.close()
        return folder


def _keep_profile(run: Run, folder: Path) -> None:
    """Write profile.json, if updates were looked at."""
    if run.profiler is None:
        return
    position = run.position
    found = run.profiler.result(
        training=position.training_seconds, waiting=position.seconds - position.training_seconds
    )
    if found is None:
        print("profile: too few updates in this session to look at any", file=sys.stderr)
        return
    write_atomic(folder / PROFILE, (json.dumps(found.plain(), indent=1) + "\n").encode())
    print(found.told(), file=sys.stderr)


def set_up(config: Config) -> torch.device:
    """Threads and device of a config; what it computes is then a function of config and data."""
    device = pick_device(config.device)
    use(config.kernels)
    if config.threads:
        torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    return device


def start_run(config: Config, prepared: Prepared, device: torch.device) -> Run:
    """A fresh model and optimiser of a config."""
    model = build_model(config, prepared.source.size, prepared.target.size)
    if model.features is not None:
        model.features.fit((example.source for example in prepared.train), beginnings(prepared.target))
    if model.sentences is not None:
        source = prepared.source
        model.sentences.fit(turn_marks(source) if isinstance(source, Turns) else sentence_marks(source))
    model = model.to(device)
    meta = {
        "config": to_plain(config),
        "corpus": prepared.corpus.fingerprint(),
        "links": prepared.links_fingerprint(),
        "tokenizers": [prepared.source.digest, prepared.target.digest],
        "threads": torch.get_num_threads(),
        "kernels": kind(device),
    }
    return Run(model, config.optim, config.trainer, seed=config.seed, meta=meta, profile=config.profile)


def _tokenizers(config: Config, corpus: Corpus, folder: Path, display: Display) -> tuple[Tokenizer, Tokenizer]:
    """Those of the run if it has some already, else trained and kept."""
    place = folder / "text"
    if place.is_dir():
        return tokenizer.load({path.name: path.read_bytes() for path in sorted(place.iterdir())})
    if config.prepared is None:
        display.note("training the tokenizer")
    source, target = load_tokenizers(config, corpus)
    place.mkdir()
    try:
        for name, data in tokenizer.dump(source, target).items():
            write_atomic(place / name, data)
    except BaseException:
        for path in place.iterdir():
            path.unlink()
        place.rmdir()
        raise
    return source, target


def _resume(run: Run, last: Path, prepared: Prepared, folder: Path, display: Display, changed_corpus: bool) -> None:
    groups_meta = read_json(last / checkpoint.META, checkpoint.MAX_META, error=BundleError)
    checkpoint.check_resume(groups_meta["config"], run.meta["config"], FREE, str(folder))
    for what, before, now in (
        ("the corpus", groups_meta["corpus"], run.meta["corpus"]),
        ("what the training pairs are linked by", groups_meta.get("links"), run.meta["links"]),
    ):
        if before != now and not changed_corpus:
            raise DataError(
                f"{what} has changed since the run began",
                where=str(folder),
                expected=f"fingerprint {before[:16]}",
                found=now[:16],
                hint="Put the old data back, or go on with the new by --changed-corpus",
            )
    for what, before in (("threads", groups_meta["threads"]), ("kernels", groups_meta.get("kernels", "plain"))):
        if before != run.meta[what]:
            display.note(
                f"the run began with {what}: {before}, and goes on with {run.meta[what]}: "
                "losses agree to rounding, not bit for bit"
            )
    run.load(last)
    position = run.position
    trainer = run.trainer
    longer = (
        (trainer.steps is None or position.step < trainer.steps)
        and (trainer.epochs is None or position.epoch < trainer.epochs)
        and (trainer.minutes is None or position.seconds < 60 * trainer.minutes)
    )
    patient = trainer.patience is None or position.worse < trainer.patience
    if position.finished and longer and patient:
        position.finished = ""  # the limit was raised
    display.note(f"going on from step {position.step}")
    before = groups_meta["config"]["trainer"]
    moved = any(before.get(limit) != getattr(trainer, limit) for limit in ("steps", "epochs", "minutes"))
    if moved and run.optim.schedule in ("cosine", "linear"):
        display.note("the limit has changed, and the learning rate now falls towards the new one, from here on")


def _languages(corpus: Corpus) -> tuple[str, str]:
    return corpus.source_language, corpus.target_language


def _data_facts(prepared: Prepared, run: Run) -> dict[str, Any]:
    return {
        "pairs": {name: len(pairs) for name, pairs in prepared.corpus.splits.items()},
        "too_long": prepared.too_long,
        "cut": prepared.cut,
        "vocabulary": [prepared.source.size, prepared.target.size],
        "parameters": sum(parameter.numel() for parameter in run.model.parameters()),
        "threads": torch.get_num_threads(),
        "corpus": run.meta["corpus"],
    }


def _validation(config: Config, whole: Callable[[], Trained], prepared: Prepared) -> Callable[[], dict[str, float]]:
    pairs = prepared.dev_pairs[: config.trainer.valid_sentences]

    def validate() -> dict[str, float]:
        trained = whole()
        scores = dev_loss(trained.model, prepared.dev, config.trainer.batch_tokens)
        if pairs:
            generator = Generator([trained], config.search)
            scores.update({score.name: score.value for score in evaluate(generator, pairs, config.task).scores})
        return scores

    return validate


def _keeper(whole: Callable[[], Trained], run: Run, folder: Path, corpus: Corpus) -> Callable[[dict[str, float]], None]:
    def keep(scores: dict[str, float]) -> None:
        trained = whole()
        position = run.position
        facts = {
            "step": position.step,
            "epoch": position.epoch,
            "target_tokens": position.tokens,
            "minutes": round(position.seconds / 60, 2),
            "dev": {name: round(value, 4) for name, value in scores.items()},
        }
        save_trained(folder / "model", trained, training=facts, card=model_card(trained, corpus, facts))

    return keep


def finish(folder: Path, config: Config, config_text: str, prepared: Prepared, log: RunLog, *, seconds: float) -> None:
    """Score the best model on the test splits and write scores.json, samples, pictures and report.html."""
    # the user named these modules when the run began
    nodes = [value for value in vars(config).values() if isinstance(value, BuilderNode)]
    plugins = [node.name.rpartition(".")[0] for node in nodes if "." in node.name]
    trained = load_trained(folder / "model", device=config.device, plugins=plugins)
    corpus = prepared.corpus
    evaluations: dict[str, Evaluation] = {}
    for split in config.task.eval_splits:
        if corpus.splits.get(split):
            generator = Generator([trained], config.search, Options(alignment=True))
            evaluations[split] = evaluate(generator, corpus.splits[split], config.task, intervals=True)
            log.write("test", split=split, **evaluations[split].facts())
            for score in evaluations[split].scores:
                print(f"{split}: {score}", file=sys.stderr)
    events = read_log(folder / "log.jsonl")
    machine = {
        **machine_facts(),
        "threads": str(torch.get_num_threads()),
        "precision of products in training": chosen(trained.device, config.trainer.precision),
        "wall time of this session": f"{seconds:.0f} s",
        "peak memory": f"{peak_memory_mb() or 0:.0f} MB",
        "training": f"{training_speed(events) or 0:.0f} target tokens/s (median of the log's lines)",
        **{f"decoding {split}": f"{one.speed:.0f} sentences/s" for split, one in evaluations.items()},
    }
    found = {split: one.scores for split, one in evaluations.items()} | _extracts(config, corpus, evaluations)
    scores = {name: [asdict(score) for score in own] for name, own in found.items()}
    write_atomic(folder / "scores.json", (json.dumps(scores, indent=1) + "\n").encode())
    for split, one in evaluations.items():
        write_atomic(folder / f"{split}.hyp", "".join(f"{result.text}\n" for result in one.results).encode())
        for number, lines in enumerate(reference_streams(corpus.splits[split]), 1):
            name = f"{split}.ref" if number == 1 else f"{split}.ref.{number}"
            write_atomic(folder / name, "".join(f"{line}\n" for line in lines).encode())
    kept = folder / PROFILE
    profile = read_json(kept, _MAX_PROFILE) if kept.exists() else None
    split = next(iter(evaluations), "dev")
    samples = draw_samples(trained, corpus.splits[split], config.trainer.samples, folder / "attention")
    report(folder, config, config_text, corpus, evaluations, found, events, samples, machine, profile)
    point_latest(folder)


def _extracts(config: Config, corpus: Corpus, splits: Iterable[str]) -> dict[str, list[Score]]:
    """The scores of extracts of each split that was evaluated; none but of the task summarisation."""
    if config.task.name != "summarisation":
        return {}
    targets = [len(pair.target.split()) for pair in corpus.splits["train"]]
    words = config.task.extract_words or max(1, round(sum(targets) / len(targets)))
    return {
        f"{split} {name}": own
        for split in splits
        for name, own in score_extracts(corpus.splits[split], config.task, words, intervals=True).items()
    }
