"""Kernels of a CPU, in C, against the plain versions in float64; how they are built, and what happens without them."""

import ctypes
import os
import stat
import subprocess
import sys

import pytest
import torch
from toys import TINY, call

from s2s import kernels
from s2s.activations import tanh, tanh_
from s2s.attention import build
from s2s.attention.functional import additive_energies_plain, masked_softmax
from s2s.attention.fused import FEW, additive_attention, dot_attention
from s2s.attention.self_attention import multihead
from s2s.errors import NonFiniteError, RunError
from s2s.gather import gathered
from s2s.kernels import build as builder
from s2s.kernels import cpu
from s2s.model import recurrent
from s2s.products import PackedWeight
from s2s.search.loop import ranked
from s2s.train.loss import Copied, smoothed_cross_entropy, smoothed_cross_entropy_plain
from s2s.types import Encoded

pytestmark = pytest.mark.skipif(
    kernels.kind(torch.device("cpu")) != "C", reason="needs a C compiler, and no S2S_KERNELS=plain"
)
NEAR = {"rtol": 3e-6, "atol": 3e-6}


def values_and_gradients(function, *given):
    """What a function gives, and the gradients of a fixed weighting of it, in the precision of what is given."""
    leaves = [one.detach().requires_grad_() if one.is_floating_point() else one for one in given]
    found = function(*leaves)
    found = found if isinstance(found, tuple) else (found,)
    torch.manual_seed(5)
    outer = [torch.randn(one.shape, dtype=torch.float64).to(one.dtype) for one in found]
    wanted = [one for one in leaves if one.requires_grad]
    return [*found, *torch.autograd.grad(found, wanted, outer, allow_unused=True)]


def assert_same(fused, plain, *given, **near):
    exact = [one.double() if one.is_floating_point() else one for one in given]
    for made, expected in zip(values_and_gradients(fused, *given), values_and_gradients(plain, *exact), strict=True):
        assert made.dtype == torch.float32
        torch.testing.assert_close(made.double(), expected, **(near or NEAR))


def masks(batch, length):
    mask = torch.rand(batch, length) < 0.7
    mask[0], mask[-1] = False, True  # nothing to look at; everything
    return mask


@pytest.mark.parametrize("shape", [(0,), (1,), (7,), (3, 5), (33, 300)], ids=str)
def test_tanh(shape, calls):
    x = 6 * torch.randn(shape)
    assert_same(tanh, torch.tanh, x)
    assert calls == ["tanh_forward", "tanh_backward"]
    assert_same(lambda y: tanh(y.t() if y.dim() == 2 else y), lambda y: torch.tanh(y.t() if y.dim() == 2 else y), x)
    torch.testing.assert_close(tanh_(x.clone()), x.tanh(), **NEAR)


def test_ends_of_the_line():
    x = torch.tensor([0.0, 1e-30, 50.0, -50.0, 1e30, -1e30, torch.inf, -torch.inf, torch.nan])
    torch.testing.assert_close(tanh(x), x.tanh(), rtol=1e-6, atol=1e-6, equal_nan=True)


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (64, 33), (5, 256)], ids=str)
def test_gates_of_an_lstm(shape, calls):
    torch.manual_seed(1)
    gates, cell = 3 * torch.randn(shape[0], 4 * shape[1]), torch.randn(shape)
    assert_same(recurrent._lstm_gates, recurrent._lstm_gates, gates, cell)
    assert calls == ["lstm_forward", "lstm_backward"]


@pytest.mark.parametrize("shape", [(3, 1, 1), (3, 4, 7), (3, 2, 5, 40)], ids=str)
def test_masked_softmax(shape, calls):
    torch.manual_seed(2)
    mask = masks(shape[0], shape[-1]).view(shape[0], *[1] * (len(shape) - 2), shape[-1])
    assert_same(lambda e: masked_softmax(e, mask), lambda e: masked_softmax(e, mask), 20 * torch.randn(shape))
    assert calls == ["softmax_forward", "softmax_backward"]
    assert not masked_softmax(torch.randn(shape), mask)[0].any()
    low = torch.full(shape, -1e4)
    torch.testing.assert_close(masked_softmax(low, mask)[-1], torch.full(shape[1:], 1 / shape[-1]))


