"""`s2s gallery RUN ... -o DIR`: one page of all attention mechanisms, with pictures and numbers of the given runs."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

from s2s.command import text
from s2s.command.compare import Run, read_run
from s2s.errors import S2SError, UsageError

if TYPE_CHECKING:
    from s2s.show.card import Card, Ladder
    from s2s.show.gallery import Exhibit
    from s2s.show.shown import Picture, Sentence, Shown
    from s2s.task.step_cost import StepCost
    from s2s.task.trained import Trained

LADDER = Path("docs/ladder.json")
WORDS = 10  # about as long is the sentence that is shown where none is given
MAX_PIECES = 60  # a side of a picture
NO_WEIGHTS = "There is no picture: this mechanism gives no weights, one number for each source word, to draw."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `s2s gallery`."""
    parser.add_argument("runs", nargs="*", metavar="RUN", help="run folders, at most one of each mechanism")
    parser.add_argument("-o", "--output", required=True, metavar="DIR", help="where to write index.html and README.md")
    parser.add_argument("--update", action="store_true", help="keep what DIR shows of mechanisms that no RUN is of")
    parser.add_argument("--split", default="test", metavar="NAME", help="of the scores, and of the sentence (test)")
    parser.add_argument("--sentence", metavar="TEXT", help="source to show (a sentence of the first run's corpus)")
    parser.add_argument("--reference", metavar="TEXT", help="that every model is made to write; else its own output")
    parser.add_argument("--ladder", metavar="FILE", help=f"what tiny models reach ({LADDER}, if it is there)")
    parser.add_argument("--plugin", action="append", default=[], metavar="MODULE", help="that a model was trained with")


def run(args: argparse.Namespace) -> int:
    """Write the page and print its path.

    Raises UsageError for what is no run, for two runs of one mechanism or a run of none that is in conf/attention, and
    for a sentence that doesn't fit into a picture or isn't that of a gallery to update; ConfigError for a card with a
    fault; DataError for a wrong ladder or a gallery that can't be read.
    """
    from s2s.show.card import Ladder, cards, read_ladder
    from s2s.show.gallery import Gallery, write_gallery
    from s2s.show.shown import read_shown, write_shown
    from s2s.task.step_cost import step_costs

    if args.reference is not None and args.sentence is None:
        raise UsageError("--reference is of a sentence of your own", hint="Give its source with --sentence TEXT")
    if args.sentence is not None and not args.runs:
        raise UsageError("--sentence is shown as runs attend to it", hint="Type: s2s gallery RUN ... --sentence TEXT")
    known, output = cards(), Path(args.output)
    place = Path(args.ladder) if args.ladder else LADDER
    ladder = read_ladder(place) if args.ladder or place.is_file() else Ladder()
    before, kept = read_shown(output) if args.update else (None, {})
    runs = _runs(args.runs, args.split, known)
    models = {name: _load(one.name, args.plugin) for name, one in runs.items()}
    sentence = _sentence(args, list(models.values()), before)
    text.note(f"timing a step of {len(known)} mechanisms")
    costs = step_costs([card.name for card in known])
    new = {name: _shown(one, models[name], sentence, args.split) for name, one in runs.items()}
    shown = {card.name: {**kept, **new}[card.name] for card in known if card.name in {**kept, **new}}
    exhibits = [_exhibit(card, costs[card.name], shown.get(card.name), ladder) for card in known]
    write_gallery(output, Gallery(exhibits, sentence, _notes(shown, args.split), ladder.tasks))
    write_shown(output, sentence, shown)
    print(output / "index.html")
    return 0


def _runs(names: Sequence[str], split: str, known: Sequence[Card]) -> dict[str, Run]:
    """Mechanism -> its run."""
    found: dict[str, Run] = {}
    for name in names:
        one = read_run(name, split)
        if one.attention not in [card.name for card in known]:
            raise UsageError(
                f"its attention is {one.attention or 'unknown'}, which the gallery doesn't have",
                where=name,
                expected="a finished run of a mechanism in conf/attention",
                hint="Type: s2s list attention",
            )
        if one.attention in found:
            raise UsageError(
                f"two runs of attention={one.attention}", where=f"{found[one.attention].name}, {name}", expected="one"
            )
        found[one.attention] = one
    return found


