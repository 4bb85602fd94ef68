"""SimulEval's instance log: round trip, lines as the package writes them, and each refusal."""

import json

import pytest

from s2s.errors import DataError, RunError
from s2s.score.latency import Sentence, latency
from s2s.score.simuleval_log import Instance, read_log, write_log

INSTANCES = [
    Instance(0, "ein Hund läuft", "a dog runs", (1, 2, 3), (0, 0, 0), "a dog is running"),
    Instance(1, "grün\u2028 \u00fcber \U0001f600", 'a "quoted"\\ word', (3, 3, 3), (0.5, 1.25, 7.0), None),
    Instance(4, "nichts", "", (), (), "nothing"),
    Instance(3, "", "", (), (), ""),
]

# As simuleval 1.1.4 writes it: the reference keeps its line end, there is no metric.
LINE = (
    '{"index": 0, "prediction": "A B \\u00c4", "delays": [2, 3, 3], "elapsed": [0, 0, 0], "prediction_length": 3, '
    '"reference": "A B \\u00e4\\n", "source": "a b \\u00e4", "source_length": 3}'
)


def test_round_trip(tmp_path):
    path = tmp_path / "run" / "instances.log"
    write_log(path, INSTANCES)
    assert read_log(path) == INSTANCES
    write_log(path, INSTANCES[:1])
    assert read_log(path) == INSTANCES[:1]


def test_what_is_written(tmp_path):
    path = tmp_path / "instances.log"
    write_log(path, INSTANCES)
    data = path.read_bytes()
    assert data.isascii()
    assert data.endswith(b"}\n")
    first, second, blank, _ = [json.loads(line) for line in data.decode().splitlines()]
    assert list(first) == [
        "index", "prediction", "delays", "elapsed", "prediction_length", "reference", "source", "source_length",
        "metric",
    ]  # fmt: skip
    assert (first["prediction_length"], first["source_length"]) == (3, 3)
    expected = {name.upper(): latency(name, Sentence((1, 2, 3), 3, 4)) for name in ("al", "laal", "dal", "ap")}
    assert first["metric"] == expected
    assert set(second["metric"]) == {"AL", "DAL", "AP"}
    assert second["reference"] is None
    assert blank["metric"] == {}


def test_a_line_of_simuleval(tmp_path):
    path = tmp_path / "instances.log"
    path.write_text(LINE + "\n")
    (found,) = read_log(path)
    assert found == Instance(0, "a b ä", "A B Ä", (2, 3, 3), (0, 0, 0), "A B ä")
    assert found.sentence == Sentence((2, 3, 3), 3, 3)


def test_lengths_are_in_words():
    assert Instance(0, " a  b ", "c", (1,), (0,), "d e\tf").sentence == Sentence((1,), 2, 3)
    assert Instance(0, "a", "c", (1,), (0,)).sentence == Sentence((1,), 1, None)


CHANGES = [
    ("index", -1, "index is not negative.*found -1"),
    ("index", "0", "index is of another kind.*whole number.*found 0"),
    ("index", True, "index is of another kind"),
    ("prediction", "A B", "delays and prediction differ in length.*expected 2 delays; found 3"),
    ("prediction", ["A", "B", "C"], "prediction is of another kind.*expected text"),
    ("delays", [2, 3], "delays and prediction differ in length"),
    ("delays", [3, 2, 3], "smaller than what had been read before"),
    ("delays", [2, 3, 4], "past the end of the source.*at most 3; found 4"),
    ("delays", [2, 3, 3.5], "delays is of another kind.*found 3.5.*text-to-text"),
    ("delays", 3, "delays is of another kind.*expected a list"),
    ("elapsed", [0, 0], "elapsed and prediction differ in length"),
    ("elapsed", [0, 0, "0"], "elapsed is of another kind.*expected a number"),
    ("prediction_length", 5, "prediction_length is not the number of words.*expected 3; found 5"),
    ("source_length", 4, "source_length is not the number of words.*expected 3; found 4.*--eval-latency-unit word"),
    ("source", ["a.wav", "samplerate: 16000"], "source is of another kind"),
    ("reference", 7, "reference is of another kind"),
]


@pytest.mark.parametrize("name, value, message", CHANGES, ids=[f"{c[0]}-{n}" for n, c in enumerate(CHANGES)])
def test_a_line_that_contradicts_itself(tmp_path, name, value, message):
    path = tmp_path / "instances.log"
    fields = json.loads(LINE)
    path.write_text(LINE.replace('"index": 0', '"index": 9') + "\n" + json.dumps(fields | {name: value}) + "\n")
    with pytest.raises(DataError, match=rf"instances\.log:2: .*{message}"):
        read_log(path)


@pytest.mark.parametrize("name", list(json.loads(LINE)))
def test_a_missing_key(tmp_path, name):
    path = tmp_path / "instances.log"
    fields = json.loads(LINE)
    del fields[name]
    path.write_text(json.dumps(fields))
    with pytest.raises(DataError, match=rf"instances\.log:1: the key '{name}' is missing"):
        read_log(path)


@pytest.mark.parametrize(
    "text, message",
    [
        ("\n" + LINE, "log:1: is no JSON"),
        (LINE[:40], "log:1: is no JSON"),
        ("[1, 2]", "log:1: is no instance; expected a JSON object"),
        (LINE + "\n" + LINE, "log:2: index 0 stands a second time.*a folder of its own"),
        (LINE.replace("[0, 0, 0]", "[0, 0, NaN]"), "log:1: NaN is no finite number"),
    ],
    ids=["blank line", "cut off", "no object", "index twice", "nan"],
)
def test_a_file_that_is_no_log(tmp_path, text, message):
    path = tmp_path / "instances.log"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        read_log(path)


def test_a_missing_file(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        read_log(tmp_path / "instances.log")


@pytest.mark.parametrize(
    "instances, message",
    [
        ([Instance(0, "a b", "c d", (2, 1), (0, 0))], "instance 1: .*smaller than what had been read"),
        ([INSTANCES[0], Instance(0, "a", "b", (1,), (0,))], "instance 2: index 0 stands a second time"),
        ([Instance(0, "a b", "c d", (2,), (0, 0))], "instance 1: delays and prediction differ"),
        ([Instance(0, "a b", "c d", (2, 2), (0,))], "instance 1: elapsed and prediction differ"),
    ],
    ids=["delays fall", "index twice", "delays", "elapsed"],
)
def test_nothing_is_written_that_could_not_be_read(tmp_path, instances, message):
    path = tmp_path / "instances.log"
    with pytest.raises(DataError, match=message):
        write_log(path, instances)
    assert not path.exists()


def test_a_place_that_can_not_be_written(tmp_path):
    with pytest.raises(RunError, match="can't be replaced by a file"):
        write_log(tmp_path, INSTANCES)
