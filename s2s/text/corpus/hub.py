"""Datasets of the public hub, or of a folder in its formats, through the `datasets` library (the extra `hub`).

No code of a dataset is run: `datasets` from 4.0 on reads data files only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from s2s.errors import ConfigError, DataError
from s2s.text.corpus.base import Corpus, Drop, Pair, empty_splits, make_corpus, split_of, warn
from s2s.text.corpus.local import pair_of


def hub(
    *,
    dataset: str,
    config: str | None = None,
    revision: str | None = None,
    path: str | None = None,
    train: str = "train",
    dev: str | float | None = "validation",
    test: str | float | None = "test",
    source: str,
    target: str,
    source_field: str,
    target_field: str,
    references_field: str | None = None,
    max_words: int | None = None,
    lowercase: bool = False,
    allow_drop: bool = False,
    licence: str = "see the dataset's page",
    seed: int = 1,
) -> Corpus:
    """A dataset by its name on the hub ("owner/name"), or a folder of JSON lines, CSV or Parquet files.

    config, revision: which variant and which commit (null: the newest). path: cache folder; null = that of `datasets`.
    train, dev, test: names of its splits; dev and test may be shares of train, drawn by source text and seed, or null.
    source, target: languages. source_field, target_field, references_field: as in `jsonl`.
    Raises ConfigError without the library, DataError if the dataset can't be had or has no such split or field.
    """
    splits = _load(dataset, config, revision, path)
    wanted = [name for name in (train, dev, test) if isinstance(name, str)]
    for name in wanted:
        if name not in splits:
            raise DataError(
                f"no split {name!r}",
                where=dataset,
                found="splits " + ", ".join(splits),
                hint="Name the dataset's own in corpus.train, corpus.dev, corpus.test",
            )

    fields = (source_field, target_field, references_field)

    def read(name: str) -> Iterator[Pair | Drop]:
        for number, record in enumerate(splits[name]):
            yield pair_of(record, fields, f"{dataset}:{name}:{number + 1}")

    held = {split: float(part) for split, part in (("dev", dev), ("test", test)) if isinstance(part, int | float)}
    shares = {"dev": 0.0, "test": 0.0, **held}
    found = empty_splits(**shares)
    for split, held_out in (("dev", dev), ("test", test)):
        if isinstance(held_out, str):
            found[split] = list(read(held_out))
    for item in read(train):
        assert isinstance(item, Pair)
        found[split_of(item.source, **shares, seed=seed)].append(item)
    variant = f"variant {config or 'default'}, revision {revision or 'newest'}"
    facts = {
        "obtained": f"{dataset}, {variant}, by the library datasets",
        "licence": licence,
    }
    corpus = make_corpus(
        Path(dataset).name,
        (source, target),
        found,
        max_words=max_words,
        lowercase=lowercase,
        allow_drop=allow_drop,
        facts=facts,
        files={},
    )
    warn(corpus)
    return corpus


def _load(dataset: str, config: str | None, revision: str | None, path: str | None) -> Mapping[str, Any]:
    """The splits by name; a split gives records as dicts."""
    try:
        import datasets
    except ImportError as error:
        raise ConfigError(
            "this corpus is read by the library datasets, which isn't installed",
            where="corpus",
            hint='Install it: pip install "s2s[hub]"',
        ) from error
    try:
        loaded = datasets.load_dataset(dataset, config, revision=revision, cache_dir=path)
    except Exception as error:  # the library and what it calls raise whatever they like
        raise DataError(
            f"the dataset can't be loaded: {type(error).__name__}: {' '.join(str(error).split())[:300]}",
            where=dataset,
            hint="Check corpus.dataset, corpus.config and the network; for a dataset that is a script try "
            "corpus.revision=refs/convert/parquet; or name a folder that holds the data files",
        ) from error
    return loaded  # type: ignore[no-any-return]
