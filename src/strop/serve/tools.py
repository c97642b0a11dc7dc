"""Tools in a request: which of them the model is shown."""

from __future__ import annotations

from typing import Any

from strop.serve.errors import RefusedError
from strop.serve.models.version import Version
from strop.serve.protocol.bodies import Chat, Drawing
from strop.text.chat.template import SENTINEL, TEMPLATE_ERRORS, ChatTemplate, Tools


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
    if body.tool_choice == "auto":
        return body.tools
    raise RefusedError(
        400, "a call cannot be forced: the model decides. Use tool_choice auto or none",
        param="tool_choice",
    )  # fmt: skip


def expect_tools(version: Version, tools: Tools) -> None:
    """Raise `RefusedError` for a model whose template does not show tools."""
    if tools and version.renderer.has_template and not shows_tools(version.tokenizer):
        raise RefusedError(400, f"the chat template of {version.label} does not read tools",
                           param="tools")  # fmt: skip


def shows_tools(tokenizer: Any) -> bool:
    """Whether the chat template writes the names of tools."""
    function = {"name": SENTINEL, "description": "", "parameters": {"type": "object"}}
    tools = [{"type": "function", "function": function}]
    try:
        text = ChatTemplate(tokenizer).render([{"role": "user", "content": "?"}], tools)
    except TEMPLATE_ERRORS:
        return False
    return SENTINEL in text
