"""Datasets by the `datasets` library, from folders in its formats: the same code that reads the hub."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import pytest

from s2s.app import compose
from s2s.errors import ConfigError, DataError
from s2s.text.corpus import hub

FIELDS = {"source": "en", "target": "en", "source_field": "dialogue", "target_field": "summary"}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def records(split: str, count: int) -> list[dict[str, object]]:
    made = [
        {"id": str(n), "dialogue": f"A: hello {split} {n}\nB: bye", "summary": f"they met {split} {n}", "all": ["x"]}
        for n in range(count)
    ]
    return [*made, {"id": "blank", "dialogue": " ", "summary": "nothing", "all": []}]


def write(folder: Path, kind: str, splits: dict[str, int]) -> Path:
    folder.mkdir()
    for split, count in splits.items():
        rows = records(split, count)
        path = folder / f"{split}.{kind}"
        if kind == "jsonl":
            path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        elif kind == "csv":
            with path.open("w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, ["id", "dialogue", "summary"], extrasaction="ignore")
                writer.writeheader()
                writer.writerows(rows)
        else:
            import datasets

            datasets.Dataset.from_list(rows).to_parquet(path)
    return folder


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_each_format(tmp_path: Path, kind: str) -> None:
    folder = write(tmp_path / "data", kind, {"train": 5, "validation": 2, "test": 3})
    corpus = hub(dataset=str(folder), path=str(tmp_path / "cache"), **FIELDS)
    assert {split: len(pairs) for split, pairs in corpus.splits.items()} == {"train": 5, "dev": 2, "test": 3}
    first = corpus.splits["train"][0]
    assert (first.source, first.target) == ("A: hello train 0 B: bye", "they met train 0")
    assert first.origin == f"{folder}:train:1"
    assert corpus.report.splits["train"].dropped == {"blank side": 1}
    assert (corpus.source_language, corpus.name) == ("en", "data")
    assert str(folder) in corpus.facts["obtained"]


def test_shares_of_train_references_and_no_test(tmp_path: Path) -> None:
    folder = write(tmp_path / "data", "jsonl", {"train": 200})
    corpus = hub(dataset=str(folder), dev=0.1, test=None, references_field="all", **FIELDS)
    again = hub(dataset=str(folder), dev=0.1, test=None, references_field="all", **FIELDS)
    assert set(corpus.splits) == {"train", "dev"}
    assert 5 < len(corpus.splits["dev"]) < 40
    assert len(corpus.splits["dev"]) + len(corpus.splits["train"]) == 200
    assert corpus.fingerprint() == again.fingerprint()
    assert corpus.splits["train"][0].references == ("x",)


def test_what_is_wrong_is_said(tmp_path: Path) -> None:
    folder = write(tmp_path / "data", "jsonl", {"train": 3})
    for options, message in (
        ({}, "no split 'validation'.*splits train"),
        ({"dev": None, "test": None, "source_field": "text"}, "no field 'text'.*fields id, dialogue, summary"),
        ({"dev": None, "test": None, "references_field": "summary"}, "no list of texts"),
        ({"dev": 0.6, "test": 0.5}, "impossible shares"),
        ({"dataset": str(tmp_path / "none")}, "can't be loaded.*corpus.dataset"),
    ):
        with pytest.raises(DataError, match=message):
            hub(**{"dataset": str(folder), **FIELDS, **options})


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ConfigError, match=r'pip install "s2s\[hub\]"'):
        hub(dataset="owner/name", **FIELDS)


def test_a_script_among_the_data_is_not_run(tmp_path: Path) -> None:
    folder = write(tmp_path / "data", "jsonl", {"train": 3})
    (folder / "data.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"scripts.*corpus\.revision"):
        hub(dataset=str(folder), dev=None, test=None, **FIELDS)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["cnn_dailymail", "xsum", "samsum"])
def test_the_known_ones_only_name_a_dataset(name: str, tmp_path: Path) -> None:
    options = compose("summarise/debian-synopsis", [f"corpus={name}"]).corpus.options
    fields = (options["source_field"], options["target_field"])
    assert fields in {("article", "highlights"), ("document", "summary"), ("dialogue", "summary")}
    rows = [{fields[0]: f"long text {n}", fields[1]: f"short {n}"} for n in range(4)]
    folder = tmp_path / "copy"
    folder.mkdir()
    for split in ("train", "validation", "test"):
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{split}.jsonl").write_text(lines, encoding="utf-8")
    corpus = hub(**{**options, "dataset": str(folder), "config": None})
    assert [len(pairs) for pairs in corpus.splits.values()] == [4, 4, 4]
