from __future__ import annotations

import gzip
import io
import itertools
import json
import subprocess
import sys
import urllib.error
import urllib.request
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s2s.errors import DataError
from s2s.text.corpus import catalogs, flickr, generated, homeassistant, links, multi30k
from s2s.text.corpus.base import fingerprint_file


def write_multi30k(folder: Path, test: str = "test_2016_flickr", suffix: str = "") -> Path:
    folder.mkdir()
    for stem, size in (("train", 6), ("val", 2), (test, 3)):
        for language in ("en", "de"):
            data = "".join(f"{stem} {language} {i}\n" for i in range(size)).encode()
            path = folder / f"{stem}.{language}{suffix}"
            path.write_bytes(gzip.compress(data) if suffix else data)
    return folder


@pytest.mark.parametrize("test", ["test_2016_flickr", "test_2016"])
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_multi30k_from_a_folder(tmp_path: Path, test: str, suffix: str) -> None:
    corpus = multi30k(path=write_multi30k(tmp_path / "m", test, suffix), lowercase=True)
    assert {split: len(pairs) for split, pairs in corpus.splits.items()} == {"train": 6, "dev": 2, "test": 3}
    assert corpus.splits["dev"][1][:2] == ("val en 1", "val de 1")
    differing = [warning for warning in corpus.report.warnings if "not the published file" in warning]
    assert len(differing) == (6 if suffix else 0)


