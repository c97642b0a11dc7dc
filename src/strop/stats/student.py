"""Student's t distribution, for any real number of degrees of freedom, and two searches."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np

NODES, WEIGHTS = np.polynomial.legendre.leggauss(96)

MOST_ITEMS = 10_000_000
"""Larger sample sizes are not reported."""


def t_cdf(t: float, freedom: float) -> float:
    """Student's t distribution function.

    With t = sqrt(f) tan(u) the density becomes c cos(u)^(f - 1), smooth on a bounded interval.
    """
    scale = math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2) - 0.5 * math.log(math.pi)
    end = math.atan(t / math.sqrt(freedom))
    values = np.cos(end * (NODES + 1) / 2) ** (freedom - 1)
    return 0.5 + math.exp(scale) * end / 2 * float((WEIGHTS * values).sum())


@lru_cache(maxsize=4096)
def t_quantile(p: float, freedom: float) -> float:
    """Inverse of `t_cdf` for p >= 0.5."""
    top = 2.0
    while t_cdf(top, freedom) < p:
        top *= 2
    return bisect(lambda t: p - t_cdf(t, freedom), 0.0, top)


def bisect(
    falling: Callable[[float], float], low: float, high: float, *, within: float = 1e-12
) -> float:
    """Where a falling function crosses 0 on [low, high]."""
    while high - low > within:
        middle = (low + high) / 2
        if middle in (low, high):
            break
        if falling(middle) > 0:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def fewest(enough: Callable[[int], bool]) -> int | None:
    """The smallest sufficient number from 2 on, to half a percent; `None` if `MOST_ITEMS` do not
    suffice."""
    low = high = 2
    while not enough(high):
        if high >= MOST_ITEMS:
            return None
        low, high = high, 2 * high
    while high - low > max(1, low // 200):
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high
