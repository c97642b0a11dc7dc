"""Tic-tac-toe: three in a row, a column or a diagonal win."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from strop.rollout.games.game import Boards, Flags, Numbers, Values
from strop.rollout.games.lines import drawing, lines_of, outcome_of, whose_turn

LINES = lines_of(3, 3, 3)


class TicTacToe:
    """A board is its nine places, row by row: 0 empty, 1 and 2 a mark of player 0 and 1. The moves
    `1` to `9` are the places in that order; a free place is shown by its number."""

    moves = tuple("123456789")

    def reset(self, seeds: Sequence[int]) -> Boards:
        return np.zeros((len(seeds), 9), dtype=np.int8)

    def player(self, boards: Boards) -> Numbers:
        return whose_turn(boards)

    def legal(self, boards: Boards) -> Flags:
        found: Flags = boards == 0
        return found

    def step(self, boards: Boards, moves: Numbers) -> Boards:
        after = boards.copy()
        after[np.arange(len(boards)), moves] = self.player(boards) + 1
        return after

    def outcome(self, boards: Boards) -> Values:
        return outcome_of(boards, LINES)

    def show(self, board: Boards, player: int) -> str:
        return drawing(board, player, 3, self.moves)
