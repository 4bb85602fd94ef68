"""What is kept of runs for the gallery: it comes back as it was, and what is no such file is refused."""

import json

import pytest

from s2s.errors import DataError
from s2s.show.shown import FILE, Picture, Shown, read_shown, write_shown

PICTURE = Picture(("▁a", "</s>"), ("b\u2028", "</s>"), ((0.75, 0.25), (0.0, 1.0)), "forced")
RUNS = {
    "additive": Shown(PICTURE, {"Speed": ("1,000", ""), "bleu": ("30.0", "29 to 31")}, "a run", ("nrefs:1",)),
    "none": Shown(None, {}, "another"),
}


def test_it_comes_back_as_it_was(tmp_path):
    for sentence in (("a", "b"), ("a", None), None):
        write_shown(tmp_path, sentence, RUNS)
        assert read_shown(tmp_path) == (sentence, RUNS)
    write_shown(tmp_path, None, {})
    assert read_shown(tmp_path) == (None, {})
    assert read_shown(tmp_path / "none") == (None, {})


def test_weights_are_rounded(tmp_path):
    picture = Picture(("a",), ("b",), ((1 / 3,),), "")
    write_shown(tmp_path, None, {"dot": Shown(picture, {}, "")})
    assert read_shown(tmp_path)[1]["dot"].picture.weights == ((0.3333,),)


@pytest.mark.parametrize(
    "content",
    [
        [],
        {"sentence": None},
        {"sentence": "ab", "runs": []},
        {"sentence": 1, "runs": {}},
        {"sentence": None, "runs": {"dot": {}}},
        {"sentence": None, "runs": {"dot": {"run": "", "measures": {"x": "y"}, "signatures": [], "picture": None}}},
        {"sentence": None, "runs": {"dot": {"run": "", "measures": {}, "signatures": [], "picture": {"source": []}}}},
    ],
)
def test_another_form_is_refused(tmp_path, content):
    (tmp_path / FILE).write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(DataError, match="without --update"):
        read_shown(tmp_path)
