"""Paired comparisons with three answers: pass, regressed, inconclusive.

Two-sided 95 % intervals (`alpha` 0.05) of the mean difference candidate - base:

- scores 0 or 1, one per item, no clusters: Tango's score interval (Tango 1998, Statistics in
  Medicine 17:891-908), right at small counts and near 0 and 1;
- anything else: cluster-robust t, with G - 1 degrees of freedom for G clusters.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from strop.types import VerdictName

POWER = 0.8
"""The chance of a pass that `n_needed` is computed for."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Comparison:
    """`Comparison(estimate=0.02, low=-0.01, high=0.05, verdict="pass", n_needed=None, ...)`.

    `p_value` is one-sided, against the bound that was asked for; `n_needed` is how many items it
    would take for a pass with 80 % power if the estimate were the truth, `None` where the verdict
    stands or where no number of items would do.
    """

    estimate: float
    low: float
    high: float
    verdict: VerdictName
    n_needed: int | None
    p_value: float
    n: int
    method: str


def superiority(
    base: ArrayLike,
    candidate: ArrayLike,
    *,
    min_gain: float = 0.0,
    clusters: Sequence[Any] | None = None,
    alpha: float = 0.05,
) -> Comparison:
    """Is the candidate better by more than `min_gain`?

    pass: lower bound above `min_gain`. regressed: upper bound below 0. Arrays hold per-item scores
    paired by position; `clusters` labels items that belong together.
    """
    return _compare(base, candidate, min_gain, clusters, alpha)


def noninferiority(
    base: ArrayLike,
    candidate: ArrayLike,
    *,
    margin: float,
    clusters: Sequence[Any] | None = None,
    alpha: float = 0.05,
) -> Comparison:
    """Is the candidate not worse by more than `margin`?

    pass: lower bound above `-margin`. regressed: upper bound below 0 (shown to be worse, and not
    shown to stay within the margin).
    """
    if margin <= 0:
        raise ValueError(f"margin must be above 0, got {margin}")
    return _compare(base, candidate, -margin, clusters, alpha)


def mcnemar(base: ArrayLike, candidate: ArrayLike) -> float:
    """Exact two-sided McNemar p-value of paired scores 0 or 1 (shown for information)."""
    gained, lost, _ = _flips(np.asarray(base, float), np.asarray(candidate, float))
    changed = gained + lost
    tail: int = sum(math.comb(changed, k) for k in range(min(gained, lost) + 1))
    return float(min(1.0, 2 * tail / 2**changed))


def _compare(
    base: ArrayLike,
    candidate: ArrayLike,
    bound: float,
    clusters: Sequence[Any] | None,
    alpha: float,
) -> Comparison:
    x, y = np.asarray(base, dtype=float), np.asarray(candidate, dtype=float)
    _expect_pairs(x, y, clusters)
    binary = bool(np.isin(x, (0, 1)).all() and np.isin(y, (0, 1)).all())
    if binary and (clusters is None or len(set(clusters)) == len(x)):
        interval, p_value, method = _tango(x, y, alpha), _tango_p(x, y, bound), "tango"
        spread = float(np.std(y - x))
    else:
        labels = list(range(len(x))) if clusters is None else list(clusters)
        error, groups = _cluster_error(y - x, labels)
        interval, p_value = _t_interval(y - x, error, groups, bound, alpha)
        method, spread = "cluster-t", error * math.sqrt(len(x))
    estimate = float(np.mean(y - x))
    low, high = interval
    verdict: VerdictName = "pass" if low > bound else "regressed" if high < 0 else "inconclusive"
    needed = _items_needed(estimate - bound, spread, alpha) if verdict == "inconclusive" else None
    return Comparison(estimate, low, high, verdict, needed, p_value, len(x), method)


def _expect_pairs(x: Floats, y: Floats, clusters: Sequence[Any] | None) -> None:
    if x.ndim != 1 or x.shape != y.shape or len(x) < 2:
        raise ValueError(f"expected two vectors of one length >= 2, got {x.shape} and {y.shape}")
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise ValueError("scores must be finite: leave unscored items out on both sides")
    if clusters is not None and len(clusters) != len(x):
        raise ValueError(f"{len(clusters)} clusters for {len(x)} items")


