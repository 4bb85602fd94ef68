"""Which id copying gives, with words, characters and subwords."""

from __future__ import annotations

from s2s.text.batching import Example, collate
from s2s.text.copying import Copier
from s2s.text.tokenizer import train_sentencepiece
from s2s.text.vocabulary import Vocabulary
from s2s.types import EOS, PAD, UNK

SOURCE = Vocabulary("words", ["the", "cat", "sat", "red"])
TARGET = Vocabulary("words", ["cat", "the", "dog"])


def test_words_that_the_target_knows_have_its_id_and_others_one_of_their_own():
    text, target = "the cat zig sat zag zig", "dog zig the zog zag"
    found = Copier(SOURCE, TARGET)(text, SOURCE.encode(text), target, TARGET.encode(target))
    size = TARGET.size
    assert found.extra == ("zig", "sat", "zag")
    assert found.source == [5, 4, size, size + 1, size + 2, size]
    assert found.target == [6, size, 5, UNK, size + 2]
    assert TARGET.decode([*found.source, EOS], found.extra) == text
    assert TARGET.decode(found.target, found.extra) == "dog zig the <unk> zag"
    assert TARGET.pieces(found.source, found.extra) == text.split()


def test_one_vocabulary_for_both_sides():
    text = "red zig red"
    found = Copier(SOURCE, SOURCE)(text, SOURCE.encode(text), "zig", SOURCE.encode("zig"))
    assert found.source == [7, SOURCE.size, 7]
    assert found.target == [SOURCE.size]


def test_a_source_that_was_cut_off_has_only_what_is_left_of_it():
    text = "zig the zag"
    found = Copier(SOURCE, TARGET)(text, SOURCE.encode(text)[:2])
    assert (found.source, found.extra, found.target) == ([TARGET.size, 5], ("zig",), [])


def test_characters():
    vocabulary = Vocabulary("characters", ["a", " ", "b"], lowercase=True)
    text = "A éb"
    found = Copier(vocabulary, vocabulary)(text, vocabulary.encode(text), "é a", vocabulary.encode("é a"))
    assert found.extra == ("é",)
    assert vocabulary.decode(found.source, found.extra) == "a éb"
    assert vocabulary.decode(found.target, found.extra) == "é a"


def test_subwords_are_copied_as_they_are():
    pieces = train_sentencepiece(["the cat sat on the mat"] * 9, size=300)
    ids, target = pieces.encode("the cat"), pieces.encode("cat")
    found = Copier(pieces, pieces)("the cat", ids, "cat", target)
    assert (found.source, found.target, found.extra) == (ids, target, ())


def test_a_batch_holds_what_may_be_copied():
    copier = Copier(SOURCE, TARGET)

    def example(text: str, target: str) -> Example:
        ids, target_ids = SOURCE.encode(text), TARGET.encode(target)
        return Example(ids, target_ids, copies=copier(text, ids, target, target_ids))

    batch = collate([example("the zig", "zig cat"), example("red", "red")], [0, 1])
    size = TARGET.size
    assert batch.copies is not None
    assert batch.copies.tolist() == [[5, size, EOS], [size, EOS, PAD]]
    assert batch.target_out.tolist() == [[size, 4, EOS], [size, EOS, PAD]]
    assert batch.target_in.tolist() == [[2, UNK, 4], [2, UNK, PAD]]
