"""Functions of a user's file as tools, in worker processes."""

from __future__ import annotations

import asyncio
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from strop.errors import WorldError
from strop.recipe.train.tools import FunctionsToolRecipe
from strop.rollout.tools.kit import Stateless
from strop.rollout.tools.said import cut
from strop.rollout.tools.toolbox import ToolResult, told
from strop.rollout.tools.tries import FailedError, Tries
from strop.sandbox.workers import Reply, Workers
from strop.text.tools import Call

LOADING = 300.0
"""Seconds that importing the user's file may take."""


class FunctionTools:
    """The functions that a recipe names. Raises `WorldError` for those that cannot be described.

    A call that hangs, ends its process or returns no text is tried again; if all tries fail alike
    the policy did it, and is told; if they differ the function is at fault.
    """

    def __init__(self, recipe: FunctionsToolRecipe) -> None:
        self.recipe = recipe
        where, count = str(recipe.file), recipe.workers
        command = [sys.executable, "-m", "strop.rollout.tools.worker", where, *recipe.functions]
        self._workers = Workers(
            command, count, starts_within=LOADING, shows_errors=True, grouped=True
        )
        said = self._workers.ask([{"describe": True}], LOADING)[0]
        if said.failed is not None or "problem" in said.answer:
            self._workers.close()
            raise WorldError(
                said.failed or said.answer["problem"],
                where=where if said.failed else said.answer.get("where", where),
                fix="import the file in Python" if said.failed else said.answer["fix"],
            )
        self.tools: list[dict[str, Any]] = said.answer["tools"]
        self._threads = ThreadPoolExecutor(count, "function-tool")

    def seat(self) -> Stateless:
        return Stateless(self.call)

    async def call(self, call: Call) -> ToolResult:
        tries = Tries(self.recipe.retries)
        while True:
            try:
                return await self._tried(call)
            except FailedError as failure:
                if tries.note(failure):
                    continue
                if tries.alike:
                    return told(failure.kind, f"{call.name}: {failure.said}")
                raise tries.fault(call.name) from None

    async def _tried(self, call: Call) -> ToolResult:
        loop = asyncio.get_running_loop()
        reply = await loop.run_in_executor(self._threads, self._ask, call)
        if reply.slow:
            raise FailedError("hung", f"no answer within {self.recipe.call_seconds:g} s")
        if reply.failed is not None:
            raise FailedError("crashed", "the process that runs it ended")
        if "garbled" in reply.answer:
            raise FailedError("garbled", f"what it returned is no text: {reply.answer['garbled']}")
        return ToolResult(cut(reply.answer["text"], self.recipe.longest), reply.answer["error"])

    def _ask(self, call: Call) -> Reply:
        order = {"name": call.name, "arguments": dict(call.arguments)}
        return self._workers.ask([order], self.recipe.call_seconds)[0]

    async def close(self) -> None:
        await asyncio.to_thread(self._end)

    def _end(self) -> None:
        self._threads.shutdown(cancel_futures=True)
        self._workers.close()
