"""Opponents that a recipe or a league names, ready to sit down at a game."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from strop.engines.engine import Sampling
from strop.errors import WorldError
from strop.recipe.train.game import (
    AlphaBetaRecipe,
    FrozenRecipe,
    GameName,
    OwnGameRecipe,
    OwnPlayerRecipe,
)
from strop.rollout.environment import FaultError
from strop.rollout.frozen import FrozenModel, expect_model
from strop.rollout.games.alpha_beta import AlphaBeta
from strop.rollout.games.connect_four import ConnectFour
from strop.rollout.games.game import Game
from strop.rollout.games.own.game import OwnGame, own_game
from strop.rollout.games.own.player import OwnPlayer, own_player
from strop.rollout.games.players import BestPlayer, ModelPlayer, Player, RandomPlayer
from strop.rollout.games.solved import Solver
from strop.rollout.games.tic_tac_toe import TicTacToe
from strop.types import Text

OPPONENTS = "rollout.environment.opponents"
"""The key that names them."""

GAMES: Mapping[str, Callable[[], Game]] = {"tic_tac_toe": TicTacToe, "connect_four": ConnectFour}


def game_of(named: GameName) -> Game:
    """The game that a recipe names. Raises `WorldError` for one's own that is none."""
    if isinstance(named, OwnGameRecipe):
        return own_game(Path(named.file), named.class_)
    return GAMES[named]()


def by_name(recipes: Iterable[Any]) -> dict[str, Any]:
    """Opponents by what they are called in logs: `random`, `alpha_beta 6`, the last parts of a
    model's folder (`sft/final`) or `solver.py:Solver`; more of a path where two would be called
    alike."""
    called = {recipe: _names(recipe) for recipe in recipes}
    found = {}
    for recipe, names in called.items():
        taken = {name for other, given in called.items() if other != recipe for name in given}
        found[next((name for name in names if name not in taken), names[-1])] = recipe
    return found


def _names(recipe: Any) -> list[str]:
    """What an opponent can be called, the shortest first; nobody else has the last one."""
    if isinstance(recipe, AlphaBetaRecipe):
        return [f"alpha_beta {recipe.alpha_beta}"]
    if isinstance(recipe, OwnPlayerRecipe):
        names = [f"{tail}:{recipe.class_}" for tail in _tails(recipe.file)]
        return [*names, f"{names[-1]} ({recipe.call_seconds:g} s)"]
    if isinstance(recipe, FrozenRecipe) and Path(recipe.model).is_absolute():
        return _tails(recipe.model)[1:] or [recipe.model]
    return [recipe.model if isinstance(recipe, FrozenRecipe) else str(recipe)]


def _tails(path: str) -> list[str]:
    """`["c", "b/c", "/b/c"]` of `/b/c`."""
    parts = Path(path).parts
    return [*("/".join(parts[n:]) for n in range(len(parts) - 1, 0, -1)), path]


Seat = Callable[[Text, int, Sampling], Player]
"""Gives a player its place in one game: the task's prompt, whether it is player 0 or 1, and how
models sample."""


class Frozen:
    """Players that stay as they are, by name; each model is loaded once, when it first moves.

    Raises `WorldError` for one that cannot play this game, `ModelError` for a folder without a
    model.
    """

    def __init__(self, game: Game, recipes: Mapping[str, Any]) -> None:
        self.game = game
        self._threads: list[FrozenModel | OwnPlayer] = []
        try:
            self._seats = {name: self._ready(recipe) for name, recipe in recipes.items()}
        except FaultError as error:  # of a game of the user's own, on a board not met before
            fix = "mend the game: it fails on boards that are seldom met"
            raise WorldError(str(error), fix=fix) from None

    def seat(self, name: str, prompt: Text, player: int, sampling: Sampling) -> Player:
        return self._seats[name](prompt, player, sampling)

    async def close(self) -> None:
        for one in self._threads:
            await asyncio.to_thread(one.close)

    def _ready(self, recipe: Any) -> Seat:
        if isinstance(recipe, FrozenRecipe):
            return self._model(recipe.model)
        player = self._by_rules(recipe)
        return lambda prompt, seat, sampling: player

    def _by_rules(self, recipe: str | AlphaBetaRecipe | OwnPlayerRecipe) -> Player:
        if recipe == "random":
            return RandomPlayer(self.game)
        if isinstance(recipe, OwnPlayerRecipe):
            own = own_player(recipe, self.game)
            self._threads.append(own)
            return own
        if isinstance(recipe, AlphaBetaRecipe):
            if not _is_connect_four(self.game):
                raise WorldError(
                    "alpha_beta plays connect four alone",
                    fix="take `perfect`, which solves games",
                    key=OPPONENTS,
                )
            return BestPlayer(AlphaBeta(recipe.alpha_beta))
        if _is_connect_four(self.game):
            raise WorldError(
                "connect four is not solved here",
                fix="take {alpha_beta: 8}, more stones, or a solver of your own (`file`)",
                key=OPPONENTS,
            )
        solver = Solver(self.game)
        solver.value(self.game.reset([0])[0])
        return BestPlayer(solver)

    def _model(self, folder: str) -> Seat:
        expect_model(folder)
        model = FrozenModel(folder)
        self._threads.append(model)

        def seat(prompt: Text, player: int, sampling: Sampling) -> Player:
            return ModelPlayer(self.game, prompt, player, partial(model.say, sampling=sampling))

        return seat


def _is_connect_four(game: Game) -> bool:
    """Also where a class of the user's own shows its boards otherwise."""
    return isinstance(game.made if isinstance(game, OwnGame) else game, ConnectFour)
