"""Train and decode the same shapes with s2s and other toolkits, in turns; medians and ratios.

    python -m bench.speed prepare CORPUS [--work DIR]      # cut into pieces; CORPUS has train, val, test .en and .de
    python -m bench.speed install [NAME ...] [--work DIR]  # an environment for each toolkit
    python -m bench.speed run [NAME ...] [--shapes S ...] [--rounds 3] [--work DIR]
    python -m bench.speed guard [NAME ...] [--shapes S ...] [--rounds 1] [--tolerance 0.15] [--work DIR]
    python -m bench.speed profile [--shapes S ...] [--work DIR]  # where s2s's time goes, beside the least possible
    python -m bench.speed show

Target tokens a second are real ones, padding not counted, after the first updates. Decoding forces 15 tokens on 512
sentences, in batches of 64. All toolkits train in turns of three seconds, and decode in turns of one, as the speed of a
machine may change by the minute. `other` tells for how many seconds the machine did something else meanwhile.
What `run` found is written to bench/results/speed as JSON, `profile` adds to the last of this processor, and `show`
makes a page of the last for each processor, with pictures.
`guard` runs once more and fails where s2s, as a ratio to the best other toolkit in the same run, is slower than it was
kept. It compares with the yardstick too, plain torch at work of the same sizes, which is there where nothing else is.
A toolkit that isn't installed is left out, and it says so.
"""

from __future__ import annotations

import argparse
import gzip
import json
import re
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import sentencepiece

from bench import kept
from bench.measure import Measured, measure, others
from bench.page import TOLERANCE, Verdict, compare, draw, page, picture, table
from bench.peers.base import BEAMS, FORCED, SENTENCES, SHAPES, THREADS, VOCABULARY, Corpus, Peer, Shape
from bench.peers.eole import Eole
from bench.peers.itself import S2S, S2SInHalf, run_of
from bench.peers.joeynmt import JoeyNMT
from bench.peers.marian import Marian
from bench.peers.opennmt import OpenNMT
from bench.peers.yardstick import Yardstick
from bench.turns import Turns
from s2s.train import profile

RESULTS = Path(__file__).resolve().parent / "results" / "speed"
PEERS: tuple[Peer, ...] = (
    S2S(),
    S2SInHalf(),
    Yardstick(),
    OpenNMT(),
    JoeyNMT(),
    Eole(),
    Marian(),
    S2S("s2s, 2 workers", workers=2),
    S2S("s2s, 2 workers, int8", workers=2, precision="int8"),
    S2S("s2s, 2 workers, int8, shortlist", workers=2, precision="int8", shortlist=10),
    S2S("s2s by CTranslate2", engine="ctranslate2"),
    S2S("s2s by CTranslate2, int8", engine="ctranslate2", precision="int8"),
)
FACTS = ("CPU", "cores", "memory", "torch", "Python", "s2s")  # of the machine
WARM = 4  # updates that aren't counted
TIMEOUT = 600.0  # of a run that is alone
TRAIN, DECODE = 3.0, 1.0  # seconds of a turn
LOG = "output.log"


def prepare(corpus: Path, work: Path) -> None:
    """Write the text of a parallel corpus cut into pieces of one vocabulary."""
    made = Corpus(work / "corpus")
    made.folder.mkdir(parents=True, exist_ok=True)
    texts = {}
    for split, names in (("train", ("train",)), ("val", ("val", "dev")), ("test", ("test", "test_2016"))):
        for language in ("en", "de"):
            texts[split, language] = _lines([corpus / f"{name}.{language}" for name in names])
    texts = {(split, side): lines[:SENTENCES] if split == "test" else lines for (split, side), lines in texts.items()}
    model = made.folder / "pieces"
    sentencepiece.SentencePieceTrainer.Train(
        sentence_iterator=iter([*texts["train", "en"], *texts["train", "de"]]),
        model_prefix=str(model),
        vocab_size=VOCABULARY,
        model_type="bpe",
        character_coverage=1.0,
        minloglevel=2,
    )
    cut = sentencepiece.SentencePieceProcessor(model_file=f"{model}.model")
    for (split, language), lines in texts.items():
        written = "".join(f"{' '.join(cut.Encode(line, out_type=str))}\n" for line in lines)
        made.path(split, language).write_text(written, encoding="utf-8")
    pieces = [cut.IdToPiece(number) for number in range(cut.GetPieceSize()) if not cut.IsControl(number)]
    kept = [piece for piece in pieces if piece != "<unk>"]
    (made.folder / "vocabulary").write_text("".join(f"{piece}\n" for piece in kept), encoding="utf-8")


