"""A model of a lower-cased corpus takes text in any case; another one takes it as it is."""

import dataclasses
import math

from s2s.search import SearchConfig
from s2s.task.align import align
from s2s.task.generate import Generator
from s2s.task.request import Request
from s2s.task.stream import stream
from s2s.task.trained import load_trained

SEARCH = SearchConfig(beam=2, max_length=12)


def with_lowercase(folder, value):
    """The model of a run, as if its corpus had been read with that option."""
    trained = load_trained(folder, device="cpu")
    corpus = dataclasses.replace(trained.config.corpus, options={**trained.config.corpus.options, "lowercase": value})
    return dataclasses.replace(trained, config=dataclasses.replace(trained.config, corpus=corpus))


def test_text_in_any_case_is_taken_as_the_corpus_had_it(copy_run, sources):
    trained, lower = with_lowercase(copy_run, True), sources[:6]
    upper, generate = [text.upper() for text in lower], Generator([trained], SEARCH)
    assert [result.tokens for result in generate(upper)] == [result.tokens for result in generate(lower)]
    assert [result.input for result in generate(upper)] == upper
    asked = Request(upper[0], "BA", ("BE",), ("BI BI",)), Request(lower[0], "ba", ("be",), ("bi bi",))
    one, other = generate(asked)
    assert (one.tokens, one.text, one.flags) == (other.tokens, other.text, other.flags)
    assert one.text.startswith("ba")
    one, other = align(trained, [(upper[0], upper[1]), (lower[0], lower[1])])
    assert (one.source_pieces, one.target_pieces, one.links) == (other.source_pieces, other.target_pieces, other.links)
    words = [list(stream(trained, text.split(), wait_k=math.inf)) for text in (upper[0], lower[0])]
    assert words[0] == words[1] != []


def test_other_models_take_it_as_it_is(copy_run, sources):
    for trained in (with_lowercase(copy_run, False), load_trained(copy_run, device="cpu")):
        lower, upper = Generator([trained], SEARCH)([sources[0], sources[0].upper()])
        assert lower.source_pieces != upper.source_pieces
