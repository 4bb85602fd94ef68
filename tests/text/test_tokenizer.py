import io
import json
import math
import pickle
import random
import subprocess
import sys
import threading
import time
import unicodedata
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
import sentencepiece as spm
from hypothesis import given, settings
from hypothesis import strategies as st

from s2s.errors import BundleError, ConfigError, DataError
from s2s.text.sampling import DropoutSampler, UnigramSampler
from s2s.text.tokenizer import SentencePiece, dump, load, sentencepiece, train_sentencepiece
from s2s.text.vocabulary import Vocabulary
from s2s.types import BOS, EOS, PAD, SPECIALS, UNK

STEMS = ["Haus", "Garten", "Straße", "schön", "grün", "läuft", "Mädchen", "house", "garden", "street", "green", "small"]
ENDINGS = ["", "e", "en", "er", "s", "chen", "ing", "ed"]
TYPED = [*SPECIALS, "<0x41>", "<mask>", "[CLS]", "<|user|>", "<2de>", "</s></s>", "a </s> b"]
NASTY = [
    "👩\u200d👩\u200d👧 👍🏽 🇩🇪",
    "مرحبا بالعالم \u202bשלום\u202c",
    "e\u0301\u0302 i\u0307\u0323 נִקּוּד हिन्दी",
    "a\tb  c\u00a0d\u3000e\u200bf",
    "漢字かな交じり文 한국어 ᄒ\u1161ᆫ",
    "ﬁ ① Ⅷ ½ ™",
    "a▁b ▅ \ufffd \x00 \x85 \ufeff",
]
GOLDEN = [["▁/ab/c/ab", "▁a/b/c/ab", "▁ab/c/a/b", "▁a/b/c/ab"], ["▁ab/c/ab", "▁ab/c/ab", "▁/a/b/c/a/b", "▁/ab/c/a/b"]]
TEXTS = st.one_of(
    st.text(), st.lists(st.sampled_from([*STEMS, *NASTY, *TYPED, " ", "Xylophon"]), max_size=8).map(" ".join)
)


def corpus(lines=400, seed=1):
    chance = random.Random(seed)
    stems = [*STEMS, *("".join(chance.choices("abdeghiklmnorstuäöß", k=5)) for _ in range(100))]
    return [
        " ".join(chance.choice(stems) + chance.choice(ENDINGS) for _ in range(chance.randint(3, 9))) + "."
        for _ in range(lines)
    ]


@pytest.fixture(scope="module", params=["unigram", "bpe"])
def tokenizer(request):
    return train_sentencepiece(corpus(), kind=request.param, size=420)


@pytest.fixture(scope="module")
def bpe(tokenizer):
    return isinstance(tokenizer._sampler, DropoutSampler)


@pytest.fixture(scope="module")
def plain():
    return train_sentencepiece(corpus(), size=120, byte_fallback=False)


def test_special_ids(tokenizer):
    assert tokenizer.pieces([PAD, UNK, BOS, EOS]) == list(SPECIALS)
    assert tokenizer.size == 420
    assert tokenizer.decode([BOS, *tokenizer.encode("schön grün"), EOS, PAD]) == "schön grün"


@settings(deadline=None)
@given(text=TEXTS)
def test_round_trip_gives_the_normalised_text(tokenizer, text):
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == tokenizer.normalise(text)
    assert all(number >= len(SPECIALS) for number in ids)
    assert tokenizer.encode(tokenizer.normalise(text)) == ids
    assert tokenizer.unknown(text) == 0


@pytest.mark.parametrize("text", [text for text in NASTY if "▁" not in text])
def test_round_trip_keeps_what_nfkc_keeps(tokenizer, text):
    """The model's own normalisation is NFKC with zero-width space and odd spaces as one space: nothing else is lost."""
    expected = " ".join(unicodedata.normalize("NFKC", text.replace("\u200b", " ")).split())
    assert tokenizer.decode(tokenizer.encode(text)) == expected


@settings(deadline=None)
@given(text=st.text())
def test_canonically_equal_texts_have_equal_ids(tokenizer, text):
    composed, decomposed = (tokenizer.encode(unicodedata.normalize(form, text)) for form in ("NFC", "NFD"))
    assert composed == decomposed == tokenizer.encode(text)


