"""How well one number ranks: the area under the ROC curve, alone and in pairs, with an interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from strop.stats.auc import auc, shares_below
from strop.stats.clustered import Floats, Index, number_clusters
from strop.stats.compare import FEWEST_CLUSTERS, weigh
from strop.stats.student import bisect, t_cdf, t_quantile
from strop.stats.tango import NORMAL


@dataclass(frozen=True, slots=True)
class Ranking:
    """`Ranking(auc=0.62, low=0.58, high=0.66, p_value=1e-8, n=1000, differ=0.9)`.

    The area under the ROC curve of one number, its 95 % interval, and the two-sided p-value of 0.5.
    `differ` is the share of pairs in which the number is not the same on both sides. Interval and
    p-value are `None` if there are too few prompts to estimate the spread.
    """

    auc: float
    low: float | None
    high: float | None
    p_value: float | None
    n: int
    differ: float


def paired_ranking(
    chosen: ArrayLike, rejected: ArrayLike, clusters: Sequence[Any] | NDArray[Any]
) -> Ranking:
    """How often the number is higher on the chosen side of a pair, ties half.

    This is the area under the curve within pairs: the share of pairs that a reward of this number
    alone would get right. Both sides are shape [n]; pairs with one label in `clusters` (their
    prompt) rise and fall together. AUC = (1 + mean(s)) / 2 with s the sign of the difference, so
    the interval is that of a paired difference (`strop.stats.compare`): Tango's where each prompt
    has one pair, by clusters elsewhere.
    """
    gap = np.sign(np.asarray(chosen, dtype=float) - np.asarray(rejected, dtype=float))
    index = number_clusters(clusters)
    estimate, differ = (1 + float(gap.mean())) / 2, float((gap != 0).mean())
    if index.max() + 1 < FEWEST_CLUSTERS:
        return Ranking(estimate, None, None, None, len(gap), differ)
    _, evidence = weigh((gap < 0).astype(float), (gap > 0).astype(float), index)
    low, high = evidence.interval(0.05)
    above = evidence.p_value(0.0)
    p_value = _share(2 * min(above, 1 - above)) if differ else 1.0
    return Ranking(
        estimate, _share((1 + low) / 2), _share((1 + high) / 2), p_value, len(gap), differ
    )


def ranking(scores: ArrayLike, truth: ArrayLike, clusters: Sequence[Any] | NDArray[Any]) -> Ranking:
    """The area under the curve of scores of single answers against their labels, shape [n] both.

    The error is that of DeLong, DeLong and Clarke-Pearson 1988 (Biometrics 44:837-845), with the
    parts of one cluster (a prompt) added up first (Obuchowski 1997, Biometrics 53:567-578), and t
    of one less than the clusters. Where that error is zero because the ranking is perfect, the
    interval is Newcombe's method 5 (2006, Statistics in Medicine 25:559-573).
    """
    x, y = np.asarray(scores, dtype=float), np.asarray(truth, dtype=bool)
    index = number_clusters(clusters)
    estimate = auc(x[y], x[~y])
    differ = 1 - _tied(x[y], x[~y])
    groups = int(index.max()) + 1
    if groups < FEWEST_CLUSTERS:
        return Ranking(estimate, None, None, None, len(x), differ)
    error = _clustered_error(x, y, index, estimate)
    if error <= 1e-9:
        low, high = _newcombe(estimate, int(y.sum()), int((~y).sum()))
        return Ranking(estimate, low, high, 0.0 if not low <= 0.5 <= high else 1.0, len(x), differ)
    half = t_quantile(0.975, groups - 1) * error
    tail = 1 - t_cdf(abs(estimate - 0.5) / error, groups - 1)
    return Ranking(
        estimate, _share(estimate - half), _share(estimate + half), _share(2 * tail), len(x), differ
    )


def _share(value: float) -> float:
    """Clamp to 0 and 1, since rounding may exceed them."""
    return min(1.0, max(0.0, value))


def _tied(right: Floats, wrong: Floats) -> float:
    """The share of right and wrong ones with the same score."""
    ordered = np.sort(wrong)
    same = np.searchsorted(ordered, right, "right") - np.searchsorted(ordered, right, "left")
    return float(same.mean()) / len(wrong)


def _clustered_error(x: Floats, y: NDArray[Any], index: Index, estimate: float) -> float:
    """The standard error of the area, parts summed by cluster."""
    parts = np.empty(len(x))
    parts[y] = (shares_below(x[y], x[~y]) - estimate) / y.sum()
    parts[~y] = (1 - shares_below(x[~y], x[y]) - estimate) / (~y).sum()
    sums = np.bincount(index, weights=parts)
    return math.sqrt(float((sums**2).sum()) * len(sums) / (len(sums) - 1))


def _newcombe(estimate: float, m: int, n: int) -> tuple[float, float]:
    """Areas whose distance from the estimate is at most z of their own standard errors."""
    z, more = NORMAL.inv_cdf(0.975), (m + n) / 2 - 1

    def beyond(area: float) -> float:
        spread = 1 + more * ((1 - area) / (2 - area) + area / (1 + area))
        return abs(area - estimate) - z * math.sqrt(area * (1 - area) * spread / (m * n))

    low = 0.0 if estimate == 0 else bisect(beyond, 0.0, estimate)
    high = 1.0 if estimate == 1 else bisect(lambda area: -beyond(area), estimate, 1.0)
    return low, high
