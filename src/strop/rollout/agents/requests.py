"""What agents may ask: requests are checked at the door, so that a wrong one is refused in words
and goes no further."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    PrivateAttr,
    field_validator,
    model_validator,
)

from strop.types import Message


class Open(BaseModel):
    """A part of a request, of which more may be said than is checked; `given` is all of it, as it
    came."""

    model_config = ConfigDict(extra="allow")

    _given: dict[str, Any] = PrivateAttr(default_factory=dict)

    @model_validator(mode="wrap")
    @classmethod
    def _keep(cls, value: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        made = handler(value)
        made._given = dict(value)
        return made

    @property
    def given(self) -> dict[str, Any]:
        return self._given

    @property
    def more(self) -> Mapping[str, Any]:
        """What is said beside the fields that are checked."""
        return self.model_extra or {}


def _listed(stop: Any) -> Any:
    return [stop] if isinstance(stop, str) else stop


Stops = Annotated[list[str] | None, BeforeValidator(_listed)]
"""A text or a list of texts at which an answer is to end."""

Bound = Annotated[int | None, Field(ge=1)]


class Part(Open):
    """A part of a message's content."""

    type: str
    text: str | None = None

    @model_validator(mode="after")
    def _expect_text(self) -> Self:
        if self.type != "text":
            raise ValueError(f"a message has parts that are no text: {self.type}")
        if self.text is None:
            raise ValueError("a part of the type `text` has no `text`")
        return self


class Called(Open):
    """Which function a call names, and with what arguments."""

    name: str
    arguments: dict[str, Any]

    @field_validator("arguments", mode="before")
    @classmethod
    def _read(cls, arguments: Any) -> dict[str, Any]:
        """OpenAI's clients send them as JSON text."""
        try:
            read = json.loads(arguments or "{}") if isinstance(arguments, str) else arguments
        except (ValueError, RecursionError):
            read = None
        if not isinstance(read, dict):
            raise ValueError("the arguments of a call are no JSON object")
        return read


class ToolCall(Open):
    """A call that the model made before."""

    function: Called

    def written(self) -> dict[str, Any]:
        function = {**self.function.given, "arguments": self.function.arguments}
        return {**self.given, "function": function}


def _expect_content(content: Any) -> Any:
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    if content is None or isinstance(content, list):
        return content
    raise ValueError("it is neither a text nor a list of parts")


class Said(Open):
    """A message of a conversation."""

    role: str = Field(min_length=1)
    content: Annotated[list[Part] | None, BeforeValidator(_expect_content)] = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None

    def written(self) -> Message:
        """As templates read it: content as text, arguments of calls as objects."""
        message = {name: value for name, value in self.given.items() if value is not None}
        if "content" in self.given:
            parts = self.content
            message["content"] = None if parts is None else "".join(p.text or "" for p in parts)
        if self.tool_calls:
            message["tool_calls"] = [call.written() for call in self.tool_calls]
        return message


class ToolFunction(Open):
    """A function that may be called."""

    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None


class Tool(Open):
    """A tool that is offered."""

    function: ToolFunction


class Form(Open):
    """The form that an answer is to have."""

    type: str


class Chat(Open):
    """OpenAI's `POST /v1/chat/completions`. What it says of sampling is overruled by the run's."""

    messages: list[Said] = Field(min_length=1)
    tools: list[Tool] | None = None
    tool_choice: Any = None
    response_format: Form | None = None
    stop: Stops = None
    max_tokens: Bound = None
    max_completion_tokens: Bound = None
    stream: bool | None = None
    n: int | None = Field(None, ge=1, le=1)

    @property
    def most(self) -> int | None:
        return self.max_tokens or self.max_completion_tokens

    @property
    def offered(self) -> list[dict[str, Any]] | None:
        """The tools that the answer may call."""
        if self.tools is None or self.tool_choice == "none":
            return None
        return [tool.given for tool in self.tools]


class HowSampled(Open):
    """vLLM's sampling parameters."""

    max_tokens: Bound = None
    stop: Stops = None
    n: int | None = Field(None, ge=1, le=1)


class Generate(Open):
    """vLLM's `POST /inference/v1/generate`."""

    token_ids: list[int] = Field(min_length=1)
    sampling_params: HowSampled = HowSampled()