@pytest.mark.parametrize("mask", [(5,), (4, 5), (3, 4, 5), (1, 1, 5)], ids=str)
def test_other_masks_are_left_to_the_plain_version(mask, calls):
    masked_softmax(torch.randn(3, 4, 5), torch.ones(mask, dtype=torch.bool))
    assert not calls


def dot_plain(query, keys, values, mask, scale):
    allowed = torch.ones(keys.size(0), keys.size(2), dtype=torch.bool) if mask is None else mask
    weights = masked_softmax(scale * query @ keys.transpose(2, 3), allowed[:, None, None])
    return (weights @ values).transpose(1, 2).flatten(2), weights


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("shape", [(3, 1, 1, 1, 1, 1), (3, 2, FEW, 9, 5, 4), (3, 4, 1, 40, 16, 33)], ids=str)
def test_dot_attention(shape, masked, calls):
    torch.manual_seed(3)
    batch, heads, steps, length, size, width = shape
    mask = masks(batch, length) if masked else None
    query, keys = torch.randn(batch, steps, heads, size), torch.randn(batch, length, heads, size)
    values = torch.randn(batch, length, heads, width)

    def by_head(function):  # heads as slices of the width: strides that aren't those of a contiguous tensor
        return lambda q, k, v: function(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), mask, 0.5)

    assert_same(by_head(dot_attention), by_head(dot_plain), query, keys, values, rtol=1e-5, atol=1e-5)
    assert calls == ["dot_forward", "dot_backward"]
    context, weights = dot_attention(query.transpose(1, 2), keys.transpose(1, 2), values.transpose(1, 2), mask, 1)
    if masked:
        assert not context[0].any()
        assert not weights[0].any()


def additive_plain(query, keys, vector, mask, values):
    weights = masked_softmax(additive_energies_plain(query, keys, vector), mask.unsqueeze(1))
    return weights @ values, weights


@pytest.mark.parametrize(
    "shape", [(2, 1, 1, 3, 2), (3, 2, 5, 20, 7), (2, 1, 40, 130, 129), (2, 3, 33, 16, 16)], ids=str
)
def test_additive_attention(shape, calls):
    torch.manual_seed(4)
    batch, steps, length, size, width = shape
    query, keys, vector = torch.randn(batch, steps, size), torch.randn(batch, length, size), torch.randn(size)
    given = query, keys, vector, masks(batch, length), torch.randn(batch, length, width)
    assert_same(additive_attention, additive_plain, *given, rtol=2e-5, atol=2e-5)
    assert calls == ["additive_forward", "additive_backward"]


