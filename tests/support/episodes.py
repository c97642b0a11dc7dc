"""Engines that say what a script says, and environments that answer by one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from strop.engines.draws import DrawKey
from strop.engines.engine import Request, Sampling, prompted_tasks, requests_of
from strop.engines.feed import Feed
from strop.episodes import Episode
from strop.recipe.train.environment import EpisodeLimits
from strop.rollout.environment import Ask, Observation, Said
from strop.rollout.play import Player
from strop.rollout.turn_by_turn import TurnByTurn
from strop.text.chat.template import Tools
from strop.text.parse import decode
from strop.types import Completion, Finish, Task
from strop.types import Origin as Place

Say = Callable[[str, Request], str]
"""What the policy says to a prompt (as text, with special tokens)."""


class ScriptedEngine:
    """Says what `say` says, ending in the token `end`; every token has the log-prob -0.5."""

    def __init__(self, tokenizer: Any, say: Say, end: str = "<|im_end|>") -> None:
        self.tokenizer, self.say = tokenizer, say
        self.end = tokenizer.convert_tokens_to_ids(end)
        self.version = 1
        self.asked: list[Request] = []

    def identity(self) -> Mapping[str, Any]:
        return {"path": "scripted"}

    def publish(self, weights: Mapping[str, torch.Tensor]) -> int:
        self.version += 1
        return self.version

    def generate(self, requests: Sequence[Request]) -> Iterator[tuple[int, Completion]]:
        for number, request in enumerate(requests):
            yield number, self.answer(request)

    def answering(self, feed: Feed) -> Iterator[tuple[int, Completion]]:
        while coming := feed.take(wait=True):
            for number, request in coming:
                yield number, self.answer(request)

    def answer(self, request: Request) -> Completion:
        self.asked.append(request)
        text = self.say(decode(self.tokenizer, request.prompt.prompt_ids, special=True), request)
        ids = [*self.tokenizer(text, add_special_tokens=False)["input_ids"], self.end]
        finish: Finish = "stop"
        if len(ids) > request.sampling.max_tokens:
            ids, finish = ids[: request.sampling.max_tokens], "length"
        return Completion.one_turn(ids, text, [-0.5] * len(ids), finish, self.version)


@dataclass
class ScriptedEnvironment:
    """Answers by `answer(said, turn)`; sleeps `seconds(turn)` first."""

    answer: Callable[[Said, int], Observation]
    opening: Observation = field(default_factory=Observation)
    final: float | None = None
    seconds: Callable[[int], float] = lambda turn: 0.0
    heard: list[Said] = field(default_factory=list)
    closed: bool = False

    async def reset(self, task: Task) -> Observation:
        return self.opening

    async def step(self, said: Said) -> Observation:
        self.heard.append(said)
        await asyncio.sleep(self.seconds(len(self.heard)))
        return self.answer(said, len(self.heard))

    async def final_reward(self) -> float | None:
        return self.final

    async def close(self) -> None:
        self.closed = True


@dataclass
class ScriptedFactory:
    """Makes environments by a function, and keeps them."""

    one: Callable[[int], ScriptedEnvironment]
    tools: Tools = None
    rewards: bool = True
    bounds: tuple[float, float] | None = None
    made: list[ScriptedEnvironment] = field(default_factory=list)

    def make(self, ask: Ask) -> ScriptedEnvironment:
        self.made.append(self.one(len(self.made)))
        return self.made[-1]

    async def close(self) -> None:
        pass


def asked(
    tokenizer: Any, prompts: Sequence[Any], *, size: int = 1, tools: Tools = None, **sampling: Any
) -> list[Request]:
    """Requests of `size` episodes for each prompt."""
    columns = {"tools": tools} if tools else {}
    tasks = [Task(prompt, columns, Place("tasks.jsonl", n)) for n, prompt in enumerate(prompts, 1)]
    how = Sampling(**{"max_tokens": 120, **sampling})
    return requests_of(prompted_tasks(tokenizer, tasks), how, DrawKey(3, "training", 2), size)


def played(
    engine: Any, factory: ScriptedFactory, requests: Sequence[Request], **limits: Any
) -> list[Episode]:
    """The episodes, in the order of their requests."""
    bounds = EpisodeLimits(**limits)
    player = Player(engine, TurnByTurn(factory, engine.tokenizer, bounds, 2048), bounds)
    try:
        found = dict(player.generate(requests))
    finally:
        player.close()
    assert sorted(found) == list(range(len(requests)))
    return [found[number] for number in range(len(requests))]
