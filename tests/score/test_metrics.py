"""Corpus scores: agreement with sacrebleu and rouge-score called directly, bad input, direction."""

import random
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sacrebleu.metrics import BLEU, CHRF, TER

from s2s.errors import DataError, UsageError
from s2s.score.diversity import DIVERSITY
from s2s.score.metrics import NAMES, Scoring, better, bleu, chrf, compute, rouge, statistics, ter
from s2s.types import Score

REFERENCE = [
    "Two young men in red shirts are playing football in the park.",
    "A woman sells fresh bread at the market.",
    "The dog runs through the snow; nobody follows it.",
    "Ein Mann mit grünem Hut überquert die Straße.",
    "Version 2.6.1 was released on 2024-05-01, at last!",
]
HYPOTHESIS = [
    "Two Young men in red shirts play football in a park.",
    "A woman is selling bread at the market.",
    "",
    "Ein Mann mit einem grünen hut überquert eine Straße.",
    "Version 2.6.1 was released on 2024-05-01 at last!",
]
SECOND = [
    "Two boys wearing red play soccer in a park.",
    "At the market, a woman is selling bread.",
    "A dog runs in the snow and nobody follows.",
    "Ein Mann mit grünem Hut geht über die Straße.",
    "",
]
SCRIPTS = {
    "arabic": (
        ["القطة تجلس على السجادة الحمراء", "أحب القراءة في المساء"],
        ["القطة تجلس على السجادة", "أحب القراءة مساء"],
    ),
    "hebrew": (["הילד אוכל תפוח אדום בגן", "שלום לכולם"], ["הילד אוכל תפוח בגן", "שלום לכולם"]),
    "chinese": (["今天天气很好。", "我喜欢在晚上看书。"], ["今天天气不错。", "我喜欢晚上看书。"]),
    "hindi": (["लड़का लाल सेब खाता है", "मुझे पढ़ना पसंद है"], ["लड़का सेब खाता है", "मुझे पढ़ना पसंद है"]),
    "emoji": (["I love it 😂👩‍👩‍👧", "great 👍🏽"], ["I love it 👩‍👩‍👧", "great 👍🏽"]),
}

# bertscore needs an encoder; those of diversity look at no reference
OFFLINE = [name for name in NAMES if name not in ("bertscore", *DIVERSITY)]


def corpus(lines: int, noise: float, seed: int = 0) -> tuple[list[str], list[str]]:
    """Made-up references, and hypotheses in which a share of the words is another one."""
    words = ["the", "a", "cat", "dog", "house", "sees", "runs", "in", "on", "red", "green", "tree", "old", "man", "and"]
    rng = random.Random(seed)
    references = [" ".join(rng.choices(words, k=rng.randint(5, 14))) + "." for _ in range(lines)]
    hypotheses = [
        " ".join(rng.choice(words) if rng.random() < noise else word for word in line.split()) for line in references
    ]
    return hypotheses, references


@pytest.mark.parametrize("lowercase", [False, True])
@pytest.mark.parametrize("references", [[REFERENCE], [REFERENCE, SECOND]], ids=["one", "two"])
@pytest.mark.parametrize("tokenize", ["13a", "intl", "char", "zh", "none"])
def test_bleu_is_sacrebleus(tokenize, references, lowercase):
    metric = BLEU(lowercase=lowercase, tokenize=tokenize)
    expected = metric.corpus_score(HYPOTHESIS, references)
    found = bleu(HYPOTHESIS, references, lowercase=lowercase, tokenize=tokenize)
    assert found.value == pytest.approx(expected.score, abs=1e-9)
    assert found.signature == str(metric.get_signature())
    assert (found.name, found.low, found.high, found.higher_is_better) == ("bleu", None, None, True)
    assert found.details["brevity_penalty"] == pytest.approx(expected.bp)
    assert found.details["precision_2"] == pytest.approx(expected.precisions[1])


