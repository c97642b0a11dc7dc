"""Who plays connect four perfectly: M. Thill's solver BitBully, as an opponent of one's own."""

from __future__ import annotations

import numpy as np
from bitbully import BitBully, Board
from numpy.typing import NDArray

HEIGHT, WIDTH = 6, 7


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
