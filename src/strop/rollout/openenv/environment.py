"""Episodes with an OpenEnv server: `reset` begins one, each turn of the policy is a `step`."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from typing import Any

from strop.errors import HttpError, WorldError
from strop.http import HttpClient, RequestLimits
from strop.recipe.train.environment import OpenEnvRecipe
from strop.rollout.environment import Ask, FaultError, Observation, Said
from strop.rollout.openenv.actions import (
    Actions,
    actions_of,
    has_named_tools,
    named_tools,
    shown,
)
from strop.rollout.openenv.session import CAPACITY, RefusedError, Session
from strop.rollout.tools.toolbox import answers
from strop.text.chat.template import Tools
from strop.types import Message, Task

WAITS = 0.05
"""Seconds between two tries to get a session of a server that is full."""

URL = "rollout.environment.url"
"""The key that names it."""

START = (
    "start the server (in the environment's folder: uvicorn server.app:app --host 127.0.0.1 "
    "--port 8000), and check `url`"
)


class OpenEnvironments:
    """The environments of one server. `OpenEnvironments(recipe)` asks it what an action is, and
    raises `WorldError` where it does not answer or the recipe does not fit.

    A server may allow fewer sessions than there are episodes at a time: the others wait.
    """

    rewards = True
    bounds: tuple[float, float] | None = None

    def __init__(self, recipe: OpenEnvRecipe) -> None:
        self.recipe = recipe
        self.actions = self._asked()
        self.under_way = 0

    @property
    def tools(self) -> Tools:
        return self.actions.tools

    def make(self, ask: Ask) -> OpenEnvironment:
        return OpenEnvironment(self)

    async def close(self) -> None: ...

    async def begun(self, data: dict[str, Any]) -> tuple[Session, dict[str, Any]]:
        """A session of its own and what its `reset` said."""
        while True:
            session = Session(self.recipe.url, self.recipe.call_seconds)
            self.under_way += 1
            try:
                await session.open()
                return session, await session.ask("reset", data)
            except RefusedError as error:
                await self.ended(session)
                if error.code != CAPACITY or not self.under_way:
                    raise FaultError(f"{self.recipe.url} cannot begin: {error}") from None
            except BaseException:
                await self.ended(session)
                raise
            await asyncio.sleep(WAITS)

    async def ended(self, session: Session) -> None:
        self.under_way -= 1
        await session.close()

    def _asked(self) -> Actions:
        url, limits = self.recipe.url, RequestLimits(seconds=self.recipe.call_seconds, retries=0)
        try:
            schema = HttpClient(limits).get(url.rstrip("/") + "/schema")["action"]
            if has_named_tools(schema) and self.recipe.answer_field is None:
                return named_tools(asyncio.run(self._listed()))
            return actions_of(schema, self.recipe.answer_field, url)
        except HttpError as error:
            raise WorldError(
                f"no OpenEnv server answers: {error.problem}", where=url, fix=START, key=URL
            ) from None
        except (FaultError, RefusedError, KeyError, TypeError) as error:
            raise WorldError(
                f"the server does not say what its actions are: {error}", where=url,
                fix="the server has to be one of openenv-core 0.3 or later", key=URL,
            ) from None  # fmt: skip

    async def _listed(self) -> dict[str, Any]:
        session = Session(self.recipe.url, self.recipe.call_seconds)
        try:
            await session.open()
            observation: dict[str, Any] = (await session.ask("step", {"type": "list_tools"}))[
                "observation"
            ]
            return observation
        finally:
            await session.close()


class OpenEnvironment:
    """One episode. The columns of its task are given to `reset`, of which the server passes on
    what its environment takes. The server's errors at a step are told to the policy; a server that
    hangs or hangs up is at fault."""

    def __init__(self, shared: OpenEnvironments) -> None:
        self._shared = shared
        self._session: Session | None = None

    async def reset(self, task: Task) -> Observation:
        self._session, said = await self._shared.begun({**task.columns, "prompt": task.prompt})
        if said["done"]:
            raise FaultError("the environment was done before the first turn")
        text = self._shown(said)
        messages: tuple[Message, ...] = ({"role": "user", "content": text},) if text else ()
        return Observation(messages, reward=_finite(said["reward"]))

    async def step(self, said: Said) -> Observation:
        actions = self._shared.actions
        if actions.answer_field is not None:
            heard = await self._acted([actions.of_text(str(said.message.get("content") or ""))])
            return self._observation(heard, ({"role": "user", "content": heard.texts[0]},))
        if said.malformed:
            told: Message = {"role": "user", "content": f"That is no valid call: {said.malformed}"}
            return Observation((told,), facts={"tool_malformed": 1.0})
        if not said.calls:
            return Observation(done=True)
        wrong = [call.name for call in said.calls if call.name not in actions.names]
        if wrong:
            text = f"Tool {wrong[0]} not found. There are: {', '.join(actions.names)}."
            count = float(len(said.calls))
            facts = {"tool_calls": count, "tool_errors": count, "tool_unknown": count}
            return Observation(answers(said, [text] * len(said.calls)), facts=facts)
        heard = await self._acted([actions.of_call(call) for call in said.calls])
        results = [*heard.texts, *["The episode is over."] * (len(said.calls) - len(heard.texts))]
        return self._observation(heard, answers(said, results))

    async def final_reward(self) -> float | None:
        return None

    async def close(self) -> None:
        if self._session is not None:
            await self._shared.ended(self._session)
        self._session = None

    async def _acted(self, actions: Sequence[dict[str, Any]]) -> Heard:
        """Take the actions in order, up to one that ends the episode."""
        assert self._session is not None
        heard = Heard()
        for action in actions:
            try:
                said = await self._session.ask("step", action)
            except RefusedError as refused:
                heard.texts.append(f"Error: {refused.said}")
                heard.errors += 1
                continue
            reward = _finite(said["reward"])
            if reward is not None:
                heard.reward = (heard.reward or 0.0) + reward
            heard.done = said["done"]
            heard.texts.append(self._shown(said, heard))
            if heard.done:
                break
        return heard

    def _shown(self, said: dict[str, Any], heard: Heard | None = None) -> str:
        name = self._shared.recipe.observation_field
        try:
            read = shown(said["observation"], name)
        except KeyError:
            has = ", ".join(said["observation"])
            raise WorldError(
                f"the server's observation has no field {name!r}",
                where=self._shared.recipe.url,
                fix=f"observation_field: one of {has}",
            ) from None
        if heard is not None:
            heard.errors += read.failed
        return read.text

    def _observation(self, heard: Heard, messages: tuple[Message, ...]) -> Observation:
        facts = {"tool_calls": float(len(heard.texts)), "tool_errors": float(heard.errors)}
        return Observation(() if heard.done else messages, heard.done, heard.reward, facts)


class Heard:
    """What a turn's actions came to."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.errors = 0
        self.reward: float | None = None
        self.done = False


def _finite(reward: float | None) -> float | None:
    if reward is not None and not math.isfinite(reward):
        raise FaultError(f"the environment gave a reward of {reward}")
    return reward
