"""An encoder, an attention, a decoder and an output layer, joined."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from s2s.attention.base import Attention
from s2s.attention.reweight import Reweighted
from s2s.attention.sharing import grid_of, shared
from s2s.dropout import Dropout
from s2s.errors import ConfigError, UsageError
from s2s.model.base import Decoder, Encoder, SelfAttentionBuilder
from s2s.model.copying import CopyBuilder, PointerGenerator, none
from s2s.model.embedding import Embedding
from s2s.model.features import SourceFeatures
from s2s.model.hierarchy import SentenceLevel
from s2s.model.selective import SelectiveGate
from s2s.recording import MULTIPLE
from s2s.state import select, tensors
from s2s.types import PAD, UNK, Batch, DecoderOutput, Encoded, Feature, State, StepFunction, StepOutput

if TYPE_CHECKING:
    from s2s.model.recorded import RecordedSteps

Tie = Literal["none", "target", "all"]


class Copies(NamedTuple):
    """What a model may copy from each source of a batch."""

    ids: Tensor  # (B, S) int64, see `s2s.types.Batch.copies`
    extra: int  # how many ids from V on there are


class Among(NamedTuple):
    """The U tokens that a batch is searched among."""

    ids: Tensor  # (U,) int64
    output: Callable[[Tensor], Tensor]  # features to their logits
    allowed: Tensor  # (B, U) bool


class Seq2Seq(nn.Module):
    """The whole model. The output layer shares its weight with the target embedding unless `tie` is none."""

    def __init__(
        self,
        source_embedding: Embedding,
        encoder: Encoder,
        decoder: Decoder,
        output: nn.Linear,
        *,
        dropout: float,
        copy: PointerGenerator | None = None,
        selective: SelectiveGate | None = None,
        features: SourceFeatures | None = None,
        sentences: SentenceLevel | None = None,
    ) -> None:
        super().__init__()
        self.source_embedding, self.encoder, self.decoder, self.output = source_embedding, encoder, decoder, output
        self.dropout = Dropout(dropout)
        self.copy, self.selective, self.features, self.sentences = copy, selective, features, sentences

    def encode(self, source: Tensor, lengths: Tensor, words: Tensor | None = None) -> Encoded:
        """Source ids (B, S) with lengths (B,) to what attention reads; words (B,): see `SourceFeatures`."""
        embedded = self.source_embedding(source)
        if self.features is not None:
            embedded = embedded + self.features(source, words)
        encoded: Encoded = self.encoder(self.dropout(embedded), lengths)
        if self.selective is not None:
            encoded = self.selective(encoded)
        return encoded if self.sentences is None else self.sentences(encoded, source)

    def start(self, source: Tensor, lengths: Tensor, words: Tensor | None = None) -> tuple[Any, State]:
        """Encode a source and make the memory and the decoder's first state."""
        encoded = self.encode(source, lengths, words)
        memory = self.decoder.remember(encoded)
        return memory, self.decoder.initial_state(encoded, memory)

    def forward(self, batch: Batch, *, need_weights: bool = False) -> DecoderOutput:
        """Teacher forcing: features (B, T, O) for every target position of the batch; weights where it copies."""
        words = None if self.features is None else self.features.words(batch)
        memory, state = self.start(batch.source, batch.source_lengths, words)
        needed = need_weights or self.copy is not None
        output: DecoderOutput = self.decoder(batch.target_in, memory, state, need_weights=needed)
        return output._replace(features=self.dropout(output.features))

    def log_probs(self, features: Tensor, among: Among | None = None) -> Tensor:
        """Features (..., O) to log-probabilities (..., V) of generating, in float32; (N, U) among some tokens alone."""
        if among is None:
            logits = self.output(features).float()
        else:
            logits = among.output(features).float().masked_fill_(~among.allowed, -torch.inf)
        if torch.is_grad_enabled():
            return F.log_softmax(logits, -1)
        return torch.log_softmax(logits, -1, out=logits)

    def step_log_probs(self, output: DecoderOutput, copies: Copies | None, among: Among | None = None) -> Tensor:
        """Log-probabilities (N, V + extra) of the next token, from the output of one step (N, 1, ...)."""
        output = at_positions(output, lambda value: value.squeeze(1))
        generated = self.log_probs(output.features, among)
        if self.copy is None:
            return generated
        if copies is None:
            raise UsageError("this model copies, and isn't told what", where="copies", expected="ids to copy")
        return self.copy.log_probs(generated, output, copies.ids, copies.extra)

    def step(
        self,
        tokens: Tensor,
        memory: Any,
        state: State,
        *,
        need_weights: bool,
        copies: Copies | None = None,
        among: Among | None = None,
    ) -> StepOutput:
        """One step of a search on N rows, each with its own memory and state.

        tokens: (N,), ids of the vocabulary, or from V on of what was copied, which is read as UNK.
        """
        if self.copy is not None:
            tokens = tokens.masked_fill(tokens >= self.output.out_features, UNK)
        needed = need_weights or self.copy is not None
        output: DecoderOutput = self.decoder(tokens.unsqueeze(1), memory, state, need_weights=needed)
        weights = None if output.weights is None or not need_weights else output.weights.squeeze(1)
        return StepOutput(self.step_log_probs(output, copies, among), output.state, weights)


