"""The operations that search needs on decoder state, on nested tuples."""

from typing import NamedTuple

import pytest
import torch

from s2s.state import concatenate, select


def state():
    return ((torch.arange(6).view(3, 2), torch.arange(3)), (), torch.arange(12).view(3, 2, 2))


def flat(one):
    return [one] if isinstance(one, torch.Tensor) else [part for inner in one for part in flat(inner)]


@pytest.mark.parametrize("rows", [[0, 1, 2], [2, 0], [1, 1, 1, 1], []], ids=str)
def test_select_takes_rows_of_every_tensor(rows):
    index = torch.tensor(rows, dtype=torch.int64)
    found = select(state(), index)
    assert isinstance(found, tuple)
    assert found[1] == ()
    for one, other in zip(flat(found), flat(state()), strict=True):
        assert torch.equal(one, other[index])


class Pair(NamedTuple):
    one: object
    other: object = ()


def test_select_keeps_named_tuples():
    found = select((Pair(torch.arange(3), (Pair(torch.arange(3)),)),), torch.tensor([2, 0]))
    assert isinstance(found[0], Pair)
    assert isinstance(found[0].other[0], Pair)
    assert found[0].one.tolist() == found[0].other[0].one.tolist() == [2, 0]
    assert found[0].other[0].other == ()


def test_select_copies():
    before = state()
    select(before, torch.arange(3))[2].zero_()
    assert torch.equal(before[2], state()[2])


def test_select_of_rows_that_are_not_there_fails():
    with pytest.raises(IndexError):
        select(state(), torch.tensor([3]))


def test_concatenate_undoes_a_split():
    parts = [select(state(), torch.tensor(rows)) for rows in ([0], [1, 2])]
    for one, other in zip(flat(concatenate(parts)), flat(state()), strict=True):
        assert torch.equal(one, other)
    assert concatenate([(), ()]) == ()
