"""The loop that beam search and sampling share: a grid of slots, rows for the live ones, back-pointers.

There are G groups (a source in beam search, a sample in sampling) of K slots. The step function runs only on the live
slots, so a finished hypothesis or group costs no more model time. Everything is row-wise or group-wise, so what a group
gives doesn't depend on its neighbours.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from s2s.errors import ConfigError, RunError, UsageError
from s2s.kernels import compiled, cpu
from s2s.search.constraints import Blocks, Constraints, blocks_for
from s2s.search.lexical import LexicalSearch, Phrases
from s2s.search.options import SearchConfig
from s2s.search.penalty import coverage_penalty, length_penalty, source_mask
from s2s.search.trace import Choice, Trace
from s2s.state import select, tensors
from s2s.types import BOS, EOS, PAD, UNK, Hypothesis, State, StepFunction

# A live hypothesis is given up only if it is worse by more than this, relative to 1 + |score|: float32 sums of a few
# hundred log-probabilities are wrong by less, and the final scores are summed anew in float64.
_SLACK = 1e-5

_BLOCK = 64  # columns that `_top` looks at together

_NEVER_IDS = 3  # most ids that are never generated: PAD, BOS, UNK


class Frontier(NamedTuple):
    """Where a search stands when the next tokens are chosen."""

    step: int  # 0-based position of the token to be chosen
    slots: Tensor  # (N,) index of each row into the flat (G, K) grid
    row_of: Tensor  # (G * K,) row of each live slot; 0 at the others
    live: Tensor  # (G, K) float32 totals, -inf = empty slot
    capacity: Tensor  # (G,) slots that may be filled: K less the finished hypotheses
    never: Tensor | None  # (V,) bool, ids that may not be chosen; None if they are -inf already
    lexical: LexicalSearch | None
    lifted: Tensor | None  # (G,) bool, groups whose constraints were lifted


class Chooser(Protocol):
    """Picks the next tokens of all groups."""

    def __call__(self, log_probs: Tensor, frontier: Frontier) -> Choice:
        """log_probs: (N, V), blocked candidates at -inf; not to be changed."""


def ranked(log_probs: Tensor, width: int, never: Tensor | None) -> tuple[Tensor, Tensor]:
    """The best `width` candidates of each row, the lower id first among equals.

    Returns values and ids, both (N, at most width + number of `never` ids); those of `never` have the value -inf.
    Raises RunError at NaN.
    """
    size = log_probs.shape[1]
    width = width if never is None else width + _NEVER_IDS
    if width < size and compiled(log_probs) and log_probs.is_contiguous():
        values, ids = cpu.largest(log_probs, width)
        refuse_nan(values[:, 0])
    else:
        values, ids = _ranked(log_probs, width)
    if never is not None:
        values = values.masked_fill(never[ids], -torch.inf)
    return values, ids


def _ranked(log_probs: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """The same by torch. `topk` leaves the order of equal values open, so rows with such are sorted again."""
    if width >= log_probs.shape[1]:
        values, ids = log_probs.sort(dim=1, descending=True, stable=True)
        doubtful = values[:, :1].isnan()
    else:
        values, ids = _top(log_probs, width + 1)
        doubtful = ((values[:, 1:] == values[:, :-1]) & (values[:, 1:] != -torch.inf)) | values[:, :1].isnan()
    if bool(doubtful.any()):
        refuse_nan(values[:, 0])
        rows = doubtful.any(1).nonzero().squeeze(1)
        again_values, again_ids = log_probs[rows].sort(dim=1, descending=True, stable=True)
        values[rows], ids[rows] = again_values[:, : width + 1], again_ids[:, : width + 1]
    return values[:, :width], ids[:, :width]


def _top(log_probs: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """`topk` of each row, in any order among equals; on a CPU twice as fast for a large vocabulary.

    The best `width` values stand in the `width` blocks of columns with the highest maxima, or in the columns left over.
    """
    rows, size = log_probs.shape
    blocks = size // _BLOCK
    if log_probs.device.type != "cpu" or blocks < 4 * width:
        return log_probs.topk(width)
    columns = torch.arange(_BLOCK)
    grid = log_probs[:, : blocks * _BLOCK].view(rows, blocks, _BLOCK)
    chosen = grid.amax(2).topk(width).indices[:, :, None]
    left_over = torch.arange(blocks * _BLOCK, size)
    ids = torch.cat([(chosen * _BLOCK + columns).flatten(1), left_over.expand(rows, -1)], dim=1)
    values, order = log_probs.gather(1, ids).topk(width)
    return values, ids.gather(1, order)


def refuse_nan(values: Tensor) -> None:
    """Raises RunError if a value is NaN."""
    if bool(values.isnan().any()):
        raise RunError("the model gave NaN as a log-probability", hint="check the model's weights: s2s verify MODEL")


@torch.no_grad()
def decode(
    step: StepFunction,
    start: State,
    choose: Chooser,
    *,
    config: SearchConfig,
    width: int,
    nbest: int,
    owners: Sequence[int],
    limits: Sequence[int],
    source_lengths: Sequence[int] | None,
    constraints: Sequence[Constraints | None] | None,
) -> list[list[Hypothesis]]:
    """The n-best hypotheses of each group.

    start: state of one row a source. width: K, slots a group. owners: (G,) source row of each group.
    limits: (G,) most tokens of each output. source_lengths, constraints: of each group, or None.
    Raises ConfigError if a coverage penalty is asked for and the step function gives no weights, RunError at NaN.
    """
    groups = len(owners)
    if not groups:
        return []
    if min(limits) < 1:
        raise UsageError("a search needs room for at least one token", expected="limits from 1", found=str(min(limits)))
    device = device_of(start)
    owner, limit = torch.tensor(owners, device=device), torch.tensor(limits, device=device)
    longest_penalty = torch.tensor([length_penalty(n, config.length_penalty) for n in limits], device=device)
    lengths = None if source_lengths is None else torch.tensor(source_lengths, device=device)
    plan = _Plan(config, constraints or [None] * groups, limits)

    live = torch.full((groups, width), -torch.inf, device=device)
    live[:, 0] = 0.0
    finished = torch.zeros(groups, dtype=torch.int64, device=device)
    best = torch.full((groups, nbest), -torch.inf, device=device)  # scores of the best finished hypotheses
    tokens = torch.full((groups, width), BOS, device=device)
    origins = owner[:, None].expand(groups, width)  # the row of the previous step that each slot continues
    state, previous = start, max(owners) + 1
    covered: Tensor | None = None  # (N, S)
    history = torch.empty((previous, 0), dtype=torch.int64, device=device)
    trace = Trace()

    for position in range(max(limits)):
        slots = (live.flatten() != -torch.inf).nonzero().squeeze(1)
        if not slots.numel():
            break
        group, fed, rows = slots // width, tokens.flatten()[slots], origins.flatten()[slots]
        if not (len(slots) == previous and (position == 0 or width == 1)):  # else every row stays where it is
            state = select(state, rows)
        previous = len(slots)
        output = step(fed, state, owner[group])
        state, log_probs = output.state, output.log_probs
        if position == 0:
            plan.begin(log_probs.shape[1], device)
        if plan.blocks is not None:
            history = history[rows] if position == 0 else torch.cat([history[rows], fed[:, None]], dim=1)
            log_probs = plan.blocks(log_probs, history, group, finished > 0)

        row_of = torch.zeros(groups * width, dtype=torch.int64, device=device)
        row_of[slots] = torch.arange(previous, device=device)
        choice = choose(log_probs, plan.frontier(position, slots, row_of, live, width - finished))
        tokens = choice.tokens
        origins = row_of.view(groups, width).gather(1, choice.parents)

        scores = choice.totals / length_penalty(position + 1, config.length_penalty)
        penalties: Tensor | None = None
        if config.coverage_penalty:
            if output.weights is None:
                raise no_weights(config)
            covered = output.weights if covered is None else covered[rows] + output.weights
            mask = None if lengths is None else source_mask(lengths[group], covered.shape[1])
            penalties = coverage_penalty(covered.float(), config.coverage_penalty, mask)[origins]
            scores = scores + penalties
        trace.record(choice, origins, output.weights, penalties)

        ended = (tokens == EOS) & (choice.totals != -torch.inf)
        finished = finished + ended.sum(1)
        live = choice.totals.masked_fill(ended | (position + 1 >= limit)[:, None], -torch.inf)
        if config.early_finish:
            best = torch.cat([best, scores.masked_fill(~ended, -torch.inf)], dim=1).topk(nbest).values
            bound = live.amax(1) / (
                longest_penalty if config.length_penalty > 0 else length_penalty(position + 2, config.length_penalty)
            )
            # What a live hypothesis can still reach: its log-probability only falls, so its score is highest at the
            # length with the kindest penalty, the limit (alpha > 0) or the next token (alpha <= 0), fully covered.
            live = live.masked_fill((best[:, -1] > bound + _SLACK * (1 + bound.abs()))[:, None], -torch.inf)
    return trace.hypotheses(limits, nbest, config, source_lengths, plan.flags())


def no_weights(config: SearchConfig) -> ConfigError:
    """The error for a coverage penalty without attention weights."""
    what = f"search.coverage_penalty={config.coverage_penalty}: this model gives no attention weights"
    return ConfigError(what, hint="set search.coverage_penalty=0")


def device_of(state: State) -> torch.device:
    """Where the first tensor of a state lies; the CPU if it has none."""
    return next((one.device for one in tensors(state)), torch.device("cpu"))


class _Plan:
    """The constraints of all groups, ready for use once the vocabulary's size is known."""

    def __init__(self, config: SearchConfig, constraints: Sequence[Constraints | None], limits: Sequence[int]) -> None:
        self._config = config
        self._constraints = list(constraints)
        self._limits = limits
        self._refused: set[int] = set()
        self._never: Tensor | None = None
        self.blocks: Blocks | None = None
        self.lexical: LexicalSearch | None = None

    def begin(self, vocabulary_size: int, device: torch.device) -> None:
        """Drops the constraints of groups where they can't be met, and builds blocks from the rest."""
        for group, one in enumerate(self._constraints):
            if one is not None and one.problems(self._limits[group], vocabulary_size):
                self._constraints[group] = None
                self._refused.add(group)
        ids = torch.tensor([PAD, BOS] if self._config.allow_unk else [PAD, BOS, UNK], device=device)
        self.blocks = blocks_for(self._config, self._constraints, ids, len(self._constraints))
        if self.blocks is None:
            self._never = torch.zeros(vocabulary_size, dtype=torch.bool, device=device).index_fill(0, ids, True)
        phrases = {
            group: Phrases(one.usable_phrases(vocabulary_size))
            for group, one in enumerate(self._constraints)
            if one is not None and one.phrases
        }
        if phrases:
            self.lexical = LexicalSearch(phrases)

    def frontier(self, step: int, slots: Tensor, row_of: Tensor, live: Tensor, capacity: Tensor) -> Frontier:
        """What a chooser needs."""
        lifted = None if self.blocks is None else self.blocks.lifted
        return Frontier(step, slots, row_of, live, capacity, self._never, self.lexical, lifted)

    def flags(self) -> Callable[[int, tuple[int, ...]], set[str]]:
        """Gives the flags of an output (its group and ids): "fallback", "constraint_unmet"."""
        lifted = set() if self.blocks is None else set(self.blocks.lifted.nonzero().flatten().tolist())

        def of(group: int, ids: tuple[int, ...]) -> set[str]:
            found = {"fallback"} if group in lifted else set[str]()
            constraints = self._constraints[group]
            if group in self._refused or (constraints is not None and not constraints.met(ids)):
                found.add("constraint_unmet")
            return found

        return of