def at_positions(output: DecoderOutput, pick: Callable[[Tensor], Tensor]) -> DecoderOutput:
    """The output at some of its positions: pick takes them from values (B, T, ...). State and aux stay as they are."""
    weights = None if output.weights is None else pick(output.weights)
    return output._replace(features=pick(output.features), context=pick(output.context), weights=weights)


def real_positions(values: Tensor, lengths: Tensor) -> Tensor:
    """values (B, T, ...) at the positions before each row's length, as (N, ...): padding is never computed with."""
    mask = torch.arange(values.size(1), device=values.device) < lengths.unsqueeze(1)
    places = mask.flatten().nonzero().squeeze(1)
    return values.flatten(0, 1).index_select(0, places)  # whose gradient is made faster than that of a mask


def step_function(
    model: Seq2Seq, memory: Any, *, need_weights: bool = True, copies: Copies | None = None, among: Among | None = None
) -> StepFunction:
    """What a search sees of a model: one token a row in, log-probabilities out.

    Rows of one source share its memory (`s2s.attention.sharing`); where an attention has a state, it is indexed by row.
    Either is done again only when the rows change, and no source is ever projected again. copies: of a model that
    copies; ids that can only be copied are read as UNK. among: then tokens are places in its ids, both those that are
    read and those that get log-probabilities.
    """
    known: dict[str, Tensor] = {}
    expanded, copied, own = memory, copies, among

    def step(tokens: Tensor, state: State, rows: Tensor) -> StepOutput:
        nonlocal expanded, copied, own
        if "rows" not in known or not torch.equal(known["rows"], rows):
            known["rows"] = rows.clone()  # a search may change its own in place
            expanded = _for_rows(model.decoder, memory, state, rows)
            copied = None if copies is None else copies._replace(ids=copies.ids[rows])
            own = None if among is None else among._replace(allowed=among.allowed[rows])
        tokens = tokens if among is None else among.ids[tokens]
        return model.step(tokens, expanded, state, need_weights=need_weights, copies=copied, among=own)

    return step


def _for_rows(decoder: Decoder, memory: Any, state: State, rows: Tensor) -> Any:
    """The memory that rows of a search read: shared by attentions without a state, else that of each row."""
    grid, parts = grid_of(rows), list[Any]()
    for part in decoder.attended(memory, state):
        own: Any = select(part.memory, rows) if grid is None or tensors(part.state) else shared(part.memory, grid)
        parts.append(part._replace(memory=own))
    return decoder.with_attended(memory, state, parts)[0]


