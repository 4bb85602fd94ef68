"""Fused kernels against the plain versions: in Triton's interpreter on a CPU, compiled where there is a GPU."""

import itertools
import os
import subprocess
import sys

import pytest
import torch

from s2s import kernels
from s2s.attention import build
from s2s.attention.functional import additive_energies_plain, masked_softmax
from s2s.attention.scan import LinearScan, linear_scan
from s2s.model import recurrent
from s2s.types import Encoded

pytest.importorskip("triton")
pytestmark = pytest.mark.skipif(os.environ.get("S2S_KERNELS") == "plain", reason="no kernel is wanted")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.fixture(autouse=True)
def fused():
    """Fused versions run here, whatever the device is."""
    kernels.use("auto", interpreted=True)


def given(batch, steps, length, size, width, dtype=torch.float64):
    torch.manual_seed(batch + 10 * steps + 100 * length)
    shapes = ((batch, steps, size), (batch, length, size), (size,), (batch, length, width))
    query, keys, vector, values = (torch.randn(*shape, dtype=dtype, device=DEVICE) for shape in shapes)
    mask = torch.rand(batch, length, device=DEVICE) < 0.7
    mask[0] = False  # nothing to look at
    mask[-1] = True
    return query, keys, vector, mask, values


def plain(query, keys, vector, mask, values):
    weights = masked_softmax(additive_energies_plain(query, keys, vector), mask.unsqueeze(1))
    return weights.to(values.dtype) @ values, weights


