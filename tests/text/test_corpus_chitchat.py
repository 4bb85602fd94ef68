"""Small talk from a made-up wheel: turns, contexts, what is left out, and files that are none."""

import json
import zipfile

import pytest

from s2s.errors import ConfigError, DataError
from s2s.text.corpus import chitchat
from s2s.text.corpus.dialogue import examples, unfit


def wheel(folder, conversations, name="chitchat_dataset/dataset.json"):
    path = folder / "chitchat_dataset-0.9.0-py3-none-any.whl"
    found = {
        key: {"messages": [[{"sender": who, "text": text, "timestamp": "x"}] for who, text in said]}
        for key, said in conversations.items()
    }
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(name, json.dumps(found))
    return path


def talk(*turns):
    return [("ab"[place % 2], turn) for place, turn in enumerate(turns)]


MANY = {f"c{n:03}": talk("hello there", f"hi number {n}", "how are you?", f"fine, {n} times") for n in range(60)}


def all_pairs(corpus):
    return [pair for split in ("train", "dev", "test_raw") for pair in corpus.splits[split]]


def test_each_turn_answers_those_before_it():
    turns = ["a", "b", "c", "d"]
    forward = [(p.source, p.target, p.origin) for p in examples(turns, 2, "forward", "x")]
    assert forward == [("a", "b", "x:2"), ("a\nb", "c", "x:3"), ("b\nc", "d", "x:4")]
    assert [p[:2] for p in examples(turns, 2, "backward", "x")] == [("b", "a"), ("c", "b"), ("d", "c")]
    assert [p[:2] for p in examples(turns, 2, "none", "x")] == [("-", "b"), ("-", "c"), ("-", "d")]
    assert list(examples(["a"], 2, "forward", "x")) == []


@pytest.mark.parametrize(
    "turn, reason",
    [
        ("mail me at jo.doe@mail.org please", "e-mail address"),
        ("see https://x.org", "web address"),
        ("look at www.x.org", "web address"),
        ("Video.example.com/watch?v=1", "web address"),
        ("i am @jo", "handle"),
        ("my snapchat is jodoe", "handle"),
        ("follow me on insta", "handle"),
        ("call 801-555-0134", "telephone number"),
        ("(801) 555-0134 that's me", "telephone number"),
        ("8015550134", "telephone number"),
        ("+1 (801) 555 0134", "telephone number"),
        ("+44 20 7946 0000", "telephone number"),
        ("it's 555-0134", "telephone number"),
        ("i was there 2014-2016, that is 999.9999% sure", None),
        ("1 2 3 4 5 6 7 8 9 10 11 and 0110100101101001", None),
        ("one sentence.then another", None),
        ("what the FUCK", "crude word"),
        ("i have 2 dogs, 13 cats and 1000 assets in Scunthorpe", None),
        ("d'awww. that was 2018", None),
        ("facebook is evil @ night", None),
    ],
)
def test_what_may_identify_someone_or_is_crude(turn, reason):
    assert unfit(turn) == reason


def test_a_corpus_keeps_conversations_together(tmp_path):
    corpus = chitchat(path=wheel(tmp_path, MANY), dev=0.2, test=0.3)
    splits = {split: {p.origin.split(":")[0] for p in corpus.splits[split]} for split in ("train", "dev", "test_raw")}
    assert all(splits.values())
    assert splits["train"].isdisjoint(splits["dev"] | splits["test_raw"])
    assert splits["dev"].isdisjoint(splits["test_raw"])
    assert sum(map(len, splits.values())) == 60
    last = [p for p in all_pairs(corpus) if p.origin == "c007:4"]
    assert last[0].source == "hello there\nhi number 7\nhow are you?"
    assert last[0].target == "fine, 7 times"
    again = chitchat(path=tmp_path, dev=0.2, test=0.3)  # the folder
    assert again.fingerprint() == corpus.fingerprint()
    assert chitchat(path=tmp_path, dev=0.2, test=0.3, seed=2).splits != corpus.splits


def test_what_is_left_out_is_counted(tmp_path):
    said = {
        "a": talk("hi", "damn you", "what?", "sorry"),
        "b": talk("hi", "...", "say more"),
        "c": talk("hi", "yes"),
        "d": talk("hi", "yes"),
        "e": talk("call 801 555 0134", "ok then"),
        "f": talk("hi", " ".join(["very"] * 60)),
        "g": talk("alone"),
        "h": [],
        "i": [*talk("one", "two"), ("c", "three")],
        "j": talk("well", "yes", " "),
    }
    report = chitchat(path=wheel(tmp_path, said), dev=0, test=0).report.splits["train"]
    assert report.dropped == {
        "crude word": 3,
        "no letters": 1,
        "duplicate": 1,
        "telephone number": 1,
        "more than 50 words": 1,
        "one turn, or none": 2,
        "more than two speakers": 1,
        "blank message": 1,
    }
    assert report.read == report.kept + sum(report.dropped.values()) == 14


def test_options_do_what_they_say(tmp_path):
    path = wheel(tmp_path, MANY)
    short = chitchat(path=path, dev=0, test=0, turns=1)
    assert all("\n" not in pair.source for pair in short.splits["train"])
    back = chitchat(path=path, dev=0, test=0, direction="backward")
    assert ("hi number 3", "hello there") in [pair[:2] for pair in back.splits["train"]]
    alone = chitchat(path=path, dev=0, test=0, direction="none")
    assert {pair.source for pair in alone.splits["train"]} == {"-"}
    assert len(alone.splits["train"]) == 180
    upper = wheel(tmp_path, {"a": talk("Hello\tYou", "OK Then")})
    assert chitchat(path=upper, dev=0, test=0, lowercase=True).splits["train"][0][:2] == ("hello you", "ok then")
    for wrong in ({"turns": 0}, {"direction": "sideways"}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            chitchat(path=path, **wrong)


def test_an_answer_known_by_heart_is_no_test(tmp_path):
    same = {f"c{n:02}": talk("hello there", "hi", f"what is {n}?", "a number") for n in range(40)}
    corpus = chitchat(path=wheel(tmp_path, same), dev=0.2, test=0.3)
    assert all(pair.source != "hello there" for pair in corpus.splits["test"])
    assert corpus.splits["test"]


def test_other_files_are_refused(tmp_path):
    with pytest.raises(DataError, match="not the wheel"):
        chitchat(path=wheel(tmp_path, MANY, name="other.json"))
    bad = tmp_path / "x.whl"
    bad.write_bytes(b"nothing")
    with pytest.raises(DataError, match="not the wheel"):
        chitchat(path=bad)
    for content in (
        '{"a": {"messages": [["x"]]}}',
        '{"a": 3}',
        "[]",
        '{"a": {"messages": [[{"sender": 1, "text": "x"}]]}}',
    ):
        with zipfile.ZipFile(bad, "w") as archive:
            archive.writestr("chitchat_dataset/dataset.json", content)
        with pytest.raises(DataError, match="another form"):
            chitchat(path=bad)
