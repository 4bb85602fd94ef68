"""Where the time of an update goes, beside what the model and the machine allow at best: `profile=true`.

Parts exclude each other: while the decoder runs its attention, only the attention's time passes. So they add up to the
whole update. On a GPU each border between parts waits for the device, which an update otherwise doesn't.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from s2s.attention.base import Attention
from s2s.kernels import counted
from s2s.model.seq2seq import Seq2Seq
from s2s.train.options import OptimConfig, Precision
from s2s.train.precision import chosen

PARTS = ("data", "encoder", "attention", "recurrence", "output layer", "backward", "optimizer", "other")
WARM = 5  # updates that aren't looked at
COUNTED = 20  # updates that are timed; one before them has its operations counted

_FLOAT = 4  # bytes


def _added_product(added: Any, left: Sequence[int], right: Sequence[int], *_: Any, **__: Any) -> int:
    """Operations of `addmm_`, which torch's counter doesn't know."""
    return 2 * left[0] * left[1] * right[1]


def _packed_product(inputs: Sequence[int], second: Sequence[int], third: Any, *_: Any, **__: Any) -> int:
    """Operations of a product by a packed weight (O, I): the second argument, or the third after something to add."""
    weight = third if isinstance(third, torch.Size) and len(third) == 2 else second
    return 2 * math.prod(inputs) * weight[0]


def _attended(query: Sequence[int], key: Sequence[int], *_: Any, **__: Any) -> int:
    """Operations of torch's fused attention on a CPU: energies and contexts."""
    batch, heads, steps, size = query
    return 2 * 2 * batch * heads * steps * key[2] * size


def _attended_backward(gradient: Sequence[int], query: Sequence[int], key: Sequence[int], *_: Any, **__: Any) -> int:
    """Of its backward pass, which takes the energies anew and four gradients: five products in place of two."""
    return _attended(query, key) * 5 // 2


def _fused(inputs: Sequence[int], *weights: Any, **_: Any) -> int:
    """Operations of a fused recurrent layer: each input row (the last axis its width) goes through every weight.

    weights: the arguments that come next, as shapes or as a list of shapes; matrices come first, other things after.
    """
    shapes = weights[0] if isinstance(weights[0], list) else weights[:2]  # cuDNN: a list; oneDNN: input's and state's
    return 2 * math.prod(inputs[:-1]) * sum(math.prod(shape) for shape in shapes if len(shape) > 1)


def _fused_backward(inputs: Sequence[int], *weights: Any, **_: Any) -> int:
    """Of its backward pass: the gradients of inputs and of weights."""
    return 2 * _fused(inputs, *weights)


# A GRU on a CPU isn't among them: torch makes it of products that are counted by themselves.
_UNKNOWN = {
    torch.ops.aten.addmm_: _added_product,
    torch.ops.aten.mkldnn_rnn_layer: _fused,
    torch.ops.aten.mkldnn_rnn_layer_backward: _fused_backward,
    torch.ops.aten._cudnn_rnn: _fused,
    torch.ops.aten._cudnn_rnn_backward: _fused_backward,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attended,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _attended_backward,
}
if hasattr(torch.ops.mkldnn, "_linear_pointwise"):  # not in every build
    _UNKNOWN[torch.ops.mkldnn._linear_pointwise] = _packed_product


@dataclass(frozen=True)
class Part:
    """A part of an update. seconds, operations, bytes: of one, on average; floor: the fewest seconds for them."""

    name: str
    seconds: float
    operations: float  # of matrix products, a multiplication and an addition each counted
    bytes: float  # of weights, gradients and the optimiser's state that have to be read or written
    floor: float


@dataclass(frozen=True)
class Profile:
    """What was found. rate: operations a second and bandwidth: bytes a second that this machine was seen to reach."""

    parts: Sequence[Part]
    updates: int
    tokens: float  # target tokens an update, padding not counted
    rate: float
    bandwidth: float
    waiting: float  # seconds of validation and saving in the whole run so far
    training: float  # seconds of updates in the whole run so far

    @property
    def seconds(self) -> float:
        """Of an update."""
        return sum(part.seconds for part in self.parts)

    @property
    def floor(self) -> float:
        """The fewest seconds of an update."""
        return sum(part.floor for part in self.parts)

    def told(self) -> str:
        """In one line."""
        ranked = sorted(self.parts, key=lambda part: -part.seconds)
        shares = ", ".join(f"{part.name} {100 * part.seconds / self.seconds:.0f} %" for part in ranked if part.seconds)
        speed, best = self.tokens / self.seconds, self.tokens / self.floor
        return f"profile of {self.updates} updates: {speed:,.0f} target tokens/s, {best:,.0f} at best; {shares}"

    def plain(self) -> dict[str, Any]:
        """As profile.json has it."""
        return {**asdict(self), "seconds": self.seconds, "floor": self.floor}


class _Meter:
    """What was used up in each part: seconds, or operations. Parts nest; only the innermost one counts."""

    def __init__(self, read: Callable[[], float]) -> None:
        self.used = dict.fromkeys(PARTS, 0.0)
        self._read, self._open, self._mark = read, ["other"], read()

    def enter(self, part: str) -> None:
        """A part begins."""
        self._take()
        self._open.append(part)

    def leave(self) -> None:
        """The innermost part is over."""
        self._take()
        self._open.pop()

    def _take(self) -> None:
        now = self._read()
        self.used[self._open[-1]] += now - self._mark
        self._mark = now

    def close(self) -> dict[str, float]:
        """All that was used up."""
        self._take()
        return self.used


_meter: ContextVar[_Meter | None] = ContextVar("profile_meter", default=None)


