"""Tools in recipes: what an environment that is only tools offers to the policy."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, Tag, model_validator

from strop.recipe.base import LocalPath, Strict
from strop.recipe.train.telling import tag, told_by

TOOL_NAME = re.compile(r"[A-Za-z_][\w-]{0,63}", re.ASCII)
"""Names that every family's syntax can write."""
PLACE = re.compile(r"\{(\w+)\}")
"""A place in an address that an argument fills: `{city}`."""


def _is_a_name(name: str) -> str:
    if not TOOL_NAME.fullmatch(name):
        raise ValueError(
            f"{name!r} is no name of a tool: letters, digits, `_` and `-`, 64 of them at most, "
            "none of the last two first"
        )
    return name


ToolName = Annotated[str, AfterValidator(_is_a_name)]


class PythonOptions(Strict):
    """`name` is what the policy calls it. A program gets `seconds` of CPU time (three times as much
    by the wall clock) and `memory_mb`; at most `longest` characters of what it prints are told."""

    name: ToolName = "python"
    seconds: float = Field(5.0, gt=0)
    memory_mb: int = Field(512, ge=64)
    longest: int = Field(10_000, ge=1)


class PythonToolRecipe(Strict):
    """Programs in the sandbox: code in, what it prints out, and the value of its last expression.
    Nothing is left for the next call."""

    python: PythonOptions = PythonOptions()


class HttpOptions(Strict):
    """One kind of request to one server.

    `parameters` is the JSON schema of the arguments. Those that `url` names (`/cities/{city}`) fill
    their place; the others are the query of a GET, or the JSON body of a POST. `headers` and
    `query` go with every request, and may name environment variables (`Bearer ${KEY}`); their
    values are in no transcript and in no record.

    What was answered is kept in `record` (JSONL) and told again to who asks the same. With
    `live: true` the server is asked for what is not there; otherwise such a request is told to the
    policy as not available (`unrecorded: tell`), or ends the episode unscored (`unrecorded:
    fault`). An attempt gets `seconds`, and `retries` more are made where that may help; at most
    `longest` characters of an answer are told.
    """

    name: ToolName
    description: str = Field(min_length=1)
    url: str
    method: Literal["GET", "POST"] = "GET"
    parameters: dict[str, Any]
    headers: dict[str, str] = Field(default_factory=dict)
    query: dict[str, str] = Field(default_factory=dict)
    record: LocalPath | None = None
    live: bool = False
    unrecorded: Literal["tell", "fault"] = "tell"
    seconds: float = Field(20.0, gt=0)
    retries: int = Field(3, ge=0)
    longest: int = Field(20_000, ge=1)

    @model_validator(mode="after")
    def _options_are_read(self) -> Self:
        if not self.live and self.record is None:
            raise ValueError("it has neither a record nor live: true, so it could answer nothing")
        if self.live and self.unrecorded != "tell":
            raise ValueError("unrecorded is only read without live: true: drop one of them")
        wanted = self.parameters.get("properties")
        known = wanted if isinstance(wanted, dict) else {}
        if missing := sorted(set(PLACE.findall(self.url)) - known.keys()):
            raise ValueError(
                f"url names {missing[0]}, which is none of the properties of parameters"
            )
        host = self.url.partition("://")[2].partition("/")[0]
        if PLACE.search(host):
            raise ValueError("an argument may not choose the server: name it in url")
        return self


class HttpToolRecipe(Strict):
    """A tool that is a request to a server, through a record."""

    http: HttpOptions


class McpOptions(Strict):
    """A server of the Model Context Protocol: a `command` that is started and spoken to over its
    standard input and output, or the `url` of a running one (streamable HTTP).

    `env` are variables for the command, and `headers` go with every request; both may name
    environment variables (`${KEY}`). `tools` are those that are offered (default: all).

    With `session: shared` calls of all episodes go over one connection; with `session: episode`
    each episode has a session (for a command: a process) of its own from its first call on, for a
    server that keeps a state. A call gets `seconds`; what fails is tried `retries` times more, each
    over a new connection, in an episode's own session after its earlier calls. At most `longest`
    characters of a result are told.
    """

    command: list[str] | None = Field(None, min_length=1)
    env: dict[str, str] = Field(default_factory=dict)
    url: str | None = None
    headers: dict[str, str] = Field(default_factory=dict)
    tools: list[str] | None = Field(None, min_length=1)
    session: Literal["shared", "episode"] = "shared"
    seconds: float = Field(30.0, gt=0)
    retries: int = Field(2, ge=0)
    longest: int = Field(20_000, ge=1)

    @model_validator(mode="after")
    def _one_server(self) -> Self:
        if (self.command is None) == (self.url is None):
            raise ValueError("give `command` or `url`, one of them")
        if self.command is None and self.env:
            raise ValueError("env is only read with command: a running server has its own")
        if self.url is None and self.headers:
            raise ValueError("headers are only read with url: a command reads env")
        return self


class McpToolRecipe(Strict):
    """All tools of an MCP server."""

    mcp: McpOptions


class FunctionsToolRecipe(Strict):
    """Functions of a Python file that keep nothing from call to call, with type hints and
    docstrings. They run in `workers` processes; a call that takes longer than `call_seconds`, or
    ends its process, is tried `retries` times more."""

    file: LocalPath
    functions: list[str] = Field(min_length=1)
    call_seconds: float = Field(10.0, gt=0)
    retries: int = Field(3, ge=0)
    workers: int = Field(4, ge=1)
    longest: int = Field(20_000, ge=1)


KINDS: dict[str, type[Strict]] = {
    "python": PythonToolRecipe,
    "http": HttpToolRecipe,
    "mcp": McpToolRecipe,
    "file": FunctionsToolRecipe,
}
"""The key by which each kind of tool is known."""

ToolRecipe = Annotated[
    Annotated[PythonToolRecipe, Tag(tag("python"))]
    | Annotated[HttpToolRecipe, Tag(tag("http"))]
    | Annotated[McpToolRecipe, Tag(tag("mcp"))]
    | Annotated[FunctionsToolRecipe, Tag(tag("file"))],
    told_by(
        KINDS,
        "a tool is `python: {}`, `http: {...}`, `mcp: {...}`, or `file:` with its `functions:`",
    ),
]
