"""Requests as they come: OpenAI's fields, vLLM's, and `strop`."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

MOST_MESSAGES = 4096
MOST_STOPS = 16
MOST_TOP = 20
"""Likeliest tokens that are listed at a place, as at OpenAI."""

Id = Annotated[int, Field(ge=0, lt=2**31)]
Ids = Annotated[list[Id], Field(min_length=1)]


class Body(BaseModel):
    """A field that is not known is refused; one that is null counts as left out."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=(), allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        return {name: value for name, value in values.items() if value is not None}


class Refine(Body):
    """Answer, look at the answer, answer again: `rounds` times."""

    rounds: int = Field(1, ge=1, le=8)
    instruction: str | None = Field(None, min_length=1, max_length=10_000)


class Compute(Body):
    """Work that is spent on one answer: one of `best_of` (the best of so many by the server's
    `reward` of that name), `maj_at` (the answer that most of so many give), `refine`."""

    best_of: int | None = Field(None, ge=2, le=256)
    reward: str | None = None
    maj_at: int | None = Field(None, ge=2, le=256)
    refine: Refine | None = None

    @field_validator("refine", mode="before")
    @classmethod
    def _rounds_alone(cls, value: Any) -> Any:
        """`refine: 2` is two rounds, `refine: true` one."""
        if value is True:
            return {}
        return {"rounds": value} if isinstance(value, int) else value

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        given = [n for n in ("best_of", "maj_at", "refine") if getattr(self, n) is not None]
        if len(given) != 1:
            raise ValueError("give one of best_of, maj_at and refine")
        if (self.reward is not None) != (self.best_of is not None):
            raise ValueError(
                "`best_of` goes with `reward`: the name of one of the server's rewards"
            )
        return self


class StreamOptions(Body):
    include_usage: bool = False


class JsonSchema(Body):
    model_config = ConfigDict(extra="forbid", protected_namespaces=(), populate_by_name=True)

    name: str = "answer"
    description: str | None = None
    schema_: dict[str, Any] | bool = Field(True, alias="schema")
    strict: bool = True


class ResponseFormat(Body):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None

    @model_validator(mode="after")
    def _schema_is_read(self) -> Self:
        if (self.type == "json_schema") != (self.json_schema is not None):
            raise ValueError("`json_schema` goes with type: json_schema, and that needs it")
        return self


