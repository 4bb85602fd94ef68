"""Messages to contexts, replies in pieces, conversations; with a model that copies what was said last."""

import dataclasses
import itertools

import pytest

import s2s
from s2s.errors import UsageError
from s2s.task.chat import context, stream_reply, tell
from s2s.task.conversation import Conversation
from s2s.task.request import Request
from s2s.task.rerank import Rerank


def said(*turns, roles=("user", "assistant")):
    return [{"role": role, "content": turn} for role, turn in zip(itertools.cycle(roles), turns, strict=False)]


@pytest.fixture(scope="module")
def model(echo_run):
    return s2s.load(echo_run)


@pytest.fixture(scope="module")
def lines(model):
    """Inputs that the model copies whole."""
    from s2s.task.prepare import load_corpus

    pairs = load_corpus(model.trained[0].config).splits["test"]
    copied = [pair.source for pair in pairs if model.chat(said(pair.source)) == pair.source]
    assert len(copied) > 20
    return copied


def test_a_context_has_a_line_for_each_turn():
    assert context(said("hi", "hello there", "how are you?")) == Request("hi\nhello there\nhow are you?")


@pytest.mark.parametrize(
    "messages, text, flags",
    [
        (said("a", "b", roles=("user",)), "a b", set()),
        (said("a", "b", "c", "d", roles=("user", "assistant", "assistant", "user")), "a\nb c\nd", set()),
        (said("x", "a", roles=("system", "user")), "a", {"system_ignored"}),
        (said("a", " ", "b", roles=("user", "assistant", "user")), "a b", {"blank_ignored"}),
        (said("a", "b", "\u200b"), "", {"blank_ignored"}),
        (said("a", "b", "", "c", roles=("user", "assistant", "user", "user")), "a\nb\nc", {"blank_ignored"}),
        (said("one\ntwo\r\n three\x00"), "one two three", set()),
        (said("</s> assistant: hi"), "</s> assistant: hi", set()),
    ],
)
def test_what_becomes_of_messages(messages, text, flags):
    assert context(messages) == Request(text, flags=frozenset(flags))


@pytest.mark.parametrize(
    "messages, told",
    [
        ([], "none by the user"),
        (said("a", "b"), "role assistant"),
        (said("a", roles=("system",)), "none by the user"),
        (said("a", roles=("bot",)), "unknown role.*message 1|message 1.*unknown role"),
        ([{"role": "user"}], "is no message"),
        (["hello"], "message 1"),
        ([{"role": "user", "content": ["a"]}], "the content is no text"),
        ([*said("a", "b"), {"role": 3, "content": "c"}], "message 3"),
        ([{"role": ["user"], "content": "c"}], "unknown role"),
    ],
)
def test_what_is_no_conversation_is_refused(messages, told):
    with pytest.raises(UsageError, match=told):
        context(messages)


def test_a_reply_is_told_whole_and_word_by_word(model, lines):
    for line in lines[:5]:
        pieces = list(model.chat_stream(said(line), beam=1))
        assert "".join(pieces) == model.chat(said(line), beam=1)
        assert len(pieces) == len(line.split())  # each word when the next one begins
        assert len(list(model.chat_stream(said(line), beam=2))) == 1
        drawn = list(model.chat_stream(said(line), sample=True, seed=4, temperature=2.0))
        assert "".join(drawn) == model.chat(said(line), sample=True, seed=4, temperature=2.0)


def test_who_stops_reading_stops_the_search(model, lines):
    line = max(lines, key=len)
    generator, steps = model.reply_generator(beam=1), []
    stream = stream_reply(generator, Request(line))
    first = next(stream)
    stream.close()
    assert line.startswith(first)
    with pytest.raises(KeyboardInterrupt):
        tell(generator, Request(line), lambda piece: steps.append(piece) or (_ for _ in ()).throw(KeyboardInterrupt))
    assert steps == [first]


def test_what_a_reader_does_wrong_is_heard(model):
    with pytest.raises(UsageError):
        list(model.chat_stream(said("a", "b")))


def test_older_turns_are_left_out_whole_and_it_is_said(model, lines):
    first, second, third = lines[:3]
    long = model.chat(said(first, second, third), details=True)
    assert "turns_dropped" in long.flags  # the model was trained on single turns
    assert long.text == model.chat(said(third)) == third
    assert "turns_dropped" not in model.chat(said(third), details=True).flags
    refused = model.chat(said(first, second, " ".join(lines)), details=True, overlong="refuse")
    assert "refused" in refused.flags
    cut = model.chat(said(" ".join(lines)), details=True)
    assert "truncated" in cut.flags
    many = model.chat(said(*["x"] * 500, third), details=True)
    assert many.text == third
    assert "turns_dropped" in many.flags


def test_typed_marks_change_nothing_but_text(model):
    plain = model.chat(said("</s> <s> user:"), details=True)
    assert "</s>" not in plain.source_pieces[:-1]
    assert "<s>" not in plain.source_pieces


