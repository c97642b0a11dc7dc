"""Games and players of the user's own, from a class in a file; tried before anybody plays."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from strop.engines.draws import DrawKey
from strop.errors import RewardError, WorldError
from strop.rewards.own.functions import offered, own_names
from strop.rollout.environment import FaultError
from strop.rollout.games.game import Boards, Game, drawn, over, random_games

METHODS = ("reset", "player", "legal", "step", "outcome", "show")
Made = TypeVar("Made")

TRIED = 32
"""Games at random in which the rules are checked."""


class BrokenRuleError(Exception):
    """What a game does not keep to."""


def own_game(path: Path, name: str) -> Game:
    """The game of a user's class, made without arguments. Raises `WorldError` for one that does
    not keep to the protocol `Game`."""

    def tried(made: Any) -> Game:
        check(made)
        game: Game = made
        return game

    return _made(path, name, METHODS, tried)


def own_player(path: Path, name: str, game: Game) -> OwnPlayer:
    """The player of a user's class, made without arguments. Raises `WorldError` for one whose
    `best` does not give legal moves, the same ones whenever it is asked about a board."""

    def tried(made: Any) -> OwnPlayer:
        player = OwnPlayer(made, game, f"{path}, {name}")
        for boards, _ in random_games(game, [0, 1], DrawKey(0, "selfcheck", prompt="player")):
            for board in boards[:-1]:
                first, again = player.best(board), player.best(board)
                _expect(first == again, f"best gives {first}, and {again} when asked again")
        return player

    return _made(path, name, ("best",), tried)


class OwnPlayer:
    """Makes any of the moves that a user's class says are best. It is asked one board at a time, in
    a thread of its own, so that a slow one holds up nobody's turn but its own."""

    def __init__(self, made: Any, game: Game, where: str) -> None:
        self.made, self.game, self.where = made, game, where
        self._thread = ThreadPoolExecutor(1)

    async def move(self, board: Boards, key: DrawKey) -> int | None:
        loop = asyncio.get_running_loop()
        try:
            moves = await loop.run_in_executor(self._thread, self.best, board)
        except Exception as error:
            raise FaultError(f"{self.where}: {type(error).__name__}: {error}") from error
        return drawn(moves, key)

    def best(self, board: Boards) -> list[int]:
        """What the class says of a board [S]. Raises `BrokenRuleError` where that is no list of
        legal moves."""
        said = np.asarray(self.made.best(board.copy()))
        legal = np.flatnonzero(self.game.legal(board[None])[0])
        _expect(
            said.ndim == 1 and len(said) > 0 and said.dtype.kind == "i"
            and bool(np.isin(said, legal).all()),
            f"best gives {said.tolist()!r}, and has to give one or more of the legal moves "
            f"{legal.tolist()} (their numbers)",
        )  # fmt: skip
        return sorted({int(move) for move in said})

    def close(self) -> None:
        self._thread.shutdown()


def _made(path: Path, name: str, methods: Sequence[str], tried: Callable[[Any], Made]) -> Made:
    """What `tried` makes of an object of the class. Raises `WorldError` for a class that is not
    there, lacks a method, or breaks a rule."""
    try:
        names = own_names(path)
    except RewardError as error:
        raise WorldError(error.problem, where=error.where, fix=error.fix) from None
    found = names.get(name)
    if not inspect.isclass(found):
        own = [
            n for n, v in names.items() if inspect.isclass(v) and v.__module__ == names["__name__"]
        ]
        raise WorldError(f"the file has no class {name!r}", where=str(path), fix=offered(own, name))
    lacking = [one for one in methods if not callable(getattr(found, one, None))]
    if lacking:
        raise _refused(path, f"{name} has no method {', '.join(lacking)}")
    try:
        return tried(found())
    except BrokenRuleError as error:
        raise _refused(path, f"{name}: {error}") from None
    except Exception as error:  # noqa: BLE001 - the user's rules may raise anything
        raise _refused(path, f"{name} fails in a game at random: {type(error).__name__}: {error}"
                       ) from None  # fmt: skip


def _refused(path: Path, said: str) -> WorldError:
    return WorldError(
        said,
        where=str(path),
        fix='write the class after the protocol in docs/environments.md, "Self-play"',
    )


def check(game: Game) -> None:
    """Raise `BrokenRuleError` for what games at random show: moves without names, boards that are
    no function of their seeds, arguments that are changed, boards of a batch that matter to each
    other, a move that is not to be had, outcomes that do not sum to 0."""
    names = list(game.moves)
    _expect(
        len(set(names)) == len(names) > 0
        and all(isinstance(n, str) and n and len(n.split()) == 1 for n in names),
        f"its moves need names that differ and have no white space, and are {names[:10]}",
    )
    seeds = list(range(TRIED))
    first, again = game.reset(seeds), game.reset(seeds[::-1])[::-1]
    _expect(
        isinstance(first, np.ndarray) and first.ndim == 2 and len(first) == TRIED,
        "reset gives an array [seeds, numbers of a board]",
    )
    _expect(np.array_equal(first, again), "reset gives a seed another board when asked again")
    for boards, moves in random_games(game, seeds, DrawKey(0, "selfcheck", prompt="game")):
        _check_game(game, boards, moves)


def _check_game(game: Game, boards: Any, moves: Any) -> None:
    """One game's boards [T + 1, S] and moves [T], as a batch, against what was played."""
    before = boards.copy()
    count = len(moves)
    legal, outcome, player = game.legal(boards), game.outcome(boards), game.player(boards)
    _expect(
        legal.shape == (count + 1, len(game.moves)) and legal.dtype == np.bool_,
        f"legal gives booleans [boards, {len(game.moves)} moves]",
    )
    _expect(outcome.shape == (count + 1, 2), "outcome gives two numbers for each board")
    _expect(player.shape == (count + 1,), "player gives a number for each board")
    _expect(bool(np.isin(player[:count], (0, 1)).all()), "a player is neither 0 nor 1")
    ended = over(game, boards)
    _expect(bool(ended[-1]) and not ended[:-1].any(), "a game that was over goes on")
    _expect(bool(legal[:count].any(1).all()), "a game that is not over has no legal move")
    _expect(
        bool(legal[np.arange(count), moves].all()), "a legal move is not legal when asked again"
    )
    _expect(
        np.array_equal(game.step(boards[:count], moves), boards[1:]),
        "step gives another board for the same move when asked again",
    )
    worth = outcome[-1]
    _expect(
        bool(abs(worth.sum()) < 1e-9 and abs(worth).max() <= 1),
        f"an outcome is {worth.tolist()}: a win of one is the other's loss, from -1 to 1",
    )
    _expect(np.array_equal(before, boards), "a method changes the boards that it is given")
    shown = [game.show(boards[-1], seat) for seat in (0, 1)]
    _expect(all(isinstance(text, str) and text for text in shown), "show gives no text")


def _expect(kept: bool, said: str) -> None:
    if not kept:
        raise BrokenRuleError(said)
