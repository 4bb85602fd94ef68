"""Energies that depend on the alignments before: one loop over the steps, and what each mechanism adds to it."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from s2s.attention.align import SoftAlignment, begun
from s2s.attention.base import Attention, ScoredAttention
from s2s.attention.keyvalue import KeyValue
from s2s.attention.normalise import Normaliser
from s2s.attention.options import Options, choice, whole
from s2s.attention.score import AdditiveScore, Score, uniform
from s2s.errors import ConfigError
from s2s.gather import gathered
from s2s.types import AttentionOutput, Encoded, Memory, State

PastName = Literal["previous", "cumulative"]
DEFAULT = Options()


class Past(nn.Module):
    """What is remembered of past alignments, and how the energies see it. State: (B, H, S, ...), float32 at least."""

    def initial_state(self, mask: Tensor, heads: int) -> Tensor:
        """State before the first step, for mask (B, S): zeros (B, H, S)."""
        return torch.zeros(mask.size(0), heads, mask.size(1), device=mask.device)

    def source(self, states: Tensor) -> tuple[Tensor, ...]:
        """What it needs of the encoder's states (B, S, D), projected once a source: tensors (B, S, ...)."""
        return ()

    def prepare(self, query: Tensor) -> Tensor | None:
        """What it needs of the queries (B, T, Q), all at once: (B, T, ...)."""
        return None

    def ready(self, state: Tensor, mask: Tensor) -> Tensor:
        """The state for a source that may have grown to mask (B, S)."""
        raise NotImplementedError

    def look(self, state: Tensor, prepared: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """What is added to the keys, (B, H, S, A / H), and to the energies, (B, H, S) or None."""
        raise NotImplementedError

    def update(
        self, state: Tensor, weights: Tensor, prepared: Tensor | None, source: tuple[Tensor, ...]
    ) -> tuple[Tensor, Tensor | None]:
        """The next state, after weights (B, H, S), and what this step adds to the training loss, (B,) or None."""
        raise NotImplementedError


class PastAttention(ScoredAttention):
    """A score whose keys change from step to step with the past: e_ij = score(q_i, k_j + term_ij) + prior_ij.

    So it goes step by step, whatever the decoder does.
    """

    def __init__(self, score: Score, past: Past, key_value: KeyValue, options: Options) -> None:
        align = SoftAlignment(Normaliser(options.normaliser, options.temperature))
        super().__init__(score, align, key_value, heads=options.heads, dropout=options.dropout)
        self.past, self.normaliser = past, align.normaliser

    def make_memory(self, encoded: Encoded) -> Memory:
        """Keys, values and what the past needs of the source."""
        return super().make_memory(encoded)._replace(extra=self.past.source(encoded.states))

    def initial_state(self, memory: Memory) -> State:
        """That of the past."""
        return self.past.initial_state(memory.mask, self.heads)

    def attend(self, query: Tensor, memory: Memory, state: State, need_weights: bool) -> AttentionOutput:
        """Step by step; the context of all steps at once."""
        if not query.size(1):
            return super().attend(query, memory, state, need_weights)
        assert isinstance(state, Tensor)
        keys, allowed = self.by_head(memory.keys), memory.mask.unsqueeze(1)
        exact = torch.promote_types(keys.dtype, torch.float32)
        past = self.past.ready(state, memory.mask).to(exact)
        rows, losses = [], []
        with gathered() if query.size(1) > 1 else nullcontext():
            everything = self.past.prepare(query)
            steps = [None] * query.size(1) if everything is None else everything.to(exact).unbind(1)
            for asked, prepared in zip(torch.split(query, 1, 1), steps, strict=True):
                term, prior = self.past.look(past, prepared)
                energies = self.score(asked, keys + term).squeeze(2).to(exact)
                weights = self.normaliser(energies if prior is None else energies + prior, allowed)
                past, loss = self.past.update(past, weights, prepared, memory.extra)
                rows.append(weights)
                if loss is not None:
                    losses.append(loss)
        aux = {"loss": torch.stack(losses, 1)} if losses else {}
        return self.read(torch.stack(rows, 2).to(keys.dtype), memory, past, aux, need_weights)


def windows(row: Tensor, size: int, left: int) -> Tensor:
    """`size` neighbours of each position, from `left` places before it on: (..., S) to (..., S, size), zeros beyond."""
    if not row.size(-1):
        return row.unsqueeze(-1).expand(*row.shape, size)
    return F.pad(row, (left, size - 1 - left)).unfold(-1, size, 1)


def check_kernel(kernel: int) -> int:
    """An odd number, so that a filter has a middle. Raises ConfigError."""
    if whole("kernel", kernel) % 2 == 0:
        raise ConfigError(
            "kernel needs a middle", where="attention.kernel", expected="an odd number", found=str(kernel)
        )
    return kernel


class LocationFilters(Past):
    """term_ij = U f_ij with f_i = F * a_{i-1}: `filters` filters of odd length `kernel`, for each head its own.

    Chorowski et al. 2015, arXiv 1506.07503, eq. 8 and 9. cumulative: over the sum of all alignments so far instead.
    The alignment before the first step is all on the first position, as for the mechanisms that move: unlike an even
    one it doesn't depend on how much of a growing source is known, and it shows the filters where the source begins.
    """

    def __init__(self, size: int, heads: int, past: PastName, filters: int, kernel: int) -> None:
        super().__init__()
        self.cumulative = choice("past", past, ("previous", "cumulative")) == "cumulative"
        self.kernel, inner = check_kernel(kernel), whole("filters", filters)
        self.filters = uniform(heads, kernel, inner, fan=kernel)
        self.weight = uniform(heads, inner, size // heads, fan=inner)

    def ready(self, state: Tensor, mask: Tensor) -> Tensor:
        """On the first position, if nowhere yet."""
        return begun(state, mask)

    def look(self, state: Tensor, prepared: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """U f."""
        around = windows(state, self.kernel, self.kernel // 2)
        return torch.matmul(around @ self.filters.to(state.dtype), self.weight.to(state.dtype)), None

    def update(
        self, state: Tensor, weights: Tensor, prepared: Tensor | None, source: tuple[Tensor, ...]
    ) -> tuple[Tensor, Tensor | None]:
        """This alignment, or the sum with it."""
        return (state + weights if self.cumulative else weights), None


def location_aware(
    query_size: int,
    memory_size: int,
    *,
    past: PastName = "previous",
    filters: int = 10,
    kernel: int = 15,
    size: int | None = None,
    options: Options = DEFAULT,
) -> Attention:
    """Chorowski et al. 2015 (arXiv 1506.07503): additive, with a convolution of past alignments in it.

    past, filters, kernel: as in `LocationFilters`. The paper's kernel of 201 is for frames of speech; 15 sees seven
    words to each side. size: width A of the inner layer, by default the query's.
    """
    inner = query_size if size is None else whole("size", size)
    key_value = KeyValue(options.kv, memory_size, query_size)
    score = AdditiveScore(query_size, key_value.key_size, inner, heads=options.heads)
    return PastAttention(score, LocationFilters(inner, options.heads, past, filters, kernel), key_value, options)
