"""Online translation: the same tokens as for the whole source, at linear cost, by exact schedules."""

import itertools
import math
import random
from dataclasses import replace
from functools import partial

import pytest
import torch

from s2s.app import compose
from s2s.attention import build
from s2s.errors import UsageError
from s2s.model import recurrent_decoder, recurrent_encoder, transformer_decoder, transformer_encoder
from s2s.model.seq2seq import seq2seq, start_search
from s2s.paths import data_dir
from s2s.registry import builder, group_defaults, group_names
from s2s.score.latency import average_lagging
from s2s.search import force
from s2s.task.generate import Generator, Options
from s2s.task.stream import Stream, stream
from s2s.task.trained import Trained
from s2s.text.tokenizer import train_sentencepiece
from s2s.text.vocabulary import Vocabulary, beginnings
from s2s.types import DecoderOutput

LETTERS = "abcdefgh"
WORDS = ["".join(pair) for pair in itertools.product(LETTERS, LETTERS)]
SENTENCES = [" ".join(random.Random(seed).choices(WORDS, k=1 + seed % 9)) for seed in range(80)]
ENCODERS = [{"bidirectional": False}, {"chunk": 3}]
OWN = [
    ("monotonic", {}),
    ("monotonic", {"preserve": False, "heads": 3}),
    ("mocha", {"chunk": 3}),
    ("mocha", {"heads": 3, "chunk": 2}),
    ("milk", {}),
    ("mma", {"heads": 3}),
    ("mma", {"heads": 3, "kind": "hard"}),
    ("mma", {"heads": 2, "kind": "chunk", "chunk": 2}),
]
OWN_IDS = [f"{name}-{'-'.join(f'{key}_{value}' for key, value in options.items())}" for name, options in OWN]


@pytest.fixture(scope="module")
def subwords():
    return train_sentencepiece(SENTENCES, size=300, byte_fallback=False)


@pytest.fixture(scope="module")
def config():
    return compose("teach/copy", ["search.beam=1", "search.max_ratio=1.5", "search.max_extra=3", "device=cpu"])


def model(config, tokenizer, attention="mocha", options=None, *, encoder=None, decoder=None, kind="recurrent", seed=0):
    """A tiny random model that can stream, whose weights are large enough that each part matters."""
    torch.manual_seed(seed)
    width = 6
    function, own = builder("self_attention", "auto", {**group_defaults("self_attention", "auto"), "heads": 2})
    if kind == "transformer":
        parts = (
            partial(transformer_encoder, width=width, bidirectional=False, layers=2),
            partial(transformer_decoder, width=width, layers=2),
        )
    else:
        parts = (
            partial(recurrent_encoder, width=width, **({"bidirectional": False} if encoder is None else encoder)),
            partial(recurrent_decoder, **{"width": width, "bridge": "zero", **(decoder or {})}),
        )
    made = seq2seq(
        source_size=tokenizer.size,
        target_size=tokenizer.size,
        embedding=width,
        dropout=0.3,
        tie="none",
        encoder=parts[0],
        decoder=parts[1],
        attention=lambda query, memory: build(attention, query_size=query, memory_size=memory, **(options or {})),
        self_attention=partial(function, **own),
    )
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if name.endswith("align.bias"):
                parameter.fill_(0.4 * seed)  # some steps stay where they are, others go on
            else:
                parameter.add_(torch.randn_like(parameter), alpha=0.5)
    return Trained(made.eval(), tokenizer, tokenizer, config, ("x", "y"))


def batch(trained, sentences, **search):
    """Tokens and texts by batch decoding with one beam."""
    generator = Generator([trained], replace(trained.config.search, **search), Options(max_source=10_000))
    return [(list(result.tokens), result.text) for result in generator(sentences)]


def online(trained, sentence, **options):
    made = Stream(trained, **options)
    words = [word for source in sentence.split() for word in made.read(source)]
    words += made.finish()
    assert words == made.words
    return made


