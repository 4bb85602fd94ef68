"""Obtains Debian's Translation and Packages files with the ordinary apt client, in private folders and without root."""

from __future__ import annotations

import logging
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from s2s.errors import DataError
from s2s.files import read_json, replace_folder, to_json
from s2s.paths import cache_folder

_log = logging.getLogger(__name__)

NEED_NO_APT = "The corpora catalogs, multi30k, files, tsv, jsonl and generated need no apt."
_TIMEOUT = 900  # seconds for the whole update
_RECORD = "release.json"
_LANGUAGE = re.compile(r"[a-z]{2,3}(_[A-Z]{2})?")
_FIELDS = ("CREATED_BY", "ORIGIN", "LABEL", "COMPONENT", "SUITE", "CODENAME", "LANGUAGE", "FILENAME")


@dataclass(frozen=True)
class Release:
    """The cached files of one Debian release. suite is its role ("stable"), codename its name ("bookworm")."""

    folder: Path
    codename: str
    suite: str
    version: str
    date: str

    @property
    def packages(self) -> Path:
        """The Packages file, which tells the source of each package."""
        return self.folder / "Packages"

    def translation(self, language: str) -> Path:
        """The descriptions in `language`."""
        return self.folder / f"Translation-{language}"


def obtain(languages: Sequence[str], path: str | os.PathLike[str] | None, suite: str | None) -> Release:
    """The Translation files of `languages` and the Packages file of one Debian release, from the cache if there.

    path: cache folder (None: `cache_folder() / "debian"`). suite: a codename or suite; None takes the first release
    in the user's own apt sources. Raises DataError without apt-get, without network, for a suite that the sources
    don't have, or for a language without translations.
    """
    root = cache_folder() / "debian" if path is None else Path(path).expanduser()
    for language in languages:
        if not _LANGUAGE.fullmatch(language):
            raise DataError("not a language code", expected="de, fr, pt_BR, ...", found=repr(language))
    if suite is not None and not re.fullmatch(r"[a-z0-9-]+", suite):
        raise DataError("not a suite", where="corpus.suite", expected="bookworm, stable, ...", found=repr(suite))
    folder = root / "-".join([*languages, *([suite] if suite else [])])
    if (folder / _RECORD).is_file():
        return _read_record(folder)
    if shutil.which("apt-get") is None:
        raise DataError("the debian corpus needs apt-get, which is not on this system", hint=NEED_NO_APT)
    with replace_folder(folder) as place:
        _fetch(place, languages, suite)
    return _read_record(folder)


def _read_record(folder: Path) -> Release:
    record = read_json(folder / _RECORD, 10_000)
    fields = ("codename", "suite", "version", "date")
    if not isinstance(record, dict) or not all(isinstance(record.get(key), str) for key in fields):
        raise DataError("damaged cache", where=str(folder / _RECORD), hint=f"Delete {folder} and try again.")
    return Release(folder, *(record[key] for key in fields))


