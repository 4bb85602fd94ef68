"""`s2s prepare`: a corpus to ids once, in several processes, so that training starts at once and holds none of it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from s2s.bundle import MANIFEST, write_manifest
from s2s.config import Config
from s2s.errors import DataError, UsageError
from s2s.files import RunLock, replace_folder, sha256, to_json, write_atomic, write_failure
from s2s.task.encode import Encoder
from s2s.task.prepare import check_dev, check_left_out, corpus_keywords, load_corpus, load_tokenizers
from s2s.task.prepared_folder import FACTS, KIND, TRAIN, PreparedFolder, facts_of, shaping
from s2s.task.processes import interrupts_stay_here, process_pool
from s2s.task.trained import for_task
from s2s.text import tokenizer
from s2s.text.corpus import Corpus
from s2s.text.corpus.base import fingerprint_file, train_kept_by
from s2s.text.corpus.spool import Spool, open_spool, spool, to_line
from s2s.text.keywords import FILE as KEYWORDS
from s2s.text.stored import assemble, write_part
from s2s.text.vocabulary import Tokenizer

SHARD = 1 << 16  # pairs that a process encodes at a time, and that are written together

Note = Callable[[str], None]


class Counts(NamedTuple):
    """Of some pairs: all, those that are too long and left out, those whose source was shortened."""

    pairs: int
    too_long: int
    cut: int


def prepare_folder(config: Config, folder: Path, *, workers: int = 1, note: Note = lambda text: None) -> Counts:
    """Prepare the corpus of a config in `folder`, or finish what was begun there. The counts are those of train.

    What is done already stays done: a folder that is whole and fits isn't touched, and of one that isn't, the shards
    that were encoded from the same texts are taken as they are. Raises S2SError for what can't be prepared, or where
    the folder holds something else.
    """
    if workers < 1:
        raise UsageError("--workers is out of range", expected="at least 1", found=str(workers))
    if config.prepared is not None:
        raise UsageError("this corpus is prepared already", where=f"prepared={config.prepared}")
    if config.trainer.links is not None:
        raise UsageError("links need the whole corpus in memory", where="trainer.links", expected="null")
    if (folder / MANIFEST).exists():
        return _as_it_is(config, folder, note)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError("holds something else", where=str(folder), expected="a new folder")
    work = folder.absolute().with_name(f"{folder.absolute().name}.partial")
    try:
        with RunLock(work):
            counts = _prepare(config, folder, work, workers, note)
            shutil.rmtree(work)
    except OSError as error:
        raise write_failure(error, work) from error
    return counts


def _as_it_is(config: Config, folder: Path, note: Note) -> Counts:
    """The counts of a prepared folder, if it is what would be made now."""
    made = PreparedFolder(folder, config)
    for name, entry in made.facts["files"].items():
        path = Path(name)
        if path.exists() and fingerprint_file(path)._asdict() != entry:
            raise DataError(
                "holds a corpus that was read from another file",
                where=str(folder),
                found=f"{name} has changed",
                hint="Name a new folder, or remove this one",
            )
    note(f"{folder} is prepared already")
    return Counts(made.facts["report"]["splits"][TRAIN]["kept"], *made.left_out)


def _prepare(config: Config, folder: Path, work: Path, workers: int, note: Note) -> Counts:
    texts, index = work / f"{TRAIN}.jsonl", work / f"{TRAIN}.lines"
    note("reading the corpus")
    with train_kept_by(lambda pairs: spool(pairs, texts, index)):
        corpus = load_corpus(config)
    if not isinstance(corpus.splits[TRAIN], Spool):  # of a corpus that is made in memory
        corpus.splits[TRAIN] = spool(corpus.splits[TRAIN], texts, index)
    check_dev(corpus)
    shards = _shards_of(work, config, corpus)
    tokenizers = _tokenizers(config, corpus, shards, note)
    keywords = corpus_keywords(config, corpus)
    encoder = Encoder.of(config, for_task(config, tokenizers), keywords)
    parts, counts = _encode(encoder, (texts, index), len(corpus.splits[TRAIN]), shards, workers, note)
    check_left_out(counts.too_long, counts.pairs)
    note("putting the shards in order")
    with replace_folder(folder) as new:
        lines = open_spool(texts, index).starts
        assemble(parts, new / f"{TRAIN}.safetensors", lines, max(one.size for one in tokenizers), work)
        for name, data in tokenizer.dump(*tokenizers).items():
            (new / name).write_bytes(data)
        if keywords is not None:
            (new / KEYWORDS).write_bytes(keywords.to_bytes())
        for split, pairs in corpus.splits.items():
            if split != TRAIN:
                (new / f"{split}.jsonl").write_bytes(b"".join(map(to_line, pairs)))
        (new / FACTS).write_bytes(to_json(facts_of(corpus, config, counts.too_long, counts.cut)))
        texts.rename(new / texts.name)
        write_manifest(new, KIND)
    return counts


def _shards_of(work: Path, config: Config, corpus: Corpus) -> Path:
    """The folder of what is encoded already: empty unless that was from the same texts by the same options."""
    made_from = to_json({"config": shaping(config), "fingerprint": corpus.fingerprint(), "shard": SHARD})
    folder = work / "shards"
    if not (folder / FACTS).is_file() or (folder / FACTS).read_bytes() != made_from:
        shutil.rmtree(folder, ignore_errors=True)
        write_atomic(folder / FACTS, made_from)
    return folder


def _tokenizers(config: Config, corpus: Corpus, shards: Path, note: Note) -> tuple[Tokenizer, Tokenizer]:
    """Those that the shards were encoded by, else trained and kept."""
    place = shards / "text"
    if not place.is_dir():
        note("training the tokenizer")
        made = load_tokenizers(config, corpus)
        with replace_folder(place) as new:
            for name, data in tokenizer.dump(*made).items():
                (new / name).write_bytes(data)
    return tokenizer.load({path.name: path.read_bytes() for path in sorted(place.iterdir())})


def _encode(
    encoder: Encoder, texts: tuple[Path, Path], pairs: int, folder: Path, workers: int, note: Note
) -> tuple[list[Path], Counts]:
    """The files of the shards in order, those that aren't there made, and the counts of all."""
    parts = [folder / f"{start // SHARD:06d}.safetensors" for start in range(0, pairs, SHARD)]
    missing = [number for number, path in enumerate(parts) if not _is_whole(path)]
    if len(missing) < len(parts):
        note(f"{len(parts) - len(missing)} of {len(parts)} shards are there")
    if workers == 1:
        _start(encoder, texts)
        for number in missing:
            _encode_shard(number, parts[number])
            note(f"shard {number + 1} of {len(parts)}")
    else:
        with process_pool(min(workers, max(1, len(missing))), _start, (encoder, texts)) as pool:
            with interrupts_stay_here():
                waiting = [(number, pool.submit(_encode_shard, number, parts[number])) for number in missing]
            for number, future in waiting:
                future.result()
                note(f"shard {number + 1} of {len(parts)}")
    counts = [json.loads(_facts_file(path).read_bytes())["counts"] for path in parts]
    return parts, Counts(*(sum(column) for column in zip(*counts, strict=True)))


def _facts_file(part: Path) -> Path:
    """Counts and SHA-256 of a shard; written after it."""
    return part.with_suffix(".json")


def _is_whole(part: Path) -> bool:
    """Whether a shard was written to its end, and its bytes came to the disk."""
    return _facts_file(part).is_file() and json.loads(_facts_file(part).read_bytes())["sha256"] == sha256(part)


_working: tuple[Encoder, Spool] | None = None  # of a process, made once by `_start`


def _start(encoder: Encoder, texts: tuple[Path, Path]) -> None:
    global _working
    _working = encoder, open_spool(*texts)


def _encode_shard(number: int, path: Path) -> None:
    """Encode the pairs of one shard into its file."""
    assert _working is not None
    encoder, pairs = _working
    numbers, examples, cut = [], [], 0
    own = range(number * SHARD, min((number + 1) * SHARD, len(pairs)))
    for place in own:
        encoded = encoder(pairs[place])
        cut += encoded.cut
        if encoder.fits(encoded.example):
            numbers.append(place)
            examples.append(encoded.example)
    write_part(path, numbers, examples)
    facts = {"counts": [len(own), len(own) - len(numbers), cut], "sha256": sha256(path)}
    write_atomic(_facts_file(path), to_json(facts))