@contextmanager
def part(name: str) -> Iterator[None]:
    """What happens inside belongs to a part of `PARTS`, where an update is looked at."""
    _entered(name)
    try:
        yield
    finally:
        _left()


class Profiler:
    """Looks at some updates of a run."""

    def __init__(self, model: Seq2Seq, optim: OptimConfig, precision: Precision) -> None:
        self._model, self._device = model, next(model.parameters()).device
        self._state = (0 if optim.name == "sgd" else 2) + bool(optim.ema)  # numbers that are kept for each weight
        self._half = chosen(self._device, precision) == "bf16"
        self._seen, self._tokens, self._timed = 0, 0, 0
        self._counted = 0  # target tokens of the update whose operations were counted
        self._seconds: dict[str, float] = dict.fromkeys(PARTS, 0.0)
        self._operations: dict[str, float] = {}

    @contextmanager
    def update(self) -> Iterator[None]:
        """Around an update."""
        number = self._seen - WARM
        self._seen += 1
        if not 0 <= number <= COUNTED:
            yield
            return
        from torch.utils.flop_counter import FlopCounterMode  # slow to import: only where it is asked for

        counter = FlopCounterMode(display=False, custom_mapping=_UNKNOWN) if number == 0 else None
        fused: list[int] = []
        with counter or nullcontext(), counted(fused.append) if counter else nullcontext():
            meter = _Meter(self._clock if counter is None else lambda: counter.get_total_flops() + sum(fused))
            hooks = self._hooks()
            token = _meter.set(meter)
            try:
                yield
            finally:
                _meter.reset(token)
                for hook in hooks:
                    hook.remove()
                used = meter.close()
        if counter is not None:
            self._operations = used
            return
        self._timed += 1
        self._seconds = {name: self._seconds[name] + used[name] for name in PARTS}

    def saw(self, tokens: int) -> None:
        """Target tokens of the update just made."""
        number = self._seen - 1 - WARM
        if number == 0:
            self._counted = tokens
        elif 1 <= number <= COUNTED:
            self._tokens += tokens

    def result(self, *, training: float, waiting: float) -> Profile | None:
        """What was found, with the machine's ceilings taken now; None after too few updates."""
        if not self._timed:
            return None
        rate, bandwidth = _ceilings(self._device, torch.bfloat16 if self._half else torch.float32)
        moved = self._bytes()
        tokens = self._tokens / self._timed
        share = tokens / self._counted if self._counted else 1.0  # batches differ: operations are those of a mean one
        parts = []
        for name in PARTS:
            operations, size = share * self._operations.get(name, 0.0), moved.get(name, 0.0)
            floor = max(operations / rate, size / bandwidth)
            parts.append(Part(name, self._seconds[name] / self._timed, operations, size, floor))
        return Profile(parts, self._timed, tokens, rate, bandwidth, waiting, training)

    def _clock(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()

    def _hooks(self) -> list[Any]:
        """Hooks on the modules that are parts."""
        named: list[tuple[nn.Module, str]] = [
            (self._model, "other"),
            (self._model.source_embedding, "encoder"),
            (self._model.encoder, "encoder"),
            (self._model.decoder, "recurrence"),
        ]
        named += [(one, "attention") for one in self._model.decoder.modules() if isinstance(one, Attention)]
        hooks: list[Any] = []
        for module, name in named:
            hooks.append(module.register_forward_pre_hook(lambda *_, name=name: _entered(name)))
            hooks.append(module.register_forward_hook(lambda *_: _left(), always_call=True))  # also if it raises
        return hooks

    def _bytes(self) -> dict[str, float]:
        """What has to be moved for each part, if everything else stays in the processor's cache."""
        model = self._model
        attention = {id(p) for one in model.decoder.modules() if isinstance(one, Attention) for p in one.parameters()}
        output = {id(p) for p in model.output.parameters()}
        sizes = {
            "encoder": sum(p.numel() for p in model.encoder.parameters()),
            "attention": sum(p.numel() for p in model.parameters() if id(p) in attention),
            "recurrence": sum(p.numel() for p in model.decoder.parameters() if id(p) not in attention | output),
        }
        everything = sum(p.numel() for p in model.parameters())
        last = sum(p.numel() for p in model.output.parameters())
        moved: dict[str, float] = {name: _FLOAT * size for name, size in sizes.items()}  # read forward
        moved["output layer"] = 3.0 * _FLOAT * last  # read for logits and for the features' gradient; its own written
        moved["backward"] = 2.0 * _FLOAT * sum(sizes.values())  # read, and gradients written
        moved["optimizer"] = _FLOAT * everything * (3.0 + 2 * self._state)  # gradient, weight and state in and out
        return moved


def _entered(name: str) -> None:
    meter = _meter.get()
    if meter is not None:
        meter.enter(name)


def _left() -> None:
    meter = _meter.get()
    if meter is not None:
        meter.leave()


def _ceilings(device: torch.device, dtype: torch.dtype) -> tuple[float, float]:
    """Operations a second of a matrix product, and bytes a second of a copy (read and written): the best of some."""
    size = 4096 if device.type == "cuda" else 1024
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    block = torch.zeros((1 << 28 if device.type == "cuda" else 1 << 26) // _FLOAT, device=device)
    target = torch.empty_like(block)

    def best(work: Callable[[], object], times: int) -> float:
        fewest = float("inf")
        for _ in range(times):
            began = time.perf_counter()
            work()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            fewest = min(fewest, time.perf_counter() - began)
        return fewest

    rate = 2.0 * size**3 / best(lambda: a @ b, 12)
    return rate, 2.0 * _FLOAT * block.numel() / best(lambda: target.copy_(block), 8)
