"""Rows of one source that ask together (`s2s.attention.sharing`) get what they get alone."""

import pytest
import torch
from attention_toys import CASES, IDS, drawn, made, rows_of

from s2s.attention.functional import additive_energies, additive_energies_plain
from s2s.attention.sharing import grid_of, shared
from s2s.state import tensors

SOURCES = 4
# rows of four sources: all slots taken, gaps, out of order, a source that nobody asks any more
ROWS = {
    "full": [0, 0, 1, 1, 2, 2, 3, 3],
    "gaps": [0, 0, 0, 1, 1, 1, 2, 2, 3, 3, 3],
    "mixed": [3, 0, 3, 1, 0, 1, 2, 2],
    "gone": [1, 1, 3, 3, 3],
}


def has_state(case):
    module = made(case)
    return bool(tensors(module.initial_state(module.remember(drawn(case)[1]))))


STATELESS = [pytest.param(case, id=name) for case, name in zip(CASES, IDS, strict=True) if not has_state(case)]


@pytest.mark.parametrize("case", STATELESS)
@pytest.mark.parametrize("kind", ROWS)
@torch.no_grad()
def test_together_is_alone(case, kind):
    module = made(case, dtype=torch.float64).eval()
    queries, encoded = drawn(case, batch=SOURCES, steps=11, lengths=[2, 4, 3, 4], dtype=torch.float64)
    memory, rows = module.remember(encoded), torch.tensor(ROWS[kind])
    query = queries[0, : len(rows), None]
    found, alone = module(query, shared(memory, grid_of(rows)), ()), module(query, rows_of(memory, rows), ())
    torch.testing.assert_close(found.context, alone.context)
    assert (found.weights is None) == (alone.weights is None)
    if alone.weights is not None:
        torch.testing.assert_close(found.weights, alone.weights)
    assert found.aux.keys() == alone.aux.keys()
    for name, value in alone.aux.items():
        torch.testing.assert_close(found.aux[name], value)


def memory_of(case=("dot", 4, 4, {})):
    _, encoded = drawn(case, batch=SOURCES)
    return made(case).remember(encoded)


def test_keys_and_values_are_copied_for_no_row():
    memory = memory_of()
    grid = grid_of(torch.tensor(ROWS["full"]))
    assert shared(memory, grid).memory is memory
    assert grid.places is None
    gone = shared(memory, grid_of(torch.tensor(ROWS["gone"])))
    assert [one.size(0) for one in tensors(gone.memory)] == [2, 2, 2]


@pytest.mark.parametrize("rows", [[0, 1, 2, 3], [2, 0], [0, 0, 0, 0, 1, 2, 3], [1], []], ids=str)
def test_where_few_share_a_source_there_is_no_grid(rows):
    assert grid_of(torch.tensor(rows, dtype=torch.int64)) is None


@pytest.mark.parametrize("shape", [(3, 5, 4, 8), (2, 1, 70, 64), (5, 3, 300, 512), (2, 2, 700, 512), (1, 0, 4, 8)])
@torch.no_grad()
def test_energies_through_little_memory_are_the_plain_ones(shape):
    batch, steps, length, size = shape
    torch.manual_seed(0)
    query, keys, vector = torch.randn(batch, steps, size), torch.randn(batch, length, size), torch.randn(size)
    expected = additive_energies_plain(query.double(), keys.double(), vector.double())
    torch.testing.assert_close(additive_energies(query, keys, vector).double(), expected, atol=3e-4, rtol=1e-5)


@pytest.mark.parametrize("far", [15.0, 20.0, 44.0, 60.0, 1e4])
@torch.no_grad()
def test_exponentials_that_several_queries_share_never_overflow(far):
    torch.manual_seed(0)
    query, keys, vector = torch.randn(2, 3, 8), torch.randn(2, 5, 8), torch.randn(8)
    query[0, 1] += far
    keys[0, 2] -= far  # together they are small again
    keys[1, 4] += far
    expected = additive_energies_plain(query.double(), keys.double(), vector.double())
    # at 1e4 the sum itself is only known to 1e-3
    atol = 1e-5 if far < 100 else 1e-2
    torch.testing.assert_close(additive_energies(query, keys, vector).double(), expected, atol=atol, rtol=0)


@torch.no_grad()
def test_what_is_not_a_number_stays_so():
    query, keys = torch.zeros(1, 2, 3), torch.zeros(1, 4, 3)
    keys[0, 1, 2] = torch.nan
    found = additive_energies(query, keys, torch.ones(3))
    assert torch.equal(found.isnan().any(1)[0], torch.tensor([False, True, False, False]))
