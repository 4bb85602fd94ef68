import json
import subprocess
import sys
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import s2s.text
from s2s.errors import BundleError, ConfigError, DataError
from s2s.text.tokenizer import dump, load
from s2s.text.vocabulary import Vocabulary, characters, parse_vocabulary, word_indices, words
from s2s.types import BOS, EOS, PAD, SPECIALS, UNK

LINES = ["the cat sat", "the dog sat on the mat", "a Cat </s> <unk> <pad> ran", "naïve café"]
GOOD = {"format": 1, "kind": "words", "lowercase": False, "tokens": ["a", "b"]}


@pytest.fixture(scope="module")
def word_vocabulary():
    return words(joint=True).train(LINES, [])[0]


@pytest.fixture(scope="module")
def character_vocabulary():
    return characters(joint=True).train(LINES, [])[0]


def test_builders_are_found_where_the_config_names_them():
    assert s2s.text.words is words
    assert s2s.text.characters is characters
    assert callable(s2s.text.sentencepiece)
    with pytest.raises(AttributeError):
        s2s.text.nonsense  # noqa: B018


def test_words_are_ranked_by_count_then_spelling(word_vocabulary):
    assert word_vocabulary.tokens[:3] == ("the", "sat", "</s>")
    assert word_vocabulary.size == 4 + len(word_vocabulary.tokens)
    assert words().train(LINES[::-1], ["x"])[0] == word_vocabulary


@settings(deadline=None)
@given(st.lists(st.sampled_from(" ".join(LINES).split()), max_size=10))
def test_known_words_round_trip(word_vocabulary, chosen):
    text = " ".join(chosen)
    ids = word_vocabulary.encode(text)
    assert word_vocabulary.decode(ids) == text
    assert not set(ids) & {PAD, UNK, BOS, EOS}
    assert word_vocabulary.words([BOS, *ids, EOS]) == [-1, *range(len(chosen)), -1]
    assert word_vocabulary.pieces(ids) == chosen
    assert word_vocabulary.sample(text, 0.5, 3) == ids


@settings(deadline=None)
@given(st.text())
def test_arbitrary_text_is_known_or_unk(word_vocabulary, character_vocabulary, text):
    for vocabulary, number in ((word_vocabulary, len(text.split())), (character_vocabulary, None)):
        ids = vocabulary.encode(text)
        assert number in (None, len(ids))
        assert not set(ids) & {PAD, BOS, EOS}
        assert vocabulary.unknown(text) == ids.count(UNK)
        assert "\n" not in vocabulary.decode(ids)
        forms = [vocabulary.encode(unicodedata.normalize(form, text)) for form in ("NFC", "NFD")]
        assert forms == [ids, ids]


@settings(deadline=None)
@given(st.text(st.sampled_from("".join(LINES)), max_size=30))
def test_known_characters_round_trip_spaces_included(character_vocabulary, text):
    ids = character_vocabulary.encode(text)
    assert character_vocabulary.decode([BOS, *ids, EOS, PAD]) == unicodedata.normalize("NFC", text)
    assert len(character_vocabulary.pieces(ids)) == len(ids)
    assert max(character_vocabulary.words(ids), default=-1) + 1 == len([w for w in text.split(" ") if w])


@settings(deadline=None)
@given(st.text())
def test_characters_of_any_text_round_trip_when_all_are_known(text):
    text = unicodedata.normalize("NFC", text).replace("\n", "").replace("\t", " ")
    vocabulary = characters(joint=True).train([text, "x"], [])[0]
    assert vocabulary.decode(vocabulary.encode(text)) == text


@settings(deadline=None)
@given(st.lists(st.text(), max_size=5))
def test_words_of_any_text_round_trip_when_all_are_known(texts):
    vocabulary = words(joint=True).train(texts, ["x"])[0]
    for text in texts:
        assert vocabulary.decode(vocabulary.encode(text)) == " ".join(unicodedata.normalize("NFC", text).split())


def test_specials_typed_by_a_user_are_words():
    vocabulary = words(joint=True).train(["plain"], [])[0]
    assert vocabulary.encode("</s> <s> <pad> <unk>") == [UNK] * 4
    vocabulary = words(joint=True).train(["</s> <s> <pad> <unk>"], [])[0]
    ids = vocabulary.encode("</s> <s> <pad> <unk>")
    assert min(ids) >= len(SPECIALS)
    assert vocabulary.decode(ids) == "</s> <s> <pad> <unk>"