@pytest.mark.parametrize("name", ["additive", "concat", "additive_normed", "general", "scaled_dot", "multihead"])
def test_a_loop_gathers_the_same_gradients_with_kernels_and_without(name, calls):
    torch.manual_seed(6)
    attention = build(name, query_size=8, memory_size=8)
    states, queries = torch.randn(4, 6, 8), torch.randn(4, 3, 8)
    mask = masks(4, 6)
    found = []
    for choice in ("plain", "auto"):
        kernels.use(choice)
        leaves = [one.clone().requires_grad_() for one in (states, queries)]
        memory = attention.remember(Encoded(states=leaves[0], mask=mask, final=states[:, 0]))
        with gathered():
            outputs = [attention(one, memory, ()) for one in leaves[1].split(1, 1)]
        loss = sum(output.context.pow(2).sum() + output.weights.pow(3).sum() for output in outputs)
        found.append([*outputs[-1][:2], *torch.autograd.grad(loss, [*leaves, *attention.parameters()])])
        assert bool(calls) == (choice == "auto")
    torch.testing.assert_close(found[1], found[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("changes", [{"heads": 2}, {"normaliser": "sparsemax"}, {"temperature": 2.0}, {"dropout": 0.5}])
def test_what_one_kernel_does_not_cover_is_left_to_the_plain_version(changes, calls):
    attention = build("additive", query_size=4, memory_size=4, **changes)
    states = torch.randn(2, 3, 4)
    memory = attention.remember(Encoded(states=states, mask=torch.ones(2, 3, dtype=torch.bool), final=states[:, 0]))
    attention(states[:, :1], memory, ())
    assert "additive_forward" not in calls
    attention.eval()(states[:, :1], memory, ())
    assert ("additive_forward" in calls) == ("dropout" in changes)


@pytest.mark.parametrize("name", ["additive", "general"])
def test_a_memory_that_several_rows_read_is_left_to_the_plain_version(name, calls):
    attention = build(name, query_size=4, memory_size=4)
    states, query = torch.randn(1, 3, 4), torch.randn(5, 1, 4)
    memory = attention.remember(Encoded(states=states, mask=torch.ones(1, 3, dtype=torch.bool), final=states[:, 0]))
    found = attention(query, memory, ()).context
    assert not {"additive_forward", "dot_forward"} & set(calls)
    each = [attention(one, memory, ()).context for one in query.split(1)]
    torch.testing.assert_close(found, torch.cat(each))


def test_many_queries_take_a_matrix_product(calls):
    attention = build("general", query_size=4, memory_size=4)
    states = torch.randn(2, FEW + 1, 4)
    memory = attention.remember(
        Encoded(states=states, mask=torch.ones(2, FEW + 1, dtype=torch.bool), final=states[:, 0])
    )
    few, many = attention(states[:, :FEW], memory, ()), attention(states, memory, ())
    assert calls == ["dot_forward", "softmax_forward"]
    torch.testing.assert_close(many.context[:, :FEW], few.context)


@torch.no_grad()
def test_a_step_of_self_attention(calls):
    attention = multihead(16, None, heads=4)
    x = torch.randn(3, 5, 16)
    whole, _, _ = attention(x, attention.initial_state(x), causal=True)
    state, steps = attention.initial_state(x), []
    for one in x.split(1, 1):
        found, _, state = attention(one, state, causal=True)
        steps.append(found)
    torch.testing.assert_close(torch.cat(steps, 1), whole, rtol=1e-5, atol=1e-5)
    assert calls == ["dot_forward"] * 5  # the whole sequence is for torch's own kernel


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("copies", [False, True])
def test_cross_entropy(copies, smoothing, calls, monkeypatch):
    monkeypatch.setattr("s2s.train.loss._CHUNK", 4 * 1100)  # several chunks, and columns of several blocks
    monkeypatch.setattr("s2s.train.loss._ROWS", 1)
    torch.manual_seed(8)
    features, weight, bias = torch.randn(10, 6), torch.randn(1100, 6), torch.randn(1100, 2)[:, 0]
    targets = torch.randint(0, 1110 if copies else 1100, (10, 2))[:, 0]  # strides that aren't 1
    targets[0] = 1099
    logs = [-torch.rand(10, 2)[:, 0] - 0.1, (-torch.rand(10, 2) - 0.1)[:, 0]] if copies else []

    def loss(function):
        return lambda f, w, b, *given: function(
            f, w, b, targets, smoothing=smoothing, copied=Copied(*given) if given else None
        )[0]

    assert_same(
        loss(smoothed_cross_entropy),
        loss(smoothed_cross_entropy_plain),
        features,
        weight,
        bias,
        *logs,
        rtol=1e-5,
        atol=1e-5,
    )
    assert calls == ["cross_entropy"] * 3


@pytest.mark.parametrize("target", [-1, 5])
def test_a_target_out_of_range_is_refused(target):
    with pytest.raises(IndexError, match=f"{target}.* vocabulary of 5"):
        smoothed_cross_entropy(torch.randn(2, 3), torch.randn(5, 3), torch.zeros(5), torch.tensor([0, target]))


def test_cross_entropy_of_nothing_and_of_padding():
    weight, bias = torch.randn(5, 3, requires_grad=True), torch.randn(5, requires_grad=True)
    nothing = smoothed_cross_entropy(torch.zeros(0, 3), weight, bias, torch.zeros(0, dtype=torch.int64))
    assert [one.abs().sum() for one in torch.autograd.grad(nothing.loss, (weight, bias))] == [0, 0]
    features, targets = torch.randn(4, 3), torch.tensor([1, 2, 3, 4])
    counts = torch.tensor([1.0, 0.0, 2.0, 0.0])
    once = smoothed_cross_entropy(features[[0, 2, 2]], weight, bias, targets[[0, 2, 2]], smoothing=0.1)
    counted = smoothed_cross_entropy(features, weight, bias, targets, smoothing=0.1, counts=counts)
    torch.testing.assert_close(counted.loss, once.loss)
    for made, expected in zip(*(torch.autograd.grad(one.loss, (weight, bias)) for one in (counted, once)), strict=True):
        torch.testing.assert_close(made, expected)


@pytest.mark.parametrize("shape", [(1, 1), (3, 7), (5, 256), (4, 1000), (70, 513)], ids=str)
@pytest.mark.parametrize("width", [1, 2, 9])
def test_the_largest_numbers_of_a_row(shape, width):
    torch.manual_seed(10)
    width = min(width, shape[1])
    for rows in (torch.randn(shape), torch.randint(0, 3, shape).float(), torch.full(shape, -torch.inf)):
        rows[0, shape[1] // 2 :] = -torch.inf
        values, ids = cpu.largest(rows, width)
        expected = rows.sort(dim=1, descending=True, stable=True)
        assert torch.equal(values, expected.values[:, :width])
        assert torch.equal(ids, expected.indices[:, :width])
    for place in (0, shape[1] - 1):
        rows = torch.randn(shape)
        rows[-1, place] = torch.nan
        first = cpu.largest(rows, width)[0][:, 0]
        assert first[-1].isnan()
        assert not first[:-1].isnan().any()


def test_a_search_ranks_by_the_kernel_as_without(calls):
    rows = torch.randint(-4, 0, (6, 700)).float()  # many equals
    never = torch.zeros(700, dtype=torch.bool)
    never[[0, 2]] = True
    found = [ranked(rows, 5, some) for some in (None, never)]
    assert calls == ["largest"] * 2
    kernels.use("plain")
    expected = [ranked(rows, 5, some) for some in (None, never)]
    kernels.use("auto")
    for made, plain in zip(found, expected, strict=True):
        assert torch.equal(made[0], plain[0])
        assert torch.equal(made[1], plain[1])
    rows[3, 650] = torch.nan
    with pytest.raises(RunError, match="NaN"):
        ranked(rows, 1, None)


@pytest.mark.parametrize("shape", [(0, 3), (1, 1), (31, 33), (70, 64)], ids=str)
def test_transposed(shape):
    matrix = torch.randn(shape)
    assert torch.equal(cpu.transposed(matrix), matrix.t())
    assert cpu.transposed(matrix).is_contiguous()


def test_a_transposed_weight_is_laid_out_by_the_kernel(calls):
    weight, x = torch.randn(600, 300), torch.randn(4, 600)
    torch.testing.assert_close(PackedWeight(weight.t()).product(x), x @ weight, rtol=1e-4, atol=1e-4)
    assert calls == ["transpose"]


def test_what_is_not_finite_stays_that_way():
    gates, cell = torch.randn(2, 12), torch.randn(2, 3)
    gates[0, 4] = torch.nan
    hidden, following = recurrent._lstm_gates(gates, cell)
    assert hidden[0, 1].isnan()
    assert following[0, 1].isnan()
    assert hidden.isnan().sum() == 1  # and goes nowhere else
    energies, mask = torch.randn(2, 2, 3), torch.ones(2, 1, 3, dtype=torch.bool)
    energies[0, 1, 2] = torch.nan
    weights = masked_softmax(energies, mask)
    assert weights[0, 1].isnan().all()
    assert weights.isnan().sum() == 3
    features = torch.randn(2, 3)
    features[1, 0] = torch.nan
    assert smoothed_cross_entropy(features, torch.randn(5, 3), torch.zeros(5), torch.tensor([0, 1])).nll.isnan()
    attention = build("additive", query_size=3, memory_size=3)
    states = torch.randn(2, 3, 3)
    memory = attention.remember(Encoded(states=states, mask=torch.ones(2, 3, dtype=torch.bool), final=states[:, 0]))
    with pytest.raises(NonFiniteError):
        attention(features.unsqueeze(1), memory, ())


def test_a_row_is_the_same_beside_any_others_and_with_any_number_of_threads():
    torch.manual_seed(9)
    query, keys, values = torch.randn(64, 1, 96), torch.randn(64, 9, 96), torch.randn(64, 9, 96)
    vector, mask = torch.randn(96), masks(64, 9)
    gates, cell = torch.randn(64, 4 * 96), torch.randn(64, 96)
    before = torch.get_num_threads()
    found = []
    try:
        for threads, rows in ((1, slice(0, 64)), (2, slice(0, 64)), (1, slice(5, 6))):
            torch.set_num_threads(threads)
            leaves = [one[rows].clone().requires_grad_() for one in (query, keys, values)]
            context, _ = additive_attention(leaves[0], leaves[1], vector, mask[rows], leaves[2])
            dots, _ = dot_attention(*(one.unsqueeze(1) for one in leaves), mask[rows], 0.1)
            gradients = torch.autograd.grad((context + dots).pow(2).sum(), leaves)
            found.append([context, dots, *gradients, *recurrent._lstm_gates(gates[rows], cell[rows])])
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(one, two) for one, two in zip(found[0], found[1], strict=True))
    assert all(torch.equal(one[5:6], two) for one, two in zip(found[0], found[2], strict=True))


def test_nothing_is_read_as_what_it_is_not():
    for kind in (torch.bfloat16, torch.float64):
        x = torch.randn(3, dtype=kind)
        assert not kernels.compiled(x)
        with pytest.raises(TypeError):
            cpu.tanh_into(x, x)
    kernels.use("plain")
    assert not kernels.compiled(torch.randn(3))
    kernels.use("auto")
    assert kernels.compiled(torch.randn(3))


def test_shapes_that_do_not_fit_are_refused_not_read():
    states, mask = torch.randn(2, 3, 4), torch.ones(2, 3, dtype=torch.bool)
    for given in ((states, states[:, :, :3], mask), (states, states, mask[:, :2]), (states[:1], states, mask)):
        query, keys, seen = given
        with pytest.raises(ValueError, match="expected"):
            additive_attention(query, keys, torch.ones(4), seen, states)
        with pytest.raises(ValueError, match="expected"):
            dot_attention(query.unsqueeze(1), keys.unsqueeze(1), states.unsqueeze(1), seen, 1.0)
    with pytest.raises(ValueError, match="expected"):
        cpu.lstm_gates(torch.randn(2, 11), torch.randn(2, 3))


# ---- building


def seen_by(folder, code, **environment):
    """What a process prints that has its cache in this folder."""
    given = {**os.environ, "XDG_CACHE_HOME": str(folder), **environment}
    command = [sys.executable, "-c", f"import torch\nfrom s2s.kernels.build import library\n{code}"]
    done = subprocess.run(command, env=given, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip(), done.stderr.strip()


def libraries(folder):
    return sorted((folder / "s2s" / "kernels").glob("*.so"))


SHOW = "print(library() is not None)"


def test_it_is_compiled_once_and_kept_for_its_owner_alone(tmp_path):
    assert seen_by(tmp_path, SHOW) == ("True", "")
    (kept,) = libraries(tmp_path)
    assert not stat.S_IMODE(kept.stat().st_mode) & 0o077
    assert not stat.S_IMODE(kept.parent.stat().st_mode) & 0o077
    assert seen_by(tmp_path, SHOW, PATH="", CC="") == ("True", "")  # without a compiler
    assert os.listdir(kept.parent) == [kept.name]


@pytest.mark.parametrize("what", ["file", "folder"])
def test_what_others_could_have_written_is_not_loaded(tmp_path, what):
    seen_by(tmp_path, SHOW)
    (kept,) = libraries(tmp_path)
    (kept if what == "file" else kept.parent).chmod(0o777)
    assert seen_by(tmp_path, SHOW, PATH="", CC="") == ("False", "")


def test_a_damaged_library_is_made_anew(tmp_path):
    seen_by(tmp_path, SHOW)
    (kept,) = libraries(tmp_path)
    kept.write_bytes(kept.read_bytes()[:100])
    assert seen_by(tmp_path, SHOW) == ("True", "")
    ctypes.CDLL(str(kept))


def test_a_home_that_cannot_be_written_costs_only_time(tmp_path):
    (tmp_path / "s2s").write_text("a file where a folder would be")
    assert seen_by(tmp_path, SHOW) == ("True", "")


def test_without_a_compiler_all_is_plain(tmp_path):
    code = f"{SHOW}\nfrom s2s.activations import tanh\nprint(tanh(torch.ones(1)).item() > 0.76)"
    assert seen_by(tmp_path, code, PATH="", CC="") == ("False\nTrue", "")


def test_the_environment_has_the_last_word(tmp_path):
    code = "from s2s import kernels\nimport torch\nprint(kernels.kind(torch.device('cpu')))"
    assert seen_by(tmp_path, code, S2S_KERNELS="") == ("C", "")
    assert seen_by(tmp_path, code, S2S_KERNELS="plain") == ("plain", "")
    code = f"from s2s.errors import UsageError\ntry:\n  exec({code!r})\nexcept UsageError as e:\n  print(e.where)"
    assert seen_by(tmp_path, code, S2S_KERNELS="fast") == ("S2S_KERNELS", "")


def test_training_tells_of_their_absence_and_of_a_change(tmp_path, monkeypatch):
    steps = ["optim.warmup=0", f"output={tmp_path}"]
    told = "for want of a C compiler"
    first = call("train", "teach/copy", *TINY, "trainer.steps=2", "trainer.save_every=2", *steps)
    assert told not in first.err
    run = next(path.parent for path in tmp_path.rglob("config.yaml") if path.parent.name != "latest")
    monkeypatch.setattr(kernels, "library", lambda: None)
    again = call("train", "--resume", str(run), "trainer.steps=4")
    assert again.code == 0, again.err
    assert told in again.err
    assert "began with kernels: C, and goes on with plain" in again.err
    monkeypatch.undo()
    assert told not in call("train", "teach/copy", *TINY, "trainer.steps=2", "kernels=plain", *steps).err


def test_a_compiler_that_fails_is_told_once(tmp_path):
    script = tmp_path / "cc"
    script.write_text("#!/bin/sh\necho it broke >&2\nexit 3\n")
    script.chmod(0o755)
    printed, told = seen_by(tmp_path, f"{SHOW}\n{SHOW}", CC=str(script))
    assert printed == "False\nFalse"
    assert told.count("it broke") == 1
    assert str(script) in told


def test_a_compiler_without_openmp_gives_kernels_of_one_thread(tmp_path):
    script = tmp_path / "cc"
    script.write_text(
        '#!/bin/sh\nfor a in "$@"; do [ "$a" = -fopenmp ] && exit 1; done\nexec ' + f'{builder._compiler()} "$@"\n'
    )
    script.chmod(0o755)
    use = "from s2s.activations import tanh\nx = torch.ones(20000)\nprint(torch.allclose(tanh(x), x.tanh()))"
    code = f"{SHOW}\n{use}"
    assert seen_by(tmp_path, code, CC=str(script)) == ("True\nTrue", "")
    script.write_text(f"#!/bin/sh\necho called >> {tmp_path}/calls\nexit 1\n")
    assert seen_by(tmp_path, code, CC=str(script)) == ("True\nTrue", "")
    assert not (tmp_path / "calls").exists()  # no start tries anew what failed


def test_libraries_of_other_processors_and_sources_have_other_names(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    builder._made(builder._compiler(), ("-O1", "-fPIC"))
    monkeypatch.setattr(builder, "_processor", lambda: "another")
    builder._made(builder._compiler(), ("-O1", "-fPIC"))
    builder._made(builder._compiler(), ("-O2", "-fPIC"))
    assert len(libraries(tmp_path)) == 3


def test_the_source_compiles_without_a_warning(tmp_path):
    command = [builder._compiler(), "-std=c99", "-O3", "-Wall", "-Wextra", "-Werror", "-fopenmp", "-fPIC", "-c"]
    done = subprocess.run([*command, str(builder._SOURCE), "-o", str(tmp_path / "x.o")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