SHAPES = [(2, 1, 1, 3, 2), (3, 2, 5, 20, 7), (2, 1, 40, 130, 129), (2, 3, 33, 16, 16)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_values_and_gradients_are_those_of_the_plain_version(shape):
    from s2s.kernels.additive import additive_attention

    found = []
    for function in (plain, additive_attention):
        query, keys, vector, mask, values = given(*shape)
        leaves = [one.requires_grad_() for one in (query, keys, vector, values)]
        context, weights = function(query, keys, vector, mask, values)
        torch.manual_seed(7)
        loss = (context * torch.randn_like(context)).sum() + (weights * torch.randn_like(weights)).sum()
        found.append([context, weights, *torch.autograd.grad(loss, leaves)])
    for expected, made in zip(*found, strict=True):
        torch.testing.assert_close(made, expected, rtol=1e-9, atol=1e-9)
    assert not found[1][0][0].any()
    assert not found[1][1][0].any()


def test_half_precision_is_near_and_sums_to_one():
    from s2s.kernels.additive import additive_attention

    exact = given(3, 2, 9, 24, 8, torch.float32)
    half = [one.bfloat16() if one.dtype == torch.float32 else one for one in exact]
    context, weights = additive_attention(*half)
    expected, _ = plain(*[one.float() if one.dtype == torch.bfloat16 else one for one in half])
    assert context.dtype == weights.dtype == torch.bfloat16
    torch.testing.assert_close(context.float(), expected, rtol=0.03, atol=0.03)
    torch.testing.assert_close(weights.float().sum(-1)[1:], torch.ones(2, 2, device=DEVICE), rtol=0.02, atol=0.02)


def attended(attention, choice, need_weights=True):
    kernels.use(choice, interpreted=True)
    torch.manual_seed(3)
    states, query = torch.randn(2, 6, 5, device=DEVICE), torch.randn(2, 3, 4, device=DEVICE, requires_grad=True)
    mask = torch.tensor([[True] * 6, [True] * 2 + [False] * 4], device=DEVICE)
    memory = attention.remember(Encoded(states=states, mask=mask, final=states[:, 0]))
    output = attention(query, memory, attention.initial_state(memory), need_weights=need_weights)
    parameters = [query, *attention.parameters()]
    return output, torch.autograd.grad(output.context.pow(2).sum(), parameters)


@pytest.mark.parametrize("name", ["additive", "additive_normed", "concat"])
def test_a_mechanism_is_the_same_with_kernels_and_without(name, monkeypatch):
    from s2s.kernels import additive

    calls = itertools.count()
    kernel = additive.additive_attention
    monkeypatch.setattr(additive, "additive_attention", lambda *given: (next(calls), kernel(*given))[1])
    torch.manual_seed(1)
    attention = build(name, query_size=4, memory_size=5).to(DEVICE)
    (first, gradients), (second, others) = attended(attention, "plain"), attended(attention, "auto")
    assert next(calls) == 1  # auto alone
    torch.testing.assert_close(second.context, first.context)
    torch.testing.assert_close(second.weights, first.weights)
    torch.testing.assert_close(others, gradients, rtol=1e-4, atol=1e-5)
    assert attended(attention, "auto", need_weights=False)[0].weights is None


@pytest.mark.parametrize(
    "changes", [{"heads": 5, "size": 10}, {"normaliser": "sparsemax"}, {"temperature": 2.0}, {"dropout": 0.5}], ids=str
)
def test_what_it_does_not_cover_is_left_to_the_plain_version(changes, monkeypatch):
    from s2s.kernels import additive

    calls = itertools.count()
    kernel = additive.additive_attention
    monkeypatch.setattr(additive, "additive_attention", lambda *given: (next(calls), kernel(*given))[1])
    attention = build("additive", query_size=4, memory_size=5, **changes).to(DEVICE)
    attended(attention, "auto")
    attended(attention.eval(), "auto")
    assert next(calls) == ("dropout" in changes)  # in eval mode alone


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("length", [0, 1, 5, 16, 33, 300, 520])
def test_the_recurrence_of_a_kernel_is_that_of_the_plain_version(length, reverse):
    torch.manual_seed(length)
    decay = -4 * torch.rand(2, 3, length, dtype=torch.float64, device=DEVICE) ** 4
    decay[..., 3::11] = -torch.inf
    decay[..., 1::7] = 0.0
    inputs, outer = (torch.randn(2, 3, length, dtype=torch.float64, device=DEVICE) for _ in range(2))
    found = []
    for choice in ("plain", "auto"):
        kernels.use(choice, interpreted=True)
        leaves = [one.clone().requires_grad_() for one in (decay, inputs)]
        scan = LinearScan(leaves[0])
        assert (scan._levels is None) == (choice == "auto")
        q = scan(leaves[1], reverse=reverse)
        found.append([q, *torch.autograd.grad(q, leaves, outer)])
    for expected, made in zip(*found, strict=True):
        torch.testing.assert_close(made, expected, rtol=1e-9, atol=1e-9)
    single = linear_scan(decay.float(), inputs.abs().float(), reverse=reverse)
    kernels.use("plain")
    exact = linear_scan(decay, inputs.abs(), reverse=reverse)
    torch.testing.assert_close(single.double(), exact, rtol=3e-6, atol=0)


@pytest.mark.parametrize("name", ["monotonic", "mocha", "forced_forward"])
def test_a_monotonic_mechanism_is_the_same_with_the_kernel_and_without(name):
    torch.manual_seed(1)
    attention = build(name, query_size=4, memory_size=5).to(DEVICE)
    found = []
    for choice in ("plain", "auto"):
        torch.manual_seed(2)  # the noise
        found.append(attended(attention, choice))
    torch.testing.assert_close(found[1][0].weights, found[0][0].weights)
    torch.testing.assert_close(found[1][1], found[0][1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (2, 300), (0, 4)], ids=str)
def test_the_gates_of_a_kernel_are_those_of_the_plain_version(shape):
    rows, size = shape
    torch.manual_seed(size)
    drawn = [torch.randn(rows, width, dtype=torch.float64, device=DEVICE) for width in (4 * size, size, size, size)]
    found = []
    for choice in ("plain", "auto"):
        kernels.use(choice, interpreted=True)
        leaves = [one.clone().requires_grad_() for one in drawn[:2]]
        made = recurrent._lstm_gates(*leaves)
        assert type(made[0].grad_fn).__name__ == {"plain": "_LSTMGatesBackward", "auto": "_GatesBackward"}[choice]
        found.append([*made, *torch.autograd.grad(made, leaves, drawn[2:])])
    for expected, one in zip(*found, strict=True):
        torch.testing.assert_close(one, expected, rtol=1e-9, atol=1e-9)


def test_gates_in_half_precision_are_near():
    torch.manual_seed(0)
    gates, cell = torch.randn(3, 20, device=DEVICE).bfloat16(), torch.randn(3, 5, device=DEVICE).bfloat16()
    found = recurrent._lstm_gates(gates, cell)
    kernels.use("plain")
    for one, exact in zip(found, recurrent._lstm_gates(gates.float(), cell.float()), strict=True):
        assert one.dtype == torch.bfloat16
        torch.testing.assert_close(one.float(), exact, rtol=0.01, atol=0.01)


def test_a_decoder_steps_by_the_kernel(monkeypatch):
    from s2s.kernels import lstm

    calls = itertools.count()
    kernel = lstm.lstm_gates
    monkeypatch.setattr(lstm, "lstm_gates", lambda *given: (next(calls), kernel(*given))[1])
    layer = recurrent.RecurrentLayer("lstm", 3, 4).to(DEVICE)
    known, zeros = (
        layer.inputs(torch.randn(2, 1, 3, device=DEVICE))[:, 0],
        layer.zeros(torch.zeros(2, 1, device=DEVICE)),
    )
    for choice in ("auto", "plain"):
        kernels.use(choice, interpreted=True)
        layer.step(known, None, zeros, layer.recurrence(0))
    assert next(calls) == 1


def test_without_a_working_triton_the_plain_versions_run(monkeypatch, caplog):
    from s2s.kernels import probe

    def broken(number):
        raise RuntimeError("Failed to find C compiler.\nmore")

    monkeypatch.setattr(probe, "add_one", broken)
    kernels._runs.cache_clear()
    try:
        device = torch.device(DEVICE)
        assert not kernels.usable(device)
        assert not kernels.usable(device)
        assert [record.message for record in caplog.records] == [
            "no kernel is used, as Triton doesn't run here: Failed to find C compiler."
        ]
    finally:
        kernels._runs.cache_clear()
    monkeypatch.undo()
    assert kernels.usable(device)


COMPILE = """
import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from s2s.kernels import additive, lstm, scan

of_attention = [additive._forward, additive._backward_query, additive._backward_keys, scan._scan]
for kernel in [*of_attention, lstm._forward, lstm._backward]:
    constants = {"ACC": tl.float32, "BS": 32, "BA": 128, "BV": 128, "BH": 256, "REVERSE": True}
    kinds = dict.fromkeys(kernel.arg_names, "*fp32")
    others = {"mask": "*u8", **dict.fromkeys("TSAVH", "i32"), **dict.fromkeys(constants, "constexpr")}
    kinds |= {name: kind for name, kind in others.items() if name in kinds}
    known = {name: value for name, value in constants.items() if name in kinds}
    made = triton.compile(ASTSource(kernel, kinds, known), target=GPUTarget("cuda", 90, 32))
    assert "ptx" in made.asm
print("compiled")
"""


def test_kernels_compile_for_gpus_that_are_not_here(tmp_path):
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["TRITON_CACHE_DIR"] = str(tmp_path)
    command = [sys.executable, "-c", COMPILE]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.stdout.strip() == "compiled", done.stderr[-2000:]
