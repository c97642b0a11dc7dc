"""Kits of tools that end with their test."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from strop.recipe.train.environment import ToolsEnvironmentRecipe
from strop.rollout.tools.combined import CombinedToolboxes
from strop.rollout.tools.toolbox import ToolResult
from strop.text.tools import Call

Ask = Callable[..., list[ToolResult]]


class Tools:
    """Tools of a recipe; `ask(call, ...)` makes calls at the same time, `one` a single call."""

    def __init__(self, *listed: dict[str, Any]) -> None:
        recipe = ToolsEnvironmentRecipe.model_validate({"tools": list(listed)})
        self.runner = asyncio.Runner()
        self.boxes = CombinedToolboxes(recipe)

    def ask(self, *calls: Call) -> list[ToolResult]:
        async def all_of_them() -> list[ToolResult]:
            box = self.boxes.make("0")
            return await asyncio.gather(*(box.call(call) for call in calls))

        return self.runner.run(all_of_them())

    def one(self, name: str, **arguments: Any) -> ToolResult:
        return self.ask(Call(name, arguments))[0]

    def close(self) -> None:
        self.runner.run(self.boxes.close())
        self.runner.close()


@pytest.fixture
def made() -> Iterator[Callable[..., Tools]]:
    """Makes the tools of a recipe's list, and ends them."""
    every: list[Tools] = []

    def make(*listed: dict[str, Any]) -> Tools:
        every.append(Tools(*listed))
        return every[-1]

    yield make
    for tools in every:
        tools.close()
