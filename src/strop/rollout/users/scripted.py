"""Users by a script: the task's own list of turns, or a class of the user's own."""

from __future__ import annotations

from collections.abc import Sequence

from strop.errors import DataError, WorldError
from strop.recipe.train.environment import OwnEnvironmentRecipe
from strop.recipe.train.user import OwnUserRecipe, ScriptRecipe
from strop.rollout.environment import FaultError
from strop.rollout.own.toolbox import OwnToolboxes
from strop.rollout.tools.toolbox import Toolbox
from strop.text.parse import plain
from strop.text.tools import Call
from strop.types import Message, Task

REPLY = "reply"
"""The method that answers the assistant."""


class ScriptedUser:
    """Says the texts of a column, one after each answer."""

    def __init__(self, column: str) -> None:
        self.column = column
        self.left: list[str] = []

    async def begin(self, task: Task) -> None:
        self.left = list(task.columns[self.column])

    async def reply(self, said: Message) -> str | None:
        return self.left.pop(0) if self.left else None

    async def reward(self) -> float | None:
        return None

    async def close(self) -> None:
        self.left = []


class ScriptedUsers:
    """Users who say what a column of their task lists."""

    rewards = False

    def __init__(self, recipe: ScriptRecipe) -> None:
        self.recipe = recipe
        self.reads = (recipe.turns,)

    def expect(self, task: Task) -> None:
        column, turns = self.recipe.turns, task.columns.get(self.recipe.turns)
        if not isinstance(turns, list) or not all(isinstance(turn, str) for turn in turns):
            raise DataError(
                f"the column `{column}` holds no list of texts, which a user could say",
                where=str(task.origin),
                fix=f'write "{column}": ["And for two?", "Thanks."] into every task',
            )

    def make(self, seed: str) -> ScriptedUser:
        return ScriptedUser(self.recipe.turns)

    async def close(self) -> None:
        pass


class OwnUser:
    """An instance of a user's own class, in a process of its own."""

    def __init__(self, toolbox: Toolbox) -> None:
        self.toolbox = toolbox

    async def begin(self, task: Task) -> None:
        await self.toolbox.begin(task)

    async def reply(self, said: Message) -> str | None:
        result = await self.toolbox.call(Call(REPLY, {"said": plain([said])}))
        if result.error:
            raise FaultError(f"the user's `{REPLY}` failed: {result.text}")
        return None if result.text in ("", "None") else result.text

    async def reward(self) -> float | None:
        return await self.toolbox.reward()

    async def close(self) -> None:
        await self.toolbox.close()


class OwnUsers:
    """Users of a class of one's own. Raises `UsageError` for a class that is none."""

    def __init__(self, recipe: OwnUserRecipe) -> None:
        as_tools = OwnEnvironmentRecipe.model_validate(recipe.model_dump(by_alias=True))
        self.toolboxes = OwnToolboxes(as_tools)
        names = [tool["function"]["name"] for tool in self.toolboxes.tools or ()]
        if names != [REPLY]:
            raise WorldError(
                f"{recipe.class_} has the public methods {', '.join(names) or 'none'}, and a user "
                f"has `{REPLY}` alone, beside `reset` and `get_reward`",
                where=str(recipe.file),
                fix=f"write `def {REPLY}(self, said: str) -> str` with a docstring that says what "
                "`said` is (below `Args:`), and begin other names with `_`",
            )

    @property
    def rewards(self) -> bool:
        return self.toolboxes.rewards

    @property
    def reads(self) -> Sequence[str] | None:
        return self.toolboxes.reads

    def expect(self, task: Task) -> None:
        self.toolboxes.expect(task)

    def make(self, seed: str) -> OwnUser:
        return OwnUser(self.toolboxes.make(seed))

    async def close(self) -> None:
        await self.toolboxes.close()