@pytest.mark.parametrize("lowercase", [False, True])
@pytest.mark.parametrize("words", [False, True])
def test_chrf_is_sacrebleus(words, lowercase):
    metric = CHRF(word_order=2 if words else 0, lowercase=lowercase)
    expected = metric.corpus_score(HYPOTHESIS, [REFERENCE, SECOND])
    found = chrf(HYPOTHESIS, [REFERENCE, SECOND], lowercase=lowercase, words=words)
    assert found.value == pytest.approx(expected.score, abs=1e-9)
    assert found.signature == str(metric.get_signature())
    assert found.name == ("chrf++" if words else "chrf")


def test_ter_is_sacrebleus_and_lower_is_better():
    metric = TER()
    expected = metric.corpus_score(HYPOTHESIS, [REFERENCE, SECOND])
    found = ter(HYPOTHESIS, [REFERENCE, SECOND])
    assert found.value == pytest.approx(expected.score, abs=1e-9)
    assert found.signature == str(metric.get_signature())
    assert not found.higher_is_better
    assert ter(REFERENCE, [REFERENCE]).value == 0


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts(script):
    hypotheses, references = SCRIPTS[script]
    for name, metric in (("bleu", BLEU(tokenize="char")), ("chrf", CHRF()), ("ter", TER())):
        [found] = compute([name], hypotheses, [references], Scoring(tokenize="char"))
        assert found.value == pytest.approx(metric.corpus_score(hypotheses, [references]).score, abs=1e-9)
        assert 0 < found.value <= 100  # a line without blanks is one word to TER


@pytest.mark.parametrize("name,metric", [("bleu", BLEU()), ("chrf", CHRF()), ("ter", TER())])
def test_intervals_are_those_of_sacrebleu(name, metric, monkeypatch):
    monkeypatch.delenv("SACREBLEU_SEED", raising=False)
    hypotheses, references = corpus(60, 0.3)
    expected = metric.corpus_score(hypotheses, [references], n_bootstrap=400)
    [found] = compute([name], hypotheses, [references], intervals=True, samples=400)
    assert (found.high - found.low) / 2 == pytest.approx(expected._ci, abs=1e-3)
    assert found.low < found.value < found.high
    assert found.signature == str(metric.get_signature())
    assert "bs:400|seed:12345" in found.signature


def test_intervals_follow_the_seed_alone():
    hypotheses, references = corpus(40, 0.3)
    first = bleu(hypotheses, [references], intervals=True, seed=0, samples=100)
    assert first == bleu(hypotheses, [references], intervals=True, seed=0, samples=100)
    other = bleu(hypotheses, [references], intervals=True, seed=1, samples=100)
    assert other.value == first.value
    assert (other.low, other.high) != (first.low, first.high)
    assert "seed:0" in first.signature


@pytest.mark.parametrize("options", [{"seed": -1}, {"samples": 39}, {"samples": 0}])
def test_impossible_resampling_is_refused(options):
    with pytest.raises(UsageError, match="expected"):
        bleu(HYPOTHESIS, [REFERENCE], intervals=True, **options)


@pytest.mark.parametrize("name", OFFLINE)
def test_order_of_lines_and_streams_does_not_matter(name):
    hypotheses, references = corpus(30, 0.4)
    second = corpus(30, 0.4, seed=1)[1]
    [expected] = compute([name], hypotheses, [references, second])
    order = random.Random(3).sample(range(30), 30)
    shuffled = [[stream[i] for i in order] for stream in (hypotheses, second, references)]
    [found] = compute([name], shuffled[0], shuffled[1:])
    assert found.value == pytest.approx(expected.value, abs=1e-9)


@pytest.mark.parametrize("name", OFFLINE)
def test_a_perfect_output_is_best_and_blank_output_worst(name):
    [perfect] = compute([name], REFERENCE, [REFERENCE])
    [blank] = compute([name], [""] * 5, [REFERENCE])
    assert (perfect.value, blank.value) == ((0, 100) if name == "ter" else (pytest.approx(100), 0))
    assert better(perfect, blank)
    assert not better(blank, perfect)


