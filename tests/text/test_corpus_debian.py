from __future__ import annotations

import json
import os
import shutil
import sys
from collections import Counter
from pathlib import Path

import pytest
from debian_toys import stanza, write_release

from s2s.errors import DataError
from s2s.files import to_json
from s2s.text.corpus import debian, describe
from s2s.text.corpus.base import split_of
from s2s.text.corpus.debian_text import blocks, mask


def many(folder: Path, count: int = 200) -> dict[str, str]:
    """A release of `count` packages, each its own source, with one text of its own and one piece of boilerplate."""
    packages = {f"tool{i:03d}": f"tool{i:03d}" for i in range(count)}
    english = german = ""
    words = ["red", "blue", "green", "old", "new", "fast", "slow", "small", "large", "free"]
    for i, name in enumerate(packages):
        colours = " ".join(words[int(digit)] for digit in f"{i:03d}")
        english += stanza(name, "en", f"{colours} thing", f"This package holds {name}, version {i}.")
        german += stanza(name, "de", f"{colours} Ding", f"Dieses Paket enthält {name}, Fassung {i}.")
    write_release(folder / "en-de", packages, english, german)
    return packages


def test_pairs_synopsis_blocks_and_sentences(tmp_path: Path) -> None:
    english = stanza(
        "foo",
        "en",
        "a small tool",
        "It reads files.  It writes",
        "files, too.",
        ".",
        "Features:",
        "  * the first one that",
        "    goes on",
        "  * the second",
        ".",
        "Only this.",
    )
    german = stanza(
        "foo",
        "de",
        "ein kleines Werkzeug",
        "Es liest Dateien. Es schreibt auch Dateien.",
        ".",
        "Merkmale:",
        "  - das erste,",
        "    das weitergeht",
        "  - das zweite",
        ".",
        "Nur dies. Und das.",
    )
    write_release(tmp_path / "en-de", {"foo": "foo"}, english, german)
    corpus = debian(path=tmp_path, dev=0, test=0)
    assert [pair[:2] for pair in corpus.splits["train"]] == [
        ("a small tool", "ein kleines Werkzeug"),
        ("It reads files. It writes files, too.", "Es liest Dateien. Es schreibt auch Dateien."),
        ("It reads files.", "Es liest Dateien."),
        ("It writes files, too.", "Es schreibt auch Dateien."),
        ("Features:", "Merkmale:"),
        ("the first one that goes on", "das erste, das weitergeht"),
        ("the second", "das zweite"),
        ("Only this.", "Nur dies. Und das."),
    ]
    assert list(corpus.splits) == ["train"]


def test_counts_that_differ_are_dropped_with_their_reason(tmp_path: Path) -> None:
    english = stanza("a", "en", "one", "First.", ".", "Second.") + stanza("b", "en", "two", "  * x one", "  * y two")
    german = stanza("a", "de", "eins", "Erstens. Zweitens.") + stanza("b", "de", "zwei", "  * x eins und zwei")
    write_release(tmp_path / "en-de", {"a": "a", "b": "b"}, english, german)
    counts = debian(path=tmp_path, dev=0, test=0).report.splits["train"]
    assert counts.dropped == {"numbers of paragraphs differ": 1, "numbers of list items differ": 1}
    assert counts.examples == {"numbers of paragraphs differ": "a:1", "numbers of list items differ": "b:1"}
    assert counts.kept == 2


def test_drops_duplicates_untranslated_odd_ratios_and_fourth_packages(tmp_path: Path) -> None:
    packages = {"a": "s", "b": "s", "c": "s", "d": "s", "e": "e", "f": "f", "g": "g", "h": "h"}
    english = "".join(stanza(p, "en", f"the package {p} of this test") for p in "abcd")
    german = "".join(stanza(p, "de", f"das Paket {p} von diesem Test") for p in "abcd")
    english += stanza("e", "en", "the package a of this test") + stanza("f", "en", "same text here")
    german += stanza("e", "de", "das Paket a von diesem Test") + stanza("f", "de", "same text here")
    english += stanza("g", "en", "a very long text that goes on and on without end " * 3) + stanza("h", "en", "1 2 3")
    german += stanza("g", "de", "kurz") + stanza("h", "de", "4 5 6")
    write_release(tmp_path / "en-de", packages, english, german)
    counts = debian(path=tmp_path, dev=0, test=0).report.splits["train"]
    assert counts.dropped == {
        "more than 3 packages of one source": 1,
        "duplicate": 1,
        "not translated": 1,
        "absurd length ratio": 1,
        "no letters": 1,
    }
    assert counts.examples["more than 3 packages of one source"] == "d:synopsis"
    assert counts.read == counts.kept + sum(counts.dropped.values())


