"""How well one number alone tells two groups apart."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike


def auc(positive: ArrayLike, negative: ArrayLike) -> float:
    """Chance that a value of the first group is above one of the second, ties counted half.

    The area under the ROC curve, which is Mann and Whitney's U / (m n) (1947, Ann. Math. Stat.
    18:50-60). 0.5 says that the values tell nothing; raises `ValueError` for an empty group.
    """
    above, below = np.asarray(positive, float), np.sort(np.asarray(negative, float))
    if not len(above) or not len(below):
        raise ValueError("both groups need a value")
    less = np.searchsorted(below, above, "left")
    less_or_equal = np.searchsorted(below, above, "right")
    return float((less + less_or_equal).sum()) / (2 * len(above) * len(below))