@pytest.mark.parametrize("name", OFFLINE)
def test_blank_references_give_a_number(name):
    [blank] = compute([name], ["", ""], [["", ""]], intervals=True, samples=40)
    assert blank.value == 0
    [found] = compute([name], ["words here", ""], [["", ""]])
    assert 0 <= found.value <= 100


@given(st.lists(st.tuples(st.text(max_size=12), st.text(max_size=12)), min_size=1, max_size=4))
@settings(max_examples=40, deadline=None)
def test_any_text_has_a_finite_score_within_its_range(pairs):
    hypotheses, references = map(list, zip(*pairs, strict=True))
    for found in compute(["bleu", "chrf", "ter"], hypotheses, [references], intervals=True, samples=40):
        assert 0 <= found.low <= found.high
        assert found.value >= 0
        assert found.name == "ter" or found.high <= 100 + 1e-9


def test_rouge_is_rouge_scores():
    from rouge_score.rouge_scorer import RougeScorer

    names = ["rouge1", "rouge2", "rougeL", "rougeLsum"]
    scorer = RougeScorer(names)
    expected = [scorer.score_multi(list(refs), hyp) for hyp, *refs in zip(HYPOTHESIS, REFERENCE, SECOND, strict=True)]
    found = compute(["rouge"], HYPOTHESIS, [REFERENCE, SECOND])
    assert [score.name for score in found] == names
    for score in found:
        mean = sum(line[score.name].fmeasure for line in expected) / len(expected)
        assert score.value == pytest.approx(100 * mean)
        assert score.signature.startswith(
            "nrefs:2|case:lc|tok:rouge_score|stem:no|agg:mean|multi:max|version:rouge-score-"
        )
    assert found == rouge(HYPOTHESIS, [REFERENCE, SECOND])
    assert "bs:50|seed:7" in rouge(HYPOTHESIS, [REFERENCE], intervals=True, samples=50, seed=7)[0].signature


def test_rouge_lsum_sees_sentences_split_by_newlines():
    hypothesis, reference = ["the cat sat\nit rained all day"], ["it rained all day\nthe cat sat"]
    scores = {score.name: score.value for score in rouge(hypothesis, [reference])}
    assert scores["rougeLsum"] == pytest.approx(100)
    assert scores["rougeL"] < 100


@pytest.mark.parametrize("script", ["arabic", "chinese", "hindi"])
def test_rouge_refuses_a_script_that_the_tokeniser_asked_for_drops(script):
    hypotheses, references = SCRIPTS[script]
    with pytest.raises(DataError, match=r"a-z and 0-9.*unicode"):
        rouge(hypotheses, [references], tokenize="rouge_score")


@pytest.mark.parametrize("script", ["arabic", "chinese", "hindi"])
def test_rouge_of_other_scripts_is_not_zero_and_signed(script):
    hypotheses, references = SCRIPTS[script]
    for score in rouge(hypotheses, [references]):
        assert "tok:unicode" in score.signature
        assert score.value > 0 or score.name == "rouge2"
    assert all(score.value == pytest.approx(100) for score in rouge(references, [references]) if score.name != "rouge2")


def test_rouge_by_hand_in_thai():
    # seven characters of the output, of the eight of the reference; six are in both, in this order
    assert rouge(["กขคงจฉช"], [["กขคงจฉมย"]])[0].value == pytest.approx(100 * 2 * 6 / 15)


def test_rouge_tokeniser_of_latin_scripts_is_asked_for():
    hypotheses, references = ["für den Müller"], [["fur den Mueller"]]
    assert "tok:rouge_score" in rouge(hypotheses, references)[0].signature
    words = rouge(hypotheses, references, tokenize="unicode")[0]
    assert "tok:unicode" in words.signature
    assert words.value == pytest.approx(100 / 3)