def _fetch(place: Path, languages: Sequence[str], suite: str | None) -> None:
    """Runs apt-get update in `place/apt`, moves its files to `place`, and writes a record of the release there."""
    work = place / "apt"
    for folder in ("lists/partial", "cache/archives/partial"):
        (work / folder).mkdir(parents=True)
    (work / "status").touch()
    config = work / "apt.conf"
    config.write_text(_configuration(work, languages), encoding="utf-8", newline="\n")
    _log.info("fetching package descriptions (%s) with apt-get, about 17 MB", ", ".join(languages))
    messages = _apt(config, "update")
    layout = "\t".join(f"$({name})" for name in _FIELDS)
    listing = _apt(config, "indextargets", "--format", layout)
    targets = [dict(zip(_FIELDS, line.split("\t"), strict=True)) for line in listing.split("\n") if line.count("\t")]
    targets = [t for t in targets if t["ORIGIN"] == t["LABEL"] == "Debian" and t["COMPONENT"] == "main"]
    packages = [t for t in targets if t["CREATED_BY"] == "Packages" and Path(t["FILENAME"]).is_file()]
    if not packages:
        problems = [line.strip() for line in messages.split("\n") if line.startswith(("E: ", "W: Failed"))]
        raise DataError(
            "apt-get update obtained no Debian package lists: there is no network, or no Debian in the apt sources",
            found=problems[0] if problems else None,
            hint=NEED_NO_APT,
        )
    # Updates and security fixes are releases of their own ("bookworm-updates"): too small to be a corpus.
    releases = [t for t in packages if (suite in (t["CODENAME"], t["SUITE"]) if suite else "-" not in t["CODENAME"])]
    if not releases:
        there = sorted({f"{t['CODENAME']} ({t['SUITE']})" for t in packages})
        raise DataError("suite not in the apt sources", where="corpus.suite", expected=", ".join(there), found=suite)
    chosen = releases[0]
    stem = chosen["FILENAME"].partition("_main_")[0]
    index = next((Path(stem + end) for end in ("_InRelease", "_Release") if Path(stem + end).is_file()), None)
    header = index.read_text(encoding="utf-8") if index else ""
    sources = {"Packages": chosen["FILENAME"]}
    for target in targets:
        if target["CREATED_BY"] == "Translations" and target["CODENAME"] == chosen["CODENAME"]:
            sources.setdefault(f"Translation-{target['LANGUAGE']}", target["FILENAME"])
    for language in languages:
        name = f"Translation-{language}"
        if name not in sources or not Path(sources[name]).is_file():
            there = sorted(set(re.findall(r"main/i18n/Translation-(\w+)", header)))
            raise DataError(
                f"Debian {chosen['CODENAME']} has no descriptions in {language!r}", expected=" ".join(there) or None
            )
        Path(sources[name]).rename(place / name)
    Path(sources["Packages"]).rename(place / "Packages")
    fields = {key: re.search(rf"^{key}: (.*)$", header, re.MULTILINE) for key in ("Version", "Date")}
    known = {key: match.group(1).strip() if match else "unknown" for key, match in fields.items()}
    record = {
        "codename": chosen["CODENAME"],
        "suite": chosen["SUITE"],
        "version": known["Version"],
        "date": known["Date"],
    }
    (place / _RECORD).write_bytes(to_json(record))
    shutil.rmtree(work)


def _configuration(work: Path, languages: Sequence[str]) -> str:
    """Settings that come after the user's own (sources, proxies and keys stay) and keep everything below `work`."""
    if '"' in str(work):
        raise DataError("apt can't work in a folder whose name has a quotation mark", where=str(work))
    wanted = "".join(f'"{language}";' for language in dict.fromkeys(["en", *languages]))
    lines = [
        f'Dir::State "{work}";',
        f'Dir::State::lists "{work}/lists";',
        f'Dir::State::status "{work}/status";',
        f'Dir::Cache "{work}/cache";',
        f'Dir::Cache::archives "{work}/cache/archives";',
        "#clear Acquire::Languages;",
        f"Acquire::Languages {{{wanted}}};",
        'Acquire::GzipIndexes "false";',
        'Acquire::http::Timeout "30";',
        'Acquire::https::Timeout "30";',
        'Acquire::Retries "2";',
        "#clear APT::Update::Pre-Invoke;",
        "#clear APT::Update::Post-Invoke;",
        "#clear APT::Update::Post-Invoke-Success;",
    ]
    dump = _apt_config("dump", "--format", "%F%n", "Acquire::IndexTargets")
    for kind, target in sorted(set(re.findall(r"^Acquire::IndexTargets::([\w-]+)::([\w-]+)::", dump, re.MULTILINE))):
        if (kind, target) not in {("deb", "Packages"), ("deb", "Translations")}:  # file lists, icons, sources
            lines.append(f'Acquire::IndexTargets::{kind}::{target}::DefaultEnabled "false";')
    return "\n".join(lines) + "\n"


def _apt(config: Path, *arguments: str) -> str:
    # -c, not APT_CONFIG: apt reads the latter first, so that the user's own apt.conf.d would have the last word.
    return _run("apt-get", "-c", str(config), *arguments)


def _apt_config(*arguments: str) -> str:
    return _run("apt-config", *arguments)


def _run(*command: str) -> str:
    """Standard output and error of a command. Its exit code says little: a broken third-party source is no matter."""
    environment = {**os.environ, "LC_ALL": "C.UTF-8", "LANGUAGE": ""}
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=_TIMEOUT,
            env=environment,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise DataError(f"{command[0]} took longer than {_TIMEOUT} s", hint=NEED_NO_APT) from None
    except OSError as error:
        raise DataError(f"{command[0]} can't be run", found=error.strerror or str(error), hint=NEED_NO_APT) from None
    return done.stdout.decode("utf-8", "replace")
