"""How a window of records is shared out to workers."""

import random

import pytest

from s2s.task.workers import shares


@pytest.mark.parametrize("records", [0, 1, 63, 64, 65, 512, 4096])
@pytest.mark.parametrize("workers", [2, 3, 16])
@pytest.mark.parametrize("batch", [1, 64, 500])
def test_each_record_is_in_one_share_of_whole_batches_of_like_length(records, workers, batch):
    lengths = random.Random(1).choices(range(1, 50), k=records)
    dealt = shares(lengths, workers, batch)
    assert sorted(place for share in dealt for place in share) == list(range(records))
    longest_first = [lengths[place] for share in dealt for place in share]
    assert longest_first == sorted(lengths, reverse=True)
    assert all(len(share) % batch == 0 for share in dealt[:-1])


def test_each_worker_gets_several_shares_where_there_are_batches_for_them():
    assert len(shares([5] * 512, 2, 64)) == 8
    assert len(shares([5] * 4096, 2, 64)) == 16
    assert len(shares([5] * 4096, 16, 64)) == 64
    assert [len(share) for share in shares([5] * 100, 2, 64)] == [64, 36]
