"""The user's own dialogues: every form of a line, and what is wrong with some."""

import gzip
import json

import pytest

from s2s.errors import DataError
from s2s.text.corpus import dialogues, tsv

ROLES = ("user", "assistant")


def roles(*turns):
    return [{"role": ROLES[number % 2], "content": turn} for number, turn in enumerate(turns)]


def read(tmp_path, *lines, allow_drop=True, **options):
    path = tmp_path / "d.jsonl"
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return dialogues(train=path, allow_drop=allow_drop, **options)


def pairs(corpus):
    return [pair[:2] for pair in corpus.splits["train"]]


@pytest.mark.parametrize(
    "line",
    [
        roles("a", "b", "c"),
        ["a", "b", "c"],
        {"messages": roles("a", "b", "c"), "id": 3},
        {"dialog": ["a", "b", "c"]},
        {"turns": [{"speaker": "x", "text": "a"}, {"speaker": "y", "text": "b"}, {"speaker": "x", "text": "c"}]},
        "a __eou__ b __eou__ c __eou__",
        [*roles("a"), {"role": "assistant", "content": "b"}, {"role": "user", "content": "  "}, *roles("c")],
    ],
)
def test_every_form_gives_the_same_pairs(tmp_path, line):
    assert pairs(read(tmp_path, line)) == [("a", "b"), ("a\nb", "c")]


def test_contexts_with_responses(tmp_path):
    assert pairs(read(tmp_path, {"context": "a", "response": "b"})) == [("a", "b")]
    several = {"context": ["a", "b", "c"], "response": "d"}
    assert pairs(read(tmp_path, several))[-1] == ("a\nb\nc", "d")
    named = {"context": roles("a", "b", "c"), "response": "d"}
    assert pairs(read(tmp_path, named, replies="assistant")) == [("a", "b"), ("a\nb\nc", "d")]


def test_one_role_is_learned(tmp_path):
    corpus = read(tmp_path, roles("a", "b", "c", "d"), [{"role": "system", "content": "be kind"}, *roles("e", "f")])
    assert len(pairs(corpus)) == 4
    corpus = read(
        tmp_path,
        roles("a", "b", "c", "d"),
        [{"role": "system", "content": "be kind"}, *roles("e", "f")],
        replies="assistant",
    )
    assert pairs(corpus) == [("a", "b"), ("a\nb\nc", "d"), ("e", "f")]
    assert corpus.report.splits["train"].dropped == {"not by assistant": 1, "message of the system": 1}


def test_what_is_no_dialogue_is_counted(tmp_path):
    corpus = read(tmp_path, roles("a"), [], "", roles("a", "b"), {"messages": []})
    assert pairs(corpus) == [("a", "b")]
    assert corpus.report.splits["train"].dropped == {"one turn, or none": 3, "blank line": 1}


@pytest.mark.parametrize("line", [["a", "\u200b", "b", "c"], "a __eou__ \u200b __eou__ b __eou__ c __eou__"])
def test_a_blank_turn_is_counted_and_never_a_context(tmp_path, line):
    corpus = read(tmp_path, line)
    assert pairs(corpus) == [("a b", "c")]  # both are by the same speaker
    assert corpus.report.splits["train"].dropped == {"blank message": 1}


def test_two_speakers_alternate_or_the_dialogue_is_left_out(tmp_path):
    three = [*roles("a", "b"), {"role": "tool", "content": "c"}, *roles("d")]
    corpus = read(tmp_path, three, roles("a", "b"))
    assert pairs(corpus) == [("a", "b")]
    assert corpus.report.splits["train"].dropped == {"more than two speakers": 1}


def test_turns_of_the_other_role_are_no_fault_of_the_data(tmp_path):
    line = [{"role": "system", "content": "be kind"}, *roles("a", "b", "c")]
    assert pairs(read(tmp_path, line, allow_drop=False, replies="assistant")) == [("a", "b")]
    with pytest.raises(DataError, match="not by bot"):
        read(tmp_path, line, allow_drop=False, replies="bot")


def test_a_turn_may_start_like_json(tmp_path):
    assert pairs(read(tmp_path, "[laughs] hi __eou__ {so} __eou__")) == [("[laughs] hi", "{so}")]


def test_long_dialogues_and_long_turns(tmp_path):
    corpus = read(tmp_path, [f"t{n}" for n in range(500)], turns=3)
    assert len(pairs(corpus)) == 499
    assert pairs(corpus)[-1] == ("t496\nt497\nt498", "t499")
    short = read(tmp_path, ["one two three", "a", "b", "one two three", "c"], max_words=2)
    assert [target for _, target in pairs(short)] == ["b"]


@pytest.mark.parametrize(
    "line, told",
    [
        ("{", "line|JSON|json"),
        ("just text", "is no dialogue"),
        ("3", "is no dialogue"),
        ({"x": 1}, "is no dialogue"),
        ([{"role": "user"}], "turn 1"),
        ([*roles("a"), {"content": "b"}], "turn 2"),
        ([*roles("a"), {"role": 3, "content": "b"}], "turn 2"),
        ([*roles("a"), "b"], "turn 2"),
        ({"context": 3, "response": "a"}, "no context"),
        ({"context": "a", "response": None}, "no context"),
        ({"messages": "a"}, "is no dialogue"),
    ],
)
def test_a_wrong_line_is_named(tmp_path, line, told):
    with pytest.raises(DataError, match=told) as caught:
        read(tmp_path, roles("a", "b"), line)
    assert "d.jsonl:2" in str(caught.value)


def test_dialogues_are_held_out_whole(tmp_path):
    lines = [[f"hi {n}", f"you {n}", f"bye {n}"] for n in range(60)]
    corpus = read(tmp_path, *lines, dev=0.2, test=0.2)
    place = {}
    for split, own in corpus.splits.items():
        for pair in own:
            place.setdefault(pair.origin.split(":")[-2], set()).add(split)
    assert len(place) == 60
    assert all(len(splits) == 1 for splits in place.values())
    assert set(corpus.splits) == {"train", "dev", "test"}
    packed = tmp_path / "e.jsonl.gz"
    packed.write_bytes(gzip.compress(json.dumps(["x", "y"]).encode() + b"\n"))
    assert read(tmp_path, *lines, dev=packed).splits["dev"][0][:2] == ("x", "y")
    (tmp_path / "none").write_text("")
    with pytest.raises(DataError, match="empty file"):
        dialogues(train=tmp_path / "none")


def test_a_corpus_for_reranking(tmp_path):
    assert pairs(read(tmp_path, ["a", "b", "c"], direction="backward")) == [("b", "a"), ("c", "b")]
    assert pairs(read(tmp_path, ["a", "b", "c"], direction="none")) == [("-", "b"), ("-", "c")]


def test_single_turns_need_no_reader_of_their_own(tmp_path):
    (tmp_path / "p.tsv").write_text("hi\thello\nbye\tsee you\n")
    assert [p[:2] for p in tsv(train=tmp_path / "p.tsv", source="en", target="en").splits["train"]] == [
        ("hi", "hello"),
        ("bye", "see you"),
    ]
