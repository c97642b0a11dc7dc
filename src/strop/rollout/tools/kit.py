"""What the recipe's list of tools is made of."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from strop.rollout.tools.toolbox import ToolResult
from strop.text.tools import Call


class Seat(Protocol):
    """The tools of a kit as one episode has them."""

    async def call(self, call: Call) -> ToolResult:
        """A call whose arguments fit. Raises `FaultError` where the tool fails by its own fault."""

    async def close(self) -> None:
        """End what the episode has of its own. Never raises."""


class Kit(Protocol):
    """One or several tools.

    What they need is looked at when they are made (`UsageError`), before any compute.
    """

    @property
    def tools(self) -> list[dict[str, Any]]:
        """Their JSON schemas."""

    def seat(self) -> Seat:
        """The tools for a new episode."""

    async def close(self) -> None:
        """End what they hold. Never raises."""


class Stateless:
    """The seat of tools that keep nothing from call to call, so that all episodes share them."""

    def __init__(self, call: Callable[[Call], Awaitable[ToolResult]]) -> None:
        self._call = call

    async def call(self, call: Call) -> ToolResult:
        return await self._call(call)

    async def close(self) -> None:
        """There is nothing to end."""


def described(name: str, description: str, parameters: dict[str, Any]) -> dict[str, Any]:
    """A tool in the form that templates read."""
    function = {"name": name, "description": description, "parameters": parameters}
    return {"type": "function", "function": function}
