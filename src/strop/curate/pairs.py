"""Several answers with scores -> the two that make a pair."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

DEVIATIONS = 2.0
"""How far below the mean the rejected answer is looked for: the worst of many is an outlier that
teaches less the more answers there are (arXiv 2502.16825)."""


def best_and_low(scores: Sequence[float]) -> tuple[int, int] | None:
    """The places of a chosen and a rejected answer; `None` where all scores are equal.

    The chosen one has the highest score, the rejected one of those with a lower score the one
    nearest to the mean minus two (population) standard deviations. The first of equals counts.
    `best_and_low([0.0, 4.0, 5.0, 5.0, 6.0]) == (4, 0)`: the mean is 4, the deviation 2.1.
    """
    chosen = max(range(len(scores)), key=lambda place: scores[place], default=0)
    lower = [place for place, score in enumerate(scores) if score < scores[chosen]]
    if not lower:
        return None
    aim = statistics.fmean(scores) - DEVIATIONS * statistics.pstdev(scores)
    return chosen, min(lower, key=lambda place: abs(scores[place] - aim))
