"""Plans of batches and the tensors that they become."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from s2s.text.batching import BatchPlan, Example, collate, example_lengths, pad
from s2s.types import BOS, EOS, PAD

lengths = st.lists(st.tuples(st.integers(1, 30), st.integers(1, 30)), min_size=1, max_size=60)
plans = st.builds(
    BatchPlan, lengths, st.integers(1, 200), seed=st.integers(0, 2**63 - 1), pad_multiple=st.sampled_from([1, 4, 7])
)
some = settings(max_examples=60, deadline=None)


def padded(plan, rows, side):
    longest = max(plan.lengths[row][side] for row in rows)
    return -(-longest // plan.pad_multiple) * plan.pad_multiple


def shape(plan, rows):
    return len(rows), padded(plan, rows, 0), padded(plan, rows, 1)


def random_lengths(count, seed=0):
    """Sentence pairs: most are short, and sides are about as long."""
    generator = torch.Generator().manual_seed(seed)
    source = (torch.rand(count, generator=generator) ** 2 * 40).long() + 1
    target = (source + torch.randint(-3, 4, (count,), generator=generator)).clamp(min=1)
    return list(zip(source.tolist(), target.tolist(), strict=True))


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
        count, source, target = shape(plan, rows)
        assert count * max(source, target) <= plan.budget or count == 1


@some
@given(plans, st.integers(0, 2**40))
def test_a_plan_is_a_function_of_its_values(plan, epoch):
    torch.manual_seed(1)
    first = plan.epoch(epoch)
    before = torch.get_rng_state()
    torch.manual_seed(2)
    again = BatchPlan(list(plan.lengths), plan.budget, plan.seed, plan.pad_multiple).epoch(epoch)
    assert first == again
    torch.manual_seed(1)
    assert torch.equal(before, torch.get_rng_state())  # and it draws nothing from the global random state


@some
@given(plans, st.integers(0, 5))
def test_no_batch_of_any_epoch_is_larger_than_the_largest(plan, epoch):
    def size(rows):
        count, source, target = shape(plan, rows)
        return count * (source + target)

    assert plan.largest() in plan.epoch(0, shuffle=False)
    assert max(map(size, plan.epoch(epoch))) <= size(plan.largest())


def test_the_largest_batch_is_that_with_padding():
    plan = BatchPlan([(1, 1), (1, 1), (1, 1), (17, 1)], 24, pad_multiple=8)
    assert plan.epoch(0, shuffle=False) == [(0, 1, 2), (3,)]
    assert plan.largest() == (0, 1, 2)  # 3 rows of 8 + 8, beside one of 24 + 8


def test_epochs_and_seeds_differ():
    plan = BatchPlan(random_lengths(300), 200, seed=5)
    epochs = [plan.epoch(number) for number in range(3)]
    assert epochs[0] != epochs[1] != epochs[2]
    assert epochs[0] != BatchPlan(plan.lengths, 200, seed=6).epoch(0)
    # not only the order of batches: equal lengths meet others
    assert {frozenset(rows) for rows in epochs[0]} != {frozenset(rows) for rows in epochs[1]}


def test_batches_come_in_no_order_of_length():
    plan = BatchPlan(random_lengths(300), 100)
    targets = [padded(plan, rows, 1) for rows in plan.epoch(0)]
    assert targets != sorted(targets)
    assert targets != sorted(targets, reverse=True)
    in_order = [padded(plan, rows, 1) for rows in plan.epoch(0, shuffle=False)]
    assert in_order == sorted(in_order)


def test_without_shuffling_all_epochs_are_the_same():
    plan = BatchPlan(random_lengths(100), 100)
    assert plan.epoch(0, shuffle=False) == plan.epoch(7, shuffle=False)


def test_neighbours_are_about_as_long_so_little_is_padded():
    plan = BatchPlan(random_lengths(2000), 600)
    real = sum(sum(pair) for pair in plan.lengths)
    held = sum(count * (source + target) for count, source, target in (shape(plan, rows) for rows in plan.epoch(0)))
    assert held < 1.15 * real
    assert sum(len(rows) == 1 for rows in plan.epoch(0)) <= 2


def test_padding_to_a_multiple_makes_few_shapes():
    data = random_lengths(2000)

    def shapes(multiple):
        plan = BatchPlan(data, 600, pad_multiple=multiple)
        return {shape(plan, rows)[1:] for number in range(3) for rows in plan.epoch(number)}

    assert len(shapes(8)) <= 12  # lengths up to 44: at most 6 multiples, and sides that go together
    assert len(shapes(8)) < len(shapes(1)) / 2


def test_an_example_above_the_budget_gets_a_batch_of_its_own():
    assert BatchPlan([(50, 2), (1, 1), (1, 1), (2, 50)], 4).epoch(0, shuffle=False) == [(1, 2), (0,), (3,)]


def test_a_plan_of_nothing_has_no_batches():
    assert BatchPlan([], 10).epoch(0) == []


def test_one_example():
    assert BatchPlan([(3, 4)], 10).epoch(3) == [(0,)]
    assert BatchPlan([(3, 4)], 10).largest() == (0,)


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
    assert example_lengths(examples) == list(
        zip(batch.source_lengths.tolist(), batch.target_lengths.tolist(), strict=True)
    )
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


@pytest.mark.parametrize("multiple", [1, 8])
def test_what_is_collated_is_what_was_planned(multiple):
    generator = torch.Generator().manual_seed(0)
    examples = [
        Example(*(torch.randint(4, 9, (length - 1,), generator=generator).tolist() for length in pair))
        for pair in random_lengths(60)
    ]
    plan = BatchPlan(example_lengths(examples), 120, pad_multiple=multiple)
    for rows in plan.epoch(0):
        batch = collate([examples[row] for row in rows], rows, multiple)
        assert (*batch.source.shape, batch.target_in.size(1)) == shape(plan, rows)
        assert batch.rows == rows


def test_a_batch_moves_whole():
    batch = collate([Example([5], [7])], [0]).to(torch.device("meta"))
    assert all(tensor.is_meta for tensor in batch[:5])
    assert batch.rows == (0,)