def looked_at(trained, monkeypatch):
    """A list that the log-probabilities of every token are put into, (V,) each, as they are asked for."""
    found, plain = [], trained.model.log_probs
    monkeypatch.setattr(
        trained.model, "log_probs", lambda features, among=None: found.append(plain(features)[0]) or plain(features)
    )
    return found


class TestOwnPolicy:
    @pytest.mark.parametrize("encoder", ENCODERS, ids=["unidirectional", "chunked"])
    @pytest.mark.parametrize(("name", "options"), OWN, ids=OWN_IDS)
    def test_it_gives_what_batch_decoding_gives(self, config, subwords, name, options, encoder):
        early = 0
        for seed in range(2):
            trained = model(config, subwords, name, options, encoder=encoder, seed=seed)
            for sentence, (tokens, text) in zip(SENTENCES[:9], batch(trained, SENTENCES[:9]), strict=True):
                made = online(trained, sentence)
                assert made.tokens == tokens
                assert made.words == text.split()
                assert made.delays == sorted(made.delays)
                early += sum(delay < len(sentence.split()) for delay in made.delays)
        assert early > 0  # else it would only have waited for the end

    @pytest.mark.parametrize(("name", "options"), OWN[::2], ids=OWN_IDS[::2])
    def test_an_eager_one_reads_less_and_still_gives_what_batch_decoding_gives(self, config, subwords, name, options):
        trained = model(config, subwords, name, options)
        before = {key: value.clone() for key, value in trained.model.state_dict().items()}
        delays = {}
        for eager in (-6.0, 0.0, 6.0):
            made = [
                online(trained, sentence, search=replace(trained.config.search, eager=eager))
                for sentence in SENTENCES[:20]
            ]
            expected = batch(trained, SENTENCES[:20], eager=eager)
            assert [one.tokens for one in made] == [tokens for tokens, _ in expected]
            first = [
                one.delays[0] / len(text.split()) for one, text in zip(made, SENTENCES, strict=False) if one.delays
            ]
            delays[eager] = sum(first) / len(first)
        assert delays[6.0] <= delays[0.0] <= delays[-6.0]
        assert delays[6.0] < delays[-6.0]
        for key, value in trained.model.state_dict().items():  # the model itself is as it was
            assert torch.equal(value, before[key])

    def test_an_eager_search_needs_a_model_that_stops(self, config, subwords):
        trained = model(config, subwords, "additive")
        with pytest.raises(UsageError, match=r"search\.eager: .*attention=monotonic, mocha, milk or mma; found 1"):
            batch(trained, SENTENCES[:1], eager=1.0)
        with pytest.raises(UsageError, match="decides where to stop"):
            Stream(trained, wait_k=2, search=replace(trained.config.search, eager=1.0))

    @pytest.mark.parametrize("kind", ["recurrent", "transformer"])
    @pytest.mark.parametrize(("name", "options"), OWN, ids=OWN_IDS)
    def test_each_step_sees_what_it_would_see_of_the_whole_source(
        self, config, subwords, name, options, kind, monkeypatch
    ):
        if kind == "transformer" and options.get("heads", 1) == 3:
            options = {**options, "heads": 2}
        sentences = [" ".join(random.Random(seed).choices(WORDS, k=length)) for seed, length in enumerate((4, 20))]
        for seed in range(2):
            trained = model(config, subwords, name, options, kind=kind, seed=seed)
            with torch.no_grad():
                trained.model.double().output.bias[3] -= 3.0  # long outputs
            found = looked_at(trained, monkeypatch)
            for sentence in sentences:
                batch(trained, [sentence])
                whole = torch.stack(found)
                found.clear()
                online(trained, sentence)
                torch.testing.assert_close(torch.stack(found), whole, rtol=0, atol=2e-5)
                found.clear()

    @pytest.mark.parametrize(("seed", "bias"), [(2, [-0.2, -0.2]), (5, [0.0, 0.0])])
    def test_a_head_that_has_passed_the_end_never_comes_back(self, config, subwords, seed, bias, monkeypatch):
        """Here one head is lost, would fire again later, and waits meanwhile for the other to pass a whole block."""
        trained = model(config, subwords, "monotonic", {"preserve": False, "heads": 2}, seed=seed)
        network = trained.model.double()
        with torch.no_grad():
            network.output.bias[3] = -10.0
            network.decoder.attention.align.bias.copy_(torch.tensor(bias))
        found = looked_at(trained, monkeypatch)
        sentence = " ".join(random.Random(0).choices(WORDS, k=60))
        batch(trained, [sentence])
        whole = torch.stack(found)
        found.clear()
        online(trained, sentence)
        torch.testing.assert_close(torch.stack(found), whole, rtol=0, atol=2e-5)

    @pytest.mark.parametrize(
        "decoder",
        [{"style": "bahdanau"}, {"input_feed": False}, {"cell": "gru", "layers": 2}],
        ids=["bahdanau", "parallel", "deep"],
    )
    def test_every_decoder(self, config, subwords, decoder):
        trained = model(config, subwords, "mocha", {"heads": 2}, decoder=decoder)
        for sentence, (tokens, _) in zip(SENTENCES[:12], batch(trained, SENTENCES[:12]), strict=True):
            assert online(trained, sentence).tokens == tokens

    def test_a_transformer(self, config, subwords):
        early = 0
        for seed in range(2):
            trained = model(config, subwords, "mma", {"heads": 2}, kind="transformer", seed=seed)
            for sentence, (tokens, _) in zip(SENTENCES[:12], batch(trained, SENTENCES[:12]), strict=True):
                made = online(trained, sentence)
                assert made.tokens == tokens
                early += sum(delay < len(sentence.split()) for delay in made.delays)
        assert early > 0

    @pytest.mark.parametrize(
        "search",
        [{"no_repeat_ngram": 2}, {"min_length": 8}, {"max_length": 4}, {"allow_unk": True}],
        ids=lambda search: next(iter(search)),
    )
    def test_the_limits_of_a_search_hold(self, config, subwords, search):
        trained = model(config, subwords, "monotonic")
        expected = batch(trained, SENTENCES[:12], **search)
        for sentence, (tokens, _) in zip(SENTENCES[:12], expected, strict=True):
            made = online(trained, sentence, search=replace(config.search, **search))
            assert made.tokens == tokens
            assert made.unfinished == (tokens[-1] != 3)

    @pytest.mark.parametrize("kind", ["words", "characters"])
    def test_other_tokenizers(self, config, kind):
        tokenizer = Vocabulary(kind, WORDS if kind == "words" else [*LETTERS, " "])
        trained = model(config, tokenizer, "mocha")
        for sentence, (tokens, text) in zip(SENTENCES[:9], batch(trained, SENTENCES[:9]), strict=True):
            made = online(trained, sentence)
            assert made.tokens == tokens
            assert made.words == text.split()

    def test_a_source_of_unknown_words_and_a_long_one(self, config, subwords):
        trained = model(config, subwords)
        for sentence in ("☃☃ ☃", "ab ☃ cd", " ".join(random.Random(0).choices(WORDS, k=300))):
            (tokens, _) = batch(trained, [sentence])[0]
            assert online(trained, sentence).tokens == tokens

    def test_blanks(self, config, subwords):
        trained = model(config, subwords)
        assert Stream(trained).finish() == []
        invisible = Stream(trained)
        assert [invisible.read("\u2060"), invisible.read(""), invisible.finish()] == [[], [], []]
        made = Stream(trained)
        words = made.read("\u2060") + made.read("ab") + made.finish()
        assert (" ".join(words), made.words_read) == (batch(trained, ["\u2060 ab"])[0][1], 2)

    def test_a_word_has_no_blanks_and_nothing_follows_the_end(self, config, subwords):
        made = Stream(model(config, subwords))
        with pytest.raises(UsageError, match="no blanks"):
            made.read("a b")
        made.finish()
        with pytest.raises(UsageError, match="is over"):
            made.read("a")
        assert made.finish() == []


