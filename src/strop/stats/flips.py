"""Flips that an average hides: items that were right and are wrong now, and the reverse."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from strop.stats.clustered import Floats, Index, number_clusters


@dataclass(frozen=True, slots=True)
class Flips:
    """`Flips(harmful=12, helpful=20, churn=0.08, n=400)`.

    Of `n` items, `harmful` were right and are wrong now, `helpful` the other way round, and of
    `churn` (a share) the score changed at all.
    """

    harmful: int
    helpful: int
    churn: float
    n: int


def flips(
    base: ArrayLike, candidate: ArrayLike, *, items: Sequence[Any] | NDArray[Any] | None = None
) -> Flips:
    """Flips of per-item scores, paired by position.

    Rows with one label in `items` are samples of one item and are averaged first. An item is right
    where its score is above 0.5. Raises `ValueError` for vectors that are empty or not of one
    length.
    """
    x, y = np.asarray(base, dtype=float), np.asarray(candidate, dtype=float)
    if x.ndim != 1 or x.shape != y.shape or not len(x):
        raise ValueError(f"expected two vectors of one length >= 1, got {x.shape} and {y.shape}")
    if items is not None:
        index = number_clusters(items)
        if len(index) != len(x):
            raise ValueError(f"{len(index)} item labels for {len(x)} scores")
        x, y = _averages(x, index), _averages(y, index)
    was, now = x > 0.5, y > 0.5
    return Flips(
        harmful=int((was & ~now).sum()),
        helpful=int((~was & now).sum()),
        churn=float((np.abs(x - y) > 1e-12).mean()),
        n=len(x),
    )


def mcnemar(base: ArrayLike, candidate: ArrayLike) -> float:
    """Exact two-sided McNemar p-value of paired scores 0 or 1 (shown for information)."""
    change = np.asarray(candidate, dtype=float) - np.asarray(base, dtype=float)
    gained, changed = int((change == 1).sum()), int((change != 0).sum())
    tail: int = sum(math.comb(changed, k) for k in range(min(gained, changed - gained) + 1))
    return float(min(1.0, 2 * tail / 2**changed))


def _averages(scores: Floats, index: Index) -> Floats:
    means: Floats = np.bincount(index, weights=scores) / np.bincount(index)
    return means
