"""Corpora: each public builder here is the target of a file in `conf/corpus/` and gives a `Corpus`."""

from s2s.text.corpus.base import Corpus, DataReport, FileFingerprint, Pair, SplitReport, reference_streams
from s2s.text.corpus.chitchat import chitchat
from s2s.text.corpus.debian_pairs import debian
from s2s.text.corpus.debian_synopsis import debian_synopsis
from s2s.text.corpus.enron import aeslc
from s2s.text.corpus.flickr import multi30k
from s2s.text.corpus.homeassistant import catalogs
from s2s.text.corpus.hub import hub
from s2s.text.corpus.local import files, jsonl, tsv
from s2s.text.corpus.summary import describe
from s2s.text.corpus.synthetic import generated, links

__all__ = [
    "Corpus",
    "DataReport",
    "FileFingerprint",
    "Pair",
    "SplitReport",
    "aeslc",
    "catalogs",
    "chitchat",
    "debian",
    "debian_synopsis",
    "describe",
    "files",
    "generated",
    "hub",
    "jsonl",
    "links",
    "multi30k",
    "reference_streams",
    "tsv",
]
