"""The mean of values between 0 and 1 with its interval."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from strop.stats.clustered import MeanEstimate, number_clusters
from strop.stats.tango import NORMAL


@dataclass(frozen=True, slots=True)
class Share:
    """A mean with its 95 % interval: `Share(0.5, low=0.34, high=0.66)`."""

    mean: float
    low: float
    high: float


def share(values: Sequence[float], clusters: Sequence[Hashable]) -> Share:
    """Mean over items, each a chance in [0, 1], with its 95 % interval.

    Wilson's interval if every item is 0 or 1 and a cluster of its own, or if nothing varies (then n
    is the number of clusters); else the clustered mean's t interval, cut to [0, 1].
    """
    x = np.asarray(values, dtype=float)
    index = number_clusters(clusters)
    groups = int(index.max()) + 1
    alone = groups == len(x) and bool(np.isin(x, (0.0, 1.0)).all())
    if alone or groups < 2 or float(np.ptp(x)) < 1e-12:
        return wilson(float(x.mean()) * groups, groups)
    mean = MeanEstimate.of(x, index)
    low, high = mean.interval(0.05)
    return Share(mean.estimate, max(0.0, low), min(1.0, high))


def wilson(held: float, trials: int) -> Share:
    """A share of trials with Wilson's score interval (Wilson 1927, JASA 22:209-212).

    `wilson(95, 100).low == 0.8882...`; of no trials nothing is known: `Share(0.0, 0.0, 1.0)`.
    """
    if not trials:
        return Share(0.0, 0.0, 1.0)
    z, mean = NORMAL.inv_cdf(0.975), held / trials
    scale = 1 + z**2 / trials
    middle = (mean + z**2 / (2 * trials)) / scale
    half = z / scale * math.sqrt(mean * (1 - mean) / trials + z**2 / (4 * trials**2))
    return Share(mean, min(mean, max(0.0, middle - half)), max(mean, min(1.0, middle + half)))
