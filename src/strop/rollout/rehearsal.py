"""One episode begun and ended before a run: what cannot begin is told then."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

from strop.engines.draws import DrawKey
from strop.engines.engine import PromptedTask, Request, Sampling
from strop.errors import UsageError, WorldError
from strop.recipe.train.environment import EpisodeLimits
from strop.rollout.dialogue import ChatWriting, Dialogue, PlainWriting, Writing
from strop.rollout.environment import EnvironmentFactory, FaultError
from strop.text.chat.template import Tools
from strop.text.encode import Encoder, Tokenizer
from strop.text.parse import decode
from strop.types import Completion, Message, Task

BEGINS_WITHIN = 90.0
"""Seconds that the environment may take to begin, all tries of it together."""


class Nobody:
    """Stands in for the policy, of which a rehearsal asks nothing."""

    def __init__(self, task: Task) -> None:
        key = DrawKey(0, "selfcheck", prompt="rehearsal")
        self.request = Request(PromptedTask(task, ()), Sampling(), key)

    async def __call__(
        self, prompt_ids: tuple[int, ...], *, opened: str = "", max_tokens: int | None = None
    ) -> Completion:
        raise UsageError("an environment asks the policy before its first turn")


def rehearsed(
    factory: EnvironmentFactory, limits: EpisodeLimits, task: Task
) -> tuple[Message, ...]:
    """What the environment says to this task before the policy's first turn: it is made, begun and
    closed. Raises `WorldError` where it cannot begin, or does not in time."""
    seconds = min(BEGINS_WITHIN, limits.episode_seconds)

    async def begun() -> tuple[Message, ...]:
        environment = factory.make(Nobody(task))
        try:
            async with asyncio.timeout(seconds):
                return (await environment.reset(task)).messages
        finally:
            await environment.close()

    try:
        with ThreadPoolExecutor(1) as apart:  # the caller may be in a loop of its own (notebooks)
            return apart.submit(asyncio.run, begun()).result()
    except FaultError as error:
        said = str(error)
    except TimeoutError:
        said = f"it took longer than {seconds:g} s"
    raise WorldError(
        f"no episode of this task can begin: {said}",
        where=str(task.origin),
        fix="mend `reset`, or what it needs: a file, a server, a column of this row",
    )


def first_prompt(
    prompt: PromptedTask, said: tuple[Message, ...], tools: Tools, tokenizer: Tokenizer
) -> str:
    """What the policy reads before its first turn, with what the environment said."""
    encoder, where = Encoder(tokenizer), str(prompt.task.origin)
    plain = isinstance(prompt.task.prompt, str)
    writing: Writing = PlainWriting(encoder, where) if plain else ChatWriting(encoder, tools, where)
    dialogue = Dialogue(prompt, writing, encoder)
    dialogue.begin(said)
    return decode(tokenizer, list(dialogue.next_ids), special=True)
