"""The folder that `s2s prepare` writes and training reads: a corpus with its tokenizers, texts and ids, as data files.

    manifest.json       format version, size and SHA-256 of every other file; written last
    config.json         what it was prepared from and for, and what was left out
    source.spm ...      tokenizer files, as in a bundle; keywords.json where the task needs them
    train.jsonl ...     the texts of each split: a JSON list a line, [source, target, origin, references ...]
    train.safetensors   the ids of train by length, and where its texts begin (`s2s.text.stored`)

The two of train are mapped into memory and never read whole, so only their sizes are compared when a folder is opened;
`s2s verify` compares everything.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from s2s.bundle import MANIFEST, MAX_JSON, read_listed, read_manifest
from s2s.config import Config, to_plain
from s2s.errors import BundleError, ConfigError, DataError
from s2s.files import parse_json, sha256
from s2s.text import tokenizer
from s2s.text.corpus import Corpus, DataReport, FileFingerprint, Pair, SplitReport
from s2s.text.corpus.spool import Spool, parse_line
from s2s.text.keywords import FILE as KEYWORDS
from s2s.text.keywords import Keywords, parse_keywords
from s2s.text.stored import LINES, Stored, mapped
from s2s.text.vocabulary import Tokenizer

KIND = "corpus"  # of its manifest
FACTS, TRAIN = "config.json", "train"


def shaping(config: Config) -> dict[str, Any]:
    """What of a config decides what a prepared corpus holds, by key path; plain values."""
    plain = to_plain(config)
    found = {f"{node}.{key}": value for node in ("corpus", "text") for key, value in plain[node].items()}
    found |= {f"task.{key}": plain["task"][key] for key in ("name", "overlong", "topics", "reply")}
    return found | {f"trainer.{key}": plain["trainer"][key] for key in ("max_source", "max_target")}


class PreparedFolder:
    """A prepared corpus, opened."""

    def __init__(self, folder: str | Path, config: Config | None = None) -> None:
        """config: of the run that it is for. Raises BundleError for what isn't whole, ConfigError for what differs."""
        self.path = Path(folder)
        if not (self.path / MANIFEST).exists():
            hint = f"Type: s2s prepare RECIPE -o {folder}"
            raise DataError("is no prepared corpus", where=str(folder), expected=f"a folder with {MANIFEST}", hint=hint)
        self._manifest = read_manifest(self.path, KIND)
        facts = self._json(FACTS)
        if not isinstance(facts, dict) or not facts.keys() >= _FIELDS or not isinstance(facts["config"], dict):
            raise BundleError("is damaged", where=str(self.path / FACTS), expected=", ".join(sorted(_FIELDS)))
        self.facts: dict[str, Any] = facts
        if config is not None:
            self._require(shaping(config))
        for name, entry in self._manifest["files"].items():
            size = (self.path / name).stat().st_size if (self.path / name).is_file() else -1
            if size != entry["size"]:
                found = "no such file" if size < 0 else f"{size:,} bytes"
                expected = f"{entry['size']:,} bytes"
                raise DataError("is damaged", where=str(self.path / name), expected=expected, found=found)

    def _require(self, wanted: Mapping[str, Any]) -> None:
        made = self.facts["config"]
        for key in sorted(wanted.keys() | made.keys()):
            if made.get(key) != wanted.get(key):
                raise ConfigError(
                    f"the prepared corpus has another {key}",
                    where=f"prepared={self.path}",
                    expected=str(made.get(key)),
                    found=str(wanted.get(key)),
                    hint=f"Set {key}={made.get(key)}, or prepare the corpus anew as the run wants it",
                )

    def corpus(self) -> Corpus:
        """The texts. Those of train stay in their file. Raises BundleError, DataError."""
        facts = self.facts
        try:
            splits = {split: SplitReport(**counts) for split, counts in facts["report"]["splits"].items()}
            report = DataReport(splits, list(facts["report"]["warnings"]))
            files = {name: FileFingerprint(**entry) for name, entry in facts["files"].items()}
            source, target = facts["languages"]
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            raise BundleError(f"is damaged ({error})", where=str(self.path / FACTS)) from error
        texts: dict[str, Sequence[Pair]] = {
            split: self._train_texts() if split == TRAIN else self._texts(split) for split in facts["splits"]
        }
        return Corpus(facts["name"], source, target, texts, report, facts["facts"], files, facts["fingerprint"])

    def tokenizers(self) -> tuple[Tokenizer, Tokenizer]:
        """Those of source and target. Raises BundleError."""
        names = [n for n in self._manifest["files"] if n.split(".")[0] in ("source", "target", "shared")]
        return tokenizer.load({name: read_listed(self.path, self._manifest, name) for name in names})

    def keywords(self) -> Keywords | None:
        """Where the task needs them. Raises BundleError."""
        if KEYWORDS not in self._manifest["files"]:
            return None
        return parse_keywords(read_listed(self.path, self._manifest, KEYWORDS), str(self.path / KEYWORDS))

    def train(self, tokenizers: tuple[Tokenizer, Tokenizer]) -> Stored:
        """The ids of train, which the tokenizers know. Raises BundleError, DataError."""
        source, target = tokenizers
        return Stored(self.path / f"{TRAIN}.safetensors", (source.size, target.size))

    @property
    def left_out(self) -> tuple[int, int]:
        """How many pairs of train are too long, and how many sources were shortened."""
        return self.facts["too_long"], self.facts["cut"]

    def _train_texts(self) -> Spool:
        return Spool(self.path / f"{TRAIN}.jsonl", mapped(self.path / f"{TRAIN}.safetensors", LINES))

    def _texts(self, split: str) -> list[Pair]:
        path = self.path / f"{split}.jsonl"
        lines = read_listed(self.path, self._manifest, path.name).split(b"\n")[:-1]
        return [parse_line(line, path, place) for place, line in enumerate(lines)]

    def _json(self, name: str) -> Any:
        return parse_json(read_listed(self.path, self._manifest, name, MAX_JSON), str(self.path / name))

    def problems(self) -> list[str]:
        """Every file that isn't as the manifest says, a line each."""
        found = []
        for name, entry in self._manifest["files"].items():
            digest = sha256(self.path / name)
            if digest != entry["sha256"]:
                found.append(
                    str(BundleError("was changed or damaged", where=str(self.path / name), found=f"{digest[:12]}..."))
                )
        extra = {path.name for path in self.path.iterdir() if not path.name.startswith(".")}
        for name in sorted(extra - self._manifest["files"].keys() - {MANIFEST}):
            found.append(str(BundleError("is not listed in the manifest and not used", where=str(self.path / name))))
        return found


_FIELDS = {"config", "name", "languages", "splits", "report", "facts", "files", "fingerprint", "too_long", "cut"}


def facts_of(corpus: Corpus, config: Config, too_long: int, cut: int) -> dict[str, Any]:
    """What config.json holds."""
    return {
        "config": shaping(config),
        "name": corpus.name,
        "languages": [corpus.source_language, corpus.target_language],
        "splits": list(corpus.splits),
        "report": dataclasses.asdict(corpus.report),
        "facts": corpus.facts,
        "files": {name: entry._asdict() for name, entry in corpus.files.items()},
        "fingerprint": corpus.fingerprint(),
        "too_long": too_long,
        "cut": cut,
    }