@pytest.mark.parametrize(
    ("name", "options"),
    [("monotonic", {}), ("mocha", {"chunk": 4}), ("mma", {"kind": "chunk", "heads": 1, "chunk": 4})],
    ids=["monotonic", "mocha", "mma"],
)
@pytest.mark.parametrize("offset", [-2.0, 0.0, 50.0, -50.0], ids=["late", "even", "at_once", "never"])
def test_the_cost_is_linear(config, name, options, offset, monkeypatch):
    """Energies evaluated and decoder steps, for S = T = 50, 100 and 200 words."""
    tokenizer = Vocabulary("words", WORDS)
    trained = model(config, tokenizer, name, options)
    with torch.no_grad():
        trained.model.decoder.attention.align.bias.fill_(offset)
        trained.model.output.bias[3] = -1e4  # never the end, so the output is as long as it may be
    counts = {"energies": 0, "steps": 0}
    score, decoder = type(trained.model.decoder.attention.score), type(trained.model.decoder)
    plain_score, plain_decoder = score.forward, decoder.forward

    def scored(self, query, keys):
        counts["energies"] += keys.size(-2) * query.size(1)
        return plain_score(self, query, keys)

    def decoded(self, *args, **kwargs):
        counts["steps"] += 1
        return plain_decoder(self, *args, **kwargs)

    monkeypatch.setattr(score, "forward", scored)
    monkeypatch.setattr(decoder, "forward", decoded)
    costs = []
    for length in (50, 100, 200):
        counts.update(energies=0, steps=0)
        search = replace(config.search, max_length=length, max_ratio=1.0, max_extra=0)
        made = online(trained, " ".join(random.Random(0).choices(WORDS, k=length)), search=search)
        assert len(made.tokens) == length
        assert counts["steps"] <= 2.2 * length + 2
        costs.append(counts["energies"])
    # 200 against 50: 4 times as much, and 16 times where every step looked at everything
    assert costs[1] < 2.3 * costs[0]
    assert costs[2] < 2.3 * costs[1]