def _lines(paths: Sequence[Path]) -> list[str]:
    for path in paths:
        if path.is_file():
            return path.read_text(encoding="utf-8").splitlines()
        if (packed := path.with_name(f"{path.name}.gz")).is_file():
            return gzip.decompress(packed.read_bytes()).decode("utf-8").splitlines()
    raise SystemExit(f"none of {', '.join(map(str, paths))} is there, nor with .gz")


def python_of(peer: Peer, work: Path) -> Path:
    """The interpreter that a toolkit runs by."""
    if not peer.requirements and not peer.bare:
        return Path(sys.executable)
    return work / "environments" / peer.name.split()[0] / "bin" / "python"


def install(peer: Peer, work: Path) -> None:
    """Make a toolkit's environment, with this environment's torch."""
    python = python_of(peer, work)
    if python == Path(sys.executable) or python.exists():
        return
    import torch

    pin = f"torch=={torch.__version__.partition('+')[0]}"
    subprocess.run([sys.executable, "-m", "venv", str(python.parents[1])], check=True)
    constraints = python.parents[1] / "constraints.txt"
    constraints.write_text(f"{pin}\n")
    pip = [str(python), "-m", "pip", "install", "-q"]
    try:
        subprocess.run([*pip, pin], check=True)
        subprocess.run([*pip, "-c", str(constraints), *peer.requirements], check=True)
        if peer.bare:
            subprocess.run([*pip, "--no-deps", *peer.bare], check=True)
    except BaseException:
        shutil.rmtree(python.parents[1])  # half of an environment would pass for one
        raise


def versions(peer: Peer, work: Path) -> dict[str, str] | None:
    """The version of each of a toolkit's packages in its own environment; None where one isn't installed."""
    script = "import importlib.metadata as m, json, sys; print(json.dumps({p: m.version(p) for p in sys.argv[1:]}))"
    python = python_of(peer, work)
    if not python.exists():
        return None
    done = subprocess.run([str(python), "-c", script, *peer.packages], capture_output=True, text=True, check=False)
    told: dict[str, str] | None = None if done.returncode else json.loads(done.stdout)
    return told


def training(peer: Peer, shape: Shape, corpus: Corpus, folder: Path, python: Path, turns: Turns) -> dict[str, Any]:
    """One training run. turns: that it takes with others."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    done = _run(peer.train(shape, corpus, folder, python), folder, turns)
    steps = peer.updates(done, folder) if done.code == 0 else []
    steps = [(done.running(since), tokens) for since, tokens in steps]
    if len(steps) < WARM + 2:
        return {**_facts(done), "error": [line for _, line in done.lines[-8:]]}
    tokens = sum(count for _, count in steps[WARM:])
    return {**_facts(done), "rate": tokens / (steps[-1][0] - steps[WARM - 1][0]), "first": steps[0][0]}


def decoding(
    peer: Peer, shape: Shape, corpus: Corpus, folder: Path, python: Path, beam: int, turns: Turns
) -> dict[str, Any]:
    """One decoding run. It fails where an output has more or fewer tokens than asked: rates of others say nothing."""
    output = folder / peer.output if peer.output else None
    if output:
        output.unlink(missing_ok=True)
    done = _run(peer.decode(shape, corpus, folder, python, beam), folder, turns)
    try:
        if done.code:
            raise ValueError(f"it ended with {done.code}: {[line for _, line in done.lines[-5:]]}")
        rate = peer.sentences_a_second(done)
        if output:
            lengths = [len(line.split()) for line in output.read_text(encoding="utf-8").splitlines()]
            if lengths != [FORCED] * SENTENCES:
                raise ValueError(f"{len(lengths)} outputs of {statistics.fmean(lengths or [0]):.1f} tokens")
    except (ValueError, OSError) as error:
        return {**_facts(done), "error": [str(error)]}
    return {**_facts(done), "rate": rate}


def _folder(name: str) -> str:
    """A name as a folder that stands in a toolkit's config or command: Hydra takes a comma for a list."""
    return re.sub(r"[^\w.-]+", "-", name)