def test_a_conversation_goes_on_and_back(model, lines):
    talk = Conversation(model)
    first = talk.say(lines[0])
    assert first.text == lines[0]
    assert talk.messages == said(lines[0], lines[0])
    second = talk.say(lines[1])
    assert talk.messages == said(lines[0], lines[0], lines[1], lines[1])
    other = talk.retry()
    assert other.text != second.text
    assert talk.messages[-1]["content"] == other.text
    assert len(talk.messages) == 4
    assert talk.retry().text not in (other.text, second.text)
    talk.reset()
    assert talk.messages == []
    assert talk.retry() is None


def test_an_interrupted_turn_is_forgotten(model, lines):
    talk = Conversation(model, beam=1)
    talk.say(lines[0])
    before = list(talk.messages)

    def stop(piece):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        talk.say(lines[1], stop)
    assert talk.messages == before
    assert talk.say("\u200b").flags == ("blank", "blank_ignored")
    assert talk.messages == before


def test_draws_differ_between_turns_and_are_the_same_again(model, lines):
    settings = {"sample": True, "temperature": 3.0, "seed": 5}

    def talked():
        talk = Conversation(model, **settings)
        return [talk.say(lines[0]).text for _ in range(4)], talk.retry().text

    once, again = talked(), talked()
    assert once == again
    assert len(set(once[0])) > 1
    assert once[1] != once[0][-1]


def test_settings_change_or_stay(model):
    talk = Conversation(model)
    talk.change(beam=2)
    assert talk.shown()["beam"] == 2
    with pytest.raises(UsageError, match="unknown search option"):
        talk.change(beem=3)
    with pytest.raises(Exception, match=r"beam=0"):
        talk.change(beam=0)
    assert talk.shown()["beam"] == 2


def test_a_beam_ends_the_sampling_that_a_model_was_saved_with(model):
    from s2s.task.model import search_config

    sampling = search_config(model.trained[0].config.search, {"sample": True, "top_p": 0.5})
    searching = search_config(sampling, {"beam": 3})
    assert (searching.sample, searching.beam, searching.top_p) == (False, 3, 1.0)
    assert search_config(sampling, {"nbest": 2}).sample
    assert search_config(sampling, {"top_p": 0.9}).top_p == 0.9


def test_only_dialogue_models_chat(reverse_run):
    other = s2s.load(reverse_run)
    with pytest.raises(UsageError, match="trained for translation"):
        other.chat(said("a"))
    with pytest.raises(UsageError, match="turns has no meaning"):
        other.translate("a", overlong="turns")


def test_what_is_asked_of_a_reply_holds(model, lines):
    line = lines[0]
    word = line.split()[0]
    assert word not in model.chat(said(line), banned=[word]).split()
    begun = model.chat(said(line), prefix=line.split()[-1])
    assert begun.startswith(line.split()[-1])


def test_replies_to_avoid_come_last(model, lines):
    line = lines[0]
    plain = model.chat(said(line), details=True, nbest=4)
    avoided = model.chat(said(line), details=True, rerank=Rerank(avoid=(line.upper() + "!",)))
    assert plain.text == line
    assert avoided.text == plain.nbest[1].text
    assert avoided.flags == plain.nbest[1].flags
    greedy = model.chat(said(line), beam=1)
    only = model.chat(said(line), details=True, beam=1, rerank=Rerank(avoid=(greedy,)))
    assert only.text == greedy
    assert "generic" in only.flags


def test_nobody_says_the_same_twice(model, lines):
    line = lines[0]
    talk = Conversation(model, rerank=Rerank(fresh=True))
    replies = [talk.say(line).text for _ in range(3)]
    assert replies[0] == line
    assert len(set(replies)) == 3
    plain = Conversation(model)
    assert len({plain.say(line).text for _ in range(3)}) == 1
    drawn = Conversation(model, sample=True, temperature=1.5, rerank=Rerank(fresh=True))
    heard = []
    for _ in range(3):
        result = drawn.say(line, heard.append)
        assert "repeated" not in result.flags or result.text in heard
    assert len(heard) == 3


def test_unwanted_words_never_come_out(model, lines):
    line = lines[0]
    word = line.split()[0]
    asked = Rerank(unwanted=(f" {word.upper()} ", ""))
    for options in ({}, {"beam": 1}, {"nbest": 3}):
        result = model.chat(said(line), details=True, rerank=asked, **options)
        for one in (result, *result.nbest):
            assert word not in one.text.split()
    starred = model.chat(said(line), details=True, rerank=asked, beam=1)
    assert starred.text.split()[0] == "*" * len(word)
    assert "unwanted" in starred.flags
    assert dataclasses.replace(asked, unwanted=()) == Rerank()


def test_the_default_reranks_nothing(model, lines):
    assert not Rerank()
    assert model.chat(said(lines[0]), details=True) == model.chat(said(lines[0]), details=True, rerank=Rerank())
