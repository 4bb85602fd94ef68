"""What a GPU makes of recurrent models and a Transformer: recorded and operation by operation, by kernels and without.

    python -m bench.gpu run [ROW ...] [--device cuda] [--divide 1]   # some minutes; bench/results/gpu gets JSON
    python -m bench.gpu show                                         # a page of the last of it

Training: a BiLSTM and an LSTM with dropout of 0.3, or 3 + 3 Transformer layers with 0.1, on random ids, all sentences
as long as a batch says, precision as `trainer.precision=auto` takes it; target tokens a second, after a few updates.
Search: beam 5, 15 tokens, 64 sentences at a time; sentences a second. Each row is a process of its own. --divide: sizes
divided, to try it out on a CPU, where nothing can be recorded and no kernel runs.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import kept

RESULTS = Path(__file__).resolve().parent / "results" / "gpu"
SHAPES = Path(__file__).resolve().parent / "shapes"
FACTS = ("GPU", "CPU", "torch", "Python", "s2s")
WARM, UPDATES, SEARCHES = 5, 40, 5
BEAM, WRITTEN, SENTENCES = 5, 15, 64


@dataclass(frozen=True)
class Row:
    """Sizes of a model and its batches. aim: target tokens a second that training shall reach; 0: none.

    shape: a file of bench/shapes.
    """

    attention: str
    width: int
    vocabulary: int
    sentences: int
    length: int
    changes: tuple[str, ...] = ()
    aim: int = 0
    shape: str = "lstm"


ROWS = {
    "additive": Row("additive", 512, 8_000, 128, 32, aim=1_000_000),
    "general, not fed": Row("general", 512, 8_000, 128, 32, ("decoder.input_feed=false",), aim=2_000_000),
    "additive, wide": Row("additive", 1024, 32_000, 256, 32, ("model.embedding=512",), aim=700_000),
    "monotonic": Row("monotonic", 512, 8_000, 128, 32),
    "transformer": Row("multihead", 512, 8_000, 128, 32, ("model.embedding=512",), shape="transformer"),
}
TRAINING = {  # mode: (recorded, kernels)
    "operation by operation": (False, "plain"),
    "kernels": (False, "auto"),
    "graphs": (True, "plain"),
    "graphs, kernels": (True, "auto"),
}
SEARCHING = {  # mode: (recorded, kernels, precision)
    "operation by operation": (False, "plain", "float32"),
    "graphs, kernels": (True, "auto", "float32"),
    "graphs, kernels, bf16": (True, "auto", "bf16"),
}


def point(name: str, device_name: str, divide: int) -> dict[str, dict[str, float]]:
    """Rates of a row: `training` and `search`, by mode; a mode that this device lacks is left out."""
    import torch

    from s2s.app import compose
    from s2s.kernels import usable, use
    from s2s.recording import recorder
    from s2s.task.trained import build_model

    row, device = ROWS[name], torch.device(device_name)
    vocabulary, length = max(20, row.vocabulary // divide), max(4, row.length // divide)
    sentences = max(2, row.sentences // divide)
    changes = [
        f"attention={row.attention}",
        f"encoder.width={row.width // divide}",
        f"decoder.width={row.width // divide}",
    ]
    given = ("corpus.train=none", "corpus.dev=none", "trainer.steps=1", "optim.clip=1.0")
    limits = [f"trainer.{name}={length}" for name in ("max_source", "max_target")]
    budget = f"trainer.batch_tokens={max(sentences * length, length + 1)}"
    config = compose(str(SHAPES / f"{row.shape}.yaml"), [*changes, *row.changes, *given, *limits, budget])

    def can(recorded: bool, kernels: Any) -> bool:
        use(kernels)
        return (not recorded or recorder(device) is not None) and (kernels == "plain" or usable(device))

    def model() -> Any:
        torch.manual_seed(0)
        return build_model(config, vocabulary, vocabulary).to(device)

    made: dict[str, dict[str, float]] = {"training": {}, "search": {}}
    for mode, (recorded, kernels) in TRAINING.items():
        if can(recorded, kernels):
            one = _trainer(model(), config, sentences, length, vocabulary, recorded)
            made["training"][mode] = sentences * length * UPDATES / _seconds(one, WARM, UPDATES, device)
    for mode, (recorded, kernels, precision) in SEARCHING.items():
        if can(recorded, kernels):
            one = _searcher(model(), vocabulary, length, recorded, precision)
            made["search"][mode] = SENTENCES * SEARCHES / _seconds(one, 2, SEARCHES, device)
    return made


def _ids(vocabulary: int, sentences: int, length: int) -> list[list[int]]:
    import torch

    generator = torch.Generator().manual_seed(1)
    return torch.randint(10, vocabulary, (sentences, length), generator=generator).tolist()


def _trainer(
    model: Any, config: Any, sentences: int, length: int, vocabulary: int, recorded: bool
) -> Callable[[], Any]:
    """One update after the other. length: of a source and of a target, the end of the sentence included."""
    from itertools import count

    from s2s.recording import recorder
    from s2s.text.batching import Example, collate
    from s2s.train.graph import CapturedUpdates
    from s2s.train.step import make_optimizer, update

    ids = _ids(vocabulary, sentences, length - 1)
    batch = collate([Example(one, one) for one in ids], range(sentences))
    optimizer, device = make_optimizer(model.train(), config.optim), next(model.parameters()).device
    if not recorded:
        here = batch.to(device)
        return lambda: update(model, [here], optimizer, config.optim, rate=1e-3, precision=config.trainer.precision)
    made = recorder(device)
    assert made is not None
    captured = CapturedUpdates(model, optimizer, None, config.optim, config.trainer, made)
    captured.reserve(batch)
    numbers = count()
    return lambda: captured.update([batch], rate=1e-3, number=next(numbers))


def _searcher(model: Any, vocabulary: int, length: int, recorded: bool, precision: Any) -> Callable[[], Any]:
    """One search after the other."""
    import torch

    from s2s.model.fixed import with_fixed_weights
    from s2s.model.recorded import RecordedSteps
    from s2s.model.seq2seq import start_search
    from s2s.recording import recorder
    from s2s.search import SearchConfig, search

    model = model.eval().requires_grad_(False)
    device = next(model.parameters()).device
    if precision != "float32":
        model = with_fixed_weights(model, precision)
    made = recorder(device) if recorded else None
    steps = None if made is None else RecordedSteps(model, made)
    ids = torch.tensor(_ids(vocabulary, SENTENCES, length), device=device)
    lengths = torch.full((SENTENCES,), length, device=device)
    config = SearchConfig(beam=BEAM, min_length=WRITTEN, max_length=WRITTEN)

    def once() -> object:
        with torch.no_grad():
            step, state = start_search(model, ids, lengths, need_weights=False, steps=steps)
            return search(step, state, config, lengths.tolist())

    return once


def _seconds(work: Callable[[], Any], warm: int, times: int, device: Any) -> float:
    """How long some of it takes after some more, the device's own work included."""
    import torch

    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    for _ in range(warm):
        work()
    wait()
    began = time.perf_counter()
    for _ in range(times):
        work()
    wait()
    return time.perf_counter() - began


