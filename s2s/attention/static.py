"""Static attention: the source is read once, before the first step, and every step gets the same context."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from s2s.attention.base import Attention, ScoredAttention, scored
from s2s.attention.keyvalue import KeyValue
from s2s.attention.normalise import Normaliser
from s2s.attention.options import LARGEST, Options, number, probability, whole
from s2s.attention.score import ScoreName, make_score, uniform
from s2s.dropout import Dropout
from s2s.errors import ConfigError, UsageError
from s2s.types import AttentionOutput, Encoded, Memory, State

DEFAULT = Options()


class StaticAttention(Attention):
    """What is read is kept in memory.extra: the context (B, V) and, if there are any, weights of R readings (B, R, S).

    A mechanism defines `source`, what a longer source is read from, and `read`.
    """

    def source(self, encoded: Encoded) -> Memory:
        """Keys and values, whose parts can be joined along S."""
        raise NotImplementedError

    def read(self, memory: Memory, final: Tensor) -> Memory:
        """The same with `extra`. final: (B, F), the encoder's summary."""
        raise NotImplementedError

    def make_memory(self, encoded: Encoded) -> Memory:
        """The source, read."""
        return self.read(self.source(encoded), encoded.final)

    def extend(self, memory: Memory, more: Encoded) -> Memory:
        """The longer source is read anew, with the summary that comes with `more`."""
        new = self.remember(more)
        keys, values = (torch.cat(pair, -2) for pair in zip(memory[:2], new[:2], strict=True))
        return self.read(Memory(keys, values, torch.cat([memory.mask, new.mask], 1)), more.final)

    def attend(self, query: Tensor, memory: Memory, state: State, need_weights: bool) -> AttentionOutput:
        """Context (B, T, V) and weights (B, T, S), their mean over the readings; the same for all T.

        aux["heads"]: (B, T, R, S), where there are several readings and weights are needed.
        """
        steps = query.size(1)
        context, *kept = (part.unsqueeze(1).expand(-1, steps, *part.shape[1:]) for part in memory.extra)
        if not kept or not need_weights:
            return AttentionOutput(context, None, state, {})
        aux = {"heads": kept[0]} if kept[0].size(2) > 1 else {}
        return AttentionOutput(context, kept[0].mean(2), state, aux)


class WordAttention(StaticAttention):
    """a_r = softmax_j(u_r . tanh(W h_j + b)) for R hops; their contexts are joined.

    One hop: Yang et al. 2016 (HAN, NAACL N16-1174, section 2.2). More: Lin et al. 2017, arXiv 1703.03130, section 2; in
    training their |A A^T - I|_F^2, times `penalty`, is aux["loss"] at every target position.
    """

    def __init__(
        self, key_value: KeyValue, size: int, normaliser: Normaliser, *, hops: int, penalty: float, dropout: float
    ) -> None:
        super().__init__()
        self.key_value, self.normaliser, self.penalty = key_value, normaliser, penalty
        self.inner = nn.Linear(key_value.key_size, size)
        self.vectors = uniform(hops, size, fan=size)
        self.dropout = Dropout(dropout)
        self.memory_size = hops * key_value.value_size

    def source(self, encoded: Encoded) -> Memory:
        """Energies (B, S, R) as keys."""
        material, values = self.key_value(encoded.states)
        energies = nn.functional.linear(torch.tanh(self.inner(material)), self.vectors)
        return Memory(energies, values, encoded.mask)

    def read(self, memory: Memory, final: Tensor) -> Memory:
        """Needs no summary."""
        weights = self.normaliser(memory.keys.transpose(1, 2), memory.mask.unsqueeze(1))
        contexts = torch.bmm(self.dropout(weights).to(memory.values.dtype), memory.values)
        return memory._replace(extra=(contexts.flatten(1), weights))

    def attend(self, query: Tensor, memory: Memory, state: State, need_weights: bool) -> AttentionOutput:
        """As for all, and the penalty."""
        output = super().attend(query, memory, state, need_weights)
        if not self.training or not self.penalty:
            return output
        weights = memory.extra[1].to(torch.promote_types(memory.extra[1].dtype, torch.float32))
        products = weights @ weights.transpose(1, 2)
        apart = products - torch.eye(products.size(1), dtype=products.dtype, device=products.device)
        loss = self.penalty * apart.square().sum((1, 2))
        return output._replace(aux={**output.aux, "loss": loss.unsqueeze(1).expand(-1, query.size(1))})


