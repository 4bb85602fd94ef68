"""Fused kernels against the plain versions: in Triton's interpreter on a CPU, compiled where there is a GPU."""

import itertools
import os
import subprocess
import sys

import pytest
import torch

from s2s.attention import build, kernels
from s2s.attention.functional import additive_energies_plain, masked_softmax
from s2s.types import Encoded

pytest.importorskip("triton")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.fixture(autouse=True)
def fused():
    """Fused versions run here, whatever the device is."""
    kernels.use("auto", interpreted=True)
    yield
    kernels.use("auto")


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
    from s2s.attention.kernels.additive import additive_attention

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
    from s2s.attention.kernels.additive import additive_attention

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
    from s2s.attention.kernels import additive

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
    "changes", [{"heads": 2}, {"normaliser": "sparsemax"}, {"temperature": 2.0}, {"dropout": 0.5}], ids=str
)
def test_what_it_does_not_cover_is_left_to_the_plain_version(changes):
    attention = build("additive", query_size=4, memory_size=4, **changes)
    assert not attention._is_fused(torch.zeros(1, 1, 4, device=DEVICE))
    assert attention.eval()._is_fused(torch.zeros(1, 1, 4, device=DEVICE)) == ("dropout" in changes)


COMPILE = """
import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from s2s.attention.kernels import additive

for kernel in (additive._forward, additive._backward_query, additive._backward_keys):
    constants = {"ACC": tl.float32, "BS": 32, "BA": 128, "BV": 128}
    kinds = dict.fromkeys(kernel.arg_names, "*fp32")
    others = {"mask": "*u8", **dict.fromkeys("TSAV", "i32"), **dict.fromkeys(constants, "constexpr")}
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