def _load(name: str, plugins: Sequence[str]) -> Trained:
    from s2s.task.trained import load_trained

    return load_trained(name, device="cpu", plugins=plugins)


def _sentence(args: argparse.Namespace, models: Sequence[Trained], before: Sentence | None) -> Sentence | None:
    """The source and the reference to show; without --sentence, the pair of about WORDS words that comes first.

    before: those of the gallery that is updated.
    """
    from s2s.task.prepare import load_corpus

    if before is not None:
        if args.sentence is not None and (args.sentence, args.reference) != before:
            raise UsageError(
                "the gallery shows another sentence",
                where="--sentence, --reference",
                expected=" | ".join(filter(None, before)),
                found=" | ".join(filter(None, (args.sentence, args.reference))),
                hint="Leave both out, or make the gallery again from all runs, without --update",
            )
        return before
    if not models:
        return None
    for other in models[1:]:
        if other.languages != models[0].languages:
            raise UsageError(
                "the runs don't share their languages, so no sentence can be the same for all",
                expected=" to ".join(models[0].languages),
                found=" to ".join(other.languages),
            )
    if args.sentence is not None:
        return args.sentence, args.reference
    corpus = load_corpus(models[0].config)
    if args.split not in corpus.splits:
        raise UsageError(
            "the corpus has no such split", where=f"--split {args.split}", expected=f"one of {', '.join(corpus.splits)}"
        )
    pair = min(corpus.splits[args.split], key=lambda pair: abs(len(pair.source.split()) - WORDS))
    return pair.source, pair.target


def _shown(run: Run, model: Trained, sentence: Sentence | None, split: str) -> Shown:
    """What a run gives to the gallery."""
    from s2s.attention import Attention
    from s2s.show.shown import Shown

    weights = all(one.has_weights for one in model.model.decoder.modules() if isinstance(one, Attention))
    picture = _picture(model, *sentence) if weights and sentence is not None else None
    signatures = tuple(str(score["signature"]) for score in run.scores.values() if score.get("signature"))
    return Shown(picture, _measures(run, split), _told(run, model), signatures)


def _exhibit(card: Card, cost: StepCost | S2SError, shown: Shown | None, ladder: Ladder) -> Exhibit:
    from s2s.show.gallery import Exhibit

    missing = "No run given."
    if not isinstance(cost, S2SError) and not cost.weights:
        missing = NO_WEIGHTS
    picture = shown.picture if shown is not None else None
    measures = {**_cost(cost), **({} if shown is None else shown.measures)}
    why = ladder.why.get(card.name, "")
    return Exhibit(card, picture or missing, measures, "" if shown is None else shown.run, why, ladder.of(card.name))


def _picture(model: Trained, source: str, reference: str | None) -> Picture:
    """What the model attends to as it is made to write the reference, or else its own output. Raises UsageError."""
    from s2s.show.shown import Picture
    from s2s.task.align import align
    from s2s.task.generate import Generator, Options

    if reference is None:
        (result,) = Generator([model], model.config.search, Options(overlong="refuse", alignment=True))([source])
        if result.alignment is None:
            raise UsageError(result.error or "the sentence is blank", where="--sentence")
        shown = result.source_pieces, result.pieces, result.alignment
        caption = f"Its own output: {result.text}"
    else:
        (aligned,) = align(model, [(source, reference)])
        if aligned is None:
            raise UsageError("one of them is blank", where="--sentence, --reference")
        weights = tuple(tuple(row) for row in aligned.weights.tolist())
        shown = tuple(aligned.source_pieces), tuple(aligned.target_pieces), weights
        caption = "The model was made to write the reference."
    if max(len(shown[0]), len(shown[1])) > MAX_PIECES:
        raise UsageError(
            "the sentence is too long for a picture",
            where="--sentence",
            expected=f"at most {MAX_PIECES} pieces a side",
            found=f"{len(shown[0])} and {len(shown[1])}",
        )
    return Picture(*shown, caption)