def test_invalid_utf8_costs_a_pair_not_the_corpus(tmp_path: Path) -> None:
    english = stanza("a", "en", "first text") + stanza("b", "en", "second text")
    german = stanza("a", "de", "erster Text") + stanza("b", "de", "zweiter Text")
    write_release(tmp_path / "en-de", {"a": "a", "b": "b"}, english, german)
    file = tmp_path / "en-de" / "Translation-de"
    file.write_bytes(file.read_bytes().replace(b"erster", b"erst\xe4r"))
    assert debian(path=tmp_path, dev=0, test=0).report.splits["train"].dropped == {"invalid UTF-8": 1}


def test_translation_of_another_version_is_not_joined(tmp_path: Path) -> None:
    english = stanza("a", "en", "new text") + stanza("b", "en", "kept text")
    german = stanza("a", "de", "alter Text", md5="other") + stanza("b", "de", "behaltener Text")
    write_release(tmp_path / "en-de", {"a": "a", "b": "b"}, english, german)
    assert [pair.source for pair in debian(path=tmp_path, dev=0, test=0).splits["train"]] == ["kept text"]


def test_split_is_by_source_and_deterministic(tmp_path: Path) -> None:
    many(tmp_path)
    corpus = debian(path=tmp_path, dev=0.2, test=0.2)
    again = debian(path=tmp_path, dev=0.2, test=0.2)
    assert corpus.splits == again.splits
    assert corpus.fingerprint() == again.fingerprint()
    packages = {split: {pair.origin.split(":")[0] for pair in pairs} for split, pairs in corpus.splits.items()}
    assert not packages["train"] & packages["test_raw"]
    assert not packages["train"] & packages["dev"]
    assert 20 <= len(packages["test_raw"]) <= 60
    assert debian(path=tmp_path, dev=0.2, test=0.2, seed=2).splits["train"] != corpus.splits["train"]


def test_boilerplate_leaves_test_but_not_test_raw(tmp_path: Path) -> None:
    many(tmp_path)
    corpus = debian(path=tmp_path, dev=0.2, test=0.2)
    raw, test = corpus.splits["test_raw"], corpus.splits["test"]
    assert any(pair.source.startswith("This package holds") for pair in raw)
    assert not any(pair.source.startswith("This package holds") for pair in test)
    assert test == [pair for pair in raw if not pair.source.startswith("This package holds")]
    assert not any(pair.source.startswith("This package holds") for pair in corpus.splits["dev"])
    counts = corpus.report.splits["test"]
    assert (counts.read, counts.kept) == (len(raw), len(test))
    assert counts.dropped == {"same source in train": len(raw) - len(test)}
    for split in corpus.report.splits.values():
        assert split.read == split.kept + sum(split.dropped.values())


def test_max_words_and_lowercase_hold_in_every_split(tmp_path: Path) -> None:
    many(tmp_path)
    corpus = debian(path=tmp_path, dev=0.2, test=0.2, max_words=4, lowercase=True)
    for pairs in corpus.splits.values():
        assert pairs
        assert all(max(len(p.source.split()), len(p.target.split())) <= 4 for p in pairs)
        assert all(p.target == p.target.lower() for p in pairs)
    assert corpus.report.splits["train"].dropped["more than 4 words"] > 100


