"""The mean of clustered values, its standard error (CR2), and the error's degrees of freedom.

For the mean alone, the bias-reduced variance of Bell and McCaffrey (2002, Survey Methodology
28:169-181) is a sum over clusters, S_g^2 / (1 - w_g) / n^2, with S_g the sum of a cluster's
residuals and w_g its share of the n items. Its degrees of freedom are Satterthwaite's. With equal
clusters this is the usual cluster-robust t on G - 1 degrees of freedom, and with one item a cluster
the paired t; with unequal clusters it keeps its level where those two do not (docs/statistics.md).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from strop.stats.student import fewest, t_cdf, t_quantile

POWER = 0.8
"""The chance of a pass that `n_needed` and `detectable` are computed for."""

Floats = NDArray[np.float64]
Index = NDArray[np.intp]


def number_clusters(labels: Iterable[object]) -> Index:
    """`["a", "b", "a"]` -> `[0, 1, 0]`."""
    seen: dict[object, int] = {}
    return np.array([seen.setdefault(label, len(seen)) for label in labels], dtype=np.intp)


def covariance(x: Floats, y: Floats, index: Index) -> float:
    """CR2 covariance of the means of `x` and `y`, both of shape [n]."""
    shares = np.bincount(index) / len(x)
    left = np.bincount(index, weights=x - x.mean())
    right = np.bincount(index, weights=y - y.mean())
    return float((left * right / (1 - shares)).sum()) / len(x) ** 2


def freedom(index: Index) -> float:
    """Satterthwaite's degrees of freedom of the CR2 variance, for independent items of one
    variance: G - 1 for G equal clusters, fewer for unequal ones."""
    shares = np.bincount(index) / len(index)
    off = shares**2 / (1 - shares)
    return 1 / float((shares**2).sum() + off.sum() ** 2 - (off**2).sum())


def sandwich(design: Floats, residual: Floats, bread: Floats, index: Index) -> Floats:
    """Covariance of a regression's [k] coefficients with errors by clusters (Liang and Zeger 1986,
    Biometrika 73:13-22): `design` is [n, k], `bread` the inverse of its information, [k, k]."""
    clusters = index.max() + 1
    scores = np.zeros((clusters, design.shape[1]))
    np.add.at(scores, index, design * residual[:, None])
    meat: Floats = bread @ (scores.T @ scores) @ bread * clusters / (clusters - 1)
    return meat


@dataclass(frozen=True, slots=True)
class MeanEstimate:
    """`MeanEstimate(estimate=0.02, error=0.011, freedom=39.0, n=200)`: a mean of n items, its
    standard error and the degrees of freedom of that error."""

    estimate: float
    error: float
    freedom: float
    n: int

    @classmethod
    def of(cls, values: Floats, index: Index) -> MeanEstimate:
        error = math.sqrt(covariance(values, values, index))
        return cls(float(values.mean()), error, freedom(index), len(values))

    def interval(self, alpha: float) -> tuple[float, float]:
        half = t_quantile(1 - alpha / 2, self.freedom) * self.error
        return self.estimate - half, self.estimate + half

    def p_value(self, bound: float) -> float:
        """One-sided, against means at or below `bound`."""
        gap = self.estimate - bound
        if self.error == 0:
            return float(gap <= 0)
        return 1 - t_cdf(gap / self.error, self.freedom)

    def power(self, bound: float, alpha: float, items: int) -> float:
        """The chance that `n` items pass, if the estimate were the truth; the number of clusters
        grows with `n`."""
        growth = items / self.n
        known = max(1.0, (self.freedom + 1) * growth - 1)
        distance = (self.estimate - bound) / self.error * math.sqrt(growth)
        return t_cdf(distance - t_quantile(1 - alpha / 2, known), known)

    def needed(self, bound: float, alpha: float) -> int | None:
        """Items for a pass with 80 % power if the estimate were the truth."""
        if self.estimate <= bound:
            return None
        return fewest(lambda items: self.power(bound, alpha, items) >= POWER)

    def detectable(self, _bound: float, alpha: float) -> float:
        """How far above a bound the true value has to be for a pass with 80 % power."""
        reach = t_quantile(1 - alpha / 2, self.freedom) + t_quantile(POWER, self.freedom)
        return reach * self.error
