"""What a request may hold: types, and limits that keep any single request affordable."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from s2s.types import Result

MAX_BODY = 1_000_000  # bytes, unless told otherwise
MAX_CHARACTERS = 20_000  # of all texts of a request together
MAX_VALUES = 40_000  # of a body: separators, those inside of texts too
MAX_TEXTS = 64
MAX_MESSAGES = 1000
MAX_OUTPUTS = 16  # n, nbest, alternatives
MAX_BEAM = 16
MAX_TOKENS = 1024

Text = Annotated[str, Field(max_length=MAX_CHARACTERS)]
Name = Annotated[str, Field(min_length=1, max_length=200)]
Outputs = Annotated[int, Field(ge=1, le=MAX_OUTPUTS)]
Tokens = Annotated[int, Field(ge=1, le=MAX_TOKENS)]


class Strict(BaseModel):
    """Unknown keys, wrong types and numbers that aren't finite are refused, never put right or dropped."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class Turn(Strict):
    """One message of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: Text


class Options(Strict):
    """Fields of `s2s.search.SearchConfig`, which says what they mean; what isn't given is as the model was saved."""

    beam: Annotated[int, Field(ge=1, le=MAX_BEAM)] | None = None
    nbest: Outputs | None = None
    beam_groups: Annotated[int, Field(ge=1, le=MAX_BEAM)] | None = None
    diversity: Annotated[float, Field(ge=0, le=100)] | None = None
    length_penalty: Annotated[float, Field(ge=-10, le=10)] | None = None
    coverage_penalty: Annotated[float, Field(ge=0, le=100)] | None = None
    max_length: Tokens | None = None
    min_length: Annotated[int, Field(ge=0, le=MAX_TOKENS)] | None = None
    no_repeat_ngram: Annotated[int, Field(ge=0, le=100)] | None = None
    words: Annotated[int, Field(ge=0, le=MAX_TOKENS)] | None = None
    sample: bool | None = None
    top_k: Annotated[int, Field(ge=0, le=10_000_000)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    temperature: Annotated[float, Field(gt=0, le=1000)] | None = None
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None


class Generate(Strict):
    """A request for outputs: a text, several, or a conversation whose last message is the user's."""

    model: Name
    text: Text | None = None
    texts: Annotated[list[Text], Field(min_length=1, max_length=MAX_TEXTS)] | None = None
    messages: Annotated[list[Turn], Field(min_length=1, max_length=MAX_MESSAGES)] | None = None
    options: Options = Options()
    details: bool = False

    @model_validator(mode="after")
    def _one_kind_of_input(self) -> Generate:
        if sum(one is not None for one in (self.text, self.texts, self.messages)) != 1:
            raise ValueError("give one of `text`, `texts` and `messages`")
        check_characters(self.texts or [turn.content for turn in self.messages or []])
        if self.messages and self.messages[-1].role != "user":
            raise ValueError("the last of `messages` must be the user's")
        return self

    def conversations(self) -> list[list[dict[str, str]]]:
        """What is asked, one conversation for each output."""
        if self.messages is not None:
            return [[turn.model_dump() for turn in self.messages]]
        return [conversation(text) for text in (self.texts if self.texts is not None else [self.text or ""])]


class Other(BaseModel):
    """One of the n-best outputs."""

    output: str
    score: float | None


class Output(BaseModel):
    """What one input gave; see `s2s.types.Result`. The last three are there if details were asked for.

    alignment: a row of weights over the source pieces for each piece of the output, where the model has such.
    """

    output: str
    score: float | None
    nbest: list[Other]
    flags: list[str]
    error: str | None = None
    source_pieces: list[str] | None = None
    pieces: list[str] | None = None
    alignment: list[list[float]] | None = None


class Generated(BaseModel):
    """An output for each input, in their order."""

    model: str
    outputs: list[Output]


class ModelFacts(BaseModel):
    """What a model is. languages: codes of source and target."""

    name: str
    task: str
    languages: list[str]
    attention: str
    parameters: int


class ModelList(BaseModel):
    """All models."""

    models: list[ModelFacts]


def conversation(text: str) -> list[dict[str, str]]:
    """A text as a conversation."""
    return [{"role": "user", "content": text}]


def check_characters(texts: list[str]) -> None:
    """Raises ValueError where texts are too long together."""
    if sum(map(len, texts)) > MAX_CHARACTERS:
        raise ValueError(f"all texts together may have {MAX_CHARACTERS} characters")


def output(result: Result, *, details: bool) -> Output:
    """A result as it is answered."""
    made = Output(
        output=result.text,
        score=_finite(result.score),
        nbest=[Other(output=one.text, score=_finite(one.score)) for one in result.nbest],
        flags=list(result.flags),
        error=result.error,
    )
    if details:
        made.source_pieces, made.pieces = list(result.source_pieces), list(result.pieces)
        if result.alignment is not None:
            made.alignment = [[round(weight, 4) for weight in row] for row in result.alignment]
    return made


def _finite(score: float) -> float | None:
    return score if abs(score) < float("inf") else None