def in_turns(runs: Mapping[str, Callable[[Turns], dict[str, Any]]], seconds: float) -> dict[str, dict[str, Any]]:
    """What each of some runs has found, by name. All of them take turns of so many seconds."""
    other = others()
    with ThreadPoolExecutor(max(1, len(runs))) as pool, Turns(seconds) as turns:
        begun = {name: pool.submit(run, turns) for name, run in runs.items()}
        made = {name: one.result() for name, one in begun.items()}
    return {name: {**row, "other": round(other(), 1)} for name, row in made.items()}


def place(work: Path, peer: Peer, shape: Shape) -> Path:
    """The folder of a toolkit's runs of a shape."""
    return work / "runs" / _folder(peer.trained_by) / shape.name


def _run(command: Sequence[str], folder: Path, turns: Turns | None = None) -> Measured:
    root = str(Path(__file__).resolve().parents[1])
    environment = {"OMP_NUM_THREADS": str(THREADS), "PYTHONPATH": root, "HF_HUB_OFFLINE": "1"}
    environment["TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"] = "1"  # OpenNMT-py's own checkpoints
    done = measure(command, timeout=TIMEOUT * len(PEERS), folder=folder, environment=environment, turns=turns)
    (folder / LOG).write_text("".join(f"{at:8.2f} {line}\n" for at, line in done.lines), encoding="utf-8")
    return done


def _facts(done: Measured) -> dict[str, Any]:
    return {"peak_mb": round(done.peak / 1e6), "seconds": round(done.seconds, 1)}


def run(
    peers: Sequence[Peer],
    shapes: Sequence[Shape],
    rounds: int,
    work: Path,
    keep: Callable[[dict[str, Any]], object] | None = None,
) -> dict[str, Any]:
    """All rows, `rounds` times, the toolkits in turns. What isn't installed is left out, and told.

    keep: gets what was found until then after each round, so that a run that is cut off isn't for nothing.
    """
    corpus = Corpus(work / "corpus")
    asked = {peer.name: versions(peer, work) for peer in peers}
    told = {name: found for name, found in asked.items() if found is not None}
    for name in asked.keys() - told.keys():
        print(f"{name}: not installed, left out (python -m bench.speed install)", file=sys.stderr)
    for peer in peers:
        if not peer.shapes:
            print(f"{peer.name}: nothing for this machine, left out", file=sys.stderr)
    peers = [peer for peer in peers if peer.name in told]
    found: dict[str, dict[str, list[dict[str, Any]]]] = {}
    stamp = kept.stamp(FACTS)
    done: dict[str, Any] = {**stamp, "versions": told, "rounds": 0, "found": found}
    for number in range(rounds):
        for shape in shapes:
            for row, rows in _rows([peer for peer in peers if shape.name in peer.shapes], shape, corpus, work):
                for name, made in rows.items():
                    found.setdefault(row, {}).setdefault(name, []).append(made)
                    print(f"round {number + 1}, {row}, {name}: {made}", file=sys.stderr, flush=True)
        done["rounds"] = number + 1
        if keep is not None:
            keep(done)
    return done


def _rows(
    peers: Sequence[Peer], shape: Shape, corpus: Corpus, work: Path
) -> Iterator[tuple[str, dict[str, dict[str, Any]]]]:
    """Each row of a shape, once, with what each toolkit reached."""
    given = {peer.name: (peer, shape, corpus, place(work, peer, shape), python_of(peer, work)) for peer in peers}
    trained = in_turns(
        {peer.name: partial(training, *given[peer.name]) for peer in peers if peer.name == peer.trained_by}, TRAIN
    )
    yield f"{shape.name}: tokens/s", trained
    ready = [
        peer
        for peer in peers
        if (place(work, peer, shape) / LOG).exists() and "error" not in trained.get(peer.trained_by, {})
    ]
    for beam in BEAMS:
        decoders = [peer for peer in ready if beam in peer.beams]
        rows = in_turns({peer.name: partial(decoding, *given[peer.name], beam) for peer in decoders}, DECODE)
        yield f"{shape.name}: sentences/s, {'greedy' if beam == 1 else f'beam {beam}'}", rows


