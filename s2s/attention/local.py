"""Local attention: soft attention inside a window of the source around one aligned place."""

from __future__ import annotations

import torch
from torch import Tensor

from s2s.attention.align import Aligned, Alignment
from s2s.attention.base import Attention, ScoredAttention, scored
from s2s.attention.functional import lengths_of, split_heads
from s2s.attention.normalise import Normaliser
from s2s.attention.options import Options, whole
from s2s.attention.score import AdditiveScore, Score, ScoreName, check_heads, make_score, uniform
from s2s.gather import linear, windows
from s2s.types import AttentionOutput, Memory, State

DEFAULT = Options()
LONG = 4  # windows in a source, from which on it pays to read them alone


class Window(Alignment):
    """A normaliser over the source positions at most `window` (D >= 1) away from a place p. Luong et al. 2015, 3.2.

    Where holes in the mask leave nothing inside, the real positions nearest to p are taken instead.
    """

    def __init__(self, normaliser: Normaliser, window: int) -> None:
        super().__init__()
        self.normaliser, self.window = normaliser, whole("window", window)

    def places(self, query: Tensor, mask: Tensor, state: State) -> Tensor:
        """p of each query, (B, H, T) in float32 at least, from 0 to the length of the source; H may be 1."""
        raise NotImplementedError

    def weigh(self, energies: Tensor, mask: Tensor, places: Tensor) -> Tensor:
        """Energies (B, H, T, S) to weights, the windows at `places`."""
        return self.inside(energies, mask, *self.distances(places, mask)).to(energies.dtype)

    def after(self, state: State, query: Tensor) -> State:
        """The state after these queries."""
        return state

    def forward(self, energies: Tensor, mask: Tensor, state: State, query: Tensor) -> Aligned:
        """Each step by itself."""
        weights = self.weigh(energies, mask, self.places(query, mask, state)) if mask.size(1) else energies
        return Aligned(weights, self.after(state, query), {})

    def distances(self, places: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """How far each position is from p, (B, H, T, S), and how far the nearest real one is, (B, H, T, 1).

        places: p, (B, H, T), float; mask: (B, S), S >= 1.
        """
        far = (torch.arange(mask.size(1), device=mask.device) - places.unsqueeze(-1)).abs()
        return far, far.detach().masked_fill(~mask[:, None, None], torch.inf).amin(-1, keepdim=True)

    def inside(self, energies: Tensor, mask: Tensor, far: Tensor, nearest: Tensor) -> Tensor:
        """Weights (B, H, T, S) among the positions in the window, in float32 at least."""
        exact = energies.to(torch.promote_types(energies.dtype, torch.float32))
        return self.normaliser(exact, mask[:, None, None] & (far <= nearest.clamp_min(self.window)))


class MonotonicWindow(Window):
    """local-m: p is the number of the step, or the last source position where the target is longer than that."""

    def initial_state(self, mask: Tensor, heads: int) -> State:
        """The number of the next step, (B, 1) int64."""
        return torch.zeros(mask.size(0), 1, dtype=torch.int64, device=mask.device)

    def places(self, query: Tensor, mask: Tensor, state: State) -> Tensor:
        """The same for all heads."""
        assert isinstance(state, Tensor)
        steps = state + torch.arange(query.size(1), device=mask.device)
        last = (lengths_of(mask) - 1).clamp_min(0).unsqueeze(1)
        return torch.minimum(steps, last).unsqueeze(1).float()

    def after(self, state: State, query: Tensor) -> State:
        """So many steps on."""
        assert isinstance(state, Tensor)
        return state + query.size(1)


class PredictiveWindow(Window):
    """local-p: p = L sigmoid(v . tanh(W q)), L = the true length of the source; a Gaussian around p of sigma D / 2.

    The Gaussian multiplies the weights after the normaliser, so that they sum to less than one unless `renormalise`.
    The gradient reaches W and v through it only. Luong et al. 2015, arXiv 1508.04025, section 3.2. Each head has its
    own p, from its slice of W and v.
    """

    def __init__(self, normaliser: Normaliser, window: int, query_size: int, heads: int, *, renormalise: bool) -> None:
        super().__init__(normaliser, window)
        self.heads = check_heads(heads, query_size, "the query")
        self.sums_to_one = renormalise
        self.weight = uniform(query_size, query_size, fan=query_size)
        self.vector = uniform(query_size, fan=query_size // heads)

    def places(self, query: Tensor, mask: Tensor, state: State = ()) -> Tensor:
        """Each head's own."""
        inner = torch.tanh(linear(query, self.weight))
        exact = inner.to(torch.promote_types(inner.dtype, torch.float32)) * self.vector
        return torch.sigmoid(split_heads(exact, self.heads).sum(-1)) * lengths_of(mask)[:, None, None]

    def weigh(self, energies: Tensor, mask: Tensor, places: Tensor) -> Tensor:
        """Under the Gaussian."""
        far, nearest = self.distances(places, mask)
        weights = self.inside(energies, mask, far, nearest)
        exponent = -2 * (far / self.window).square()
        if self.sums_to_one:
            # relative to the nearest position: beyond a wide hole the Gaussian itself would be zero everywhere
            weights = weights * torch.exp((exponent + 2 * (nearest / self.window).square()).clamp_max(0))
            total = weights.sum(-1, keepdim=True)
            weights = weights / torch.where(total > 0, total, 1.0)
        else:
            weights = weights * torch.exp(exponent)
        return weights.to(energies.dtype)


class LocalAttention(ScoredAttention):
    """A score and a `Window`. On a CPU nothing of a long source is read but what is in the windows.

    The whole source is read where that costs less, and for several heads, a constraint in the place of the window, and
    holes in a mask that leave a window empty.
    """

    def attend(self, query: Tensor, memory: Memory, state: State, need_weights: bool) -> AttentionOutput:
        """As the base, by a batch of B T windows of W positions with a query each."""
        align, (batch, steps, _), length = self.align, query.shape, memory.mask.size(1)
        # in the place of the window a constraint may stand, which has a say in where to look
        width = 2 * align.window + 2 if isinstance(align, Window) else length
        # all queries in one product read a source once; additive scores have none
        reads = steps if isinstance(self.score, AdditiveScore) else 1
        short = length * reads < LONG * width * steps or not batch * steps
        if not isinstance(align, Window) or short or self.heads > 1 or query.device.type != "cpu":
            return super().attend(query, memory, state, need_weights)
        places = align.places(query, memory.mask, state).squeeze(1)
        starts = (places.detach().floor().long() - align.window).clamp(0, length - width)
        inside = starts.unsqueeze(2) + torch.arange(width)
        index = (inside + length * torch.arange(batch).view(-1, 1, 1)).view(-1, width)
        mask = memory.mask.flatten()[index]
        if bool((memory.mask.any(1, keepdim=True) & ~mask.any(1).view(batch, steps)).any()):
            return super().attend(query, memory, state, need_weights)
        own = Memory(windows(memory.keys, index), windows(memory.values, index), mask)
        energies = self.score(query.reshape(batch * steps, 1, -1), self.by_head(own.keys))
        weights = align.weigh(energies, mask, (places - starts).view(-1, 1, 1))
        found = self.read(weights, own, (), {}, need_weights)
        shown = found.weights
        if shown is not None:
            shown = shown.new_zeros(batch, steps, length).scatter(2, inside, shown.view(batch, steps, width))
        return AttentionOutput(found.context.view(batch, steps, -1), shown, align.after(state, query), {})


def local_m(
    query_size: int, memory_size: int, *, window: int = 10, score: ScoreName = "additive", options: Options = DEFAULT
) -> Attention:
    """Luong et al. 2015 (arXiv 1508.04025, section 3.2), local-m. window: half-width D, at least 1.

    score: see `local_p`.
    """
    align = MonotonicWindow(Normaliser(options.normaliser, options.temperature), window)
    return _local(query_size, memory_size, options, score, align)


def local_p(
    query_size: int,
    memory_size: int,
    *,
    window: int = 10,
    score: ScoreName = "additive",
    renormalise: bool = False,
    options: Options = DEFAULT,
) -> Attention:
    """Luong et al. 2015 (section 3.2), local-p. window: half-width D, at least 1; sigma is D / 2.

    score: the paper's best is general; additive learned faster here (recipes/translate/multi30k/README.md).
    renormalise: divide by the sum after the Gaussian, which the paper doesn't; copying needs it.
    """
    normaliser = Normaliser(options.normaliser, options.temperature)
    align = PredictiveWindow(normaliser, window, query_size, options.heads, renormalise=renormalise)
    return _local(query_size, memory_size, options, score, align)


def _local(query_size: int, memory_size: int, options: Options, score: ScoreName, align: Window) -> Attention:
    def made(query: int, key: int) -> Score:
        return make_score(score, query, key, heads=options.heads)

    return scored(query_size, memory_size, options, made, align, kind=LocalAttention)