def test_multi30k_folder_errors(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        multi30k(path=tmp_path / "absent")
    with pytest.raises(DataError, match=r"train\.fr: no such file"):
        multi30k(path=write_multi30k(tmp_path / "m"), target="fr")


def test_multi30k_download_checks_and_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_multi30k(tmp_path / "m", suffix=".gz")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    asked = []

    def answer(url: str, timeout: float) -> io.BytesIO:
        asked.append(url)
        return io.BytesIO((folder / url.rsplit("/", 1)[1]).read_bytes())

    monkeypatch.setattr(urllib.request, "urlopen", answer)
    with pytest.raises(DataError, match=r"train\.en\.gz: wrong checksum; expected sha256 d79cfa"):
        multi30k()
    assert not list((tmp_path / "cache").rglob("*.gz"))
    sums = {path.name: fingerprint_file(path).sha256 for path in folder.iterdir()}
    monkeypatch.setattr(flickr, "_SHA256", sums)
    corpus = multi30k()
    assert len(corpus.splits["train"]) == 6
    assert not any("published" in warning for warning in corpus.report.warnings)
    asked.clear()
    assert multi30k().fingerprint() == corpus.fingerprint()
    assert asked == []


def test_multi30k_offline_is_one_line_and_exit_2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(url: str, timeout: float) -> io.BytesIO:
        raise urllib.error.URLError("no route")

    monkeypatch.setattr(urllib.request, "urlopen", answer)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(DataError, match=r"can't download https://.*no route.*corpus\.path=FOLDER") as caught:
        multi30k()
    assert caught.value.exit_code == 2
    with pytest.raises(DataError, match="expected de, en, fr; found xx"):
        multi30k(source="xx")


@pytest.mark.network
def test_multi30k_for_real(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    try:
        corpus = multi30k()
    except DataError as error:
        pytest.skip(str(error))
    assert {split: len(pairs) for split, pairs in corpus.splits.items()} == {"train": 29000, "dev": 1014, "test": 1000}


def write_wheel(path: Path, components: dict[str, tuple[object, object]]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("homeassistant/__init__.py", "raise SystemExit('imported')")
        for component, texts in components.items():
            for language, tree in zip(("en", "de"), texts, strict=True):
                name = f"homeassistant/components/{component}/translations/{language}.json"
                archive.writestr(name, tree if isinstance(tree, str) else json.dumps(tree))
    return path


def test_catalogs_pair_by_key_and_line(tmp_path: Path) -> None:
    english = {"a": {"x": "Press {name}", "y": "One\n\nTwo", "z": "only here"}, "b": "Same", "c": "[%key:x%]", "d": 3}
    german = {"a": {"x": "Drücke {name}", "y": "Eins\nZwei"}, "b": "Same", "c": "Verweis", "d": 3}
    wheel = write_wheel(tmp_path / "homeassistant-1-py3-none-any.whl", {"sun": (english, german)})
    corpus = catalogs(path=wheel, dev=0, test=0)
    assert [pair[:3] for pair in corpus.splits["train"]] == [
        ("Press {name}", "Drücke {name}", "sun:a.x"),
        ("One", "Eins", "sun:a.y:1"),
        ("Two", "Zwei", "sun:a.y:2"),
    ]
    assert corpus.report.splits["train"].dropped == {"not translated": 1, "reference to another key": 1}
    assert "homeassistant" not in {name.split(".")[0] for name in sys.modules}


def test_catalogs_split_by_component_without_leaks(tmp_path: Path) -> None:
    components: dict[str, tuple[object, object]] = {}
    for i in range(60):
        name = "".join("abcdefghij"[int(digit)] for digit in f"{i:02d}")
        components[name] = ({"k": f"word {name}", "n": f"Reset {i}"}, {"k": f"Wort {name}", "n": f"Setze {i}"})
    corpus = catalogs(path=write_wheel(tmp_path / "w.whl", components), dev=0.2, test=0.3)
    owners = {split: {pair.origin.split(":")[0] for pair in pairs} for split, pairs in corpus.splits.items()}
    assert not owners["train"] & owners["test_raw"]
    assert any(pair.source.startswith("Reset") for pair in corpus.splits["test_raw"])
    assert not any(pair.source.startswith("Reset") for pair in corpus.splits["test"])


def test_catalogs_bad_wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bad = tmp_path / "x.whl"
    bad.write_bytes(b"no zip")
    with pytest.raises(DataError, match="not a wheel"):
        catalogs(path=bad)
    good = write_wheel(tmp_path / "y.whl", {"sun": ({"a": "x"}, {"a": "y"})})
    with pytest.raises(DataError, match=r"no catalogs in 'fr'.*de en"):
        catalogs(path=good, target="fr")
    with pytest.raises(DataError, match=r"de\.json.*no JSON"):
        catalogs(path=write_wheel(tmp_path / "z.whl", {"sun": ("{}", "oops")}))
    monkeypatch.setattr(homeassistant, "_MAX_BYTES", 3)
    with pytest.raises(DataError, match="too large"):
        catalogs(path=good)


def test_catalogs_download_falls_back_to_another_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = []

    def pip(command: list[str], **options: object) -> subprocess.CompletedProcess[bytes]:
        wanted.append(command[-1])
        if "==" in command[-1]:
            return subprocess.CompletedProcess(command, 1, b"", b"ERROR: No matching distribution\n")
        folder = Path(command[command.index("-d") + 1])
        write_wheel(folder / "homeassistant-9-py3-none-any.whl", {"sun": ({"a": "x"}, {"a": "y"})})
        return subprocess.CompletedProcess(command, 0, b"", b"")

    monkeypatch.setattr(subprocess, "run", pip)
    corpus = catalogs(path=tmp_path / "cache", dev=0, test=0)
    assert wanted == ["homeassistant==2024.3.3", "homeassistant"]
    assert corpus.facts["release"] == "homeassistant-9-py3-none-any.whl"
    catalogs(path=tmp_path / "cache", dev=0, test=0)
    assert len(wanted) == 2


def test_catalogs_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def pip(command: list[str], **options: object) -> subprocess.CompletedProcess[bytes]:
        return subprocess.CompletedProcess(command, 1, b"", b"WARNING: retrying\nERROR: No matching distribution\n")

    monkeypatch.setattr(subprocess, "run", pip)
    with pytest.raises(DataError, match=r"pip can't download homeassistant; found ERROR: No matching.*generated"):
        catalogs(path=tmp_path)


@pytest.mark.network
def test_catalogs_for_real(tmp_path: Path) -> None:
    corpus = catalogs(path=tmp_path)
    assert len(corpus.splits["train"]) > 8000
    assert len(corpus.splits["test"]) > 200


def looked_up(source: list[str]) -> list[str]:
    """What `lookup` asks for, by a dictionary."""
    values = {source[place]: source[place + 1] for place in range(0, len(source) - 1, 3)}
    chain = [source[-1]]
    while chain[-1] in values:
        chain.append(values[chain[-1]])
    return chain[1:]


@pytest.mark.parametrize("task", ["copy", "reverse", "sort", "double", "skip", "lookup"])
@pytest.mark.parametrize("repeat", [True, False])
def test_generated_targets_follow_their_rule_and_links(task: str, repeat: bool) -> None:
    corpus = generated(task=task, repeat=repeat, train=50, dev=5, test=5)  # type: ignore[arg-type]
    repeats = 0
    for pair in (pair for pairs in corpus.splits.values() for pair in pairs):
        source, target = pair.source.split(), pair.target.split()
        expected = {
            "copy": lambda source: source,
            "reverse": lambda source: source[::-1],
            "sort": sorted,
            "double": lambda source: [token for token in source for _ in range(2)],
            "skip": lambda source: [token for token in source if token[-1] not in "eo"],
            "lookup": looked_up,
        }[task](source)
        assert target == expected
        assert target
        pairs = links(task, source)  # type: ignore[arg-type]
        assert [j for _, j in pairs] == list(range(len(target)))
        assert all(source[i] == target[j] for i, j in pairs)
        repeats += len(set(source)) < len(source)
    assert bool(repeats) == (repeat or task == "lookup")  # there the separator does, and each value that is a key


def test_skipped_sources_keep_something_and_lose_something() -> None:
    corpus = generated(task="skip", symbols=10, max_length=4, train=400, dev=0, test=0)
    kept = [(len(pair.source.split()), len(pair.target.split())) for pair in corpus.splits["train"]]
    assert min(target for _, target in kept) == 1
    assert sum(target for _, target in kept) < 0.7 * sum(source for source, _ in kept)


def test_a_lookup_is_a_shuffled_chain_whose_links_are_values() -> None:
    corpus = generated(task="lookup", symbols=8, min_length=3, max_length=5, train=100, dev=0, test=0)
    monotone = 0
    for pair in corpus.splits["train"]:
        source, target = pair.source.split(), pair.target.split()
        assert len(source) == 3 * len(target) + 1
        assert source[2::3] == [";"] * len(target)
        assert len({source[-1], *target}) == len(target) + 1
        places = [i for i, _ in links("lookup", source)]
        assert sorted(places) == list(range(1, len(source) - 1, 3))
        assert [source[place - 1] for place in places] == [source[-1], *target[:-1]]
        monotone += places == sorted(places)
    assert monotone < 30  # of three pairs one in six stands in order


@pytest.mark.parametrize(
    "source", ["a b ;", "a b ; c", "a b , a", "a b ; c d ; a", "a b ; b a ; a b ; a", "a b ; b c ; a a"]
)
def test_a_lookup_without_a_chain_is_refused(source: str) -> None:
    with pytest.raises(DataError, match="no chain of pairs"):
        links("lookup", source.split())


@given(st.lists(st.sampled_from("abc"), max_size=8))
def test_sorting_links_are_stable(tokens: list[str]) -> None:
    found = links("sort", tokens)
    assert sorted(i for i, _ in found) == list(range(len(tokens)))
    assert all(a[0] < b[0] for a, b in itertools.pairwise(found) if tokens[a[0]] == tokens[b[0]])


def test_generated_is_deterministic_and_disjoint() -> None:
    one, other = generated(seed=3), generated(seed=3)
    assert one.splits == other.splits
    assert generated(seed=4).splits != one.splits
    sources = [pair.source for pairs in one.splits.values() for pair in pairs]
    assert len(set(sources)) == len(sources) == 2400
    assert {len(source.split()) for source in sources} == set(range(2, 11))
    assert list(generated(dev=0, test=0, train=1).splits) == ["train"]


@pytest.mark.parametrize(
    "options, message",
    [
        ({"task": "shuffle"}, "copy, reverse, sort, double"),
        ({"symbols": 2, "max_length": 3, "train": 100}, "enough different sequences"),
        ({"symbols": 0}, "symbols"),
        ({"min_length": 5, "max_length": 4}, "min_length <= max_length"),
        ({"train": 0}, "train >= 1"),
        ({"repeat": False, "symbols": 9}, "none repeats; expected at least 10; found 9"),
        ({"task": "lookup", "symbols": 10}, "none repeats; expected at least 11; found 10"),
    ],
)
def test_generated_bad_options(options: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        generated(**options)  # type: ignore[arg-type]
