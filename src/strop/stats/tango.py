"""Tango's score interval of the difference of two paired shares.

Tango 1998, Statistics in Medicine 17:891-908. It is valid at small counts: it does not shrink to a
point when nothing changed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from strop.stats.clustered import POWER
from strop.stats.student import bisect, fewest

NORMAL = NormalDist()
Counts = NDArray[np.intp]

FEW = 15
"""Expected flips of the rarer kind below which power is summed exactly: there the normal
approximation misses sample sizes by 3 to 40 %."""


@dataclass(frozen=True, slots=True)
class FlipCounts:
    """`FlipCounts(gained=12, lost=5, n=200)`: of `n` items, those only the candidate solves and
    those only the base solves. Counts may be fractions where clusters count as items."""

    gained: float
    lost: float
    n: float

    @property
    def estimate(self) -> float:
        return (self.gained - self.lost) / self.n

    def statistic(self, difference: float) -> float:
        """The score statistic of a hypothesised difference (equations 9 and 13)."""
        gap = self.gained - self.lost - self.n * difference
        variance = self.n * constrained_variance(
            self.gained / self.n, self.lost / self.n, difference
        )
        if variance <= 0:
            return 0.0 if gap == 0 else math.copysign(math.inf, gap)
        return gap / math.sqrt(variance)

    def interval(self, alpha: float) -> tuple[float, float]:
        z = NORMAL.inv_cdf(1 - alpha / 2)
        low = bisect(lambda d: self.statistic(d) - z, -1.0, self.estimate)
        high = bisect(lambda d: self.statistic(d) + z, self.estimate, 1.0)
        return low, high

    def p_value(self, bound: float) -> float:
        """One-sided, against differences at or below `bound`."""
        return 1 - NORMAL.cdf(self.statistic(bound))

    def needed(self, bound: float, alpha: float) -> int | None:
        """Items for a pass with 80 % power if the observed shares were the truth."""
        if self.estimate <= bound:
            return None
        gained, lost = self.gained / self.n, self.lost / self.n
        return fewest(lambda n: power(gained, lost, n, bound, alpha) >= POWER)

    def detectable(self, bound: float, alpha: float) -> float | None:
        """How far above `bound` the true difference has to be for a pass with 80 % power, with the
        observed share of changed items (or the least that the difference allows)."""
        changed = (self.gained + self.lost) / self.n

        def missing(distance: float) -> float:
            difference = bound + distance
            share = max(changed, abs(difference))
            shares = (share + difference) / 2, (share - difference) / 2
            return POWER - power(*shares, round(self.n), bound, alpha)

        most = 1.0 - bound
        return None if missing(most) > 0 else bisect(missing, 0.0, most, within=1e-6)


def constrained_variance(gained: float, lost: float, difference: float) -> float:
    """Variance of one item's change, estimated under the hypothesised difference.

    `gained` and `lost` are shares; Tango 1998, equations 9 and 13, divided by n.
    """
    b = -gained - lost + (2 - gained + lost) * difference
    c = -lost * difference * (1 - difference)
    q = (math.sqrt(max(0.0, b * b - 8 * c)) - b) / 4
    return 2 * q + difference * (1 - difference)


def power(gained: float, lost: float, n: int, bound: float, alpha: float) -> float:
    """The chance that `n` items with these true shares pass `bound`."""
    if n * min(gained, lost) < FEW:
        return _exact_power(gained, lost, n, bound, alpha)
    gap = gained - lost - bound
    under_bound = math.sqrt(constrained_variance(gained, lost, bound))
    truly = math.sqrt(gained + lost - (gained - lost) ** 2)
    z = NORMAL.inv_cdf(1 - alpha / 2)
    return NORMAL.cdf((gap * math.sqrt(n) - z * under_bound) / truly)


def _exact_power(gained: float, lost: float, n: int, bound: float, alpha: float) -> float:
    """The sum over all counts (lost, gained) that pass: lost first, then gained among the rest."""
    z = NORMAL.inv_cdf(1 - alpha / 2)
    losses, wins = _likely(n, lost), _likely(n, gained)
    enough, least = int(wins[0]), []
    for count in losses.tolist():
        while enough <= wins[-1] and FlipCounts(enough, count, n).statistic(bound) <= z:
            enough += 1
        least.append(enough)
    rate = min(1.0, gained / (1 - lost)) if lost < 1 else 0.0
    chances = _binomial(wins[None, :], n - losses[:, None], rate)
    passing = (wins[None, :] >= np.array(least)[:, None]) * chances
    return float((_binomial(losses, n, lost) * passing.sum(axis=1)).sum())


def _likely(n: int, share: float) -> Counts:
    """The range of counts with all but a millionth of the binomial's mass."""
    reach = 5.5 * math.sqrt(n * share * (1 - share)) + 6
    first, last = max(0, math.floor(n * share - reach)), min(n, math.ceil(n * share + reach))
    return np.arange(first, last + 1)


def _binomial(k: Counts, n: int | Counts, share: float) -> NDArray[np.float64]:
    if share in (0.0, 1.0):
        return np.asarray(k == n * round(share), dtype=float)
    table = _log_factorials(max(1024, 1 << int(np.max(n)).bit_length()))
    choose = table[n] - table[np.minimum(k, n)] - table[np.maximum(n - k, 0)]
    chances = np.exp(choose + k * math.log(share) + (n - k) * math.log1p(-share))
    return np.asarray(np.where(k <= n, chances, 0.0))


@lru_cache(maxsize=8)
def _log_factorials(size: int) -> NDArray[np.float64]:
    """log(k!) for k from 0 to `size`."""
    return np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, size + 1)))])
