"""What a turn of the policy is to an OpenEnv server, and how its answers read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from strop.errors import WorldError
from strop.text.chat.template import Tools
from strop.text.tools import Call

STEP = "step"
"""The tool whose arguments are an action."""


@dataclass(frozen=True, slots=True)
class Actions:
    """`Actions(answer_field="message")` for an environment whose action is the policy's text,
    `Actions(tools=[...])` for one whose action is a call of `step`, and with `named` for a server
    of tools (MCP), each of which the policy calls by its name."""

    answer_field: str | None = None
    tools: Tools = None
    named: bool = False

    def of_text(self, text: str) -> dict[str, Any]:
        assert self.answer_field is not None
        return {self.answer_field: text}

    def of_call(self, call: Call) -> dict[str, Any]:
        if self.named:
            return {"type": "call_tool", "tool_name": call.name, "arguments": dict(call.arguments)}
        return dict(call.arguments)

    @property
    def names(self) -> list[str]:
        return [tool["function"]["name"] for tool in self.tools or ()]


def has_named_tools(schema: Mapping[str, Any]) -> bool:
    """Whether the schema of actions is that of a server of tools: MCP's call of one, or the base
    class, which says nothing."""
    properties = _properties(schema)
    return "tool_name" in properties or not properties


def actions_of(schema: Mapping[str, Any], answer_field: str | None, where: str) -> Actions:
    """What the JSON schema of a server's actions asks of the policy. Raises `WorldError`."""
    properties = _properties(schema)
    if answer_field is None:
        required = [n for n in schema.get("required", ()) if n in properties]
        parameters = {"type": "object", "properties": properties, "required": required}
        if "$defs" in schema:
            parameters["$defs"] = schema["$defs"]
        told = schema.get("description") or "Act in the environment."
        return Actions(tools=[_tool(STEP, str(told), parameters)])
    texts = [n for n, one in properties.items() if one.get("type") == "string"]
    if answer_field not in texts:
        raise WorldError(
            f"the server's action has no text field {answer_field!r}",
            where=where,
            fix=f"answer_field: one of {', '.join(texts) or 'none'}; without answer_field the "
            "policy calls the tool `step`",
        )
    others = [n for n in schema.get("required", ()) if n != answer_field]
    if others:
        raise WorldError(
            f"the policy's text would be the action's {answer_field}, and it needs "
            f"{', '.join(others)}, too",
            where=where,
            fix="leave answer_field out: the policy then calls the tool `step`",
        )
    return Actions(answer_field=answer_field)


def named_tools(observation: Mapping[str, Any]) -> Actions:
    """The tools that a server of tools lists."""
    tools = [
        _tool(tool["name"], tool.get("description") or "", tool["input_schema"])
        for tool in observation["tools"]
    ]
    return Actions(tools=tools, named=True)


def _tool(name: str, description: str, parameters: dict[str, Any]) -> dict[str, Any]:
    function = {"name": name, "description": description, "parameters": parameters}
    return {"type": "function", "function": function}


def _properties(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of an action, without the `metadata` that every action has."""
    return {n: one for n, one in schema.get("properties", {}).items() if n != "metadata"}


@dataclass(frozen=True, slots=True)
class Shown:
    """A text that an observation shows, and whether it is a tool's error."""

    text: str
    failed: bool = field(default=False)


def shown(observation: Mapping[str, Any], name: str | None) -> Shown:
    """What the policy reads of an observation: its field `name`; else what a tool answered; else
    its only field, or all of it as JSON. Raises `KeyError` for a field that it does not have."""
    if name is not None:
        return Shown(_text(observation[name]))
    if observation.keys() >= {"tool_name", "result", "error"}:
        error = observation["error"]
        if error:
            return Shown(str(error.get("message")), failed=True)
        return Shown(_text(_of_tool(observation["result"])))
    if len(observation) == 1:
        return Shown(_text(next(iter(observation.values()))))
    return Shown(_text(observation))


def _of_tool(result: Any) -> Any:
    """What an MCP tool returned: its value, or its words."""
    if not isinstance(result, dict) or "content" not in result:
        return result
    if result.get("data") is not None:
        return result["data"]
    return "\n".join(str(part.get("text", "")) for part in result["content"])


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
