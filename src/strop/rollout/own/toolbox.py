"""The public methods of a user's class as the tools of an episode, whatever they do."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from strop.errors import DataError
from strop.recipe.train.environment import OwnEnvironmentRecipe
from strop.rollout.environment import FaultError
from strop.rollout.own.processes import EpisodeProcess, ForkServer, row_of
from strop.rollout.tools.toolbox import OVER, ToolResult, told
from strop.rollout.tools.tries import FLAKY, FailedError, Tries
from strop.text.chat.template import Tools
from strop.text.tools import Call
from strop.types import Task

BEGINS_WITHIN = 60.0
"""Seconds that making an instance and its `reset` may take, where a call may not take longer."""

Order = dict[str, Any]


class OwnToolboxes:
    """The toolboxes of a user's class: `OwnToolboxes(recipe)` refuses one that cannot be used
    (`WorldError`), before any compute."""

    bounds: tuple[float, float] | None = None

    def __init__(self, recipe: OwnEnvironmentRecipe) -> None:
        self._recipe = recipe
        self._server = ForkServer(Path(recipe.file), recipe.class_)
        said = self._server.describe()
        self.tools: Tools = said["tools"]
        self.rewards: bool = said["rewards"]
        self.reads: list[str] | None = said["reads"]
        self._needs: list[str] = said["needs"]

    def expect(self, task: Task) -> None:
        """Raise `DataError` for a task without a column that `reset` cannot do without."""
        given = ("prompt", *task.columns)
        missing = [name for name in self._needs if name not in given]
        if missing:
            raise DataError(
                f"`reset` of {self._recipe.class_} reads the column `{missing[0]}`; found "
                f"{{{', '.join(given)}}}",
                where=str(task.origin),
                fix="add the column to every task, or give the argument a default",
            )

    def make(self, seed: str) -> OwnToolbox:
        names = {tool["function"]["name"] for tool in self.tools or ()}
        return OwnToolbox(self._server, self._recipe, names, seed, rewards=self.rewards)

    async def close(self) -> None:
        await asyncio.to_thread(self._server.close)


class OwnToolbox:
    """One episode's instance.

    A call that hangs, ends its process or gives no text is tried again in a new process, in which
    the episode's earlier calls were made again. If all tries fail alike the policy did it, and is
    told; if they differ the environment is at fault. So it is if an instance cannot begin, or
    cannot say its reward.
    """

    def __init__(
        self,
        server: ForkServer,
        recipe: OwnEnvironmentRecipe,
        tools: set[str],
        seed: str,
        *,
        rewards: bool,
    ) -> None:
        self._server, self._recipe, self._seed = server, recipe, seed
        self._tools, self._rewards = tools, rewards
        self._begin: Order = {}
        self._earlier: list[Order] = []
        self._process: EpisodeProcess | None = None
        self._turn = asyncio.Lock()
        self._over = False

    async def begin(self, task: Task) -> str | None:
        self._begin = {"do": "begin", "seed": self._seed, "row": row_of(task)}
        said: str | None = (await self._ready())["said"]
        return said

    async def call(self, call: Call) -> ToolResult:
        if call.name not in self._tools:
            offered = ", ".join(sorted(self._tools)) or "none"
            return told("unknown", f"Tool {call.name} not found. There are: {offered}.")
        async with self._turn:  # an instance does one thing at a time, in the order of the calls
            return await self._call(call.name, call.arguments)

    async def _call(self, name: str, arguments: Mapping[str, Any]) -> ToolResult:
        tries = Tries(self._recipe.retries)
        order = {"do": "call", "name": name, "arguments": dict(arguments),
                 "number": len(self._earlier)}  # fmt: skip
        while True:
            process = await self._there()
            attempt = {**order, "attempt": len(tries.failures)}
            try:
                answer = await process.ask(attempt, self._recipe.call_seconds)
            except FailedError as failure:
                if tries.note(failure):
                    continue
                if tries.alike:
                    return told(failure.kind, f"{name}: {failure.said}")
                raise tries.fault(name) from None
            self._earlier.append(attempt)
            return ToolResult(answer["text"], answer["error"])

    async def reward(self) -> float | None:
        if not self._rewards:
            return None
        tries = Tries(self._recipe.retries)
        async with self._turn:
            while True:
                process = await self._there()
                try:
                    answer = await process.ask({"do": "reward"}, self._begins_within)
                except FailedError as failure:
                    if not tries.note(failure):
                        raise tries.fault("get_reward") from None
                else:
                    reward: float | None = answer["reward"]
                    return reward

    @property
    def _begins_within(self) -> float:
        return max(BEGINS_WITHIN, self._recipe.call_seconds)

    async def close(self) -> None:
        self._over = True
        self._end()

    def _end(self) -> None:
        if self._process is not None:
            self._process.close()

    async def _there(self) -> EpisodeProcess:
        """The episode's process, in which all earlier calls were made."""
        if self._process is None or self._process.closed:
            await self._ready()
        assert self._process is not None
        return self._process

    async def _ready(self) -> Order:
        """Begin a new process and make the earlier calls in it; returns what `reset` said. Raises
        `FaultError` if it cannot be, whatever is tried: the earlier calls could be made once."""
        tries = Tries(FLAKY * self._recipe.retries)
        while True:
            try:
                return await self._replayed()
            except FailedError as failure:
                self._end()
                if not tries.note(failure):
                    raise tries.fault("beginning an episode") from None

    async def _replayed(self) -> Order:
        """A call may still wait for its turn, or for its process, when the episode ends: it begins
        none that nobody would end."""
        if self._over:
            raise FaultError(OVER)
        process = self._process = await self._server.fork()
        if self._over:
            process.close()
            raise FaultError(OVER)
        said = await process.ask(self._begin, self._begins_within)
        for order in self._earlier:
            await process.ask(order, self._recipe.call_seconds)
        return said