def test_facts_and_files_are_recorded(tmp_path: Path) -> None:
    many(tmp_path)
    corpus = debian(path=tmp_path)
    assert corpus.facts["suite"] == "Debian 1.0 toy (stable), main"
    assert corpus.facts["release date"] == "Mon, 01 Jan 2024 00:00:00 UTC"
    assert len(corpus.files) == 3
    assert "release date: Mon, 01 Jan 2024" in describe(corpus)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"target": "../x"}, "not a language code"),
        ({"target": "en"}, "same language"),
        ({"suite": 'x"; evil'}, "not a suite"),
        ({"dev": 0.7, "test": 0.4}, r"dev \+ test < 1"),
        ({"max_ratio": 1.0}, "above 1"),
    ],
)
def test_bad_options(tmp_path: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        debian(path=tmp_path, **options)  # type: ignore[arg-type]


def test_without_apt_one_line_names_what_needs_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DataError, match=r"needs apt-get.*catalogs.*files.*generated") as caught:
        debian(path=tmp_path / "cache")
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)


def test_damaged_cache_is_named(tmp_path: Path) -> None:
    many(tmp_path)
    (tmp_path / "en-de" / "release.json").write_text("{}")
    with pytest.raises(DataError, match=r"release\.json: damaged cache.*Delete"):
        debian(path=tmp_path)


FAKE_APT = """#!{python}
import json, pathlib, re, sys
prepared = pathlib.Path({prepared!r})
if sys.argv[0].endswith("apt-config"):
    print("Acquire::IndexTargets::deb::Packages::MetaKey")
    print("Acquire::IndexTargets::deb::Contents-deb::MetaKey")
    raise SystemExit
assert sys.argv[1] == "-c", sys.argv
config = pathlib.Path(sys.argv[2]).read_text()
lists = pathlib.Path(re.search('Dir::State::lists "(.*)"', config).group(1))
with (prepared / "calls").open("a") as calls:
    calls.write(json.dumps([sys.argv[3:], config]) + "\\n")
languages = re.findall('"(..)"', re.search("Acquire::Languages (.*);", config).group(1))
targets = [json.loads(line) for line in (prepared / "targets").read_text().split("\\n") if line]
targets = [t for t in targets if t["LANGUAGE"] in ("", *languages)]
if sys.argv[3] == "update":
    for target in targets:
        (lists / target["FILENAME"]).write_bytes((prepared / target["from"]).read_bytes())
        stem = target["FILENAME"].split("_main_")[0]
        (lists / (stem + "_InRelease")).write_text(
            "Version: 12\\nDate: today\\n 00 1 main/i18n/Translation-de\\n 00 1 main/i18n/Translation-en\\n")
    if not targets:
        print("W: Failed to fetch http://x  no route")
else:
    for target in targets:
        layout = sys.argv[5]
        for key, value in target.items():
            layout = layout.replace("$(" + key + ")", str(lists / value) if key == "FILENAME" else value)
        print(layout)
"""


@pytest.fixture
def fake_apt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """apt-get and apt-config of our own on PATH; the folder that says what they give."""
    prepared = tmp_path / "prepared"
    many(prepared)
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("apt-get", "apt-config"):
        (programs / name).write_text(FAKE_APT.format(python=sys.executable, prepared=str(prepared / "en-de")))
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    return prepared / "en-de"


def write_targets(prepared: Path, *releases: tuple[str, str, str]) -> None:
    """releases: (origin, codename, component); each has Packages and Translation files."""
    text = b""
    for origin, codename, component in releases:
        for kind, language, name in (
            ("Packages", "", "Packages"),
            ("Translations", "en", "Translation-en"),
            ("Translations", "de", "Translation-de"),
        ):
            target = {"CREATED_BY": kind, "ORIGIN": origin, "LABEL": origin, "COMPONENT": component}
            target |= {"SUITE": "suite-of-" + codename, "CODENAME": codename, "LANGUAGE": language}
            target |= {"FILENAME": f"{origin}_{codename}_{component}_{name}", "from": name}
            text += to_json(target).replace(b"\n", b"") + b"\n"
    (prepared / "targets").write_bytes(text)


