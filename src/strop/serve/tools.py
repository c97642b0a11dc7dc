"""Tools in a request: which of them the model is shown."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from strop.engines.grammar import Grammar, expect_enforced
from strop.serve.errors import RefusedError
from strop.serve.models.version import Version
from strop.serve.protocol.bodies import Chat, Drawing
from strop.text.chat.messages import formed
from strop.text.chat.template import SENTINEL, TEMPLATE_ERRORS, ChatTemplate, Tools
from strop.types import Message


def tools_for(body: Drawing) -> Tools:
    """The tools that the prompt offers. Raises `RefusedError` for a choice that cannot be kept."""
    if not isinstance(body, Chat) or body.tools is None or body.tool_choice == "none":
        return None
    for place, tool in enumerate(body.tools):
        function = tool.get("function")
        if tool.get("type") != "function" or not isinstance(function, dict):
            raise RefusedError(422, f"tools.{place} is no function", param=f"tools.{place}")
        if not isinstance(function.get("name"), str):
            raise RefusedError(422, f"tools.{place}.function has no `name`", param=f"tools.{place}")
    return body.tools


def forced(version: Version, body: Drawing) -> Grammar | None:
    """What an answer has to be where the request asks for a call: of any tool (`required`), or of
    the one that it names. Raises `RefusedError` for a tool that is not offered, and for a template
    whose calls are not written as JSON."""
    if not isinstance(body, Chat) or body.tools is None or body.tool_choice in ("auto", "none"):
        return None
    functions = [tool["function"] for tool in body.tools]
    if isinstance(body.tool_choice, dict):
        name = (body.tool_choice.get("function") or {}).get("name")
        functions = [one for one in functions if one["name"] == name]
        if not functions:
            raise RefusedError(422, f"tool_choice: no tool is called {name!r}", param="tool_choice")
    written = written_call(version.tokenizer)
    if written is None:
        raise RefusedError(
            400, f"the chat template of {version.label} does not write calls as JSON, so none can "
            "be forced: use tool_choice auto", param="tool_choice",
        )  # fmt: skip
    return Grammar("call", json.dumps([_form(written, one) for one in functions]))


@dataclass(frozen=True, slots=True)
class WrittenCall:
    """How a template writes a call: `WrittenCall("<tool_call>\\n", "arguments",
    "\\n</tool_call>")`; between the two texts stands an object with `name` and `arguments`."""

    before: str
    arguments: str
    after: str


def written_call(tokenizer: Any) -> WrittenCall | None:
    """Found in what the template makes of a call; `None` where that is not JSON."""
    chat = ChatTemplate(tokenizer)
    call = {"name": SENTINEL, "arguments": {"x": SENTINEL}}
    calls = [{"id": "abcdefghi", "type": "function", "function": call}]
    asked: list[Message] = [{"role": "user", "content": "?"}]
    turn: Message = {"role": "assistant", "content": None, "tool_calls": calls}
    try:
        begun = chat.render(formed(asked, chat.form, ""), generation=True)
        text = chat.render(formed([*asked, turn], chat.form, ""))
    except TEMPLATE_ERRORS:
        return None
    said = text.removeprefix(begun)
    for start in (place for place, sign in enumerate(said) if sign == "{"):
        try:
            value, end = json.JSONDecoder().raw_decode(said, start)
        except ValueError:
            continue
        if value.get("name") == SENTINEL:
            key = next((k for k in ("arguments", "parameters") if k in value), None)
            after = said[end:].partition(chat.closing or "\0")[0]
            return None if key is None else WrittenCall(said[:start], key, after)
    return None


def _form(written: WrittenCall, function: dict[str, Any]) -> dict[str, Any]:
    given = function.get("parameters") or {"type": "object", "properties": {}}
    expect_enforced(json.dumps(given))
    schema = {
        "type": "object", "required": ["name", written.arguments], "additionalProperties": False,
        "properties": {"name": {"const": function["name"]}, written.arguments: given},
    }  # fmt: skip
    return {"before": written.before, "schema": schema, "after": written.after}


def expect_tools(version: Version, tools: Tools) -> None:
    """Raise `RefusedError` for a model whose template does not show tools."""
    if tools and version.renderer.has_template and not shows_tools(version.tokenizer):
        raise RefusedError(400, f"the chat template of {version.label} does not read tools",
                           param="tools")  # fmt: skip


def shows_tools(tokenizer: Any) -> bool:
    """Whether the chat template writes the names of tools."""
    return ChatTemplate(tokenizer).shows_tools
