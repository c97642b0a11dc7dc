"""Boards of marks on which a full line wins."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from strop.rollout.games.game import Boards, Numbers, Values

MARKS = "X", "O"
"""One's own mark and the other player's, whichever player one is."""


def lines_of(height: int, width: int, length: int) -> NDArray[np.int64]:
    """[L, length]: the places of every straight line of this length, counted row by row."""
    found = []
    for row in range(height):
        for column in range(width):
            for down, right in ((0, 1), (1, 0), (1, 1), (1, -1)):
                last = row + down * (length - 1), column + right * (length - 1)
                if last[0] < height and 0 <= last[1] < width:
                    found.append([(row + n * down) * width + column + n * right
                                  for n in range(length)])  # fmt: skip
    return np.array(found)


def whose_turn(boards: Boards) -> Numbers:
    """[B]: 0 while both have as many marks, 1 while player 0 has one more."""
    found: Numbers = ((boards > 0).sum(1) % 2).astype(np.int64)
    return found


def outcome_of(boards: Boards, lines: NDArray[np.int64]) -> Values:
    """[B, 2]: 1 for the player with a full line, 0 on a full board without one."""
    marks = boards[:, lines]
    won = np.stack([(marks == mark).all(2).any(1) for mark in (1, 2)], axis=1)
    value = won[:, 0].astype(float) - won[:, 1].astype(float)
    value[~won.any(1) & (boards == 0).any(1)] = np.nan
    return np.stack([value, -value], axis=1)


def drawing(board: Boards, player: int, width: int, empty: Sequence[str]) -> str:
    """A line for each row, with `MARKS`, or what `empty` says of a free place."""
    own, other = MARKS
    marks = {player + 1: own, 2 - player: other}
    places = [marks[int(mark)] if mark else empty[n] for n, mark in enumerate(board)]
    return "\n".join("".join(places[n : n + width]) for n in range(0, len(places), width))
