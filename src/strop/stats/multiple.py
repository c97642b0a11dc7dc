"""Several tests at once: p-values adjusted so that each can be compared with the level itself."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def holm(p_values: Sequence[float]) -> list[float]:
    """`holm([0.01, 0.04, 0.03]) == [0.03, 0.06, 0.06]`.

    Holm 1979, Scandinavian Journal of Statistics 6:65-70: the chance of one false alarm or more
    stays below the level, however the tests depend on each other.
    """
    p, order = _sorted(p_values)
    adjusted = np.maximum.accumulate(p * np.arange(len(p), 0, -1))
    return _back(adjusted, order)


def benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
    """`benjamini_hochberg([0.01, 0.04, 0.03]) == [0.03, 0.04, 0.04]`.

    Benjamini and Hochberg 1995, Journal of the Royal Statistical Society B 57:289-300: the share
    of false alarms among all alarms stays below the level, for independent tests.
    """
    p, order = _sorted(p_values)
    scaled = p * len(p) / np.arange(1, len(p) + 1)
    adjusted = np.minimum.accumulate(scaled[::-1])[::-1]
    return _back(adjusted, order)


def _sorted(p_values: Sequence[float]) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    p = np.asarray(p_values, dtype=float)
    if p.ndim != 1 or not ((p >= 0) & (p <= 1)).all():
        raise ValueError("expected a list of p-values between 0 and 1")
    order = np.argsort(p, kind="stable")
    return p[order], order


def _back(adjusted: NDArray[np.float64], order: NDArray[np.intp]) -> list[float]:
    found = np.empty(len(order))
    found[order] = np.minimum(adjusted, 1.0)
    return [float(value) for value in found]
