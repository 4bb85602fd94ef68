"""What every mechanism promises (`s2s.attention.base.Attention`), for every file of conf/attention."""

import pytest
import torch
from attention_toys import (
    BATCH,
    CASES,
    IDS,
    LENGTH,
    REFERENCES,
    STEPS,
    Whole,
    attend,
    buildable,
    drawn,
    made,
    rows_of,
)

from s2s.attention import Attention, names
from s2s.state import select
from s2s.types import Encoded

each = pytest.mark.parametrize("case", CASES, ids=IDS)
MASKED = [LENGTH - 1, LENGTH]


def close(a, b, atol=1e-6):
    assert (a is None) == (b is None)
    if a is not None:
        torch.testing.assert_close(a, b, atol=atol, rtol=atol)


def gradients(module, function, query, encoded):
    """Context, weights, and the gradients of a random function of both in query, states and every parameter."""
    leaves = [query.detach().requires_grad_(), encoded.states.detach().requires_grad_(), *module.parameters()]
    context, weights = function(leaves[0], encoded._replace(states=leaves[1]))
    generator = torch.Generator().manual_seed(7)
    value = (context * torch.randn(context.shape, generator=generator).to(context)).sum()
    if weights is not None:
        value = value + (weights * torch.randn(weights.shape, generator=generator).to(weights)).sum()
    found = torch.autograd.grad(value, leaves, allow_unused=True) if value.requires_grad else [None] * len(leaves)
    zeros = [torch.zeros_like(leaf) if part is None else part for leaf, part in zip(leaves, found, strict=True)]
    return context, weights, zeros


@each
def test_chunk_invariance_in_eval_mode(case):
    module = made(case).eval()
    query, encoded = drawn(case, steps=7, lengths=MASKED)
    context, weights = attend(module, query, encoded)
    for chunks in ([1] * 7, [3, 4], [1, 5, 1], [6, 1]):
        parts, parts_weights = attend(module, query, encoded, chunks=chunks)
        close(context, parts)
        close(weights, parts_weights)


@each
def test_in_train_mode_one_call_the_step_loop_and_the_naive_reference_agree(case):
    module = made(case, dtype=torch.float64).train()
    query, encoded = drawn(case, lengths=MASKED, dtype=torch.float64)
    results = [
        gradients(module, lambda q, e: attend(module, q, e), query, encoded),
        gradients(module, lambda q, e: attend(module, q, e, chunks=[1] * STEPS), query, encoded),
        gradients(module, lambda q, e: REFERENCES[case[0]](module, q, e), query, encoded),
    ]
    for context, weights, found in results[1:]:
        close(context, results[0][0], 1e-12)
        close(weights, results[0][1], 1e-12)
        for one, other in zip(found, results[0][2], strict=True):
            close(one, other, 1e-10)


def test_every_mechanism_has_a_naive_reference():
    assert sorted(REFERENCES) == names()


@each
def test_gradcheck(case):
    module = made(case, dtype=torch.float64).eval()
    query, encoded = drawn(case, lengths=MASKED, dtype=torch.float64)
    whole = Whole(module, encoded.mask)
    keys, values = zip(*whole.named_parameters(), strict=True) if list(whole.parameters()) else ((), ())

    def function(query, states, *values):
        return torch.func.functional_call(whole, dict(zip(keys, values, strict=True)), (query, states))

    inputs = (query.requires_grad_(), encoded.states.requires_grad_(), *values)
    if not isinstance(output := function(*inputs), tuple) and not output.requires_grad:
        assert not output.any()  # a context of zeros depends on nothing
        return
    # differences along random directions instead of along every axis: the naive references check each gradient too
    assert torch.autograd.gradcheck(function, inputs, fast_mode=True)


@each
def test_changed_content_at_masked_positions_changes_nothing_bit_for_bit(case):
    module = made(case).train()
    query, encoded = drawn(case, lengths=MASKED)
    other = torch.where(encoded.mask.unsqueeze(-1), encoded.states, torch.full_like(encoded.states, 1e4))
    assert not torch.equal(other, encoded.states)
    first = gradients(module, lambda q, e: attend(module, q, e), query, encoded)
    second = gradients(module, lambda q, e: attend(module, q, e), query, encoded._replace(states=other))
    assert torch.equal(first[0], second[0])
    assert first[1] is None or torch.equal(first[1], second[1])
    for one, changed in zip(first[2], second[2], strict=True):
        assert torch.equal(one, changed)
    assert not first[2][1][~encoded.mask].any()  # no gradient flows to padding