def _flips(x: Floats, y: Floats) -> tuple[int, int, int]:
    """(items gained, items lost, items)."""
    return int(((y == 1) & (x == 0)).sum()), int(((y == 0) & (x == 1)).sum()), len(x)


def _tango_statistic(gained: int, lost: int, n: int, difference: float) -> float:
    """Tango 1998, equations 9 and 13: the score statistic of a hypothesised difference."""
    a = 2 * n
    b = -gained - lost + (2 * n - gained + lost) * difference
    c = -lost * difference * (1 - difference)
    q = (math.sqrt(max(0.0, b * b - 4 * a * c)) - b) / (2 * a)
    variance = n * (2 * q + difference * (1 - difference))
    gap = gained - lost - n * difference
    if variance <= 0:
        return 0.0 if gap == 0 else math.copysign(math.inf, gap)
    return gap / math.sqrt(variance)


def _tango(x: Floats, y: Floats, alpha: float) -> tuple[float, float]:
    gained, lost, n = _flips(x, y)
    z = NormalDist().inv_cdf(1 - alpha / 2)
    estimate = (gained - lost) / n

    def excess(difference: float) -> float:
        return _tango_statistic(gained, lost, n, difference)

    low = _bisect(lambda d: excess(d) - z, -1.0, estimate)
    high = _bisect(lambda d: excess(d) + z, estimate, 1.0)
    return low, high


def _tango_p(x: Floats, y: Floats, bound: float) -> float:
    return 1 - NormalDist().cdf(_tango_statistic(*_flips(x, y), bound))


def _cluster_error(difference: Floats, clusters: Sequence[Any]) -> tuple[float, int]:
    """Standard error of the mean difference, and the number of clusters."""
    labels = {label: number for number, label in enumerate(dict.fromkeys(clusters))}
    groups = len(labels)
    if groups < 2:
        return math.inf, groups
    residual = difference - difference.mean()
    sums = np.zeros(groups)
    np.add.at(sums, [labels[label] for label in clusters], residual)
    variance = groups / (groups - 1) * float((sums**2).sum()) / len(difference) ** 2
    return math.sqrt(variance), groups


def _t_interval(
    difference: Floats, error: float, groups: int, bound: float, alpha: float
) -> tuple[tuple[float, float], float]:
    """(interval, one-sided p-value against `bound`)."""
    mean = float(difference.mean())
    if groups < 2:
        return (-math.inf, math.inf), 1.0
    if error == 0:
        return (mean, mean), float(mean <= bound)
    half = t_quantile(1 - alpha / 2, groups - 1) * error
    return (mean - half, mean + half), 1 - t_cdf((mean - bound) / error, groups - 1)


def _items_needed(gap: float, spread: float, alpha: float) -> int | None:
    """Items for a lower bound `gap` below the estimate, with 80 % power."""
    if gap <= 0 or not math.isfinite(spread):
        return None
    normal = NormalDist()
    reach = normal.inv_cdf(1 - alpha / 2) + normal.inv_cdf(POWER)
    return max(2, math.ceil((reach * spread / gap) ** 2))


def t_cdf(t: float, freedom: int) -> float:
    """Student's t distribution function.

    With t = sqrt(f) tan(u) the density becomes c cos(u)^(f - 1), smooth on a bounded interval.
    """
    scale = math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2) - 0.5 * math.log(math.pi)
    nodes, weights = np.polynomial.legendre.leggauss(96)
    end = math.atan(t / math.sqrt(freedom))
    values = np.cos(end * (nodes + 1) / 2) ** (freedom - 1)
    return 0.5 + math.exp(scale) * end / 2 * float((weights * values).sum())


def t_quantile(p: float, freedom: int) -> float:
    """Inverse of `t_cdf` for p >= 0.5."""
    top = 2.0
    while t_cdf(top, freedom) < p:
        top *= 2
    return _bisect(lambda t: p - t_cdf(t, freedom), 0.0, top)


def _bisect(falling: Callable[[float], float], low: float, high: float) -> float:
    """Where a falling function crosses 0 on [low, high], to 1e-12."""
    while high - low > 1e-12:
        middle = (low + high) / 2
        if falling(middle) > 0:
            low = middle
        else:
            high = middle
    return (low + high) / 2
