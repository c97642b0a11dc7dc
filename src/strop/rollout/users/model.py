"""A user whom a model plays."""

from __future__ import annotations

import asyncio

from strop.engines.draws import DrawKey
from strop.engines.engine import Sampling
from strop.errors import DataError, UsageError
from strop.recipe.train.user import ModelUserRecipe
from strop.rollout.environment import FaultError
from strop.rollout.frozen import FrozenModel, expect_model
from strop.text.parse import plain
from strop.text.script import as_messages
from strop.types import Message, Task

WHO = (
    "You are a person who talks to an assistant. {persona}\n"
    "Say only what this person says next, in a sentence or two. Once you have what you wanted, or "
    "give up, say {ends_with} and nothing more."
)
"""What the model is told before the dialogue."""


class ModelUser:
    """Reads the dialogue with the roles changed about: its own turns are the assistant's."""

    def __init__(self, model: FrozenModel, recipe: ModelUserRecipe, seed: str) -> None:
        self.model, self.recipe = model, recipe
        self.sampling = Sampling(temperature=recipe.temperature, max_tokens=recipe.max_tokens)
        self.messages: list[Message] = []
        self.key = DrawKey(0, "training", prompt=seed)

    async def begin(self, task: Task) -> None:
        persona = str(task.columns[self.recipe.persona]).strip()
        who = WHO.format(persona=persona, ends_with=self.recipe.ends_with)
        opening = [m for m in as_messages(task.prompt, role="user") if m["role"] == "user"]
        self.messages = [
            {"role": "user", "content": who},
            {"role": "assistant", "content": plain(opening)},
        ]

    async def reply(self, said: Message) -> str | None:
        self.messages.append({"role": "user", "content": plain([said]) or "(nothing)"})
        try:
            answer = await self.model.say(self.messages, self.sampling, self.key)
        except UsageError as error:
            raise FaultError(
                f"the user's model cannot go on ({error.problem}): lower the environment's "
                "max_turns or user.max_tokens, or take a model that reads more"
            ) from None
        text = answer.text.strip()
        self.messages.append({"role": "assistant", "content": text})
        before, ended, _ = text.partition(self.recipe.ends_with)
        return None if ended or not before.strip() else before.strip()

    async def reward(self) -> float | None:
        return None

    async def close(self) -> None:
        self.messages = []


class ModelUsers:
    """Users whom one model plays. Raises `ModelError` for a folder that holds none."""

    rewards = False

    def __init__(self, recipe: ModelUserRecipe) -> None:
        expect_model(recipe.model)
        self.recipe, self.model = recipe, FrozenModel(recipe.model)
        self.reads = (recipe.persona,)

    def expect(self, task: Task) -> None:
        column, persona = self.recipe.persona, task.columns.get(self.recipe.persona)
        if not isinstance(persona, str) or not persona.strip():
            raise DataError(
                f"the column `{column}` says nothing of who the user is",
                where=str(task.origin),
                fix=f'write "{column}": "You want a refund, and have little time." into every task',
            )

    def make(self, seed: str) -> ModelUser:
        return ModelUser(self.model, self.recipe, seed)

    async def close(self) -> None:
        await asyncio.to_thread(self.model.close)
