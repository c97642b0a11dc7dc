"""A bound on the mean of bounded differences that holds at every look.

Betting as in Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting"
(JRSS B 2024, arXiv 2010.09686, section 4). A gambler who doubts that the mean of d_1, d_2, ... in
[-1, 1] is at least m bets a share gamma of what could be lost at most on every difference being
small:

    W_t(m) = sum_g w_g prod_{i<=t} (1 - gamma_g (d_i - m) / (1 - m))

If E[d_i | past] >= m, then W(m) is a supermartingale that begins at 1, so that by Ville's
inequality it ever reaches 1/alpha with a probability of at most alpha. An m whose W reached that is
shown to be too high, for good. The bets gamma_g are mixed because the best one depends on the true
mean.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np

MEANS = np.linspace(-1.0, 1.0, 401)[:-1]
"""Means that are tested: -1, -0.995 ... 0.995."""

BETS = np.geomspace(0.03, 0.6, 8)
"""Shares of what could be lost that are bet, all with the same weight. The best one is about
|mean| / variance: 0.2 for a loss of 10 points among thumbs."""


class Bound:
    """Bounds on the mean of differences in [-1, 1] that come one by one, each of which holds at all
    times together with a probability of at least 1 - `alpha`:

        bound = Bound(alpha=0.05)
        for difference in (0.0, -1.0, -1.0):
            bound.add(difference)
        bound.low <= mean <= bound.high

    Raises `ValueError` for a difference outside of [-1, 1].
    """

    def __init__(self, alpha: float) -> None:
        self.alpha, self.count, self.total = alpha, 0, 0.0
        self._above, self._below = _Bets(alpha), _Bets(alpha)

    def add(self, difference: float) -> None:
        if not -1.0 <= difference <= 1.0:
            raise ValueError(f"a difference is {difference}, not between -1 and 1")
        self.count += 1
        self.total += difference
        self._above.add(difference)
        self._below.add(-difference)

    @property
    def mean(self) -> float | None:
        """Of the differences so far; `None` before the first."""
        return self.total / self.count if self.count else None

    @property
    def high(self) -> float:
        """The mean is below this, or equal."""
        return self._above.bound

    @property
    def low(self) -> float:
        """The mean is above this, or equal."""
        return -self._below.bound


class _Bets:
    """The wealth of every bet against every mean."""

    def __init__(self, alpha: float) -> None:
        self._log_wealth_MG = np.zeros((len(MEANS), len(BETS)))
        self._needed = np.log(len(BETS) / alpha)
        self._refuted = len(MEANS)

    @cached_property
    def _share_MG(self) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
        return BETS[None, :] / (1.0 - MEANS[:, None])

    def add(self, difference: float) -> None:
        self._log_wealth_MG += np.log1p(-self._share_MG * (difference - MEANS[:, None]))
        wealth_M = np.logaddexp.reduce(self._log_wealth_MG, axis=1)
        refuted = wealth_M[: self._refuted] >= self._needed
        kept = np.flatnonzero(~refuted)  # the highest that is left, and all below it
        self._refuted = int(kept[-1]) + 1 if len(kept) else 0

    @property
    def bound(self) -> float:
        """No mean from here on is left: the lowest one that is refuted together with all above."""
        return float(MEANS[self._refuted]) if self._refuted < len(MEANS) else 1.0


def expected_count(mean: float, variance: float, alpha: float) -> float:
    """About so many differences until a mean below 0 is shown to be below 0.

    The wealth of the best bet grows by `mean^2 / (2 variance)` nats a difference at small means,
    has to reach log(1/alpha), and pays about log(`len(BETS)` / 2) for not having known the bet.
    """
    growth = mean * mean / (2.0 * variance)
    return float((np.log(1.0 / alpha) + np.log(len(BETS) / 2.0)) / growth)
