from __future__ import annotations

import gzip
import io
import json
import urllib.error
import urllib.request
import zipfile
from pathlib import Path

import pytest

from s2s.errors import DataError
from s2s.text.corpus import aeslc, reference_streams

MAILS = {f"train/a_{i}.subject": f"Hello {i},\n\nthe  meeting\nis off.\n\n@subject\nMeeting {i}\n" for i in range(6)}
MAILS["dev/b.subject"] = "Please call.\n\n@subject\ncall me\n\n@ann0\nplease call\n\n@ann1\na call\n\n@ann2\ncalling\n"
MAILS["test/c.subject"] = "@ is a sign.\nWrite to me@subject\n@subject \nsigns\n@ann0\n\n@ann1\nsign\n"


def zipped(mails: dict[str, str]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("AESLC-master/README.md", "not a mail")
        for name, text in mails.items():
            archive.writestr(f"AESLC-master/enron_subject_line/{name}", text)
    return file.getvalue()


def check(path: Path) -> None:
    splits = aeslc(path=path).splits
    assert {split: len(pairs) for split, pairs in splits.items()} == {"train": 6, "dev": 1, "test": 1}
    assert splits["train"][2][:3] == ("Hello 2, the meeting is off.", "Meeting 2", "train/a_2.subject")
    assert splits["train"][2].references == ()
    assert reference_streams(splits["dev"]) == [["call me"], ["please call"], ["a call"], ["calling"]]
    assert splits["test"][0][:2] == ("@ is a sign. Write to me@subject", "signs")
    assert splits["test"][0].references == ("signs", "sign")


def test_the_zip_file_and_a_folder(tmp_path: Path) -> None:
    (tmp_path / "aeslc.zip").write_bytes(zipped(MAILS))
    check(tmp_path / "aeslc.zip")
    with zipfile.ZipFile(tmp_path / "aeslc.zip") as archive:
        archive.extractall(tmp_path / "unpacked")
    check(tmp_path / "unpacked")


def test_json_lines(tmp_path: Path) -> None:
    records = [{"id": str(i), "src": f"mail {i}", "tgt": f"m {i}", "refs": [f"m {i}", "x"]} for i in range(4)]
    lines = "".join(json.dumps(record) + "\n" for record in records)
    (tmp_path / "train.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    (tmp_path / "dev.jsonl").write_text(lines, encoding="utf-8")
    corpus = aeslc(path=tmp_path)
    assert list(corpus.splits) == ["train", "dev"]
    assert corpus.splits["train"][1].references == ("m 1", "x")
    assert len(corpus.files) == 2


def test_what_is_held_out_leaves_the_published_dev_alone(tmp_path: Path) -> None:
    mails = {f"train/{i:02d}.subject": f"text {i // 2}\n@subject\ns\n" for i in range(40)}  # each text twice
    (tmp_path / "a.zip").write_bytes(zipped({**MAILS, **mails}))
    splits = aeslc(path=tmp_path / "a.zip", hold_out=9).splits
    assert {split: len(pairs) for split, pairs in splits.items() if split != "train"} == {
        "published_dev": 1,
        "test": 1,
        "dev": len(splits["dev"]),
    }
    assert 9 <= len(splits["dev"]) <= 10
    assert len(splits["train"]) + len(splits["dev"]) == 46
    assert not {pair.source for pair in splits["train"]} & {pair.source for pair in splits["dev"]}
    assert aeslc(path=tmp_path / "a.zip", hold_out=9, seed=2).splits["dev"] != splits["dev"]
    with pytest.raises(DataError, match="expected 0 to 45; found 46"):
        aeslc(path=tmp_path / "a.zip", hold_out=46)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"PK\x03\x04 cut off", "is no zip file, or a damaged one"),
        (zipped({"dev/b.subject": MAILS["dev/b.subject"]}), "there is no train split"),
        (zipped({"train/x.subject": "no section"}), "train/x.subject: the mail has no subject"),
        (zipped({"train/x.subject": "a" * (5 << 20)}), "too big"),
    ],
)
def test_what_is_no_aeslc(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "x.zip").write_bytes(content)
    with pytest.raises(DataError, match=message):
        aeslc(path=tmp_path / "x.zip")


def test_other_places_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file or folder"):
        aeslc(path=tmp_path / "absent")
    with pytest.raises(DataError, match="there is no train split"):
        aeslc(path=tmp_path)


def test_download_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    answers: list[bytes] = [b"<html>sign in</html>", zipped(MAILS)]

    def answer(url: str, timeout: float) -> io.BytesIO:
        assert url.startswith("https://github.com/")
        return io.BytesIO(answers.pop(0))

    monkeypatch.setattr(urllib.request, "urlopen", answer)
    with pytest.raises(DataError, match="what was downloaded is no zip file"):
        aeslc()
    assert len(aeslc().splits["train"]) == 6
    assert len(aeslc().splits["train"]) == 6
    assert answers == []


def test_offline_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(url: str, timeout: float) -> io.BytesIO:
        raise urllib.error.URLError("no route")

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(urllib.request, "urlopen", answer)
    with pytest.raises(DataError, match=r"can't download https://.*no route.*corpus\.path=PATH"):
        aeslc()