def test_unknown_is_shown_and_counted(word_vocabulary, character_vocabulary):
    assert word_vocabulary.decode(word_vocabulary.encode("the zebra sat")) == "the <unk> sat"
    assert word_vocabulary.unknown("the zebra zebra sat") == 2
    assert character_vocabulary.unknown("cat Ω Ω") == 2
    assert word_vocabulary.pieces([PAD, UNK, BOS, EOS]) == list(SPECIALS)


def test_tab_is_a_space(character_vocabulary):
    assert character_vocabulary.encode("a\tb") == character_vocabulary.encode("a b")


def test_spaces_belong_to_the_next_word(character_vocabulary):
    ids = [BOS, *character_vocabulary.encode(" the  cat "), EOS]
    assert character_vocabulary.words(ids) == [-1, *[0] * 4, *[1] * 5, -1, -1]


def test_word_indices_of_marks():
    space, start, inner = (True, False), (True, True), (False, True)
    assert word_indices([None, inner, start, inner, space, inner, space, space]) == [-1, 0, 1, 1, 2, 2, -1, -1]
    assert word_indices([]) == []


def test_limits():
    vocabulary = words(min_count=2, joint=True).train(LINES, [])[0]
    assert set(vocabulary.tokens) == {"the", "sat"}
    assert words(size=5, joint=True).train(LINES, [])[0].tokens == ("the",)
    lower = words(lowercase=True, joint=True).train(LINES, [])[0]
    assert lower.encode("CAT THE") == lower.encode("cat the")
    assert "Cat" not in lower.tokens
    long = "x" * 1001
    assert words(joint=True).train([long, "a"], [])[0].encode(long) == [UNK]


@pytest.mark.parametrize("wrong", [{"size": 4}, {"size": 1 << 40}, {"min_count": 0}])
def test_wrong_options_are_named(wrong):
    for builder in (words, characters):
        with pytest.raises(ConfigError, match=f"text.{next(iter(wrong))}"):
            builder(**wrong)


@pytest.mark.parametrize("texts", [[], ["", " "]])
def test_no_text_is_an_error(texts):
    with pytest.raises(DataError, match="no words"):
        words().train(texts, texts)


def test_lone_surrogates_are_an_error(word_vocabulary):
    with pytest.raises(DataError, match="surrogate"):
        word_vocabulary.encode("a \udc00")


def test_ids_outside_are_refused(word_vocabulary):
    for number in (word_vocabulary.size, -1):
        with pytest.raises(IndexError):
            word_vocabulary.pieces([number])
    with pytest.raises(IndexError):
        word_vocabulary.decode([word_vocabulary.size])


def test_bundle_files_round_trip(word_vocabulary, character_vocabulary):
    for pair in ((word_vocabulary, character_vocabulary), (word_vocabulary, word_vocabulary)):
        back = load(dump(*pair))
        assert back == pair
        assert [side.digest for side in back] == [side.digest for side in pair]
    lower = Vocabulary("words", ["a"], lowercase=True)
    assert load(dump(lower, lower))[0].encode("A") == [4]
    assert word_vocabulary != character_vocabulary


def test_a_good_file_is_read():
    assert parse_vocabulary(json.dumps(GOOD).encode(), "source.json").tokens == ("a", "b")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xfe",
        b"[]",
        b"null",
        b"[" * 100_000,
        b'{"format": 1, "format": 1}',
        json.dumps({**GOOD, "_target_": "os.system"}).encode(),
        *[
            json.dumps({**GOOD, **wrong}).encode()
            for wrong in (
                {"format": 2},
                {"format": True},
                {"format": "1"},
                {"kind": "sentences"},
                {"kind": ["words"]},
                {"lowercase": 0},
                {"tokens": "ab"},
                {"tokens": {"a": 1}},
                {"tokens": ["a", 1]},
                {"tokens": ["a", None]},
                {"tokens": ["a", "b", "a"]},
                {"tokens": ["a", ""]},
                {"tokens": ["a b"]},
                {"tokens": ["a\n"]},
                {"tokens": ["a\u2028b"]},
                {"tokens": ["x" * 1001]},
                {"tokens": ["\ud800"]},
                {"kind": "characters", "tokens": ["ab"]},
                {"kind": "characters", "tokens": ["\n"]},
                {"kind": "characters", "tokens": ["\udfff"]},
            )
        ],
    ],
)
def test_damaged_or_hostile_files_are_refused(data):
    with pytest.raises(BundleError, match=r"source\.json"):
        load({"source.json": data, "target.json": json.dumps(GOOD).encode()})


def test_importing_the_room_is_light():
    program = "import sys, s2s.text; print([name for name in ('torch', 'sentencepiece') if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "[]\n"
