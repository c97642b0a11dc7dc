"""Connect four: stones fall to the lowest free place of a column, four in a line win."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from strop.rollout.games.game import Boards, Flags, Numbers, Values
from strop.rollout.games.lines import drawing, lines_of, outcome_of, whose_turn

HEIGHT, WIDTH = 6, 7
LINES = lines_of(HEIGHT, WIDTH, 4)


class ConnectFour:
    """A board is its 42 places, row by row from the top: 0 empty, 1 and 2 a stone of player 0 and
    1. The moves `1` to `7` are the columns from the left; above the board stand those that are not
    full."""

    moves = tuple("1234567")

    def reset(self, seeds: Sequence[int]) -> Boards:
        return np.zeros((len(seeds), HEIGHT * WIDTH), dtype=np.int8)

    def player(self, boards: Boards) -> Numbers:
        return whose_turn(boards)

    def legal(self, boards: Boards) -> Flags:
        found: Flags = boards[:, :WIDTH] == 0
        return found

    def step(self, boards: Boards, moves: Numbers) -> Boards:
        after = boards.copy()
        every = np.arange(len(boards))
        free = (boards.reshape(-1, HEIGHT, WIDTH)[every, :, moves] == 0).sum(1)
        after[every, (free - 1) * WIDTH + moves] = self.player(boards) + 1
        return after

    def outcome(self, boards: Boards) -> Values:
        return outcome_of(boards, LINES)

    def show(self, board: Boards, player: int) -> str:
        free = self.legal(board[None])[0]
        above = "".join(name if free[n] else "-" for n, name in enumerate(self.moves))
        return f"{above}\n{drawing(board, player, WIDTH, '.' * len(board))}"
