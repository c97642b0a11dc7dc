"""Games of the user's own: tried before anybody plays, and looked after while they are played."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from strop.engines.draws import DrawKey
from strop.rollout.environment import FaultError
from strop.rollout.games.game import (
    AROUND,
    Boards,
    Flags,
    Game,
    Numbers,
    Values,
    named,
    over,
    random_games,
)
from strop.rollout.games.own.made import BrokenRuleError, expect, guarded, made_of, refused
from strop.rollout.tools.said import readable

METHODS = ("reset", "player", "legal", "step", "outcome", "show")

TRIED = 32
"""Games at random in which the rules are checked."""

NEARLY = 1e-9


def own_game(path: Path, name: str) -> Game:
    """The game of a user's class, made without arguments. Raises `WorldError` for one that does
    not keep to the protocol `Game`."""
    made = made_of(path, name, METHODS)
    try:
        guarded(lambda: check(made))
    except BrokenRuleError as error:
        if error.__cause__ is None:
            raise refused(path, f"{name}: {error}") from None
        raise refused(path, f"{name} fails in a game at random: {error}") from None
    return OwnGame(made, f"{path}, {name}")


class OwnGame:
    """A user's game, each answer of which is looked at. What it raises, and what is no answer of a
    game's, is a `FaultError`: it costs the episode in which it happened, not the run."""

    def __init__(self, made: Any, where: str) -> None:
        self.made, self.where = made, where
        self.moves: Sequence[str] = tuple(made.moves)

    def reset(self, seeds: Sequence[int]) -> Boards:
        found: Boards = self._asked("reset", lambda: boards_of_reset(self.made, seeds))
        return found

    def player(self, boards: Boards) -> Numbers:
        def asked() -> Numbers:
            found = player_of(self.made, boards)
            odd = ~np.isin(found, (0, 1))
            if odd.any():
                expect(bool(over(self, boards[odd]).all()), "a player is neither 0 nor 1")
            return found

        found: Numbers = self._asked("player", asked)
        return found

    def legal(self, boards: Boards) -> Flags:
        def asked() -> Flags:
            found = legal_of(self.made, boards)
            stuck = ~found.any(1)
            if stuck.any():
                ended = over(self, boards[stuck])
                expect(bool(ended.all()), "a game that is not over has no legal move")
            return found

        found: Flags = self._asked("legal", asked)
        return found

    def step(self, boards: Boards, moves: Numbers) -> Boards:
        found: Boards = self._asked("step", lambda: step_of(self.made, boards, moves))
        return found

    def outcome(self, boards: Boards) -> Values:
        found: Values = self._asked("outcome", lambda: outcome_of(self.made, boards))
        return found

    def show(self, board: Boards, player: int) -> str:
        said: str = self._asked("show", lambda: show_of(self.made, board, player))
        return readable(said)

    def _asked(self, method: str, asked: Callable[[], Any]) -> Any:
        try:
            return guarded(asked)
        except BrokenRuleError as error:
            raise FaultError(f"{self.where}.{method}: {error}") from error.__cause__


def boards_of_reset(game: Game, seeds: Sequence[int]) -> Boards:
    found = game.reset(seeds)
    expect(
        isinstance(found, np.ndarray)
        and found.ndim == 2
        and len(found) == len(seeds)
        and found.dtype.kind in "biuf",
        "reset gives an array [seeds, numbers of a board]",
    )
    return found


def player_of(game: Game, boards: Boards) -> Numbers:
    found = game.player(boards)
    expect(np.shape(found) == (len(boards),), "player gives a number for each board")
    return np.asarray(found)


def legal_of(game: Game, boards: Boards) -> Flags:
    found = game.legal(boards)
    expect(
        isinstance(found, np.ndarray)
        and found.shape == (len(boards), len(game.moves))
        and found.dtype == np.bool_,
        f"legal gives booleans [boards, {len(game.moves)} moves]",
    )
    return found


def step_of(game: Game, boards: Boards, moves: Numbers) -> Boards:
    found = game.step(boards, moves)
    expect(
        isinstance(found, np.ndarray)
        and found.shape == boards.shape
        and found.dtype.kind in "biuf",
        "step gives boards like those that it is given",
    )
    return found


def outcome_of(game: Game, boards: Boards) -> Values:
    found = game.outcome(boards)
    expect(
        isinstance(found, np.ndarray)
        and found.shape == (len(boards), 2)
        and found.dtype.kind in "iuf",
        "outcome gives two numbers for each board",
    )
    first, second = found[:, 0], found[:, 1]
    ended = first == first  # no nan
    right = ~ended | ((abs(first) <= 1) & (abs(first + second) < NEARLY))
    expect(
        bool(right.all()),
        f"an outcome is {found[(~right).argmax()].tolist()}: a win of one is the other's loss, "
        "from -1 to 1",
    )
    return found


def show_of(game: Game, board: Boards, player: int) -> str:
    said = game.show(board, player)
    expect(isinstance(said, str) and said != "", "show gives no text")
    return said


def check(game: Game) -> None:
    """Raise `BrokenRuleError` for what games at random show: moves without names, or with names
    that no answer can say, boards that are no function of their seeds, arguments that are changed,
    boards of a batch that matter to each other, a move that is not to be had, outcomes that do not
    sum to 0."""
    _check_names(game)
    seeds = list(range(TRIED))
    first, again = boards_of_reset(game, seeds), game.reset(seeds[::-1])[::-1]
    expect(np.array_equal(first, again), "reset gives a seed another board when asked again")
    for boards, moves in random_games(game, seeds, DrawKey(0, "selfcheck", prompt="game")):
        _check_game(game, boards, moves)


def _check_names(game: Game) -> None:
    names = list(game.moves)
    expect(
        len(set(names)) == len(names) > 0
        and all(isinstance(n, str) and n and len(n.split()) == 1 for n in names),
        f"its moves need names that differ and have no white space, and are {names[:10]}",
    )
    for number, name in enumerate(names):
        found = named(game, name)
        expect(
            found is None or found == number,
            f"an answer that ends in its move {name!r} is taken for {names[found or 0]!r}: upper "
            "and lower case are one, and marks around a name are dropped",
        )
        expect(
            found == number,
            f"no answer can name its move {name!r}: marks around an answer's last word "
            f"({' '.join(AROUND)}) are dropped, so no name begins or ends with one",
        )


def _check_game(game: Game, boards: Any, moves: Any) -> None:
    """One game's boards [T + 1, S] and moves [T], as a batch, against what was played."""
    before = boards.copy()
    count = len(moves)
    legal, player = legal_of(game, boards), player_of(game, boards)
    outcome_of(game, boards)
    expect(bool(np.isin(player[:count], (0, 1)).all()), "a player is neither 0 nor 1")
    ended = over(game, boards)
    expect(bool(ended[-1]) and not ended[:-1].any(), "a game that was over goes on")
    expect(bool(legal[:count].any(1).all()), "a game that is not over has no legal move")
    expect(bool(legal[np.arange(count), moves].all()), "a legal move is not legal when asked again")
    expect(
        np.array_equal(step_of(game, boards[:count], moves), boards[1:]),
        "step gives another board for the same move when asked again",
    )
    expect(np.array_equal(before, boards), "a method changes the boards that it is given")
    for seat in (0, 1):
        show_of(game, boards[-1], seat)