def test_marks_in_odd_order_have_equal_ids(tokenizer):
    text = "ꙵ\u1e50\u031c\u08dd\u0314 \u01a0\u059f\ua675"  # the model's rules alone get these wrong
    forms = {tuple(tokenizer.encode(unicodedata.normalize(form, text))) for form in ("NFC", "NFD")}
    assert len(forms) == 1


@pytest.mark.parametrize("text", TYPED)
def test_specials_typed_by_a_user_are_text(tokenizer, text):
    ids = tokenizer.encode(text)
    assert not set(ids) & {PAD, UNK, BOS, EOS}
    assert not set(tokenizer.sample(text, 0.2, 3)) & {PAD, UNK, BOS, EOS}
    assert tokenizer.decode(ids) == text


@pytest.mark.parametrize("text", ["", " ", "\t", "\u3000", "\u00a0 \u200b"])
def test_blank_texts_have_no_ids(tokenizer, text):
    assert tokenizer.encode(text) == [] == tokenizer.sample(text, 0.1, 1)
    assert tokenizer.decode([]) == ""


@pytest.mark.parametrize("text", ["x", "👍", "ꙮ", "ᚠ"])
def test_one_character_lines(tokenizer, text):
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_lone_surrogate_is_an_error(tokenizer):
    for call in (tokenizer.encode, tokenizer.normalise, lambda text: tokenizer.sample(text, 0.1, 1)):
        with pytest.raises(DataError, match=r"character 2.*U\+D800"):
            call("a\ud800")


@pytest.mark.parametrize("unit", ["a", "Я", "👍", "Haus ", "ab"])
def test_long_texts_take_bounded_time(tokenizer, unit):
    for length in (10_000, 200_000):
        text = unit * (length // len(unit))
        start = time.process_time()
        ids = tokenizer.encode(text)
        sampled = tokenizer.sample(text, 0.1, 1)
        assert time.process_time() - start < 20
        assert tokenizer.decode(ids) == text.strip() == tokenizer.decode(sampled)


@settings(deadline=None)
@given(text=TEXTS, alpha=st.sampled_from([0.1, 0.5]), seed=st.integers(0, 2**64))
def test_samples_are_segmentations_of_the_same_text(tokenizer, text, alpha, seed):
    ids = tokenizer.sample(text, alpha, seed)
    assert tokenizer.decode(ids) == tokenizer.normalise(text)
    assert tokenizer.sample(text, alpha, seed) == ids
    assert tokenizer.sample(text, 0, seed) == tokenizer.encode(text)


def test_samples_differ_by_seed_and_by_text(tokenizer):
    text = " ".join(corpus()[:5])
    assert len({tuple(tokenizer.sample(text, 0.1, seed)) for seed in range(50)}) > 45
    assert len({tuple(tokenizer.sample("Haus" + "." * n, 0.1, 1)[:3]) for n in range(40)}) > 1


def draw(tokenizer, lines, order):
    drawn = {i: tokenizer.sample(lines[i], 0.1, 7) for i in order}
    return [drawn[i] for i in range(len(lines))]


def test_samples_do_not_depend_on_order_thread_or_process(tokenizer, tmp_path):
    lines = corpus(60, seed=2)
    once = draw(tokenizer, lines, range(60))
    assert draw(tokenizer, lines, reversed(range(60))) == once
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda line: tokenizer.sample(line, 0.1, 7), lines * 20)) == once * 20
    (tmp_path / "m.spm").write_bytes(tokenizer.files("m")["m.spm"])
    (tmp_path / "lines.json").write_text(json.dumps(lines), encoding="utf-8")
    program = (
        "import json, pathlib, sys; from s2s.text.tokenizer import SentencePiece; root = pathlib.Path(sys.argv[1]);"
        "t = SentencePiece((root / 'm.spm').read_bytes());"
        "lines = json.loads((root / 'lines.json').read_text('utf-8'));"
        "print(json.dumps([t.sample(line, 0.1, 7) for line in lines]))"
    )
    out = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=True)
    assert json.loads(out.stdout) == once


