"""Games in recipes: what is played, and against whom."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from strop.recipe.base import LocalPath, ModelPath, Strict


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


def _kind_of(given: Any) -> str | None:
    """The tag of an opponent's form; `None` where it has none of them."""
    if isinstance(given, str):
        return "<name>"
    if isinstance(given, AlphaBetaRecipe) or (isinstance(given, dict) and "alpha_beta" in given):
        return "<alpha_beta>"
    if isinstance(given, FrozenRecipe) or (isinstance(given, dict) and "model" in given):
        return "<model>"
    return None


FrozenPlayerRecipe = Annotated[
    Annotated[Literal["random", "perfect"], Tag("<name>")]
    | Annotated[AlphaBetaRecipe, Tag("<alpha_beta>")]
    | Annotated[FrozenRecipe, Tag("<model>")],
    Discriminator(
        _kind_of,
        custom_error_type="which_player",
        custom_error_message="a player is random, perfect, {alpha_beta: 6} or {model: FOLDER}",
    ),
]
"""Players that stay as they are."""

OpponentRecipe = Annotated[
    Annotated[Literal["random", "perfect", "self"], Tag("<name>")]
    | Annotated[AlphaBetaRecipe, Tag("<alpha_beta>")]
    | Annotated[FrozenRecipe, Tag("<model>")],
    Discriminator(
        _kind_of,
        custom_error_type="which_opponent",
        custom_error_message=(
            "an opponent is random, perfect, self, {alpha_beta: 6} or {model: FOLDER}"
        ),
    ),
]
"""Those, and the policy as it is now."""

GameName = Literal["tic_tac_toe", "connect_four"] | OwnGameRecipe


class LeagueMatchRecipe(Strict):
    """Opponents from a league's file: the other players, each drawn in proportion to (1 - p)^2, p
    being what the player `as` scores against it in the games that the file holds."""

    file: LocalPath
    as_: str = Field(alias="as")
