"""What a corpus costs as it grows: preparing it, a whole epoch of batches from it, and the wait for a first update.

    python -m bench.corpora run [PAIRS ...] [--work DIR]   # 10k to 10M; the last: 15 minutes, several GB
    python -m bench.corpora show                           # a page of what was kept last

Pairs are generated: 5 to 25 words of a vocabulary of 5,000 with the frequencies of Zipf's law, and their translation
word by word in reverse. Memory is anonymous (RssAnon), the most seen at any time: what is mapped from files can be
dropped by the system whenever it likes, this can't. Exponents are fitted as in bench/growth.py.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from bench import kept
from bench.growth import exponent, upper
from bench.measure import family

RESULTS = Path(__file__).resolve().parent / "results" / "corpora"
SIZES = (10_000, 100_000, 1_000_000, 10_000_000)
WORDS, SHORTEST, LONGEST = 5_000, 5, 25
HELD_OUT = 500  # lines of dev
WORKERS = 2
SHAPE = Path(__file__).resolve().parent / "shapes" / "lstm.yaml"


def write_corpus(folder: Path, pairs: int, seed: int = 1) -> None:
    """train.en, train.de and the same of dev, in pieces, so that no size takes memory."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(seed)
    shares = 1 / np.arange(1, WORDS + 1)
    words = {side: np.array([f"{side}{number}" for number in range(WORDS)]) for side in ("en", "de")}
    for split, count in (("dev", HELD_OUT), ("train", pairs)):
        with open(folder / f"{split}.en", "w") as source, open(folder / f"{split}.de", "w") as target:
            for start in range(0, count, 100_000):
                lengths = generator.integers(SHORTEST, LONGEST + 1, min(100_000, count - start))
                drawn = generator.choice(WORDS, lengths.sum(), p=shares / shares.sum())
                for line in np.split(drawn, np.cumsum(lengths)[:-1]):
                    source.write(" ".join(words["en"][line]) + "\n")
                    target.write(" ".join(words["de"][line[::-1]]) + "\n")


