"""Which of several answers to one prompt make a pair, and pairs that length does not give away."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from strop.stats.auc import auc, longer_share

BANDS = (0.02, 0.05)
"""How far from 0.5 the AUC of length may be: the first that leaves half of the pairs is kept to."""
ENOUGH = 20
"""Pairs from which the AUC of length is more than chance."""


def best_against(scores: Sequence[float]) -> tuple[int, int, float] | None:
    """Places of the chosen and the rejected among scored answers, and the margin between them.

    Xiao et al. 2025 (arXiv 2502.16825): the chosen has the highest score, the rejected is the one
    whose score is nearest to the mean minus two standard deviations (of the answers themselves, not
    n - 1). Against the lowest score the worst outlier would be learnt from, the more so the more
    answers there are. Of equals the first is taken. `None` where all scores are equal.

    `best_against([0.9, 0.5, 0.4, 0.1])`: mean 0.475, deviation 0.286, nearest to -0.097 is the
    last: `(0, 3, 0.8)`.
    """
    if not scores:
        return None
    values = np.asarray(scores, dtype=float)
    best = int(values.argmax())
    lower = np.flatnonzero(values < values[best])
    if not len(lower):
        return None
    aim = values.mean() - 2 * values.std()
    worse = int(lower[np.abs(values[lower] - aim).argmin()])
    return best, worse, float(values[best] - values[worse])


def nearest_in_length(right: Sequence[int], wrong: Sequence[int]) -> list[tuple[int, int]]:
    """Places of right and wrong answers in pairs whose lengths differ least in sum.

    Every answer of the shorter list is in one pair. The optimal assignment of numbers never
    crosses, so it is found along the two sorted lists in `len(right) * len(wrong)` steps.

    `nearest_in_length([10, 50], [48, 30, 12]) == [(0, 2), (1, 0)]`.
    """
    if len(right) > len(wrong):
        return sorted((r, w) for w, r in nearest_in_length(wrong, right))
    few = sorted(range(len(right)), key=lambda place: right[place])
    many = sorted(range(len(wrong)), key=lambda place: wrong[place])
    lengths = np.array([wrong[place] for place in many], dtype=float)
    cost = np.zeros(len(many) + 1)
    taken = np.zeros((len(few), len(many) + 1), dtype=bool)
    for row, place in enumerate(few):
        following = np.full(len(many) + 1, np.inf)
        for column in range(row, len(many)):
            match = cost[column] + abs(right[place] - lengths[column])
            taken[row, column + 1] = match < following[column]
            following[column + 1] = min(match, following[column])
        cost = following
    pairs, column = [], len(many)
    for row in reversed(range(len(few))):
        while not taken[row, column]:
            column -= 1
        column -= 1
        pairs.append((few[row], many[column]))
    return sorted(pairs)


@dataclass(frozen=True, slots=True)
class Balanced:
    """Pairs that are left once length tells little: `Balanced(kept=[0, 2, 3], of=6, before=0.71,
    after=0.52, share=0.55)`.

    `before` and `after` are AUCs of length, `share` that of the pairs left whose chosen answer is
    the longer one.
    """

    kept: list[int]
    of: int
    before: float
    after: float
    share: float


def balanced(chosen: Sequence[int], rejected: Sequence[int]) -> Balanced:
    """Leave out the pairs that give most away by length, until AUC and share are near 0.5.

    Both are brought within the first of `BANDS` for which half of the pairs can stay, else the AUC
    alone; where half of the pairs cannot even do that, half stays and the AUC is as near as it
    comes. Lengths are those of the answers, in characters. Fewer than `ENOUGH` pairs, and those
    that are within the last band, are left as they are.
    """
    lengths = np.array([chosen, rejected], dtype=float).reshape(2, -1)
    everything = np.arange(lengths.shape[1])
    if len(everything) < ENOUGH or _is_near(lengths, BANDS[-1], True):
        return _told(everything, lengths)
    for band, both in [(band, both) for both in (True, False) for band in BANDS]:
        kept = _thinned(lengths, band, both)
        if _is_near(lengths[:, kept], band, both):
            break
    return _told(kept, lengths)


def _is_near(lengths: np.ndarray, band: float, both: bool) -> bool:
    tilt = longer_share(*lengths) - 0.5 if both else 0.0
    return abs(auc(*lengths) - 0.5) <= band and abs(tilt) <= band


def _told(kept: np.ndarray, lengths: np.ndarray) -> Balanced:
    if not lengths.shape[1]:
        return Balanced([], 0, 0.5, 0.5, 0.5)
    left = lengths[:, kept]
    return Balanced(
        kept.tolist(),
        lengths.shape[1],
        auc(*lengths),
        auc(*left),
        longer_share(*left),
    )


def _thinned(lengths: np.ndarray, band: float, both: bool) -> np.ndarray:
    """Places of the pairs that stay, at least half of them."""
    kept = np.arange(lengths.shape[1])
    spare = len(kept) // 2
    while spare and not _is_near(lengths[:, kept], band, both):
        longer, shorter = lengths[:, kept]
        tilt = longer_share(longer, shorter) - 0.5
        gives = _given_away(longer, shorter) * np.sign(auc(longer, shorter) - 0.5)
        if both and abs(tilt) > band:  # pairs of the side that is too many go
            gives[np.sign(longer - shorter) != np.sign(tilt)] = -np.inf
        most = min(spare, max(1, len(kept) // 200))
        kept = np.delete(kept, np.argsort(-gives, kind="stable")[:most])
        spare -= most
    return np.asarray(kept, dtype=np.intp)


def _given_away(chosen: np.ndarray, rejected: np.ndarray) -> np.ndarray:
    """What each pair adds to the AUC of length: how many rejected answers its chosen one is longer
    than, less those that are longer, and the same for its rejected one."""
    added: np.ndarray = (
        _wins(chosen, rejected) - _wins(rejected, chosen) - np.sign(chosen - rejected)
    )
    return added


def _wins(own: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Number of `others` that each is longer than, less the number that are longer than it."""
    ordered = np.sort(others)
    below = np.searchsorted(ordered, own, side="left")
    upto = np.searchsorted(ordered, own, side="right")
    return np.asarray(below + upto - len(others), dtype=float)