class Drawing(Body):
    """What chat and plain completions have in common."""

    model: str | None = None
    n: int = Field(1, ge=1)
    seed: int | None = None
    temperature: float = Field(1.0, ge=0, le=100)
    top_p: float = Field(1.0, gt=0, le=1)
    top_k: int = Field(0, ge=-1)
    min_p: float = Field(0.0, ge=0, lt=1)
    stop: Annotated[list[Annotated[str, Field(min_length=1)]], Field(max_length=MOST_STOPS)] = []
    frequency_penalty: float = Field(0.0, ge=-2, le=2)
    presence_penalty: float = Field(0.0, ge=-2, le=2)
    repetition_penalty: float = Field(1.0, gt=0, le=10)
    logit_bias: dict[Annotated[str, Field(pattern=r"^(0|[1-9][0-9]{0,8})$")],
                     Annotated[float, Field(ge=-100, le=100)]] = {}  # fmt: skip
    stream: bool = False
    stream_options: StreamOptions | None = None
    response_format: ResponseFormat | None = None
    return_token_ids: bool = False
    user: str | None = Field(None, max_length=1000)
    metadata: dict[str, str] | None = Field(None, max_length=16)
    strop: Compute | None = None

    @field_validator("stop", mode="before")
    @classmethod
    def _one_stop(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @model_validator(mode="after")
    def _options_are_read(self) -> Self:
        if self.stream_options is not None and not self.stream:
            raise ValueError("`stream_options` is only read with `stream: true`")
        if self.strop is not None and self.n > 1:
            raise ValueError("`strop` gives one answer: leave `n` out")
        if self.strop is not None and self.strop.refine is None and self.temperature == 0:
            raise ValueError("at temperature 0 all candidates are one: raise `temperature`")
        return self


class Chat(Drawing):
    """`POST /v1/chat/completions`."""

    messages: list[dict[str, Any]] = Field(min_length=1, max_length=MOST_MESSAGES)
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    logprobs: bool = False
    top_logprobs: int = Field(0, ge=0, le=MOST_TOP)
    tools: list[dict[str, Any]] | None = Field(None, min_length=1, max_length=128)
    tool_choice: Literal["auto", "none", "required"] | dict[str, Any] = "auto"
    parallel_tool_calls: bool = True

    @field_validator("messages")
    @classmethod
    def _are_messages(cls, given: list[dict[str, Any]]) -> list[dict[str, Any]]:
        for place, message in enumerate(given):
            if not isinstance(message.get("role"), str):
                raise ValueError(f"message {place} has no `role`")
            content = message.get("content")
            calls = message.get("tool_calls")
            if not (isinstance(content, str | list) or (content is None and calls)):
                raise ValueError(f"message {place} has no `content` of text")
            if calls is not None and not _are_calls(calls):
                raise ValueError(f"message {place}: `tool_calls` is a list of calls, each with a "
                                 "`function` of `name` and `arguments`")  # fmt: skip
            if isinstance(content, list):
                message["content"] = _text_of(content, place)
        return given

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.top_logprobs and not self.logprobs:
            raise ValueError("`top_logprobs` is only read with `logprobs: true`")
        if self.max_tokens is not None and self.max_completion_tokens is not None:
            raise ValueError("give `max_tokens` or `max_completion_tokens`")
        if self.tools is None and self.tool_choice not in ("auto", "none"):
            raise ValueError("`tool_choice` is only read with `tools`")
        if not self.parallel_tool_calls:
            raise ValueError("how many tools the model calls is its own matter: leave "
                             "`parallel_tool_calls` out")  # fmt: skip
        if self.tools is not None and self.response_format not in (None, TEXT):
            raise ValueError("give `tools` or `response_format`: a call is not of that format")
        return self

    @property
    def longest(self) -> int | None:
        return self.max_tokens or self.max_completion_tokens


def _text_of(parts: list[Any], place: int) -> str:
    """The text of content parts; other kinds of part are refused."""
    texts = []
    for part in parts:
        if not isinstance(part, dict) or part.get("type") != "text":
            kind = part.get("type") if isinstance(part, dict) else type(part).__name__
            raise ValueError(f"message {place} holds a part of type {kind!r}: only text is read")
        if not isinstance(part.get("text"), str):
            raise ValueError(f"message {place} holds a part of text without `text`")
        texts.append(part["text"])
    return "".join(texts)


def _are_calls(calls: Any) -> bool:
    """Whether these are calls of functions; the template says what it makes of their arguments."""
    if not isinstance(calls, list):
        return False
    functions = [call.get("function") if isinstance(call, dict) else None for call in calls]
    return all(
        isinstance(one, dict)
        and isinstance(one.get("name"), str)
        and isinstance(one.get("arguments"), str | dict)
        for one in functions
    )


TEXT = ResponseFormat(type="text")


class Completions(Drawing):
    """`POST /v1/completions`: one prompt or several, as text or ids."""

    prompt: (
        str
        | Ids
        | Annotated[list[str], Field(min_length=1)]
        | Annotated[list[Ids], Field(min_length=1)]
    )
    max_tokens: int = Field(16, ge=1)
    logprobs: int | None = Field(None, ge=0, le=MOST_TOP)
    echo: Literal[False] = False
    best_of: Literal[1] = 1

    @property
    def longest(self) -> int:
        return self.max_tokens

    @property
    def prompts(self) -> list[str | tuple[int, ...]]:
        given = self.prompt
        if isinstance(given, str):
            return [given]
        if isinstance(given[0], int):
            return [tuple(one for one in given if isinstance(one, int))]
        return [one if isinstance(one, str) else tuple(one) for one in given
                ]  # fmt: skip


class ScoreSaid(Body):
    """OpenTelemetry's `gen_ai.evaluation.result`: a name, a value, a label, an explanation."""

    name: str = Field(min_length=1, max_length=200)
    value: float | None = None
    label: str | None = Field(None, max_length=200)
    explanation: str | None = None

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.value is None and self.label is None:
            raise ValueError("a score has a `value` or a `label`")
        return self


class FeedbackSaid(Body):
    """`POST /v1/feedback`: what was thought of the answer `id` (its choice `index`)."""

    id: str = Field(min_length=1, max_length=200)
    index: int | None = Field(None, ge=0)
    thumb: Literal["up", "down"] | None = None
    edit: str | None = Field(None, max_length=1 << 20)
    choice: int | None = Field(None, ge=0)
    score: ScoreSaid | None = None
    comment: str | None = Field(None, max_length=1 << 16)

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        given = (self.thumb, self.edit, self.choice, self.score, self.comment)
        if all(one is None for one in given):
            raise ValueError("say something: give thumb, edit, choice, score or comment")
        return self