class Counting(torch.nn.Module):
    """Stands for a decoder: always the next of `outputs`, whose number is all of its state."""

    starts_from_source = True

    def __init__(self, outputs):
        super().__init__()
        self.outputs, self.seen = outputs, []

    def remember(self, encoded):
        return encoded.mask

    def extend(self, memory, more):
        return torch.cat([memory, more.mask], 1)

    def initial_state(self, encoded, memory):
        return torch.zeros(1, dtype=torch.int64)

    def attended(self, memory, state):
        return []

    def with_attended(self, memory, state, parts):
        return memory, state

    def forward(self, tokens, memory, state, *, need_weights=True):
        self.seen.append((int(state), memory.size(1)))
        features = torch.zeros(1, 1, 1) + self.outputs[int(state)]
        return DecoderOutput(features, features, None, state + 1, {})


def scripted(config, tokenizer, tokens):
    """A model that writes `tokens`, whatever it reads."""
    trained = model(config, tokenizer)
    network = trained.model
    network.decoder = Counting([*tokens, 3])
    network.log_probs = lambda features, among=None: torch.eye(tokenizer.size)[features.long().flatten()].log()
    return trained


class TestWaitK:
    @pytest.mark.parametrize("k", [1, 2, 3, 7, 30])
    @pytest.mark.parametrize("length", [1, 6, 10])
    def test_the_schedule(self, config, subwords, k, length):
        output = " ".join(WORDS[:10])
        trained = scripted(config, subwords, subwords.encode(output))
        source = WORDS[:length]
        made = online(trained, " ".join(source), wait_k=k, search=replace(config.search, max_extra=100))
        assert made.words == output.split()
        assert made.delays == [min(k + number, length) for number in range(10)]

    @pytest.mark.parametrize("k", [1, 3, 5])
    def test_on_equal_lengths_the_average_lagging_is_k(self, config, subwords, k):
        output = " ".join(WORDS[:9])
        made = online(scripted(config, subwords, subwords.encode(output)), output, wait_k=k)
        assert average_lagging(made.delays, 9) == pytest.approx(k)

    def test_it_looks_at_what_was_read_when_it_writes(self, config):
        tokenizer = Vocabulary("words", WORDS)
        trained = scripted(config, tokenizer, tokenizer.encode(" ".join(WORDS[:5])))
        made = online(trained, " ".join(WORDS[:6]), wait_k=2)
        last_look = dict(trained.model.decoder.seen)
        assert made.delays == [2, 3, 4, 5, 6]
        assert [last_look[number] for number in range(5)] == [2, 3, 4, 5, 6]

    def test_a_sentence_does_not_end_before_its_source(self, config, subwords):
        made = Stream(scripted(config, subwords, subwords.encode("ab cd")), wait_k=1)
        assert [made.read(word) for word in WORDS[:4]] == [["ab"], ["cd"], [], []]
        assert made.tokens[-1] != 3
        assert made.finish() == []
        assert made.tokens[-1] == 3

    @pytest.mark.parametrize("name", group_names("attention"))
    def test_every_attention_and_waiting_for_the_end_is_greedy_search(self, config, subwords, name):
        options = {"max_source": 100} if name == "location" else {}
        options |= {"window": 2} if name in ("local_m", "local_p") else {}
        heads = group_defaults("attention", name).get("heads", 1)
        options |= {"heads": 2} if heads > 1 else {}
        trained = model(config, subwords, name, options, decoder={"bridge": "final"})
        for sentence, (tokens, text) in zip(SENTENCES[:9], batch(trained, SENTENCES[:9]), strict=True):
            made = online(trained, sentence, wait_k=math.inf)
            assert (made.tokens, made.words) == (tokens, text.split())
            assert made.delays == [len(sentence.split())] * len(made.words)
            assert online(trained, sentence, wait_k=10_000).tokens == tokens
            early = online(trained, sentence, wait_k=2)
            assert early.tokens[-1] == 3 or early.unfinished