def test_rouge_stems_as_rouge_score_does():
    from rouge_score.rouge_scorer import RougeScorer

    lines, targets = ["the runners were running home"], ["a runner runs homes"]
    found = rouge(lines, [targets], stem=True)[0]
    assert found.value == 100 * RougeScorer(["rouge1"], use_stemmer=True).score(targets[0], lines[0])["rouge1"].fmeasure
    assert found.value > rouge(lines, [targets])[0].value
    assert "stem:yes" in found.signature
    with pytest.raises(UsageError, match="stemmer is for English"):
        rouge(lines, [targets], stem=True, tokenize="unicode")
    with pytest.raises(UsageError, match="unknown tokeniser 'words' of ROUGE"):
        rouge(lines, [targets], tokenize="words")


def test_several_metrics_come_in_the_order_asked():
    assert [score.name for score in compute(["ter", "bleu", "chrf"], HYPOTHESIS, [REFERENCE])] == [
        "ter",
        "bleu",
        "chrf",
    ]


def test_statistics_of_a_part_score_that_part():
    whole = statistics("bleu", HYPOTHESIS, [REFERENCE])
    assert whole.score(whole.rows[:2].sum(0)) == pytest.approx(bleu(HYPOTHESIS[:2], [REFERENCE[:2]]).value)


@pytest.mark.parametrize("typed,meant", [("blue", "bleu"), ("BLEU", "bleu"), ("chr", "chrf"), ("rogue", "rouge")])
def test_an_unknown_metric_names_the_nearest_and_all(typed, meant):
    with pytest.raises(UsageError, match=f"Did you mean {meant}") as caught:
        compute([typed], HYPOTHESIS, [REFERENCE])
    assert "bleu, chrf, chrf++, ter, rouge1" in str(caught.value)


def test_other_wrong_names_and_options():
    with pytest.raises(UsageError, match=r"unknown metric 'distant'.*bleu, chrf"):
        compute(["distant"], HYPOTHESIS, [REFERENCE])
    with pytest.raises(UsageError, match="more than once"):
        compute(["rouge", "rougeL"], HYPOTHESIS, [REFERENCE])
    with pytest.raises(UsageError, match="no metric"):
        compute([], HYPOTHESIS, [REFERENCE])
    with pytest.raises(UsageError, match=r"unknown tokeniser '13b'.*Did you mean 13a"):
        bleu(HYPOTHESIS, [REFERENCE], tokenize="13b")
    with pytest.raises(TypeError):
        compute(["bleu"], HYPOTHESIS, [REFERENCE], lower=True)


def test_lines_that_do_not_fit_are_refused():
    with pytest.raises(DataError, match=r"reference 2 .*expected 5 lines; found 4"):
        bleu(HYPOTHESIS, [REFERENCE, SECOND[:4]])
    with pytest.raises(DataError, match="nothing to score"):
        bleu([], [[]])
    with pytest.raises(UsageError, match="no reference"):
        bleu(HYPOTHESIS, [])
    with pytest.raises(UsageError, match="list of streams"):
        bleu(HYPOTHESIS, REFERENCE)


def test_better_knows_directions_and_never_takes_nan():
    nan, inf = float("nan"), float("inf")
    assert better(2.0, 1.0, higher_is_better=True)
    assert better(1.0, 2.0, higher_is_better=False)
    for up in (True, False):
        assert not better(1.0, 1.0, higher_is_better=up)
        assert better(1.0, None, higher_is_better=up)
        assert better(1.0, nan, higher_is_better=up)
        for bad in (nan, inf, -inf):
            assert not better(bad, 1.0, higher_is_better=up)
            assert not better(bad, None, higher_is_better=up)
    low, high = Score("ter", 10.0, "s", higher_is_better=False), Score("ter", 20.0, "s", higher_is_better=False)
    assert better(low, high)
    assert better(low, 20.0)
    assert better(10.0, high)
    assert not better(high, low)
    with pytest.raises(ValueError, match="higher_is_better"):
        better(1.0, 2.0)
    with pytest.raises(ValueError, match="compared"):
        better(low, Score("bleu", 1.0, "s"))


def test_importing_the_room_is_light():
    code = "import sys, s2s.score.metrics, s2s.score.significance; print([m for m in sys.modules if m in " + (
        "('sacrebleu', 'rouge_score', 'nltk', 'matplotlib')])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"
