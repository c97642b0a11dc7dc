"""Servers of openenv-core: `python worlds.py KIND PORT KIND PORT ...`."""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Any

import uvicorn
from fastmcp import FastMCP  # type: ignore[import-not-found]
from openenv.core.env_server import (  # type: ignore[import-not-found]
    Action,
    Environment,
    Observation,
    State,
    create_fastapi_app,
)
from openenv.core.env_server.mcp_environment import (  # type: ignore[import-not-found]
    MCPEnvironment,
)


class Guess(Action):  # type: ignore[misc]
    """Guess the number."""

    number: int


class Heard(Observation):  # type: ignore[misc]
    said: str
    tries: int = 0


class Guessing(Environment):  # type: ignore[misc]
    """Guess a number of the task; a reward of 0.25 for coming near, 1 for the number."""

    SUPPORTS_CONCURRENT_SESSIONS = True

    def reset(self, answer: int = 7, seed: int | None = None, **_: Any) -> Heard:
        self.answer, self.tries = answer, 0
        return Heard(said=" Guess.")

    def step(self, action: Guess, timeout_s: float | None = None, **_: Any) -> Heard:
        if action.number == -1:
            time.sleep(60)
        if action.number < 0:
            raise ValueError("numbers below 0 are not guessed")
        self.tries += 1
        right, near = action.number == self.answer, abs(action.number - self.answer) == 1
        said = "right" if right else "near" if near else "far"
        return Heard(said=said, tries=self.tries, done=right, reward=right + 0.25 * near)

    @property
    def state(self) -> State:
        return State(step_count=self.tries)


class Word(Action):  # type: ignore[misc]
    message: str


class Echo(Environment):  # type: ignore[misc]
    """Says what it hears, and is done after `bye`."""

    SUPPORTS_CONCURRENT_SESSIONS = True

    def reset(self, **_: Any) -> Heard:
        return Heard(said="")

    def step(self, action: Word, timeout_s: float | None = None, **_: Any) -> Heard:
        return Heard(said=f"{action.message}!", done=action.message == "bye", reward=0.5)

    @property
    def state(self) -> State:
        return State()


class Tools(MCPEnvironment):  # type: ignore[misc]
    """A server of tools."""

    SUPPORTS_CONCURRENT_SESSIONS = True

    def __init__(self) -> None:
        tools = FastMCP("tools")

        @tools.tool  # type: ignore[untyped-decorator]
        def add(a: int, b: int) -> int:
            """Add two numbers."""
            return a + b

        super().__init__(tools)

    def reset(self, **_: Any) -> Observation:
        return Observation(done=False)

    def _step_impl(self, action: Action, timeout_s: float | None = None, **_: Any) -> Observation:
        raise NotImplementedError

    @property
    def state(self) -> State:
        return State()


WORLDS: dict[str, tuple[Any, Any, Any, int]] = {
    "guess": (Guessing, Guess, Heard, 2),
    "echo": (Echo, Word, Heard, 4),
    "tools": (Tools, Action, Observation, 4),
}


async def serve(kinds: list[str], ports: list[str]) -> None:
    servers = []
    for kind, port in zip(kinds, ports, strict=True):
        env, action, observation, most = WORLDS[kind]
        app = create_fastapi_app(env, action, observation, max_concurrent_envs=most)
        config = uvicorn.Config(app, host="127.0.0.1", port=int(port), log_level="warning")
        servers.append(uvicorn.Server(config))
    await asyncio.gather(*(server.serve() for server in servers))


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1::2], sys.argv[2::2]))
