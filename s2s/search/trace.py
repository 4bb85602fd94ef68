"""Back-pointers of a search: written down each step, followed once at the end."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from s2s.search.options import SearchConfig
from s2s.search.penalty import length_penalty
from s2s.types import EOS, PAD, Hypothesis


class Choice(NamedTuple):
    """What one step puts into the K slots of each of the G groups. An empty slot has PAD and a total of -inf."""

    tokens: Tensor  # (G, K) int64
    parents: Tensor  # (G, K) int64, the slot that is continued
    log_probs: Tensor  # (G, K) float32, of this token alone
    totals: Tensor  # (G, K) float32, of the whole hypothesis; -inf = empty slot


class Trace:
    """Collects the choices of every step; nothing is copied when beams are reordered."""

    def __init__(self) -> None:
        self._tokens: list[Tensor] = []
        self._parents: list[Tensor] = []
        self._rows: list[Tensor] = []
        self._log_probs: list[Tensor] = []
        self._penalties: list[Tensor] = []
        self._weights: list[Tensor] = []

    def record(self, choice: Choice, rows: Tensor, weights: Tensor | None, penalties: Tensor | None) -> None:
        """One step. rows: (G, K) row of `weights` (N, S) that each slot was made by. penalties: (G, K), coverage."""
        self._tokens.append(choice.tokens)
        self._parents.append(choice.parents)
        self._rows.append(rows)
        self._log_probs.append(choice.log_probs)
        if weights is not None:
            self._weights.append(weights)
        if penalties is not None:
            self._penalties.append(penalties)

    def hypotheses(
        self,
        limits: Sequence[int],
        nbest: int,
        config: SearchConfig,
        cuts: Sequence[int] | None,
        flags: Callable[[int, tuple[int, ...]], set[str]],
    ) -> list[list[Hypothesis]]:
        """The n-best of each group: finished ones first, then by score, then the earlier one.

        Where fewer than `nbest` finished, those cut off at the group's limit follow, flagged "unfinished", those that
        meet their constraints before the others. cuts: source length of each group, to which its weights are cut.
        flags: more flags of a group's output with these ids.
        """
        tokens: list[list[list[int]]] = torch.stack(self._tokens).tolist()
        parents: list[list[list[int]]] = torch.stack(self._parents).tolist()
        rows: list[list[list[int]]] = torch.stack(self._rows).tolist()
        log_probs: list[list[list[float]]] = torch.stack(self._log_probs).tolist()
        penalties: list[list[list[float]]] = torch.stack(self._penalties).tolist() if self._penalties else []

        ends: list[list[tuple[int, int]]] = [[] for _ in limits]  # per group: (step, slot) of complete hypotheses
        for step, group, slot in (torch.stack(self._tokens) == EOS).nonzero().tolist():
            ends[group].append((step, slot))
        paths: list[list[int]] = []  # per hypothesis: the row of `weights` at each of its steps
        drafts: list[list[Hypothesis]] = []
        for group, limit in enumerate(limits):
            open_ends = self._open_ends(tokens, group, limit, not ends[group]) if len(ends[group]) < nbest else []
            found: list[tuple[tuple[int, float], Hypothesis, list[int]]] = []
            for last, slot in ends[group] + open_ends:
                ids, probs, path, at = [], [], [], slot
                for step in range(last, -1, -1):
                    ids.append(tokens[step][group][at])
                    probs.append(log_probs[step][group][at])
                    path.append(rows[step][group][at])
                    at = parents[step][group][at]
                log_prob = math.fsum(probs)
                score = log_prob / length_penalty(len(ids), config.length_penalty)
                if penalties:
                    score += penalties[last][group][slot]
                output = tuple(ids[::-1])
                marks = flags(group, output) | (set() if ids[0] == EOS else {"unfinished"})
                hypothesis = Hypothesis(output, score, log_prob, tuple(probs[::-1]), None, frozenset(marks))
                found.append((rank(hypothesis), hypothesis, path[::-1]))
            if not found:  # the model allowed no first token at all
                marks = flags(group, ()) | {"unfinished"}
                found.append(((0, 0.0), Hypothesis((), 0.0, 0.0, (), None, frozenset(marks)), []))
            found.sort(key=lambda item: item[0])
            drafts.append([hypothesis for _, hypothesis, _ in found[:nbest]])
            paths += [path for _, _, path in found[:nbest]]
        if not self._weights:
            return drafts
        return self._with_weights(drafts, paths, cuts)

    @staticmethod
    def _open_ends(tokens: list[list[list[int]]], group: int, limit: int, empty: bool) -> list[tuple[int, int]]:
        """Slots without EOS at the limit; where every hypothesis died without an output, those that lived last."""
        if len(tokens) >= limit:
            at_limit = [slot for slot, token in enumerate(tokens[limit - 1][group]) if token not in (PAD, EOS)]
            if at_limit:
                return [(limit - 1, slot) for slot in at_limit]
        for last in range(len(tokens) - 1, -1, -1) if empty else ():
            alive = [slot for slot, token in enumerate(tokens[last][group]) if token != PAD]
            if alive:
                return [(last, slot) for slot in alive]
        return []

    def _with_weights(
        self, drafts: list[list[Hypothesis]], paths: list[list[int]], cuts: Sequence[int] | None
    ) -> list[list[Hypothesis]]:
        """Gathers the attention rows of the given hypotheses only: one indexing a step, one transfer in all."""
        width = self._weights[0].shape[1]
        longest = max((len(path) for path in paths), default=0)
        block = self._weights[0].new_zeros(len(paths), longest, width, dtype=torch.float32)
        for step in range(longest):
            holders = [index for index, path in enumerate(paths) if len(path) > step]
            wanted = torch.tensor([paths[index][step] for index in holders], device=block.device)
            block[torch.tensor(holders, device=block.device), step] = self._weights[step][wanted].float()
        block = block.cpu()
        done: list[list[Hypothesis]] = []
        index = 0
        for group, hypotheses in enumerate(drafts):
            cut = width if cuts is None else cuts[group]
            done.append([])
            for hypothesis in hypotheses:
                weights = block[index, : len(hypothesis.tokens), :cut].clone()
                done[-1].append(replace(hypothesis, weights=weights))
                index += 1
        return done


def rank(hypothesis: Hypothesis) -> tuple[int, float]:
    """Sort key: finished, then cut off with all constraints met, then cut off without; the best score first."""
    unfinished = "unfinished" in hypothesis.flags
    return unfinished + (unfinished and "constraint_unmet" in hypothesis.flags), -hypothesis.score