def test_unigram_samples_follow_the_model():
    """Frequencies against probability ** alpha over all segmentations, enumerated (Kudo 2018, section 3.2)."""
    tokenizer = train_sentencepiece(corpus(), size=420)
    scores = {name: tokenizer._model.get_score(i) for i, name in enumerate(tokenizer._names) if i >= 4 + 256}

    def segmentations(rest):
        if not rest:
            yield ()
        for end in range(1, len(rest) + 1):
            if rest[:end] in scores:
                yield from ((rest[:end], *more) for more in segmentations(rest[end:]))

    for word, alpha in (("Gartenen", 0.3), ("schönen", 0.1), ("grüner", 1.0)):
        weights = {s: math.exp(alpha * sum(scores[piece] for piece in s)) for s in segmentations("▁" + word)}
        assert len(weights) > 3
        counts = Counter(tuple(tokenizer.pieces(tokenizer.sample(word, alpha, seed))) for seed in range(4000))
        assert set(counts) <= set(weights)
        for segmentation, weight in weights.items():
            assert counts[segmentation] / 4000 == pytest.approx(weight / sum(weights.values()), abs=0.04)


@settings(deadline=None)
@given(text=TEXTS)
def test_the_least_random_sample_is_the_best_segmentation(tokenizer, bpe, text):
    """The samplers are our own code: at the end of their range they must agree with the library's search."""
    ids = tokenizer.encode(text)
    sampled = tokenizer.sample(text, 1e-12 if bpe else 1e4, 1)
    if sampled != ids:  # equally good ones
        assert not bpe
        assert tokenizer.decode(sampled) == tokenizer.decode(ids)
        assert score(tokenizer, sampled) == pytest.approx(score(tokenizer, ids), abs=1e-3)


def score(tokenizer, ids):
    return sum(tokenizer._model.get_score(number) for number in ids)


def test_unknown_characters_are_sampled_as_they_are_encoded(plain):
    for text in ("ЯЯ", "qЯ Haus", "a Я Я", "</s>"):
        assert plain.sample(text, 1e4, 1) == plain.encode(text)


def test_samples_never_change():
    """Drawn once and written down: whoever resumes with another version of Python must get the same."""
    pieces = {"▁": -3.0, "a": -2.0, "b": -2.5, "▁a": -2.2, "ab": -1.0, "▁ab": -1.5}
    drawn = []
    for sampler, alpha in ((UnigramSampler(pieces), 0.5), (DropoutSampler(pieces), 0.5)):
        uniform = random.Random(5).random
        drawn.append(["/".join(sampler("▁abcab", alpha, uniform)) for _ in range(4)])
    assert drawn == GOLDEN


def test_bpe_dropout_of_one_gives_characters():
    tokenizer = train_sentencepiece(corpus(), kind="bpe", size=420)
    assert tokenizer.pieces(tokenizer.sample("Haus", 1.0, 1)) == ["▁", "H", "a", "u", "s"]


@pytest.mark.parametrize("alpha", [-0.1, math.inf, math.nan])
def test_wrong_alpha_is_refused(tokenizer, alpha):
    with pytest.raises(ConfigError, match="alpha"):
        tokenizer.sample("a", alpha, 1)


@settings(deadline=None)
@given(data=st.data())
def test_word_indices_match_the_words_of_the_decoded_text(tokenizer, data):
    text = data.draw(TEXTS)
    ids = tokenizer.encode(text)
    count = len([word for word in tokenizer.decode(ids).split(" ") if word])
    indices = tokenizer.words(ids)
    assert len(indices) == len(ids)
    assert sorted({index for index in indices if index >= 0}) == list(range(count))
    assert [index for index in indices if index >= 0] == sorted(index for index in indices if index >= 0)
    assert tokenizer.words([BOS, *ids, EOS, PAD]) == [-1, *indices, -1, -1]


def test_pieces_merged_by_word_index_are_the_words(tokenizer):
    text = "Haus Xylophon läuft 👍🏽 schön"
    ids = tokenizer.encode(text)
    merged = {}
    for number, word in zip(ids, tokenizer.words(ids), strict=True):
        merged.setdefault(word, []).append(number)
    assert [tokenizer.decode(part) for part in merged.values()] == text.split()


