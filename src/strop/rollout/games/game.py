"""What a two-player game is, for many boards at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from strop.engines.draws import DrawKey, uniforms

Boards = NDArray[np.int8]
"""[B, S]: B boards of S numbers each, which say all that a game goes on from."""

Flags = NDArray[np.bool_]
Numbers = NDArray[np.int64]
Values = NDArray[np.float64]

PLIES = 1_000
"""A game that goes on for longer is taken to have no end."""

AROUND = ".,;:!*`'\"()[]"
"""What may stand around a move's name in an answer."""


class Game(Protocol):
    """The rules of a game of two players, 0 and 1, in which both see everything.

    All methods are pure functions of their arguments, and every board of a batch is treated as if
    it were alone. A move is a number below M, the length of `moves`, and has a name without white
    space there.

    Tic-tac-toe: `moves == ("1", ..., "9")`, a board is nine numbers (0 empty, 1 and 2 a mark of
    player 0 and 1), and `show` writes three lines of three signs.
    """

    @property
    def moves(self) -> Sequence[str]: ...

    def reset(self, seeds: Sequence[int]) -> Boards:
        """[B, S]: the boards that games with these seeds begin with. A seed is below 2^63."""

    def player(self, boards: Boards) -> Numbers:
        """[B]: whose turn it is, 0 or 1. Of boards that are over it does not matter."""

    def legal(self, boards: Boards) -> Flags:
        """[B, M]: which moves the one whose turn it is may make; at least one unless it is over."""

    def step(self, boards: Boards, moves: Numbers) -> Boards:
        """[B, S]: the boards after these legal moves [B], as new arrays."""

    def outcome(self, boards: Boards) -> Values:
        """[B, 2]: what a game that is over is worth to each player, from -1 (lost) to 1 (won); the
        two sum to 0. `nan` while it goes on."""

    def show(self, board: Boards, player: int) -> str:
        """A board [S] as text, as this player sees it."""


def over(game: Game, boards: Boards) -> Flags:
    """[B]: which boards' games are over."""
    found: Flags = ~np.isnan(game.outcome(boards)[:, 0])
    return found


def named(game: Game, text: str) -> int | None:
    """The move that an answer means: its last word, without marks around it, is the move's name in
    upper or lower case. `None` where that is no move."""
    words = text.split()
    if not words:
        return None
    word = words[-1].strip(AROUND).casefold()
    return next((n for n, name in enumerate(game.moves) if name.casefold() == word), None)


def drawn(options: Sequence[Any], key: DrawKey) -> int:
    """One of the options, each as likely as the others."""
    return int(options[int(uniforms(key, 1)[0] * len(options))])


def random_games(game: Game, seeds: Sequence[int], key: DrawKey) -> list[tuple[Boards, Numbers]]:
    """Games in which both players move at random, all played at the same time: for each its boards
    [T + 1, S] from the first to the last one, and the T moves between them.

    Raises `ValueError` for a game that does not end within `PLIES` moves.
    """
    boards = game.reset(seeds)
    seen: list[list[Boards]] = [[board] for board in boards]
    made: list[list[int]] = [[] for _ in seeds]
    draws = uniforms(key, PLIES * len(seeds)).reshape(PLIES, len(seeds))
    for chances in draws:
        going = np.flatnonzero(~over(game, boards))
        if not len(going):
            return [
                (np.stack(b), np.array(m, dtype=np.int64)) for b, m in zip(seen, made, strict=True)
            ]
        legal = game.legal(boards[going])
        wanted = (chances[going] * legal.sum(1)).astype(np.int64)
        moves = (legal.cumsum(1) > wanted[:, None]).argmax(1)
        boards = boards.copy()
        boards[going] = game.step(boards[going], moves)
        for n, move in zip(going, moves, strict=True):
            seen[n].append(boards[n])
            made[n].append(int(move))
    raise ValueError(f"a game at random did not end within {PLIES} moves")
