"""Dialogues with a simulated user."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from strop.engines.draws import written
from strop.rollout.environment import Ask, Observation, Said
from strop.text.chat.template import Tools
from strop.types import Message, Task


class User(Protocol):
    """One dialogue's user. Raises `FaultError` where it fails by its own fault."""

    async def begin(self, task: Task) -> None:
        """Before the assistant's first answer."""

    async def reply(self, said: Message) -> str | None:
        """What the user says to an answer; `None` ends the dialogue."""

    async def reward(self) -> float | None:
        """How content the user is at the end, if it says so."""

    async def close(self) -> None:
        """End, whatever state it is in. Never raises."""


class Users(Protocol):
    """Makes the users of a run; `rewards` says whether they say how content they are, and `reads`
    which columns of a task they are given (`None`: all)."""

    @property
    def rewards(self) -> bool: ...

    @property
    def reads(self) -> Sequence[str] | None: ...

    def expect(self, task: Task) -> None:
        """Raise `DataError` for a task that does not say what its user needs."""

    def make(self, seed: str) -> User:
        """The user of one dialogue; what it draws follows from `seed`."""

    async def close(self) -> None: ...


class UserEnvironment:
    """A simulated user as an environment: the dialogue ends when the user ends it."""

    def __init__(self, user: User) -> None:
        self.user = user

    async def reset(self, task: Task) -> Observation:
        await self.user.begin(task)
        return Observation(facts={"user_turns": 0.0, "user_ended": 0.0})

    async def step(self, said: Said) -> Observation:
        reply = await self.user.reply(said.message)
        if reply is None:
            return Observation(done=True, facts={"user_ended": 1.0})
        return Observation(({"role": "user", "content": reply},), facts={"user_turns": 1.0})

    async def final_reward(self) -> float | None:
        return await self.user.reward()

    async def close(self) -> None:
        await self.user.close()


class UserEnvironments:
    """Environments that are users."""

    tools: Tools = None
    bounds: tuple[float, float] | None = None

    def __init__(self, users: Users) -> None:
        self.users = users

    @property
    def rewards(self) -> bool:
        return self.users.rewards

    def make(self, ask: Ask) -> UserEnvironment:
        return UserEnvironment(self.users.make(written(ask.request.key)))

    async def close(self) -> None:
        await self.users.close()