def test_fetch_chooses_debian_main_and_caches(tmp_path: Path, fake_apt: Path) -> None:
    write_targets(
        fake_apt,
        ("Other", "bookworm", "main"),
        ("Debian", "bookworm-updates", "main"),
        ("Debian", "bookworm", "contrib"),
        ("Debian", "bookworm", "main"),
        ("Debian", "trixie", "main"),
    )
    corpus = debian(path=tmp_path / "my cache")
    assert corpus.facts["suite"] == "Debian 12 bookworm (suite-of-bookworm), main"
    assert corpus.facts["release date"] == "today"
    calls = (fake_apt / "calls").read_text().count("\n")
    assert debian(path=tmp_path / "my cache").fingerprint() == corpus.fingerprint()
    assert (fake_apt / "calls").read_text().count("\n") == calls  # the second call fetches nothing
    names = {path.name for path in (tmp_path / "my cache" / "en-de").iterdir()}
    assert names == {"Packages", "Translation-en", "Translation-de", "release.json"}
    trixie = debian(path=tmp_path / "my cache", suite="trixie")
    assert "trixie" in trixie.facts["suite"]


def test_fetch_is_private(tmp_path: Path, fake_apt: Path) -> None:
    write_targets(fake_apt, ("Debian", "bookworm", "main"))
    debian(path=tmp_path / "cache")
    arguments, text = json.loads((fake_apt / "calls").read_text().split("\n")[0])
    config = text.split("\n")
    assert arguments == ["update"]
    for setting in ("Dir::State", "Dir::State::lists", "Dir::State::status", "Dir::Cache", "Dir::Cache::archives"):
        assert any(line.startswith(f'{setting} "{tmp_path}/cache/') for line in config), setting
    assert config.index("#clear Acquire::Languages;") < config.index('Acquire::Languages {"en";"de";};')
    assert "#clear APT::Update::Post-Invoke;" in config
    assert 'Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled "false";' in config


def test_fetch_problems_are_one_line(tmp_path: Path, fake_apt: Path) -> None:
    write_targets(fake_apt)
    with pytest.raises(DataError, match=r"no network.*Failed to fetch.*catalogs"):
        debian(path=tmp_path / "cache")
    write_targets(fake_apt, ("Debian", "bookworm", "main"))
    with pytest.raises(DataError, match=r"no descriptions in 'fr'; expected de en"):
        debian(path=tmp_path / "cache", target="fr")
    with pytest.raises(DataError, match=r"suite not in the apt sources; expected bookworm .*found sid"):
        debian(path=tmp_path / "cache", suite="sid")
    assert [path.name for path in (tmp_path / "cache").iterdir()] == []


@pytest.mark.network
@pytest.mark.skipif(shutil.which("apt-get") is None, reason="needs apt-get")
def test_the_real_corpus(tmp_path: Path) -> None:
    corpus = debian(path=tmp_path, max_words=15)
    assert len(corpus.splits["train"]) > 15_000
    assert 800 <= len(corpus.splits["test"]) <= 2500
    assert len(corpus.splits["test"]) < len(corpus.splits["test_raw"])


def test_blocks_by_hand() -> None:
    body = ["Text that", "goes on:", " * one", "   more", " * two", "and after", ".", "- a", "b", "- c", ".", "   code"]
    assert blocks(body) == [["Text that goes on:", "one more", "two", "and after"], ["a b", "c"], ["code"]]


def test_mask() -> None:
    names = frozenset({"git", "libfoo-dev"})
    assert mask("Install libfoo-dev 2.1 with Git.", "bar", names) == "install @ @ with @."
    assert mask("The Numpy docs", "python3-numpy numpy", names) == mask("The scipy docs", "python3-scipy scipy", names)
    assert mask("The red docs", "x", names) != mask("The blue docs", "x", names)


def test_split_shares() -> None:
    splits = Counter(split_of(f"name{i}", dev=0.1, test=0.2, seed=1) for i in range(5000))
    assert abs(splits["test"] / 5000 - 0.2) < 0.02
    assert abs(splits["dev"] / 5000 - 0.1) < 0.02