def run(names: Sequence[str], device: str, divide: int) -> dict[str, dict[str, Any]]:
    """All rows, each in a process of its own. One that fails says why."""
    found: dict[str, dict[str, Any]] = {}
    for name in names:
        command = [sys.executable, "-m", "bench.gpu", "point", name, "--device", device, "--divide", str(divide)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        found[name] = json.loads(done.stdout) if done.returncode == 0 else {"error": done.stderr[-2000:]}
        print(f"{name}: {found[name]}", file=sys.stderr, flush=True)
    return found


def table(found: dict[str, dict[str, Any]]) -> str:
    """A line for each row and mode: its rate, how many times the first mode's it is, and what it shall reach."""
    lines = ["| row | mode | rate | times | aim |", "|---|---|---:|---:|---:|"]
    for name in (*found, *(name for name in ROWS if name not in found)):
        made = found.get(name)
        if made is None or "error" in made:
            lines.append(f"| {name} | {'not measured' if made is None else 'failed'} |  |  | {_aim(name)} |")
            continue
        for what, unit in (("training", "tokens/s"), ("search", "sentences/s")):
            rates = made.get(what, {})
            for mode, rate in rates.items():
                aim = _aim(name) if what == "training" else ""
                times = rate / next(iter(rates.values()))
                lines.append(f"| {name}, {what} | {mode} | {rate:,.0f} {unit} | {times:.2f} | {aim} |")
    return "\n".join(lines)


def _aim(name: str) -> str:
    return f"{ROWS[name].aim:,}" if ROWS[name].aim else ""


def show() -> None:
    """The page of the result that was kept last, or of what there is to measure."""
    words = " ".join(str(__doc__).split("\n\n")[2].split())
    title, source, found = "# On a GPU\n", "; `python -m bench.gpu run` measures it", {}
    if any(RESULTS.glob("*.json")):
        name, done = list(kept.newest(RESULTS, "bench.gpu", "GPU").items())[-1]
        title, found = f"# On a GPU, {done['date']}\n\n{kept.told(done['machine'])}.\n", done["found"]
        source = f" from {name}, which `python -m bench.gpu run` made"
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / "README.md").write_text(
        f"{title}\n{words}\n\nWritten by `python -m bench.gpu show`{source}.\n\n{table(found)}\n", encoding="utf-8"
    )


def main(argv: Sequence[str]) -> int:
    """Do what the words say. Returns the exit code: 1 if a row failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=("run", "show", "point"))
    parser.add_argument("words", nargs="*", metavar="ROW")
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--divide", type=int, default=1)
    asked = parser.parse_args(argv)
    if asked.task == "show":
        show()
        return 0
    if asked.task == "point":
        print(json.dumps(point(asked.words[0], asked.device, asked.divide)))
        return 0
    found = run(asked.words or list(ROWS), asked.device, asked.divide)
    measured = any("error" not in made for made in found.values())
    if measured and asked.divide == 1 and asked.device == "cuda":
        kept.write(RESULTS, {**kept.stamp(FACTS), "found": found}, "GPU")
    print(table(found))
    return int(any("error" in made for made in found.values()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
