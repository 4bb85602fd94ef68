"""Examples in a mapped file: the same as in memory."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from s2s.errors import BundleError, DataError
from s2s.tensors import write_tensors
from s2s.text.batching import Example, collate, example_lengths
from s2s.text.plan import BatchPlan
from s2s.text.stored import LINES as LINES_NAME
from s2s.text.stored import Stored, assemble, mapped, read_part, write_part

LINES = np.array([0, 5], dtype=np.int64)
ids = st.lists(st.integers(4, 90), max_size=6)
pairs = st.lists(st.tuples(ids, ids), min_size=1, max_size=40)
some = settings(max_examples=40, deadline=None)


def stored(folder, examples, parts=3, vocabulary=100, numbers=None):
    """The examples, written in some parts and put together."""
    folder.mkdir(parents=True, exist_ok=True)
    numbers = list(range(len(examples))) if numbers is None else numbers
    paths, size = [], -(-len(examples) // parts)
    for start in range(0, len(examples), size):
        paths.append(folder / f"{start}.safetensors")
        write_part(paths[-1], numbers[start : start + size], examples[start : start + size])
    assemble(paths, folder / "train.safetensors", LINES, vocabulary, folder)
    return Stored(folder / "train.safetensors", (vocabulary, vocabulary))


def as_lists(batch):
    return [tensor.tolist() for tensor in batch[:5]], batch.rows


@some
@given(pairs, st.integers(1, 5), st.sampled_from([100, 70_000]), st.sampled_from([1, 4]))
def test_batches_are_those_of_examples_in_memory(tmp_path_factory, data, parts, vocabulary, multiple):
    examples = [Example(*pair) for pair in data]
    there = stored(tmp_path_factory.mktemp("stored"), examples, parts, vocabulary)
    assert len(there) == len(examples)
    by_length = example_lengths(examples).order
    assert there.numbers.tolist() == by_length.tolist()
    assert [(list(e.source), list(e.target)) for e in there] == [data[number] for number in by_length]
    mapped = BatchPlan(there.lengths, 40, 3, multiple).epoch(2)
    memory = BatchPlan(example_lengths(examples), 40, 3, multiple).epoch(2)
    assert len(mapped) == len(memory)
    for own, rows in zip(mapped, memory, strict=True):
        expected = collate([examples[row] for row in rows], rows, multiple)
        assert as_lists(there.batch(own, multiple)) == as_lists(expected)


def test_parts_hold_what_was_written(tmp_path):
    write_part(tmp_path / "x.safetensors", [3, 8], [Example([5, 6], [7]), Example([], [70_000])])
    part = read_part(tmp_path / "x.safetensors")
    assert part.numbers.tolist() == [3, 8]
    assert part.lengths.tolist() == [[2, 1], [0, 1]]
    assert part.ids.tolist() == [5, 6, 7, 70_000]


def test_numbers_are_those_of_the_corpus(tmp_path):
    there = stored(tmp_path, [Example([5, 5], [5]), Example([6], [6])], numbers=[2, 9])
    assert there.batch([0, 1]).rows == (9, 2)
    assert mapped(there.path, LINES_NAME).tolist() == LINES.tolist()
    assert [e.source for e in there[:2]] == [[6], [5, 5]]


def test_nothing_is_held_in_memory(tmp_path):
    there = stored(tmp_path, [Example([5], [5])] * 10)
    assert all(isinstance(array, np.memmap) for array in (there._ids, there.numbers, mapped(there.path, LINES_NAME)))
    assert there._ids.dtype == np.uint16


def rewritten(path, **changed):
    """The file with other tensors."""
    there = Stored(path, (100, 100))
    tensors = {
        "ids": torch.from_numpy(np.array(there._ids)),
        "numbers": torch.from_numpy(np.array(there.numbers)),
        "lines": torch.from_numpy(LINES),
        "sizes": torch.tensor([[1, 1, 2], [2, 1, 1]]),
    }
    write_tensors(path, {**tensors, **changed})


@pytest.mark.parametrize(
    "sizes",
    [
        [[1, 1, 2], [2, 1, 2]],  # more examples than there are
        [[1, 1, 3]],  # fewer tokens
        [[2, 1, 1], [1, 1, 2]],  # not in order
        [[1, 1, 2], [2, 1, 0], [2, 1, 1]],
        [[1, 1, 4], [-1, 1, -1]],
        [1, 1, 2],
    ],
)
def test_sizes_that_cannot_be_are_refused(tmp_path, sizes):
    stored(tmp_path, [Example([5], [5]), Example([6], [6]), Example([7, 7], [7])])
    path = tmp_path / "train.safetensors"
    rewritten(path)
    Stored(path, (100, 100))
    rewritten(path, sizes=torch.tensor(sizes))
    with pytest.raises(DataError, match="is damaged"):
        Stored(path, (100, 100))


def test_ids_beyond_the_vocabulary_are_refused_when_they_come(tmp_path):
    there = stored(tmp_path, [Example([5], [50]), Example([60], [6])])
    assert Stored(there.path, (61, 51)).batch([0, 1]).source.shape == (2, 2)
    for sizes in ((60, 51), (61, 50)):
        with pytest.raises(DataError, match=r"ids below [56]0"):
            Stored(there.path, sizes).batch([0, 1])
    rewritten(there.path, ids=torch.tensor([5, -1, 6, 6], dtype=torch.int32), sizes=torch.tensor([[1, 1, 2]]))
    with pytest.raises(DataError, match="ids below"):
        Stored(there.path, (100, 100)).batch([0, 1])


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "x.safetensors"
    write_tensors(path, {"ids": torch.zeros(3)})
    with pytest.raises(DataError, match="has no integers ids"):
        Stored(path, (9, 9))
    path.write_bytes(b"no such format")
    with pytest.raises(BundleError):
        Stored(path, (9, 9))
