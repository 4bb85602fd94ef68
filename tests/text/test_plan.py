"""Plans of batches: which examples go together, and in which order."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from s2s.text.batching import Example, collate, example_lengths
from s2s.text.plan import BatchPlan, Lengths, shuffled

lengths = st.lists(st.tuples(st.integers(1, 30), st.integers(1, 30)), min_size=1, max_size=60)
some = settings(max_examples=60, deadline=None)


class Planned(BatchPlan):
    """A plan of examples that knows the length of each."""

    def __init__(self, pairs, budget, seed=1, pad_multiple=1):
        super().__init__(Lengths.of(pairs), budget, seed, pad_multiple)
        object.__setattr__(self, "pairs", pairs)

    def padded(self, rows, side):
        longest = max(self.pairs[row][side] for row in rows)
        return -(-longest // self.pad_multiple) * self.pad_multiple

    def shape(self, rows):
        return len(rows), self.padded(rows, 0), self.padded(rows, 1)


plans = st.builds(
    Planned, lengths, st.integers(1, 200), seed=st.integers(0, 2**63 - 1), pad_multiple=st.sampled_from([1, 4, 7])
)


def random_lengths(count, seed=0):
    """Sentence pairs: most are short, and sides are about as long."""
    generator = torch.Generator().manual_seed(seed)
    source = (torch.rand(count, generator=generator) ** 2 * 40).long() + 1
    target = (source + torch.randint(-3, 4, (count,), generator=generator)).clamp(min=1)
    return list(zip(source.tolist(), target.tolist(), strict=True))


def in_order(plan):
    return list(plan.epoch(0, shuffle=False))


@some
@given(plans, st.integers(0, 5), st.booleans())
def test_every_example_stands_in_exactly_one_batch(plan, epoch, shuffle):
    batches = plan.epoch(epoch, shuffle=shuffle)
    assert sorted(row for rows in batches for row in rows) == list(range(len(plan.lengths)))
    assert all(batches)


@some
@given(plans, st.integers(0, 5))
def test_the_budget_holds_with_padding_on_either_side(plan, epoch):
    for rows in plan.epoch(epoch):
        count, source, target = plan.shape(rows)
        assert count * max(source, target) <= plan.budget or count == 1


def cut_one_by_one(plan):
    """The batches in order as the budget cuts them: the longest so far times the rows is within it."""
    multiple = plan.pad_multiple
    key = [tuple(-(-length // multiple) for length in pair[::-1]) + pair[::-1] for pair in plan.pairs]
    batches, longest = [], 0
    for row in sorted(range(len(plan.pairs)), key=key.__getitem__):
        width = -(-max(plan.pairs[row]) // multiple) * multiple
        if not batches or max(longest, width) * (len(batches[-1]) + 1) > plan.budget:
            batches.append(())
            longest = 0
        batches[-1] += (row,)
        longest = max(longest, width)
    return batches


@some
@given(plans)
def test_batches_are_cut_as_one_by_one(plan):
    assert in_order(plan) == cut_one_by_one(plan)


@some
@given(plans, st.integers(0, 5))
def test_shuffled_batches_have_the_lengths_of_those_in_order(plan, epoch):
    def shapes(batches):
        return sorted(
            sorted(tuple(-(-length // plan.pad_multiple) for length in plan.pairs[row]) for row in rows)
            for rows in batches
        )

    assert shapes(plan.epoch(epoch)) == shapes(in_order(plan))


@some
@given(plans, st.integers(0, 2**40))
def test_a_plan_is_a_function_of_its_values(plan, epoch):
    torch.manual_seed(1)
    np.random.seed(1)
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()
    first = list(plan.epoch(epoch))
    assert torch.equal(before[0], torch.get_rng_state())  # and it draws nothing from the global random state
    assert before[1] == np.random.get_state()[1].tolist()
    again = Planned(list(plan.pairs), plan.budget, plan.seed, plan.pad_multiple).epoch(epoch)
    assert [again[place] for place in reversed(range(len(again)))] == first[
        ::-1
    ]  # in whatever order they are asked for
    assert again[1:3] == first[1:3]


@some
@given(plans, st.integers(0, 5))
def test_no_batch_of_any_epoch_is_larger_than_the_largest(plan, epoch):
    def size(rows):
        count, source, target = plan.shape(rows)
        return count * (source + target)

    assert plan.largest() in plan.epoch(0, shuffle=False)
    assert max(map(size, plan.epoch(epoch))) <= size(plan.largest())


def test_the_largest_batch_is_that_with_padding():
    plan = Planned([(1, 1), (1, 1), (1, 1), (17, 1)], 24, pad_multiple=8)
    assert in_order(plan) == [(0, 1, 2), (3,)]
    assert plan.largest() == (0, 1, 2)  # 3 rows of 8 + 8, beside one of 24 + 8


def test_epochs_and_seeds_differ():
    plan = Planned(random_lengths(300), 200, seed=5)
    epochs = [list(plan.epoch(number)) for number in range(3)]
    assert epochs[0] != epochs[1] != epochs[2]
    assert epochs[0] != list(Planned(plan.pairs, 200, seed=6).epoch(0))
    # not only the order of batches: equal lengths meet others
    assert {frozenset(rows) for rows in epochs[0]} != {frozenset(rows) for rows in epochs[1]}


def test_batches_come_in_no_order_of_length():
    plan = Planned(random_lengths(300), 100)
    targets = [plan.padded(rows, 1) for rows in plan.epoch(0)]
    assert targets != sorted(targets)
    assert targets != sorted(targets, reverse=True)
    assert [plan.padded(rows, 1) for rows in in_order(plan)] == sorted(targets)


def test_without_shuffling_all_epochs_are_the_same():
    plan = Planned(random_lengths(100), 100)
    assert in_order(plan) == list(plan.epoch(7, shuffle=False))


def test_neighbours_are_about_as_long_so_little_is_padded():
    plan = Planned(random_lengths(2000), 600)
    real = sum(sum(pair) for pair in plan.pairs)
    held = sum(count * (source + target) for count, source, target in map(plan.shape, plan.epoch(0)))
    assert held < 1.15 * real
    assert sum(len(rows) == 1 for rows in plan.epoch(0)) <= 2


def test_padding_to_a_multiple_makes_few_shapes():
    data = random_lengths(2000)

    def shapes(multiple):
        plan = Planned(data, 600, pad_multiple=multiple)
        return {plan.shape(rows)[1:] for number in range(3) for rows in plan.epoch(number)}

    assert len(shapes(8)) <= 12  # lengths up to 44: at most 6 multiples, and sides that go together
    assert len(shapes(8)) < len(shapes(1)) / 2


def test_an_example_above_the_budget_gets_a_batch_of_its_own():
    assert in_order(Planned([(50, 2), (1, 1), (1, 1), (2, 50)], 4)) == [(1, 2), (0,), (3,)]


def test_a_plan_of_nothing_has_no_batches():
    assert in_order(Planned([], 10)) == []


def test_one_example():
    assert list(Planned([(3, 4)], 10).epoch(3)) == [(0,)]
    assert Planned([(3, 4)], 10).largest() == (0,)


@pytest.mark.parametrize("count", [1, 2, 3, 5, 16, 17, 1000, 1024, 1025])
def test_each_key_shuffles_all_places(count):
    places = np.arange(count)
    orders = set()
    for key in range(50):
        found = shuffled(places, np.full(count, count), np.full(count, key, dtype=np.uint64))
        assert sorted(found.tolist()) == list(range(count))
        orders.add(tuple(found.tolist()))
    assert len(orders) >= min(6 if count < 16 else 50, math.factorial(count))


def test_each_place_is_as_likely_to_come_to_each():
    """Counts of (from, to) over many keys: chi-squared of 81 degrees of freedom, above 127 once in a thousand."""
    count, keys = 10, 5000
    seen = np.zeros((count, count))
    for key in range(keys):
        found = shuffled(np.arange(count), np.full(count, count), np.full(count, key, dtype=np.uint64))
        seen[np.arange(count), found] += 1
    expected = keys / count
    assert ((seen - expected) ** 2 / expected).sum() < 127


def test_neighbours_part():
    """Two that stood side by side are at any distance afterwards."""
    count = 10_000
    found = shuffled(np.arange(count), np.full(count, count), np.full(count, 7, dtype=np.uint64))
    apart = np.abs(np.diff(found))
    assert apart.mean() == pytest.approx(count / 3, rel=0.03)
    assert len(np.unique(np.diff(found))) > 0.6 * count


@pytest.mark.parametrize("multiple", [1, 8])
def test_what_is_collated_is_what_was_planned(multiple):
    generator = torch.Generator().manual_seed(0)
    pairs = random_lengths(60)
    examples = [
        Example(*(torch.randint(4, 9, (length - 1,), generator=generator).tolist() for length in pair))
        for pair in pairs
    ]
    assert example_lengths(examples).sizes.tolist() == Lengths.of(pairs).sizes.tolist()
    plan = Planned(pairs, 120, pad_multiple=multiple)
    for rows in plan.epoch(0):
        batch = collate([examples[row] for row in rows], rows, multiple)
        assert (*batch.source.shape, batch.target_in.size(1)) == plan.shape(rows)
        assert batch.rows == rows
