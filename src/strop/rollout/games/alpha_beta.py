"""Connect four by alpha-beta search on bitboards.

A column is seven bits from its lowest place up, of which the last stays empty, so that shifts by 1,
7, 6 and 8 are steps up, to the right, and along the diagonals (John Tromp's layout, the Fhourstones
benchmark). Values are 1, 0 and -1: won, not known to be either, lost.
"""

from __future__ import annotations

import numpy as np

from strop.rollout.games.connect_four import HEIGHT, WIDTH
from strop.rollout.games.game import Boards, Numbers

ORDER = (3, 2, 4, 1, 5, 0, 6)
"""Columns from the middle, through which most lines go, outwards."""

KEPT = 1_000_000
"""Positions in the table before it begins anew."""

BOTTOM = sum(1 << (7 * column) for column in range(WIDTH))
TOPS = tuple(1 << (7 * column + HEIGHT - 1) for column in range(WIDTH))
COLUMNS = tuple(((1 << HEIGHT) - 1) << (7 * column) for column in range(WIDTH))
FULL = HEIGHT * WIDTH


def has_four(stones: int) -> bool:
    """Whether there are four in a line."""
    for shift in (1, 6, 7, 8):
        pairs = stones & (stones >> shift)
        if pairs & (pairs >> (2 * shift)):
            return True
    return False


def bits_of(board: Boards, mark: int) -> int:
    """The stones of a mark on a board of 42 places, row by row from the top."""
    rows, columns = np.nonzero(board.reshape(HEIGHT, WIDTH) == mark)
    return sum(1 << int(7 * c + HEIGHT - 1 - r) for r, c in zip(rows, columns, strict=True))


class AlphaBeta:
    """Looks `depth` stones ahead.

    A position that it says is won or lost is so: it is exact about every win that can be forced
    within `depth` stones, and about everything once no more than `depth` places are free. Other
    positions count as draws.
    """

    def __init__(self, depth: int) -> None:
        self.depth = depth
        self._bounds: dict[tuple[int, int], tuple[int, int, int]] = {}
        """(own stones, all stones) -> (depth, least value, greatest value)."""

    def best(self, board: Boards) -> Numbers:
        """All columns of the greatest value, for the one whose turn it is."""
        stones = [bits_of(board, mark) for mark in (1, 2)]
        player = int((board > 0).sum()) % 2
        own, both = stones[player], stones[0] | stones[1]
        values = {c: self._move(own, both, c) for c in range(WIDTH) if not both & TOPS[c]}
        top = max(values.values())
        return np.array([c for c, value in values.items() if value == top], dtype=np.int64)

    def value(self, board: Boards) -> int:
        """A board's value for the one whose turn it is."""
        stones = [bits_of(board, mark) for mark in (1, 2)]
        player = int((board > 0).sum()) % 2
        return self._value(stones[player], stones[0] | stones[1], self.depth, (-1, 1))

    def _move(self, own: int, both: int, column: int) -> int:
        placed = (both + (BOTTOM & COLUMNS[column])) & COLUMNS[column] & ~both
        if has_four(own | placed):
            return 1
        return -self._value(both & ~own, both | placed, self.depth - 1, (-1, 1))

    def _value(self, own: int, both: int, depth: int, window: tuple[int, int]) -> int:
        """Exact within the window (alpha, beta), else a bound beyond it; the last to move has no
        four."""
        if both.bit_count() == FULL or depth == 0:
            return 0
        alpha, beta = window
        low, high = self._known(own, both, depth)
        alpha, beta = max(alpha, low), min(beta, high)
        if alpha >= beta:
            return low if low >= window[1] or low == high else high
        best = -1
        at = alpha
        for column in ORDER:
            if both & TOPS[column]:
                continue
            placed = (both + (BOTTOM & COLUMNS[column])) & COLUMNS[column] & ~both
            if has_four(own | placed):
                best = 1
            else:
                best = max(best, -self._value(both & ~own, both | placed, depth - 1, (-beta, -at)))
            at = max(at, best)
            if at >= beta:
                break
        self._keep(own, both, (depth, best if best > alpha else -1, best if best < beta else 1))
        return best

    def _known(self, own: int, both: int, depth: int) -> tuple[int, int]:
        """Bounds from the table. What is won or lost stays so at any depth; of a draw a deeper
        search may say more, so that it holds for its own depth alone."""
        found, low, high = self._bounds.get((own, both), (-1, -1, 1))
        if found == depth:
            return low, high
        return (1, 1) if low == 1 else (-1, -1) if high == -1 else (-1, 1)

    def _keep(self, own: int, both: int, bounds: tuple[int, int, int]) -> None:
        if len(self._bounds) >= KEPT:
            self._bounds.clear()
        self._bounds[own, both] = bounds
