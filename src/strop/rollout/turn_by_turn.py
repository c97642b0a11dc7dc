"""Plays an episode turn by turn: the policy says something, its environment answers."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Awaitable
from dataclasses import dataclass, field
from typing import TypeVar

from strop.engines.engine import Request
from strop.episodes import Episode
from strop.errors import WorldError
from strop.recipe.train.environment import EpisodeLimits
from strop.rewards.own.functions import LARGEST
from strop.rollout.dialogue import ChatWriting, Dialogue, PlainWriting
from strop.rollout.environment import (
    Ask,
    Environment,
    EnvironmentFactory,
    FaultError,
    Observation,
    Said,
)
from strop.text.encode import Encoder, Tokenizer
from strop.text.parse import decode
from strop.text.turns import message_of
from strop.types import Completion, Finish

T = TypeVar("T")

NEARLY = 1e-6
"""Rewards may leave their declared bounds by so much, which is rounding."""


@dataclass(slots=True)
class Account:
    """What an episode's environment has said so far: its rewards, counts, and the seconds it has
    left."""

    left: float
    rewards: list[float] = field(default_factory=list)
    facts: dict[str, float] = field(default_factory=dict)
    calls: int = 0
    limit: asyncio.Timeout | None = None
    """Of the environment's work, while it works."""
    waiting: int = 0
    """Answers of the policy that the environment waits for: its time stands still meanwhile."""

    async def timed(self, work: Awaitable[T]) -> T:
        """Raises `TimeoutError` once the environment has no time left."""
        until = asyncio.get_running_loop().time() + max(0.0, self.left)
        async with asyncio.timeout_at(until) as self.limit:
            try:
                return await work
            finally:
                self._stop()
                self.limit = None

    async def untimed(self, work: Awaitable[T]) -> T:
        """Work for which the environment waits, and which is not its own."""
        self._stop()
        self.waiting += 1
        try:
            return await work
        finally:
            self.waiting -= 1
            limit = self.limit
            if not self.waiting and limit is not None and limit.when() is None:
                limit.reschedule(asyncio.get_running_loop().time() + max(0.0, self.left))

    def _stop(self) -> None:
        """Stop the time where it runs, and note what is left of it."""
        limit = self.limit
        if limit is not None and not limit.expired() and (until := limit.when()) is not None:
            self.left = until - asyncio.get_running_loop().time()
            limit.reschedule(None)

    def note(self, observation: Observation) -> None:
        for name, count in observation.facts.items():
            self.facts[name] = self.facts.get(name, 0.0) + count
        if observation.reward is not None:
            self.rewards.append(float(observation.reward))

    @property
    def reward(self) -> float | None:
        return sum(self.rewards) if self.rewards else None


class Unhurried:
    """Asks the policy for an environment, whose time stands still until the answer is there."""

    def __init__(self, ask: Ask, account: Account) -> None:
        self._ask, self._account = ask, account

    @property
    def request(self) -> Request:
        return self._ask.request

    async def __call__(
        self, prompt_ids: tuple[int, ...], *, opened: str = "", max_tokens: int | None = None
    ) -> Completion:
        return await self._account.untimed(
            self._ask(prompt_ids, opened=opened, max_tokens=max_tokens)
        )


class TurnByTurn:
    """Plays every episode with an environment of its own.

    `context` is how many tokens the model reads. What fails by the environment's own fault ends an
    episode as `error`, and one whose time is over as `aborted`; both are unscored. An episode that
    meets a limit of turns or tokens ends as `length`.
    """

    def __init__(
        self, factory: EnvironmentFactory, tokenizer: Tokenizer, limits: EpisodeLimits, context: int
    ) -> None:
        self.factory, self.tokenizer, self.limits = factory, tokenizer, limits
        self.context = context

    async def play(self, request: Request, ask: Ask) -> Episode:
        encoder = Encoder(self.tokenizer)
        where, task = str(request.prompt.task.origin), request.prompt.task
        if isinstance(task.prompt, str):
            dialogue = Dialogue(request.prompt, PlainWriting(encoder, where), encoder)
        else:
            writing = ChatWriting(encoder, self.factory.tools, where)
            dialogue = Dialogue(request.prompt, writing, encoder)
        account = Account(self.limits.episode_seconds)
        environment = self.factory.make(Unhurried(ask, account))
        finish: Finish
        try:
            finish = await self._turns(dialogue, environment, account, ask)
            final = await account.timed(environment.final_reward())
            account.note(Observation(reward=final))
            self._expect_bounds(account.reward, where)
        except FaultError as error:
            finish = "error"
            warnings.warn(f"{where}: an environment failed, so its episode is unscored: {error}",
                          stacklevel=1)  # fmt: skip
        except TimeoutError:
            finish = "aborted"
        finally:
            await environment.close()
        return dialogue.episode(finish, account.reward, account.facts)

    async def close(self) -> None:
        await self.factory.close()

    async def _turns(
        self, dialogue: Dialogue, environment: Environment, account: Account, ask: Ask
    ) -> Finish:
        """All turns; why they ended."""
        began = await account.timed(environment.reset(dialogue.prompt.task))
        account.note(began)
        dialogue.begin(began.messages)
        for number in range(self.limits.max_turns):
            room = self._room(dialogue)
            if room < 1:
                return "length"
            said = await ask(dialogue.next_ids, opened=dialogue.opened, max_tokens=room)
            turn = self._said(dialogue, said, calls=account.calls)
            account.calls += len(turn.calls)
            dialogue.said(said, turn.message)
            if said.finish != "stop":
                return said.finish
            heard = await account.timed(environment.step(turn))
            account.note(heard)
            dialogue.earned(heard.reward)
            if heard.done:
                _expect_silence(heard, str(dialogue.prompt.task.origin))
                return "stop"
            if number + 1 < self.limits.max_turns:
                dialogue.heard(heard.messages)
        return "length"

    def _room(self, dialogue: Dialogue) -> int:
        """Tokens that the next turn may have."""
        room = self.context - len(dialogue.next_ids)
        if self.limits.max_episode_tokens is not None:
            room = min(room, self.limits.max_episode_tokens - dialogue.tokens)
        return room

    def _said(self, dialogue: Dialogue, completion: Completion, *, calls: int) -> Said:
        ids = list(completion.ids)
        while ids and ids[-1] in dialogue.encoder.ends:
            del ids[-1]
        text = decode(self.tokenizer, ids, special=True)
        if isinstance(dialogue.prompt.task.prompt, str):
            return Said({"role": "assistant", "content": text}, text)
        found = message_of(
            dialogue.opened + text,
            self.factory.tools,
            first=calls,
            thoughts=dialogue.encoder.chat.reads_thoughts,
        )
        return Said(found.message, text, found.calls, found.malformed)

    def _expect_bounds(self, reward: float | None, where: str) -> None:
        if reward is not None and not abs(reward) <= LARGEST:
            raise FaultError(f"its reward {reward:g} is no number that training can hold")
        bounds = self.factory.bounds
        if reward is None or bounds is None:
            return
        if not bounds[0] - NEARLY <= reward <= bounds[1] + NEARLY:
            raise WorldError(
                f"the environment gave a reward of {reward:g}, and declares {bounds[0]:g} to "
                f"{bounds[1]:g}",
                where=where,
                fix="mend its rewards, or declare the range they really have",
            )


def _expect_silence(observation: Observation, where: str) -> None:
    if observation.messages:
        raise WorldError(
            f"the environment said {str(observation.messages[0].get('content'))[:60]!r} together "
            "with done, and nobody would read it",
            where=where,
            fix="say it before the last turn, or do not end the episode yet",
        )