class TestRestWithABeam:
    """What isn't given when the source ends is searched with a beam."""

    @pytest.mark.parametrize("name", ["additive", "mocha"])
    def test_where_nothing_is_given_before_it_is_beam_search(self, config, subwords, name):
        trained = model(config, subwords, name)
        search = replace(config.search, beam=4, length_penalty=0.3)
        expected = batch(trained, SENTENCES[:20], beam=4, length_penalty=0.3)
        for sentence, (tokens, text) in zip(SENTENCES[:20], expected, strict=True):
            made = online(trained, sentence, wait_k=math.inf, search=search)
            assert (made.tokens, made.words) == (tokens, text.split())
        assert expected != batch(trained, SENTENCES[:20])

    @pytest.mark.parametrize("wait_k", [None, 1, 3])
    def test_what_is_given_stays_and_the_rest_is_likelier(self, config, subwords, wait_k):
        totals, changed = {1: 0.0, 5: 0.0}, 0
        for seed in range(3):
            trained = model(config, subwords, "mocha", {"chunk": 3}, seed=seed)
            with torch.no_grad():
                trained.model.output.bias[3] -= 1.0
            for sentence in SENTENCES[:30]:
                made = {}
                for beam in totals:
                    search = replace(config.search, beam=beam, length_penalty=0.0)
                    made[beam] = Stream(trained, wait_k=wait_k, search=search)
                    for word in sentence.split():
                        made[beam].read(word)
                given = list(made[1].words)
                assert made[5].words == given
                for beam, one in made.items():
                    rest = one.finish()
                    assert one.words == [*given, *rest]
                    assert one.delays[len(given) :] == [len(sentence.split())] * len(rest)
                    assert one.unfinished == (one.tokens[-1] != 3)
                    assert one.words == subwords.decode(one.tokens).split()
                    ids = subwords.encode(sentence)
                    totals[beam] += scored(trained, ids, one.tokens)
                changed += made[1].tokens != made[5].tokens
        assert changed > 5
        assert totals[5] > totals[1]

    def test_a_given_word_is_not_made_longer(self, config, subwords):
        """The model would go on with a piece that belongs to the word that was given."""
        inner = next(piece for piece in range(4, subwords.size) if not beginnings(subwords)[piece])
        trained = scripted(config, subwords, [*subwords.encode("ab"), *subwords.encode("cd"), inner, inner])
        made = Stream(trained, wait_k=1, search=replace(config.search, beam=3, max_extra=100))
        assert made.read("ab") == ["ab"]
        made.finish()
        assert made.words[0] == "ab"

    def test_a_limit_and_an_unknown_word(self, config):
        tokenizer = Vocabulary("words", WORDS)
        trained = model(config, tokenizer, "mocha")
        with torch.no_grad():
            trained.model.output.bias[3] = -1e4
            trained.model.output.bias[1] = 1e4
        for length in (1, 2, 5):
            search = replace(config.search, beam=3, allow_unk=True, max_length=length)
            for wait_k in (None, 1, math.inf):
                made = online(trained, " ".join(WORDS[:4]), wait_k=wait_k, search=search)
                assert made.tokens == [1] * length
                assert made.unfinished


