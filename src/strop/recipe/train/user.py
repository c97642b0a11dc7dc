"""Simulated users in recipes: who the policy talks to."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, Tag

from strop.recipe.base import LocalPath, ModelPath, Strict
from strop.recipe.train.telling import tag, told_by


class ScriptRecipe(Strict):
    """A user who says what the task's column `turns` lists, one text after each answer."""

    turns: str


class OwnUserRecipe(Strict):
    """A user of one's own: a class in `file`, made without arguments. `reset(**columns)` begins a
    dialogue, `reply(said: str) -> str` answers the assistant (an empty text ends it), and
    `get_reward` may say at the end how content the user is. Each dialogue has a process of its
    own."""

    file: LocalPath
    class_: str = Field(alias="class")
    call_seconds: float = Field(10.0, gt=0)
    retries: int = Field(3, ge=0)


class ModelUserRecipe(Strict):
    """A user whom a model plays, which is not trained. It is told who it is by the task's column
    `persona`, and ends the dialogue by saying `ends_with`."""

    model: ModelPath
    persona: str = "persona"
    ends_with: str = "[END]"
    temperature: float = Field(1.0, ge=0)
    max_tokens: int = Field(128, ge=1)


KINDS: dict[str, type[Strict]] = {
    "turns": ScriptRecipe,
    "class": OwnUserRecipe,
    "model": ModelUserRecipe,
}


UserRecipe = Annotated[
    Annotated[ScriptRecipe, Tag(tag("turns"))]
    | Annotated[OwnUserRecipe, Tag(tag("class"))]
    | Annotated[ModelUserRecipe, Tag(tag("model"))],
    told_by(KINDS, f"give one of {', '.join(KINDS)}, which says what user it is"),
]
