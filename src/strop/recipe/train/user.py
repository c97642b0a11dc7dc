"""Simulated users in recipes: who the policy talks to."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Discriminator, Field, Tag

from strop.recipe.base import LocalPath, ModelPath, Strict


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


def _kind_of(given: Any) -> str | None:
    if isinstance(given, Strict):
        return next(f"<{key}>" for key, kind in KINDS.items() if kind is type(given))
    found = [key for key in KINDS if isinstance(given, dict) and key in given]
    return f"<{found[0]}>" if len(found) == 1 else None


UserRecipe = Annotated[
    Annotated[ScriptRecipe, Tag("<turns>")]
    | Annotated[OwnUserRecipe, Tag("<class>")]
    | Annotated[ModelUserRecipe, Tag("<model>")],
    Discriminator(
        _kind_of,
        custom_error_type="which_user",
        custom_error_message=f"give one of {', '.join(KINDS)}, which says what user it is",
    ),
]
