"""How well one number separates two groups."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from strop.stats.clustered import Floats


def auc(positive: ArrayLike, negative: ArrayLike) -> float:
    """Chance that a value of the first group is above one of the second, ties counted half.

    The area under the ROC curve, which is Mann and Whitney's U / (m n) (1947, Ann. Math. Stat.
    18:50-60). `auc([2], [1, 2]) == 0.75`; 0.5 means that the values do not separate the groups.
    Raises `ValueError` for an empty group and for NaN.
    """
    above, below = np.asarray(positive, float), np.asarray(negative, float)
    if not len(above) or not len(below):
        raise ValueError("an area under the curve needs values of both groups")
    if np.isnan(above).any() or np.isnan(below).any():
        raise ValueError("NaN has no rank")
    return float(shares_below(above, below).mean())


def shares_below(these: Floats, those: Floats) -> Floats:
    """For each of `these`, the share of `those` below it, ties half, shape [len(these)]."""
    ordered = np.sort(those)
    below = np.searchsorted(ordered, these, "left")
    up_to = np.searchsorted(ordered, these, "right")
    shares: Floats = (below + up_to) / (2 * len(those))
    return shares


def longer_share(chosen: ArrayLike, rejected: ArrayLike) -> float:
    """Share of pairs whose chosen answer is the longer one, ties counting half.

    `longer_share([3, 5], [3, 1]) == 0.75`.
    """
    return float((np.sign(np.subtract(chosen, rejected)) / 2 + 0.5).mean())
