"""Connect four in few tokens, and who plays it perfectly: M. Thill's solver BitBully."""

from __future__ import annotations

import numpy as np
from bitbully import BitBully, Board
from numpy.typing import NDArray

from strop.rollout.games.connect_four import HEIGHT, WIDTH, ConnectFour

SIGNS = np.array(list(".XO"))


class ByColumns(ConnectFour):
    """Connect four whose boards are shown column by column: the column's name and what it holds,
    from its lowest place up. With a token for each of the 7 * 127 that there are, a board is 7
    tokens."""

    def show(self, board: NDArray[np.int8], player: int) -> str:
        own = board if player == 0 else (3 - board) * (board > 0)
        held = ["".join(signs) for signs in SIGNS[own.reshape(HEIGHT, WIDTH)[::-1].T].tolist()]
        return "".join(name + column for name, column in zip(self.moves, held, strict=True))


class Perfect:
    """All moves after which the game ends as well as can be: won, drawn or lost. How soon does not
    matter, as it does not to strop's own solver."""

    def __init__(self) -> None:
        self.solver = BitBully()

    def best(self, board: NDArray[np.int8]) -> list[int]:
        """The columns, from 0 on the left, for a board row by row from the top."""
        scores = self.solver.score_all_moves(Board(board.reshape(HEIGHT, WIDTH).tolist()))
        ends = {column: int(np.sign(score)) for column, score in scores.items()}
        return [column for column, end in ends.items() if end == max(ends.values())]
