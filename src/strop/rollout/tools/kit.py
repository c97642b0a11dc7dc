"""What the recipe's list of tools is made of."""

from __future__ import annotations

from typing import Any, Protocol

from strop.rollout.tools.toolbox import ToolResult
from strop.text.tools import Call


class Kit(Protocol):
    """One or several tools that keep nothing from call to call, so that all episodes share them.

    What they need is looked at when they are made (`UsageError`), before any compute.
    """

    @property
    def tools(self) -> list[dict[str, Any]]:
        """Their JSON schemas."""

    async def call(self, call: Call) -> ToolResult:
        """A call whose arguments fit. Raises `FaultError` where the tool fails by its own fault."""

    async def close(self) -> None:
        """End what they hold. Never raises."""


def described(name: str, description: str, parameters: dict[str, Any]) -> dict[str, Any]:
    """A tool in the form that templates read."""
    function = {"name": name, "description": description, "parameters": parameters}
    return {"type": "function", "function": function}
