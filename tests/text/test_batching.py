"""The tensors that batches become."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from s2s.text.batching import Example, collate, example_lengths, pad
from s2s.types import BOS, EOS, PAD

some = settings(max_examples=60, deadline=None)


def test_pad_by_hand():
    found, counts = pad([[5, 6, 7], [], [8]])
    assert found.tolist() == [[5, 6, 7], [PAD] * 3, [8, PAD, PAD]]
    assert counts.tolist() == [3, 0, 1]
    assert found.dtype == counts.dtype == torch.int64
    assert pad([[5, 6, 7]], 4)[0].tolist() == [[5, 6, 7, PAD]]
    assert pad([[5, 6, 7, 8]], 4)[0].shape == (1, 4)
    assert pad([])[0].shape == (0, 0)
    assert pad([[]])[0].shape == (1, 0)


def test_collate_by_hand():
    batch = collate([Example([5, 6], [7]), Example([], [8, 9, 4])], [11, 3])
    assert batch.source.tolist() == [[5, 6, EOS], [EOS, PAD, PAD]]
    assert batch.source_lengths.tolist() == [3, 1]
    assert batch.target_in.tolist() == [[BOS, 7, PAD, PAD], [BOS, 8, 9, 4]]
    assert batch.target_out.tolist() == [[7, EOS, PAD, PAD], [8, 9, 4, EOS]]
    assert batch.target_lengths.tolist() == [2, 4]
    assert batch.rows == (11, 3)


@some
@given(st.lists(st.tuples(st.lists(st.integers(4, 9)), st.lists(st.integers(4, 9))), min_size=1, max_size=5))
def test_collate_loses_nothing(pairs):
    examples = [Example(source, target) for source, target in pairs]
    batch = collate(examples, range(len(pairs)), 4)
    found = torch.stack([batch.source_lengths, batch.target_lengths], 1)[example_lengths(examples).order]
    lengths = example_lengths(examples)
    assert found.tolist() == lengths.sizes.repeat(lengths.counts, 0).tolist()
    assert batch.source.size(1) % 4 == batch.target_in.size(1) % 4 == 0
    assert batch.target_in.shape == batch.target_out.shape
    for row, (source, target) in enumerate(pairs):
        assert batch.source[row, : len(source) + 1].tolist() == [*source, EOS]
        assert batch.target_in[row, : len(target) + 1].tolist() == [BOS, *target]
        assert batch.target_out[row, : len(target) + 1].tolist() == [*target, EOS]
        for ids, length in (
            (batch.source, len(source)),
            (batch.target_in, len(target)),
            (batch.target_out, len(target)),
        ):
            assert not ids[row, length + 1 :].any()


def test_a_batch_moves_whole():
    batch = collate([Example([5], [7])], [0]).to(torch.device("meta"))
    assert all(tensor.is_meta for tensor in batch[:5])
    assert batch.rows == (0,)