@settings(deadline=None)
@given(ids=st.lists(st.integers(0, 419), max_size=12))
def test_any_ids_decode_to_one_line(tokenizer, ids):
    text = tokenizer.decode(ids)
    assert "\n" not in text
    assert len(tokenizer.pieces(ids)) == len(ids) == len(tokenizer.words(ids))
    assert max(tokenizer.words(ids), default=-1) + 1 == len([word for word in text.split(" ") if word])


def test_line_feed_from_bytes_is_a_space(tokenizer):
    feed = tokenizer.pieces(range(tokenizer.size)).index("<0x0A>")
    word = tokenizer.encode("Haus")
    assert tokenizer.decode([*word, feed, *word[1:]]).startswith("Haus ")


def test_ids_outside_the_vocabulary_are_refused(tokenizer):
    for call in (tokenizer.decode, tokenizer.pieces, tokenizer.words):
        with pytest.raises(IndexError):
            call([tokenizer.size])


def test_unknown_characters_are_counted_and_shown(plain):
    assert plain.unknown("Haus") == 0
    assert plain.unknown("Haus ЯЯ qЯ") == 4
    assert plain.decode(plain.encode("Haus Я grün")) == "Haus <unk> grün"
    assert plain.words(plain.encode("Haus Я grün"))[-1] == 2
    assert not set(plain.encode("</s>")) & {PAD, BOS, EOS}


def test_lowercase_folds_case_inside_the_model():
    tokenizer = train_sentencepiece(corpus(), size=400, lowercase=True)
    assert tokenizer.encode("DIE GRÜNE Straße ÅA\u030a") == tokenizer.encode("die grüne straße åå")
    assert tokenizer.decode(tokenizer.encode("STRAßE")) == "straße"


@pytest.mark.parametrize("kind", ["unigram", "bpe"])
def test_same_texts_give_the_same_bytes(kind, tokenizer):
    again = [train_sentencepiece(corpus(), kind=kind, size=420) for _ in range(2)]
    assert again[0] == again[1]
    assert hash(again[0]) == hash(again[1])
    assert again[0].files("a")["a.spm"] == again[1].files("a")["a.spm"]
    assert again[0] != train_sentencepiece(corpus(seed=5), kind=kind, size=420)


def test_training_is_silent(capfd):
    train_sentencepiece(corpus(), size=400)
    with pytest.raises(ConfigError):
        train_sentencepiece(corpus(), size=270)
    with pytest.raises(BundleError):
        SentencePiece(b"nonsense")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("kind", ["unigram", "bpe"])
@pytest.mark.parametrize("texts", [["Hello world"], ["a"], ["漢"], ["</s>"], [" x ", ""]])
def test_tiny_corpora_give_a_smaller_vocabulary(kind, texts, caplog):
    tokenizer = train_sentencepiece(texts, kind=kind, size=4000)
    assert 260 < tokenizer.size < 4000
    assert tokenizer.decode(tokenizer.encode(texts[0])) == texts[0].strip()
    assert f"has {tokenizer.size} pieces" in caplog.text


@pytest.mark.parametrize("texts", [[], [""], [" ", "\t", "\u200b"]])
def test_no_text_is_an_error(texts):
    with pytest.raises(DataError, match="no text"):
        train_sentencepiece(texts, size=400)


@pytest.mark.parametrize("kind", ["unigram", "bpe"])
def test_size_below_the_characters_says_which_is_enough(kind):
    with pytest.raises(ConfigError, match=r"text\.size: .*found 270") as caught:
        train_sentencepiece(corpus(), kind=kind, size=270)
    needed = int(caught.value.expected.removeprefix("at least "))
    assert train_sentencepiece(corpus(), kind=kind, size=needed).size == needed
    with pytest.raises(ConfigError):
        train_sentencepiece(corpus(), kind=kind, size=needed - 1)


@pytest.mark.parametrize("kind", ["unigram", "bpe"])
@pytest.mark.parametrize(
    "line", ["Haus " * 30_000 + "qqq", "ﷺ" * 5_000 + "q" * 100, "▅ qqq", "q\tq", "q\nq", "<s> q </s>"]
)
def test_no_training_line_is_skipped(kind, line):
    tokenizer = train_sentencepiece([*corpus(50), line], kind=kind, size=300, coverage=1.0)
    assert any("q" in piece for piece in tokenizer.pieces(range(4, tokenizer.size)))


