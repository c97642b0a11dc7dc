"""The ratio of two means measured on the same items, with Fieller's interval.

Fieller 1954, Journal of the Royal Statistical Society B 16:175-185: the interval holds every r for
which the mean of candidate - r * base does not differ significantly from 0. Standard errors are by
clusters.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from strop.stats.clustered import POWER, Floats, Index, MeanEstimate, covariance, freedom
from strop.stats.student import fewest, t_quantile


@dataclass(frozen=True, slots=True)
class Ratio:
    """`Ratio(base=120.0, candidate=131.0, covariances=(16.0, 14.0, 18.0), freedom=199.0,
    n=200)`.

    Means of both sides, and the (co)variances of these means: base, both, candidate.
    """

    base: float
    candidate: float
    covariances: tuple[float, float, float]
    freedom: float
    n: int

    @classmethod
    def of(cls, x: Floats, y: Floats, index: Index) -> Ratio:
        covariances = covariance(x, x, index), covariance(x, y, index), covariance(y, y, index)
        return cls(float(x.mean()), float(y.mean()), covariances, freedom(index), len(x))

    @property
    def estimate(self) -> float:
        return self.candidate / self.base

    def interval(self, alpha: float) -> tuple[float, float]:
        """The interval; the whole line if the base's mean does not differ significantly from 0."""
        t2 = t_quantile(1 - alpha / 2, self.freedom) ** 2
        xx, xy, yy = self.covariances
        a = self.base**2 - t2 * xx
        if a <= 0:
            return -math.inf, math.inf
        b = self.base * self.candidate - t2 * xy
        c = self.candidate**2 - t2 * yy
        root = math.sqrt(max(0.0, b * b - a * c))
        return (b - root) / a, (b + root) / a

    def above(self, bound: float) -> MeanEstimate:
        """How far the ratio lies above a bound: the mean of candidate / base's mean - bound."""
        return MeanEstimate(self.estimate - bound, self._error(bound), self.freedom, self.n)

    def below(self, bound: float) -> MeanEstimate:
        return MeanEstimate(bound - self.estimate, self._error(bound), self.freedom, self.n)

    def p_value(self, low: float, high: float) -> float:
        """Of the two one-sided tests together."""
        return max(side.p_value(0.0) for side in (self.above(low), self.below(high)))

    def needed(self, low: float, high: float, alpha: float) -> int | None:
        """Items for both tests to pass together with 80 % power."""
        if not low < self.estimate < high:
            return None
        sides = self.above(low), self.below(high)
        return fewest(lambda n: sum(side.power(0.0, alpha, n) for side in sides) - 1 >= POWER)

    def detectable(self, low: float, high: float, alpha: float) -> float:
        """How far inside the band the true ratio has to be."""
        sides = self.above(low), self.below(high)
        return max(side.detectable(0.0, alpha) for side in sides)

    def _error(self, bound: float) -> float:
        """Of the mean of candidate - bound * base, in units of the base's mean."""
        xx, xy, yy = self.covariances
        return math.sqrt(max(0.0, yy - 2 * bound * xy + bound**2 * xx)) / self.base
