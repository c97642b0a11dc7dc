"""Plays many episodes at a time: environments in one asyncio loop, turns as the engine gives
them."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from queue import SimpleQueue
from typing import Any, Protocol

import torch

from strop.engines.engine import PromptedTask, Request, RolloutEngine
from strop.engines.feed import Feed
from strop.episodes import Episode
from strop.errors import UsageError
from strop.recipe.train.environment import EpisodeLimits
from strop.rollout.environment import Play
from strop.types import Answer, Completion, trainable


class FedEngine(RolloutEngine, Protocol):
    """An engine that takes requests while it answers others."""

    def answering(self, feed: Feed) -> Iterator[tuple[int, Answer]]:
        """(number of the request, its answer), as they finish, until the feed is closed."""


class Player:
    """An engine whose answers are episodes: it plays one for every request.

    Environments live in the asyncio loop of a thread of their own; the engine works in the thread
    that asks for episodes. So a slow environment holds up its own episode only.
    """

    def __init__(self, engine: FedEngine, way: Play, limits: EpisodeLimits) -> None:
        self.engine, self.way, self.limits = engine, way, limits
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def identity(self) -> Mapping[str, Any]:
        return self.engine.identity()

    def publish(self, weights: Mapping[str, torch.Tensor]) -> int:
        return self.engine.publish(weights)

    def generate(self, requests: Sequence[Request]) -> Iterator[tuple[int, Episode]]:
        stage = Stage(requests, self.way, self.limits)
        playing = asyncio.run_coroutine_threadsafe(stage.play(), self._loop)
        try:
            for number, answer in self.engine.answering(stage.feed):
                self._loop.call_soon_threadsafe(stage.answered, number, trainable(answer))
                yield from stage.ended()
            playing.result()
            yield from stage.ended()
        finally:
            playing.cancel()

    def close(self) -> None:
        """End all environments."""
        asyncio.run_coroutine_threadsafe(self.way.close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class Stage:
    """Episodes that are played at the same time, one for each request."""

    def __init__(self, requests: Sequence[Request], way: Play, limits: EpisodeLimits) -> None:
        self.requests, self.way, self.limits = requests, way, limits
        self.feed = Feed()
        self._ended: SimpleQueue[tuple[int, Episode]] = SimpleQueue()
        self._awaited: dict[int, asyncio.Future[Completion]] = {}
        self._asked = 0
        self._left = len(requests)
        self._held: list[tuple[int, int, Request]] = []
        """With `turns: together`: (episode, number, request) that wait for everybody's."""

    async def play(self) -> None:
        """All episodes; closes the feed at their end."""
        places = asyncio.Semaphore(self.limits.at_once)

        async def one(number: int) -> None:
            async with places:
                asker = Asker(self, number)
                episode = await self.way.play(self.requests[number], asker)
            self._ended.put((number, episode))
            self._left -= 1
            self._release()

        try:
            async with asyncio.TaskGroup() as group:
                for number in range(len(self.requests)):
                    group.create_task(one(number))
        except BaseExceptionGroup as errors:
            self.feed.close(errors.exceptions[0])
            raise errors.exceptions[0] from None
        finally:
            self.feed.close()

    def ended(self) -> Iterator[tuple[int, Episode]]:
        """Those that ended since this was last asked."""
        while not self._ended.empty():
            yield self._ended.get()

    def answered(self, number: int, completion: Completion) -> None:
        """Hand an answer to the one who waits for it, if somebody still does."""
        awaited = self._awaited.pop(number)
        if not awaited.done():
            awaited.set_result(completion)

    async def ask(self, episode: int, request: Request) -> Completion:
        self._asked += 1
        number = self._asked
        self._awaited[number] = asyncio.get_running_loop().create_future()
        if self.limits.turns == "together":
            self._held.append((episode, number, request))
            self._release()
        else:
            self.feed.put([(number, request)])
        return await self._awaited[number]

    def _release(self) -> None:
        """Ask for everybody's turn once everybody who plays waits for one."""
        playing = min(self.limits.at_once, self._left)
        if self._held and len(self._held) == playing:
            held, self._held = sorted(self._held, key=lambda one: one[0]), []
            self.feed.put([(number, request) for _, number, request in held])


class Asker:
    """Asks for the answers of one episode. A prompt that is asked for again has another draw."""

    def __init__(self, stage: Stage, episode: int) -> None:
        self.stage, self.episode = stage, episode
        self.request = stage.requests[episode]
        self._before: Counter[tuple[int, ...]] = Counter()

    async def __call__(
        self, prompt_ids: tuple[int, ...], *, opened: str = "", max_tokens: int | None = None
    ) -> Completion:
        given = self.request
        again = self._before[prompt_ids]
        self._before[prompt_ids] += 1
        name = ",".join(map(str, prompt_ids)) + (f"/{again}" if again else "")
        sampling = given.sampling
        if max_tokens is not None:
            if max_tokens < 1:
                raise UsageError("an answer of no tokens was asked for")
            sampling = replace(sampling, max_tokens=min(max_tokens, sampling.max_tokens))
        prompt = PromptedTask(given.prompt.task, prompt_ids, opened, given.prompt.salt)
        key = replace(given.key, prompt=name)
        return await self.stage.ask(self.episode, Request(prompt, sampling, key))