class FeatureAttention(nn.Module):
    """A weight for each feature of each position: a = exp(tanh(W h + b)), divided by its sum over positions.

    As logits are within (-1, 1), no weight is above e^2 / (e^2 + S - 1): it can stress, but never select.
    """

    def __init__(self, size: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.inner = nn.Linear(size, size)
        self.dropout = Dropout(dropout)

    def weights(self, states: Tensor, mask: Tensor) -> Tensor:
        """States (B, S, D), mask (B, S) to weights (B, S, D), in float32 at least.

        They sum to a little less than one for each feature: 1e-7 is added to what they are divided by.
        """
        logits = torch.tanh(self.inner(states))
        powers = torch.exp(logits.to(torch.promote_types(logits.dtype, torch.float32)))
        powers = powers.masked_fill(~mask.unsqueeze(-1), 0.0)
        return powers / (powers.sum(1, keepdim=True) + 1e-7)

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """States (B, S, D), mask (B, S) to their weighted sum (B, D)."""
        weights: Tensor = self.dropout(self.weights(states, mask))
        return (weights * states).sum(1).to(states.dtype)


class FeatureStaticAttention(StaticAttention):
    """`FeatureAttention` as a mechanism. Its weights are for features, so there is no alignment to return."""

    sums_to_one = has_weights = False

    def __init__(self, layer: FeatureAttention, memory_size: int) -> None:
        super().__init__()
        self.layer, self.memory_size = layer, memory_size

    def source(self, encoded: Encoded) -> Memory:
        """The states as values; keys (B, S, 0)."""
        return Memory(encoded.states[..., :0], encoded.states, encoded.mask)

    def read(self, memory: Memory, final: Tensor) -> Memory:
        """Needs no summary."""
        return memory._replace(extra=(self.layer(memory.values, memory.mask),))


class Reader(StaticAttention):
    """g = tanh(W_rg r + W_ug u), r what the attention `inner` finds for the query u: the encoder's summary."""

    def __init__(self, inner: ScoredAttention, memory_size: int) -> None:
        super().__init__()
        self.inner, self.memory_size = inner, memory_size
        self.sums_to_one = inner.sums_to_one
        self.found = nn.Linear(inner.memory_size, memory_size, bias=False)
        self.asked = nn.Linear(memory_size, memory_size, bias=False)

    def source(self, encoded: Encoded) -> Memory:
        """That of the inner attention. Raises UsageError for a summary of another width than the states."""
        if encoded.final.size(-1) != self.memory_size:
            raise UsageError(
                "attention=reader asks with the encoder's summary",
                where="attention",
                expected=f"Encoded.final as wide as the states ({self.memory_size})",
                found=str(encoded.final.size(-1)),
            )
        return self.inner.make_memory(encoded)

    def read(self, memory: Memory, final: Tensor) -> Memory:
        """One question, u = final (B, F)."""
        final = final.to(memory.values.dtype)
        output = self.inner.attend(final.unsqueeze(1), memory, (), True)
        weights = output.aux["heads"].squeeze(1) if "heads" in output.aux else output.weights
        assert weights is not None
        joined = torch.tanh(self.found(output.context.squeeze(1)) + self.asked(final))
        # without a source there is nothing to say, whatever the summary holds
        joined = joined.masked_fill(~memory.mask.any(1, keepdim=True), 0.0)
        return memory._replace(extra=(joined, weights))


def static(
    query_size: int,
    memory_size: int,
    *,
    size: int | None = None,
    hops: int = 1,
    penalty: float = 0.0,
    options: Options = DEFAULT,
) -> Attention:
    """Yang et al. 2016 (NAACL N16-1174, section 2.2); with several hops Lin et al. 2017 (arXiv 1703.03130).

    size: width A of the inner layer, by default the states'. hops: readings of the source; the context is as wide as
    all of theirs together. penalty: weight of Lin et al.'s |A A^T - I|_F^2 in the loss of each target token. Raises
    ConfigError for several heads: hops are what heads are elsewhere.
    """
    if options.heads > 1:
        raise ConfigError(
            "attention=static has hops instead of heads",
            where="attention.heads",
            expected="1",
            found=str(options.heads),
            hint=f"Take attention.hops={options.heads}",
        )
    key_value = KeyValue(options.kv, memory_size)
    return WordAttention(
        key_value,
        memory_size if size is None else whole("size", size),
        Normaliser(options.normaliser, options.temperature),
        hops=whole("hops", hops),
        penalty=number("penalty", penalty, 0.0, LARGEST),
        dropout=options.dropout,
    )


def static_feature(query_size: int, memory_size: int, *, dropout: float = 0.0) -> Attention:
    """A widespread Keras layer that cites Yang et al. 2016 but weighs features instead of words: `FeatureAttention`.

    dropout: probability of dropping a weight in training.
    """
    layer = FeatureAttention(memory_size, dropout=probability("dropout", dropout))
    return FeatureStaticAttention(layer, memory_size)


def reader(query_size: int, memory_size: int, *, score: ScoreName = "concat", options: Options = DEFAULT) -> Attention:
    """Hermann et al. 2015 (arXiv 1506.03340, section 3.2, the attentive reader): one question for the whole decode.

    The question is the encoder's summary of the source, which must be as wide as its states.
    """
    inner = scored(memory_size, memory_size, options, lambda q, k: make_score(score, q, k, heads=options.heads))
    return Reader(inner, memory_size)