def start_search(
    model: Seq2Seq,
    source: Tensor,
    lengths: Tensor,
    *,
    need_weights: bool = True,
    copies: Copies | None = None,
    words: int = 0,
    shortlist: tuple[Tensor, Tensor] | None = None,
    steps: RecordedSteps | None = None,
) -> tuple[StepFunction, State]:
    """A step function and its first state (one row a source) for source ids (B, S). Call under `torch.no_grad`.

    words: that outputs shall have; 0: any. shortlist: ids (U,) of the tokens that are searched among, and whose they
    are, (B, U) bool. steps: of this model, replayed where no shortlist is given. Raises UsageError where the model
    can't be asked for a number.
    """
    if words and (model.features is None or model.features.length is None):
        raise UsageError(
            "the model can't be asked for a length",
            where="search.words",
            expected="0, or a model trained with model.features=[length]",
            found=str(words),
            hint="--min-length and --max-length work with every model",
        )
    replayed = None if steps is None or steps.off or shortlist is not None else steps
    if replayed is not None:
        more = (0, -source.size(1) % MULTIPLE)
        source = F.pad(source, more, value=PAD)
        copies = None if copies is None else copies._replace(ids=F.pad(copies.ids, more, value=PAD))
    memory, state = model.start(source, lengths, torch.full_like(lengths, words))
    among = None
    if shortlist is not None:
        ids, allowed = (one.to(source.device) for one in shortlist)
        among = Among(ids, _rows_of(model.output, ids), allowed)
    if replayed is not None:
        step = replayed.step_function(memory, need_weights=need_weights, copies=copies)
    else:
        step = step_function(model, memory, need_weights=need_weights, copies=copies, among=among)
    return step, select(state, torch.arange(source.size(0), device=source.device))


def _rows_of(output: nn.Module, ids: Tensor) -> Callable[[Tensor], Tensor]:
    """An output layer to some of its outputs alone."""
    if isinstance(output, nn.Linear):
        weight, bias = output.weight[ids], output.bias[ids]
        return lambda features: F.linear(features, weight, bias)
    narrow: Any = output  # a `s2s.model.fixed.FixedLinear`
    return cast(Callable[[Tensor], Tensor], narrow.rows(ids))


def seq2seq(
    *,
    source_size: int,
    target_size: int,
    embedding: int,
    dropout: float,
    tie: Tie,
    encoder: Callable[..., Encoder],
    decoder: Callable[..., Decoder],
    attention: Callable[[int, int], Attention],
    self_attention: SelfAttentionBuilder,
    copy: CopyBuilder = none,
    selective: bool = False,
    features: Sequence[Feature] = (),
    hierarchical: bool = False,
) -> Seq2Seq:
    """Build a model from partly bound builders, handing each the sizes known only now. Raises ConfigError.

    source_size, target_size: of the vocabularies. embedding: width of both embeddings. dropout: on embeddings and
    features. tie: "target" shares the target embedding with the output layer, "all" the source embedding too.
    selective: a gate lets through what attention shall see, see `SelectiveGate`. features: see `SourceFeatures`.
    hierarchical: sentences weigh too, see `SentenceLevel`.
    """
    if tie == "all" and source_size != target_size:
        raise ConfigError(
            "model.tie=all needs one vocabulary for both sides",
            expected="equal sizes",
            found=f"{source_size} and {target_size}",
            hint="Set text.joint=true or model.tie=target",
        )
    target_embedding = Embedding(target_size, embedding)
    source_embedding = target_embedding if tie == "all" else Embedding(source_size, embedding)
    built_encoder = encoder(embedding, self_attention)

    def attend(query_size: int) -> Attention:
        made = attention(query_size, built_encoder.width)
        return Reweighted(made) if hierarchical else made

    built = decoder(
        target_embedding,
        attend,
        self_attention,
        built_encoder.width,
        None if tie == "none" else embedding,
        dropout,
    )
    output = nn.Linear(built.output_size, target_size)
    nn.init.zeros_(output.bias)
    if tie == "none":
        nn.init.normal_(output.weight, std=built.output_size**-0.5)
    else:
        output.weight = target_embedding.weight
    pointer = copy(built.output_size, built.context_size)
    gate = SelectiveGate(built_encoder.width) if selective else None
    added = SourceFeatures(features, source_size, target_size, embedding) if features else None
    return Seq2Seq(
        source_embedding,
        built_encoder,
        built,
        output,
        dropout=dropout,
        copy=pointer,
        selective=gate,
        features=added,
        sentences=SentenceLevel(source_size, built_encoder.width) if hierarchical else None,
    )
