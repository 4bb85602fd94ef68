"""A made-up Debian release in a cache folder, as the real apt client would have left it."""

from __future__ import annotations

from pathlib import Path

from s2s.files import to_json


def stanza(package: str, language: str, synopsis: str, *body: str, md5: str | None = None) -> str:
    lines = [f"Package: {package}", f"Description-md5: {md5 or 'm' + package}", f"Description-{language}: {synopsis}"]
    return "\n".join([*lines, *(" " + line for line in body)]) + "\n\n"


def write_release(folder: Path, packages: dict[str, str], english: str, german: str = "") -> None:
    """A cache folder as `obtain` leaves it; packages: name to source."""
    folder.mkdir(parents=True)
    stanzas = (f"Package: {p}\n" + (f"Source: {s} (1.0)\n" if s != p else "") + "\n" for p, s in packages.items())
    (folder / "Packages").write_text("".join(stanzas), encoding="utf-8")
    (folder / "Translation-en").write_text(english, encoding="utf-8")
    if german:
        (folder / "Translation-de").write_text(german, encoding="utf-8")
    record = {"codename": "toy", "suite": "stable", "version": "1.0", "date": "Mon, 01 Jan 2024 00:00:00 UTC"}
    (folder / "release.json").write_bytes(to_json(record))
