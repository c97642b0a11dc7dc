"""Perfect play of games that are small enough to look at everything."""

from __future__ import annotations

import numpy as np

from strop.errors import WorldError
from strop.rollout.games.game import Boards, Game, Numbers, Values

POSITIONS = 100_000
"""Positions that are looked at in all; tic-tac-toe has 5,478."""

NEARLY = 1e-9


class Solver:
    """Values of positions if both play as well as can be; found once, then kept."""

    def __init__(self, game: Game) -> None:
        self.game = game
        self._values: dict[bytes, float] = {}

    def value(self, board: Boards) -> float:
        """What a board [S] is worth to player 0, from -1 to 1. Raises `WorldError` for a game of
        too many positions."""
        key = board.tobytes()
        if key not in self._values:
            if len(self._values) >= POSITIONS:
                raise WorldError(
                    f"the game has more than {POSITIONS:,} positions, so it is not solved here",
                    fix="take another opponent than `perfect`",
                )
            worth = float(self.game.outcome(board[None])[0, 0])
            if np.isnan(worth):
                _, values = self._after(board)
                worth = float(values.max() if self._first_moves(board) else values.min())
            self._values[key] = worth
        return self._values[key]

    def best(self, board: Boards) -> Numbers:
        """All moves that keep a board's value, for the one whose turn it is."""
        moves, values = self._after(board)
        own = values if self._first_moves(board) else -values
        found: Numbers = moves[own > own.max() - NEARLY]
        return found

    def _first_moves(self, board: Boards) -> bool:
        return int(self.game.player(board[None])[0]) == 0

    def _after(self, board: Boards) -> tuple[Numbers, Values]:
        """The legal moves, and the values of the boards that they lead to."""
        moves = np.flatnonzero(self.game.legal(board[None])[0])
        after = self.game.step(np.repeat(board[None], len(moves), axis=0), moves)
        return moves, np.array([self.value(one) for one in after])