def _cost(cost: StepCost | S2SError) -> dict[str, tuple[str, str]]:
    if isinstance(cost, S2SError):
        return {"Cost per step": ("not measured", str(cost))}
    return {
        "Cost per step": (f"{cost.step:.2f} × dot", ""),
        "Attention alone": (f"{cost.alone:.1f} × dot", f"{cost.microseconds:,.0f} µs"),
        "Its parameters": (f"{cost.parameters:,}", ""),
    }


def _measures(run: Run, split: str) -> dict[str, tuple[str, str]]:
    """What the run's log and scores say, by name; what they don't say is left out."""
    shown: dict[str, tuple[str, str]] = {}
    if run.parameters is not None:
        shown["Model's parameters"] = f"{run.parameters:,}", ""
    if run.minutes is not None:
        shown["Minutes"] = f"{run.minutes:.0f}", ""
    if run.training_tokens_per_second is not None:
        shown["Training tokens/s"] = f"{run.training_tokens_per_second:,.0f}", ""
    for name, score in run.scores.items():
        low, high = score.get("low"), score.get("high")
        interval = "" if low is None or high is None else f"{low:.1f} to {high:.1f}"
        shown[f"{name} of {split}"] = f"{score['value']:.1f}", interval
    statistics: Mapping[str, float | None] = run.attention_statistics
    for key, name in (("entropy", "Entropy"), ("monotonicity", "Monotonicity")):
        value = statistics.get(key)
        if value is not None:
            shown[name] = f"{value:.2f}", ""
    if "error_rate" in run.alignment:
        shown["AER"] = f"{run.alignment['error_rate']:.3f}", ""
    return shown


def _told(run: Run, model: Trained) -> str:
    """Which run it is, without its place on this machine, and what of its attention isn't the default."""
    from s2s.registry import group_defaults

    config = model.config
    defaults = group_defaults("attention", config.attention.name)
    parts = [
        config.name,
        *(f"attention.{key}={value}" for key, value in config.attention.options.items() if defaults.get(key) != value),
    ]
    if run.steps is not None and run.minutes is not None:
        clock = "minutes of processor time" if config.trainer.clock == "cpu" else "minutes"
        parts.append(f"{run.steps:,} steps in {run.minutes:,.1f} {clock}")
    return ", ".join(parts)


def _notes(shown: Mapping[str, Shown], split: str) -> list[tuple[str, str]]:
    """What each number is and how it was measured."""
    from s2s.show.machine import machine_facts
    from s2s.task.step_cost import BATCH, SOURCE, WIDTH

    facts = machine_facts()
    notes = [
        (
            "Cost per step",
            f"processor time of one step of an LSTM decoder with this attention, as a multiple of that with dot: "
            f"{BATCH} sentences of {SOURCE} tokens, width {WIDTH}, forward only, default options, float32, one thread "
            f"of {facts['CPU']}, torch {facts['torch']}, median, measured when this page was made "
            f"({date.today().isoformat()})",
        ),
        ("Attention alone", "the same without the rest of the decoder"),
        ("Its parameters", f"of the attention at width {WIDTH}"),
    ]
    if not shown:
        return notes
    signatures = {signature for one in shown.values() for signature in one.signatures}
    return [
        *notes,
        ("Minutes", "of training; by the processor's time where the run says so. Scores compare at equal minutes only"),
        ("Training tokens/s", "target tokens a second, median of the run's log, on the machine that trained it"),
        (f"Scores of {split}", f"with 95 % bootstrap intervals; {'; '.join(sorted(signatures)) or 'no run has any'}"),
        ("Entropy", "of the attention, in nats a written token: 0 where it looks at one source token only"),
        ("Monotonicity", "1 where the attention never moves back in the source, -1 where it always does"),
        ("AER", "alignment error rate of the references against their true links where they are known; 0 is best"),
    ]
