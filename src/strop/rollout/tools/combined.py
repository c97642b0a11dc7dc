"""All tools of a recipe as one toolbox: calls go by their names."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from strop.errors import StropError
from strop.recipe.train.environment import ToolsEnvironmentRecipe
from strop.recipe.train.tools import (
    FunctionsToolRecipe,
    HttpToolRecipe,
    McpToolRecipe,
    PythonToolRecipe,
)
from strop.rollout.tools.arguments import Arguments
from strop.rollout.tools.http import HttpTool
from strop.rollout.tools.kit import Kit, Seat
from strop.rollout.tools.mcp import McpTools
from strop.rollout.tools.own_functions import FunctionTools
from strop.rollout.tools.python import PythonTool
from strop.rollout.tools.toolbox import ToolResult
from strop.text.chat.template import Tools
from strop.text.tools import Call
from strop.types import Task

KITS: Mapping[type, Callable[[Any], Kit]] = {
    PythonToolRecipe: PythonTool,
    HttpToolRecipe: HttpTool,
    McpToolRecipe: McpTools,
    FunctionsToolRecipe: FunctionTools,
}


class CombinedToolboxes:
    """The toolboxes of a recipe's tools: `CombinedToolboxes(recipe)` refuses tools that cannot be
    used (`UsageError`), before any compute."""

    rewards = False
    bounds: tuple[float, float] | None = None

    def __init__(self, recipe: ToolsEnvironmentRecipe) -> None:
        self._kits: list[Kit] = []
        try:
            for one in recipe.tools:
                self._kits.append(KITS[type(one)](one))
            listed = [tool for kit in self._kits for tool in kit.tools]
            self._arguments = Arguments(listed, "rollout.environment.tools")
        except StropError:
            asyncio.run(self.close())
            raise
        self.tools: Tools = listed
        self._by_name = {tool["function"]["name"]: kit for kit in self._kits for tool in kit.tools}

    def make(self, seed: str) -> CombinedToolbox:
        seats = {id(kit): kit.seat() for kit in self._kits}
        by_name = {name: seats[id(kit)] for name, kit in self._by_name.items()}
        return CombinedToolbox(self._arguments, by_name)

    async def close(self) -> None:
        for kit in self._kits:
            await kit.close()


class CombinedToolbox:
    """One episode's tools."""

    def __init__(self, arguments: Arguments, by_name: Mapping[str, Seat]) -> None:
        self._arguments, self._by_name = arguments, by_name

    async def begin(self, task: Task) -> None:
        """There is nothing to begin."""

    async def call(self, call: Call) -> ToolResult:
        mistake = self._arguments.mistake(call)
        return mistake if mistake is not None else await self._by_name[call.name].call(call)

    async def reward(self) -> None:
        """Tools alone give none."""

    async def close(self) -> None:
        await asyncio.gather(*(seat.close() for seat in set(self._by_name.values())))
