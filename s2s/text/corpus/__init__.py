"""Corpora: each public builder here is the target of a file in `conf/corpus/` and gives a `Corpus`."""

from s2s.text.corpus.base import Corpus, DataReport, FileFingerprint, Pair, SplitReport
from s2s.text.corpus.catalogs import catalogs
from s2s.text.corpus.debian import debian, debian_packages
from s2s.text.corpus.debian_text import Package
from s2s.text.corpus.describe import describe
from s2s.text.corpus.files import files, jsonl, tsv
from s2s.text.corpus.generated import generated, links
from s2s.text.corpus.multi30k import multi30k

__all__ = [
    "Corpus",
    "DataReport",
    "FileFingerprint",
    "Package",
    "Pair",
    "SplitReport",
    "catalogs",
    "debian",
    "debian_packages",
    "describe",
    "files",
    "generated",
    "jsonl",
    "links",
    "multi30k",
    "tsv",
]