def scored(trained, ids, tokens):
    """Log-probability of an output."""
    lengths = torch.tensor([len(ids) + 1])
    step, state = start_search(trained.model, torch.tensor([[*ids, 3]]), lengths, need_weights=False)
    (found,) = force(step, state, [tokens])
    return found.log_prob


class TestRefusals:
    def test_a_full_bidirectional_encoder(self, config, subwords):
        trained = model(config, subwords, encoder={})
        for wait_k in (None, 3):
            with pytest.raises(UsageError, match=r"encoder\.chunk=8.*s2s train translate/multi30k-online"):
                Stream(trained, wait_k=wait_k)
        (tokens, _) = batch(trained, SENTENCES[5:6])[0]
        assert online(trained, SENTENCES[5], wait_k=math.inf).tokens == tokens

    def test_an_attention_that_reads_everything(self, config, subwords):
        with pytest.raises(UsageError, match=r"monotonic, mocha, milk or mma.*--wait-k K"):
            Stream(model(config, subwords, "additive"))

    def test_a_decoder_that_starts_from_the_source(self, config, subwords):
        with pytest.raises(UsageError, match=r"decoder\.bridge.*zero"):
            Stream(model(config, subwords, decoder={"bridge": "final"}))

    @pytest.mark.parametrize("wait_k", [0, -1, 2.5, math.nan, -math.inf])
    def test_a_wrong_k(self, config, subwords, wait_k):
        with pytest.raises(UsageError, match="wait-k"):
            Stream(model(config, subwords), wait_k=wait_k)


def test_words_come_as_soon_as_they_are_known(config):
    tokenizer = Vocabulary("words", WORDS)
    trained = scripted(config, tokenizer, tokenizer.encode("ab cd ef"))
    read = []

    def source():
        for word in WORDS[:5]:
            read.append(word)
            yield word

    assert [(word, len(read)) for word in stream(trained, source(), wait_k=2)] == [("ab", 2), ("cd", 3), ("ef", 4)]


def test_which_ids_begin_a_word(subwords):
    begin = [piece.startswith("▁") for piece in subwords.pieces(range(4, subwords.size))]
    assert list(beginnings(subwords)[4:]) == begin
    assert all(beginnings(Vocabulary("words", WORDS)))
    assert beginnings(Vocabulary("characters", ["a", " "])) == (True, False, True, True, False, True)


@pytest.mark.parametrize("kind", ["unigram", "bpe"])
def test_words_are_segmented_as_in_their_sentence(kind):
    texts = (data_dir() / "sample/train.de").read_text(encoding="utf-8").split("\n")
    tokenizer = train_sentencepiece(texts, kind=kind, size=500)
    for text in texts:
        words = text.split()
        assert tokenizer.encode(text) == [id_ for word in words for id_ in tokenizer.encode(word)]
