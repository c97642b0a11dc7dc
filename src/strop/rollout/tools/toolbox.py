"""Environments that are tools: the policy calls them until it answers without a call."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from strop.engines.draws import written
from strop.rollout.environment import Ask, Observation, Offer, Said
from strop.text.chat.template import Tools
from strop.text.tools import Call
from strop.types import Message, Task

OVER = "the episode is over"
"""What a call that comes after `close` raises as `FaultError`."""


@dataclass(frozen=True, slots=True)
class ToolResult:
    """What a call came to: `ToolResult("3")`. `error` names what went wrong by the policy's own
    doing (`unknown`, `arguments`, `raised`, `hung`, `crashed`), and then `text` tells it so."""

    text: str
    error: str = ""


def told(error: str, said: str) -> ToolResult:
    """An error in the words in which TRL tells a tool's."""
    return ToolResult(str({"error": said}), error)


class Toolbox(Protocol):
    """The tools of one episode. Raises `FaultError` where they fail by their own fault."""

    async def begin(self, task: Task) -> str | None:
        """Begin an episode; a text that is added to the prompt's last user message, if any."""

    async def call(self, call: Call) -> ToolResult:
        """Call a tool. Calls of one turn run at the same time."""

    async def reward(self) -> float | None:
        """The reward of the episode at its end, if the tools say one."""

    async def close(self) -> None:
        """End, whatever state they are in. Never raises. A call that still waits fails, and begins
        nothing."""


class ToolEnvironment:
    """A toolbox as an environment: an answer without a call ends the episode."""

    def __init__(self, toolbox: Toolbox) -> None:
        self.toolbox = toolbox

    async def reset(self, task: Task) -> Observation:
        said = await self.toolbox.begin(task)
        none_yet = {"tool_calls": 0.0, "tool_errors": 0.0, "tool_malformed": 0.0}
        opening: tuple[Message, ...] = ({"role": "user", "content": said},) if said else ()
        return Observation(opening, facts=none_yet)

    async def step(self, said: Said) -> Observation:
        if said.malformed:
            told: Message = {"role": "user", "content": f"That is no valid call: {said.malformed}"}
            return Observation((told,), facts={"tool_malformed": 1.0})
        if not said.calls:
            return Observation(done=True)
        results = await self._called(said.calls)
        errors = Counter(f"tool_{result.error}" for result in results if result.error)
        facts = {"tool_calls": float(len(results)), "tool_errors": float(errors.total())}
        return Observation(
            answers(said, [result.text for result in results]),
            facts=facts | {name: float(count) for name, count in errors.items()},
        )

    async def _called(self, calls: Sequence[Call]) -> list[ToolResult]:
        """The results of a turn's calls. Where one raises, the others are called off first."""
        calling = [asyncio.create_task(self.toolbox.call(call)) for call in calls]
        try:
            return await asyncio.gather(*calling)
        finally:
            for one in calling:
                one.cancel()
            await asyncio.gather(*calling, return_exceptions=True)

    async def final_reward(self) -> float | None:
        return await self.toolbox.reward()

    async def close(self) -> None:
        await self.toolbox.close()


def answers(said: Said, results: list[str]) -> tuple[Message, ...]:
    """The results of a turn's calls as messages, each with the id and the name of its call."""
    calls = said.message["tool_calls"]
    return tuple(
        {"role": "tool", "tool_call_id": call["id"], "name": call["function"]["name"],
         "content": result}
        for call, result in zip(calls, results, strict=True)
    )  # fmt: skip


class ToolboxFactory(Offer, Protocol):
    """Makes the toolboxes of a run."""

    def make(self, seed: str) -> Toolbox:
        """The tools of one episode; what they draw follows from `seed`."""


class ToolEnvironments:
    """Environments that are toolboxes of a factory."""

    def __init__(self, toolboxes: ToolboxFactory) -> None:
        self.toolboxes = toolboxes

    @property
    def tools(self) -> Tools:
        return self.toolboxes.tools

    @property
    def rewards(self) -> bool:
        return self.toolboxes.rewards

    @property
    def bounds(self) -> tuple[float, float] | None:
        return self.toolboxes.bounds

    def make(self, ask: Ask) -> ToolEnvironment:
        return ToolEnvironment(self.toolboxes.make(written(ask.request.key)))

    async def close(self) -> None:
        await self.toolboxes.close()