def profiles(shapes: Sequence[Shape], work: Path) -> dict[str, Any]:
    """Where the time of an update goes with s2s for each shape, beside the fewest seconds: its profile.json."""
    own, found = S2S(), dict[str, Any]()
    for shape in shapes:
        folder = work / "runs" / "profile" / shape.name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        longer = replace(shape, updates=profile.WARM + 1 + profile.COUNTED)
        command = own.train(longer, Corpus(work / "corpus"), folder, python_of(own, work))
        done = _run([*command, "profile=true"], folder)
        if done.code:
            raise SystemExit("\n".join(line for _, line in done.lines[-8:]))
        found[shape.name] = json.loads((run_of(folder) / "profile.json").read_text(encoding="utf-8"))
    return found


def show() -> None:
    """The page and the pictures of what was kept last for each processor, the newest first."""
    results = dict(reversed(kept.newest(RESULTS, "bench.speed").items()))
    for name, done in results.items():
        draw(done["found"], RESULTS / picture(name))
    (RESULTS / "README.md").write_text(page(results), encoding="utf-8")


def guard(before: dict[str, Any], done: dict[str, Any], tolerance: float) -> int:
    """Tell what has become slower since `before`. Returns the exit code: 1 also where nothing could be compared."""
    for fact in ("CPU", "cores", "torch"):
        then, now = before["machine"][fact], done["machine"][fact]
        if then != now:
            print(f"kept with {fact} {then}, now {now}: ratios may differ for that", file=sys.stderr)
    verdict: Verdict = compare(before["found"], done["found"], tolerance)
    print(*verdict.skipped, sep="\n", end="\n" * bool(verdict.skipped), file=sys.stderr)
    if verdict.fallen:
        print(*verdict.fallen, sep="\n")
        print(f"Slower than in {before['date']}. One round can mislead: see that nothing else runs, take --rounds 3.")
    elif not verdict.held:
        print(f"nothing to compare: the result of {before['date']} has none of these rows and toolkits")
    else:
        print(f"as fast as on {before['date']}: {verdict.held} ratios, none lower by more than {tolerance:.0%}")
    return int(bool(verdict.fallen) or not verdict.held)


def main(argv: Sequence[str]) -> int:
    """Do what the words say. Returns the exit code: 1 if a toolkit couldn't be measured, or s2s has become slower."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=("prepare", "install", "run", "guard", "profile", "show"))
    parser.add_argument("words", nargs="*", metavar="CORPUS or NAME")
    parser.add_argument("--shapes", nargs="+", default=[shape.name for shape in SHAPES])
    parser.add_argument("--rounds", type=int, help="default: 3, for guard 1")
    parser.add_argument("--tolerance", type=float, default=TOLERANCE, help="of guard: by which part a ratio may fall")
    parser.add_argument("--work", type=Path, default=Path("runs/bench"))
    asked = parser.parse_args(argv)
    work = asked.work.resolve()
    if asked.task == "prepare":
        prepare(Path(asked.words[0]), work)
        return 0
    if asked.task == "show":
        show()
        return 0
    peers = [peer for peer in PEERS if not asked.words or any(peer.name.startswith(word) for word in asked.words)]
    if asked.task == "install":
        failed = 0
        for peer in peers:
            try:
                install(peer, work)
            except subprocess.CalledProcessError as error:
                print(f"{peer.name}: not installed: {error}", file=sys.stderr)
                failed = 1
        return failed
    shapes = [shape for shape in SHAPES if shape.name in asked.shapes]
    stamp = kept.stamp()
    chip = stamp["machine"]["CPU"]
    if asked.task == "profile":
        before = kept.last(RESULTS, "bench.speed", chip=chip)
        if before["machine"]["CPU"] != chip:
            raise SystemExit(f"nothing to add a profile to: no result of this processor ({chip}); make one by `run`")
        kept.write(RESULTS, {**before, "profile": {"date": stamp["date"], "found": profiles(shapes, work)}})
        return 0
    if asked.task == "guard":
        before = kept.last(RESULTS, "bench.speed", chip=chip)
        return guard(before, run(peers, shapes, asked.rounds or 1, work), asked.tolerance)
    done = run(peers, shapes, asked.rounds or 3, work, keep=lambda found: kept.write(RESULTS, found))
    print(table(done["found"]))
    return int(any("error" in run for peers in done["found"].values() for runs in peers.values() for run in runs))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