def anonymous_mb(process: int) -> float:
    """Anonymous memory of a process and of those that it started."""
    total = 0.0
    for number in family(process):
        with contextlib.suppress(OSError):  # it has ended
            lines = Path(f"/proc/{number}/status").read_text().splitlines()
            total += sum(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1024
    return total


def watched(command: Sequence[str], until: Callable[[], bool] = lambda: False) -> tuple[float, float, str]:
    """Seconds, the most anonymous memory in MB and the output of a command; ended when `until` holds."""
    began = time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        outputs: list[str] = []
        reader = threading.Thread(target=lambda: outputs.extend(process.communicate()))
        reader.start()
        most = 0.0
        while reader.is_alive():
            most = max(most, anonymous_mb(process.pid))
            if until():
                seconds = time.monotonic() - began
                process.terminate()
                reader.join()
                return seconds, most, outputs[0]
            reader.join(0.05)
        if process.returncode:
            raise SystemExit(f"{' '.join(command)} failed:\n{outputs[1]}")
        return time.monotonic() - began, most, outputs[0]


def changes(folder: Path) -> list[str]:
    """The overrides of every command."""
    corpus = [f"corpus.train={folder}/train", f"corpus.dev={folder}/dev", "corpus.test=null", "trainer.lexicon=0"]
    return [*corpus, "text=sentencepiece", "text.size=4000", "text.sentences=100000", "threads=1", "trainer.steps=1000"]


def epoch(folder: Path, prepared: Path) -> dict[str, float]:
    """Iterate over one epoch in this process, as training does."""
    from s2s.app import compose
    from s2s.task.prepare import load_corpus, load_tokenizers, prepare

    config = compose(str(SHAPE), [*changes(folder), f"prepared={prepared}"])
    began = time.monotonic()
    corpus = load_corpus(config)
    ready = prepare(config, corpus, load_tokenizers(config, corpus))
    make, batches = ready.batch(config), ready.plan(config).epoch(0)
    opened = time.monotonic()
    pairs = tokens = 0
    for rows in batches:
        batch = make(rows, 0)
        pairs += len(batch.rows)
        tokens += int(batch.target_lengths.sum())
    seconds = time.monotonic() - opened
    return {"opening_s": opened - began, "epoch_s": seconds, "pairs": pairs, "tokens": tokens, "batches": len(batches)}


def point(pairs: int, work: Path) -> dict[str, float]:
    """All that is measured of one size."""
    folder, prepared, runs = work / f"{pairs}", work / f"{pairs}.prepared", work / "runs"
    write_corpus(folder, pairs)
    s2s = [sys.executable, "-m", "s2s"]
    seconds, memory, _ = watched(
        [*s2s, "prepare", str(SHAPE), *changes(folder), "-o", str(prepared), f"--workers={WORKERS}"]
    )
    _, read_memory, output = watched([sys.executable, "-m", "bench.corpora", "epoch", str(folder), str(prepared)])
    seen = json.loads(output)
    if seen["pairs"] != pairs:
        raise SystemExit(f"an epoch of {pairs} pairs had {seen['pairs']}")

    def stepped() -> bool:
        return any('"train"' in log.read_text() for log in runs.rglob("log.jsonl"))

    train = [
        *s2s,
        "train",
        str(SHAPE),
        *changes(folder),
        f"prepared={prepared}",
        f"output={runs}",
        "trainer.log_every=1",
    ]
    first, train_memory, _ = watched(train, stepped)
    size = sum(path.stat().st_size for path in prepared.iterdir())
    for place in (folder, prepared, runs):
        subprocess.run(["rm", "-rf", str(place)], check=True)
    return {
        "pairs": pairs,
        "files_mb": size / 1e6,
        "prepare_s": seconds,
        "prepare_mb": memory,
        **{name: seen[name] for name in ("opening_s", "epoch_s", "tokens", "batches")},
        "pairs_per_second": pairs / seen["epoch_s"],
        "epoch_mb": read_memory,
        "first_update_s": first,
        "train_mb": train_memory,
    }


def table(points: Sequence[dict[str, float]]) -> str:
    """A line for each size, and one of exponents."""
    head = ("pairs", "files MB", "prepare s", "MB", "epoch pairs/s", "MB", "first update s", "MB")
    lines = [f"| {' | '.join(head)} |", "|---:" * len(head) + "|"]
    columns = ("files_mb", "prepare_s", "prepare_mb", "pairs_per_second", "epoch_mb", "first_update_s", "train_mb")
    for one in points:
        shown = [f"{one[name]:,.1f}" if name.endswith("_s") else f"{one[name]:,.0f}" for name in columns]
        lines.append(f"| {one['pairs']:,} | {' | '.join(shown)} |")
    if len(points) > 2:
        slopes = [f"{exponent(upper([(one['pairs'], one[name]) for one in points])):.2f}" for name in columns]
        lines.append(f"| exponent | {' | '.join(slopes)} |")
    return "\n".join(lines)


def show() -> None:
    """The page of the result that was kept last."""
    name, done = list(kept.newest(RESULTS, "bench.corpora").items())[-1]
    machine = kept.told(done["machine"])
    words = " ".join(str(__doc__).split("\n\n")[2].split())
    (RESULTS / "README.md").write_text(
        f"# A corpus as it grows, {done['date']}\n\n{machine}.\n\n{words}\n\n"
        f"Preparing takes {WORKERS} processes, whose memory "
        f"is summed, and the rest one. The first update counts from `s2s train`, imports included.\n\n"
        f"Written by `python -m bench.corpora show` from {name}, which `python -m bench.corpora run` made."
        f"\n\n{table(done['points'])}\n",
        encoding="utf-8",
    )


def main(argv: Sequence[str]) -> int:
    """Do what the words say."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=("run", "show", "epoch"))
    parser.add_argument("words", nargs="*", metavar="PAIRS")
    parser.add_argument("--work", type=Path)
    asked = parser.parse_args(argv)
    if asked.task == "show":
        show()
    elif asked.task == "epoch":
        print(json.dumps(epoch(*map(Path, asked.words))))
    else:
        with tempfile.TemporaryDirectory() as made:
            points = []
            for pairs in map(int, asked.words or SIZES):
                points.append(point(pairs, asked.work or Path(made)))
                print(points[-1], file=sys.stderr, flush=True)
        kept.write(RESULTS, {**kept.stamp(), "points": points})
        print(table(points))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
