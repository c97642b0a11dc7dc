"""Games in recipes: what is played, and against whom."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, Tag

from strop.recipe.base import LocalPath, ModelPath, Strict
from strop.recipe.train.telling import tag, told_by


class OwnGameRecipe(Strict):
    """A game of one's own: a class in `file` that keeps to the protocol `Game`, made without
    arguments."""

    file: LocalPath
    class_: str = Field(alias="class")


class AlphaBetaRecipe(Strict):
    """Connect four by alpha-beta search that looks `alpha_beta` stones ahead."""

    alpha_beta: int = Field(ge=1, le=42)


class FrozenRecipe(Strict):
    """A model that is not trained: an earlier checkpoint, or an adapter. It answers with the run's
    sampling."""

    model: ModelPath


class OwnPlayerRecipe(Strict):
    """A player of one's own: a class in `file`, made without arguments, whose method `best` gives
    the moves that it takes for best on a board, within `call_seconds`. It has a process of its
    own."""

    file: LocalPath
    class_: str = Field(alias="class")
    call_seconds: float = Field(10.0, gt=0)


KINDS: dict[str, type[Strict]] = {
    "alpha_beta": AlphaBetaRecipe,
    "model": FrozenRecipe,
    "file": OwnPlayerRecipe,
}
"""Players that have options, by the key that tells them."""

FrozenPlayerRecipe = Annotated[
    Annotated[Literal["random", "perfect"], Tag(tag("name"))]
    | Annotated[AlphaBetaRecipe, Tag(tag("alpha_beta"))]
    | Annotated[FrozenRecipe, Tag(tag("model"))]
    | Annotated[OwnPlayerRecipe, Tag(tag("file"))],
    told_by(
        KINDS,
        "a player is random, perfect, {alpha_beta: 6}, {model: FOLDER} or "
        "{file: FILE, class: NAME}",
    ),
]
"""Players that stay as they are."""

OpponentRecipe = Annotated[
    Annotated[Literal["random", "perfect", "self"], Tag(tag("name"))]
    | Annotated[AlphaBetaRecipe, Tag(tag("alpha_beta"))]
    | Annotated[FrozenRecipe, Tag(tag("model"))]
    | Annotated[OwnPlayerRecipe, Tag(tag("file"))],
    told_by(
        KINDS,
        "an opponent is random, perfect, self, {alpha_beta: 6}, {model: FOLDER} or "
        "{file: FILE, class: NAME}",
    ),
]
"""Those, and the policy as it is now."""

GameName = Annotated[
    Annotated[Literal["tic_tac_toe", "connect_four"], Tag(tag("name"))]
    | Annotated[OwnGameRecipe, Tag(tag("file"))],
    told_by(
        {"file": OwnGameRecipe},
        "a game is tic_tac_toe, connect_four or {file: FILE, class: NAME}",
    ),
]


class LeagueMatchRecipe(Strict):
    """Opponents from a league's file: the other players, each drawn in proportion to (1 - p)^2, p
    being what the player `as` scores against it in the games that the file holds."""

    file: LocalPath
    as_: str = Field(alias="as")