@each
def test_padding_columns_change_nothing(case):
    module = made(case).eval()
    query, encoded = drawn(case, lengths=MASKED)
    more = 3
    states = torch.cat([encoded.states, torch.randn(BATCH, more, case[2])], 1)
    mask = torch.cat([encoded.mask, torch.zeros(BATCH, more, dtype=torch.bool)], 1)
    context, weights = attend(module, query, encoded)
    wide, wide_weights = attend(module, query, Encoded(states, encoded.final, mask))
    close(wide, context)
    if weights is not None:
        close(wide_weights[..., :LENGTH], weights)
        assert not wide_weights[..., LENGTH:].any()


@each
def test_a_fully_masked_row_gives_zeros_and_never_nan(case):
    module = made(case).train()
    query, encoded = drawn(case, batch=3, lengths=[LENGTH, 0, 2])
    with torch.autograd.set_detect_anomaly(True):  # a NaN on the way is an error, though it be hidden later
        context, weights, found = gradients(module, lambda q, e: attend(module, q, e), query, encoded)
    assert not context[1].any()
    assert weights is None or not weights[1].any()
    assert not found[0][1].any()
    assert not found[1][1].any()
    keep = torch.tensor([0, 2])
    few = Encoded(*(part[keep] for part in encoded[:3]))
    alone, alone_weights = attend(module, query[keep], few)
    close(context[keep], alone)
    close(weights if weights is None else weights[keep], alone_weights)
    for part in (context, *found):
        assert torch.isfinite(part).all()


@each
def test_sources_of_one_and_of_no_position(case):
    module = made(case).eval()
    query, encoded = drawn(case, length=1)
    context, weights = attend(module, query, encoded)
    if module.sums_to_one:
        close(weights, torch.ones(BATCH, STEPS, 1))
        close(context, context[:, :1].expand_as(context))
    query, encoded = drawn(case, length=0)
    context, weights, found = gradients(module, lambda q, e: attend(module, q, e), query, encoded)
    assert context.shape == (BATCH, STEPS, module.memory_size)
    assert not context.any()
    assert weights is None or weights.shape == (BATCH, STEPS, 0)
    assert not any(part.any() for part in found)


@each
def test_no_query_gives_an_empty_context(case):
    module = made(case).eval()
    query, encoded = drawn(case, steps=0)
    context, weights, found = gradients(module, lambda q, e: attend(module, q, e), query, encoded)
    assert context.shape == (BATCH, 0, module.memory_size)
    assert weights is None or weights.shape == (BATCH, 0, LENGTH)
    assert not any(part.any() for part in found)


@each
def test_weights_are_a_distribution_or_less(case):
    module = made(case).train()
    query, encoded = drawn(case, steps=2 * LENGTH + 1, lengths=[1, LENGTH])  # more steps than positions
    context, weights = attend(module, query, encoded)
    assert torch.isfinite(context).all()
    assert context.shape == (BATCH, 2 * LENGTH + 1, module.memory_size)
    if weights is None:
        assert not module.sums_to_one
        return
    assert weights.shape == (BATCH, 2 * LENGTH + 1, LENGTH)
    assert (weights >= 0).all()
    assert not weights.transpose(1, 2)[~encoded.mask].any()
    total = weights.sum(-1)
    assert (total <= 1 + 1e-6).all()
    if module.sums_to_one:
        close(total, torch.ones_like(total))


@each
def test_reordering_the_state_equals_recomputing(case):
    module = made(case).eval()
    query, encoded = drawn(case, batch=3, steps=5, lengths=[LENGTH, 2, 3])
    memory = module.remember(encoded)
    rows = torch.tensor([2, 0, 0, 1])
    before = module(query[:, :3], memory, module.initial_state(memory))
    after = module(query[rows][:, 3:], rows_of(memory, rows), select(before.state, rows))
    context, weights = attend(module, query[rows], Encoded(*(part[rows] for part in encoded[:3])))
    close(after.context, context[:, 3:])
    close(after.weights, None if weights is None else weights[:, 3:])


@each
def test_rows_of_a_memory_equal_the_memory_of_the_rows(case):
    module = made(case).eval()
    _, encoded = drawn(case, batch=3, lengths=[LENGTH, 2, 3])
    rows = torch.tensor([1, 1, 0])
    indexed, again = (
        rows_of(module.remember(encoded), rows),
        module.remember(Encoded(*(part[rows] for part in encoded[:3]))),
    )
    for one, other in zip([*indexed[:3], *indexed.extra], [*again[:3], *again.extra], strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-6)