def test_training_lines_can_be_limited(caplog):
    lines = [*["Haus"] * 50, *["qqq"] * 50]
    recipe = sentencepiece(size=400, sentences=10)
    source, _ = recipe.train(lines, ["Garten"])
    assert {"q", "H"} <= set("".join(source.pieces(range(4, source.size))))
    assert "10 of 100 texts" in caplog.text


@pytest.mark.parametrize(
    "wrong", [{"size": 4}, {"size": 1 << 30}, {"coverage": 0.5}, {"coverage": 1.5}, {"sentences": 0}]
)
def test_wrong_options_are_named(wrong):
    with pytest.raises(ConfigError, match=f"text.{next(iter(wrong))}"):
        sentencepiece(**wrong)


def test_recipe_trains_one_or_two():
    texts = corpus(100), corpus(100, seed=9)
    source, target = sentencepiece(size=350).train(*texts)
    assert source != target
    shared, same = sentencepiece(size=350, joint=True).train(*texts)
    assert shared is same


def test_bundle_files_round_trip():
    texts = corpus(100), corpus(100, seed=9)
    for joint, names in ((False, {"source.spm", "target.spm"}), (True, {"shared.spm"})):
        pair = sentencepiece(size=350, joint=joint).train(*texts)
        files = dump(*pair)
        assert set(files) == names
        back = load({**files, "config.json": b"{}"})
        assert back == pair
        assert (back[0] is back[1]) == joint
        assert back[0].encode(texts[0][0]) == pair[0].encode(texts[0][0])
    mixed = pair[0], Vocabulary("words", ["a"])
    assert set(dump(*mixed)) == {"source.spm", "target.json"}
    assert load(dump(*mixed)) == mixed


def test_copies_to_other_processes_are_equal(tokenizer):
    copy = pickle.loads(pickle.dumps(tokenizer))
    assert copy == tokenizer
    assert copy.sample("Haus grün", 0.1, 4) == tokenizer.sample("Haus grün", 0.1, 4)


@pytest.mark.parametrize(
    "names",
    [
        [],
        ["source.spm"],
        ["target.json"],
        ["shared.spm", "source.spm", "target.spm"],
        ["shared.spm", "shared.json"],
        ["source.spm", "source.json", "target.spm"],
        ["shared.spm", "source.spm"],
    ],
)
def test_missing_or_contradicting_files_are_refused(names, plain):
    with pytest.raises(BundleError, match="which tokenizers"):
        load(dict.fromkeys(names, plain.files("x")["x.spm"]))


def foreign_model(**options):
    model = io.BytesIO()
    spm.SentencePieceTrainer.train(
        sentence_iterator=iter(corpus(50)),
        model_writer=model,
        vocab_size=300,
        hard_vocab_limit=False,
        minloglevel=2,
        **options,
    )
    return model.getvalue()


@pytest.mark.parametrize(
    "options",
    [{}, {"pad_id": 3, "unk_id": 0}, {"pad_id": 0, "unk_id": 1, "bos_id": 2, "eos_id": 3, "control_symbols": "<x>"}],
)
def test_models_with_other_specials_are_refused(options):
    with pytest.raises(BundleError, match=r"source\.spm"):
        load({"source.spm": foreign_model(**options), "target.spm": b""})


def test_damaged_models_are_refused_or_harmless(tokenizer):
    """Every damage gives a BundleError or a tokenizer that works; none may end the process."""
    whole = tokenizer.files("x")["x.spm"]
    chance, refused = random.Random(3), 0
    for trial in range(120):
        damaged = bytearray(whole)
        if trial % 2:
            damaged = damaged[: chance.randrange(len(whole))]
        else:
            for _ in range(3):
                damaged[chance.randrange(6000 if trial % 4 else len(whole))] = chance.randrange(256)
        try:
            loaded = SentencePiece(bytes(damaged), where="source.spm")
            loaded.sample("Haus 👍", 0.1, 1)
        except BundleError:
            refused += 1
    assert refused > 60


def test_two_threads_may_train_and_encode(tokenizer):
    failures = []

    def work(seed):
        try:
            train_sentencepiece(corpus(50, seed), size=330)
            tokenizer.encode("Haus")
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