@each
def test_an_extended_memory_equals_that_of_the_whole_source(case):
    module = made(case).eval()
    query, encoded = drawn(case, length=LENGTH + 2)
    encoded.mask[0, 1] = False  # a hole in what was known before
    whole = module.remember(encoded)
    context = module(query, whole, module.initial_state(whole)).context
    for cut in (1, 2, LENGTH):
        first, rest = (
            Encoded(encoded.states[:, part], encoded.final, encoded.mask[:, part])
            for part in (slice(cut), slice(cut, None))
        )
        grown = module.extend(module.remember(first), rest)
        for one, other in zip([*grown[:3], *grown.extra], [*whole[:3], *whole.extra], strict=True):
            torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-6)
        close(module(query, grown, module.initial_state(grown)).context, context)


@each
def test_weights_only_when_asked_for_and_the_same_context(case):
    module = made(case).eval()
    query, encoded = drawn(case, lengths=MASKED)
    context, _ = attend(module, query, encoded)
    alone, nothing = attend(module, query, encoded, need_weights=False)
    assert nothing is None
    assert torch.equal(context, alone)


@each
def test_a_state_dict_carries_all_that_was_learned(case):
    first, second = made(case, seed=3).eval(), made(case, seed=4).eval()
    query, encoded = drawn(case, lengths=MASKED)
    second.load_state_dict(first.state_dict())
    assert torch.equal(attend(first, query, encoded)[0], attend(second, query, encoded)[0])
    if list(first.parameters()):
        # in training, as hard decisions may agree though the weights differ
        others = [attend(module.train(), query, encoded)[0] for module in (made(case, seed=4), first)]
        assert not torch.equal(*others)


# mechanisms that take one position or another in eval mode
DECIDING = ("hard", "monotonic", "mocha", "milk", "mma", "forced_forward", "stepwise")


@each
def test_bf16_stays_near_float32(case):
    module = made(case).eval()
    query, encoded = drawn(case, lengths=MASKED)
    exact, exact_weights = attend(module, query, encoded)
    with torch.autocast("cpu", torch.bfloat16):
        mixed, mixed_weights = attend(module, query, encoded)
    half, half_weights = attend(
        module.to(torch.bfloat16), query.bfloat16(), encoded._replace(states=encoded.states.bfloat16())
    )
    for context, weights in ((mixed, mixed_weights), (half, half_weights)):
        assert (weights is None) == (exact_weights is None)
        far = ((context.float() - exact).abs() > 0.1 * (1 + exact.abs())).any(-1)
        if weights is not None:
            far |= ((weights.float() - exact_weights).abs() > 0.1).any(-1)
        # two energies nearer to each other than bf16 can tell are decided either way
        assert far.sum() <= (STEPS if case[0] in DECIDING else 0)


DROPPING = [
    (case, name)
    for case, name in zip(CASES, IDS, strict=True)
    if buildable(case[0], case[1], case[2], **{**case[3], "dropout": 0.5})
]


@pytest.mark.parametrize("case", [case for case, _ in DROPPING], ids=[name for _, name in DROPPING])
def test_dropout_is_for_training_and_spares_the_weights_that_are_returned(case):
    module, plain = made(case, dropout=0.5), made(case)
    steps = 12
    query, encoded = drawn(case, steps=steps, length=3)
    close(attend(module.eval(), query, encoded)[0], attend(plain.eval(), query, encoded)[0])
    context, weights = attend(plain.train(), query, encoded)
    torch.manual_seed(0)
    dropped, kept = attend(module.train(), query, encoded)
    assert not torch.allclose(dropped, context)
    # a transition agent sees the contexts: only the first step doesn't depend on what was dropped
    spared = 1 if case[3].get("transition_agent") else steps
    close(*(part if part is None else part[:, :spared] for part in (kept, weights)))
    torch.manual_seed(0)
    assert torch.equal(attend(module, query, encoded)[0], dropped)


@each
def test_it_is_an_attention_that_says_its_width(case):
    module = made(case)
    assert isinstance(module, Attention)
    query, encoded = drawn(case)
    assert attend(module, query, encoded)[0].shape == (BATCH, STEPS, module.memory_size)
