"""A win rate from many judged and a few humanly labelled items: prediction-powered inference.

Angelopoulos, Duchi, Zrnic 2023, "PPI++: Efficient prediction-powered inference" (arXiv 2311.01453).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from strop.stats.clustered import Floats
from strop.stats.student import t_quantile

FEWEST_ANCHORS = 5


@dataclass(frozen=True, slots=True)
class WinRate:
    """`WinRate(estimate=0.61, low=0.56, high=0.66, weight=0.7, classical=(0.52, 0.71), anchors=80,
    judged=2000)`.

    `weight` is how far the judge is believed: 0 leaves the mean of the human labels, whose own
    interval is `classical`. `corrected` says by how much the judge's mean was moved.
    """

    estimate: float
    low: float
    high: float
    weight: float
    classical: tuple[float, float]
    anchors: int
    judged: int
    corrected: float


def win_rate(
    judge_all: ArrayLike,
    judge_anchored: ArrayLike,
    human_anchored: ArrayLike,
    *,
    alpha: float = 0.05,
) -> WinRate:
    """The mean of the human labels over all items, of which humans labelled only the anchors.

        estimate = mean(human) + w (mean(judge on all) - mean(judge on anchors))
        w = cov(human, judge) / var(judge), kept within 0 and 1         (PPI++, section 6)

    All arrays hold values from 0 to 1: [N] judged items, and [n] anchors paired by position. The
    anchors are a random part of the N items, so the variance is that of a sample drawn in two
    phases, var(human - w judge) / n + (w^2 var(judge) + 2 w cov(human - w judge, judge)) / N. The
    interval is Student's, and never wider than the classical one of the human labels alone.

    Where judge and humans differ on fewer than about three anchors and errors lean one way, the
    interval is too short: 30 anchors of a judge that is right 95 % of the time at a true win rate
    of 0.75 cover it 87 % of the time.

    Raises `ValueError` for fewer than `FEWEST_ANCHORS` anchors, arrays that do not pair, values
    outside 0 to 1, or fewer judged items than anchors.
    """
    f_N, f_n, y_n = (
        np.asarray(values, dtype=float) for values in (judge_all, judge_anchored, human_anchored)
    )
    _expect(f_N, f_n, y_n)
    n, total = len(y_n), len(f_N)
    classical = _interval(float(y_n.mean()), float(y_n.var(ddof=1)) / n, n - 1, alpha)
    spread = float(f_N.var(ddof=1))
    weight = 0.0 if spread == 0 else float(np.cov(y_n, f_n, ddof=1)[0, 1]) / spread
    weight = min(max(weight, 0.0), 1.0)
    estimate = float(y_n.mean() + weight * (f_N.mean() - f_n.mean()))
    rest_n = y_n - weight * f_n
    # two means are estimated: the weight costs a degree of freedom
    within = float(((rest_n - rest_n.mean()) ** 2).sum()) / (n - 2) / n
    shared = float(np.cov(rest_n, f_n, ddof=1)[0, 1])
    between = max(0.0, weight**2 * spread + 2 * weight * shared) / total
    low, high = _interval(estimate, within + between, n - 2, alpha)
    if weight == 0 or high - low > classical[1] - classical[0]:
        half = (classical[1] - classical[0]) / 2
        low, high = estimate - half, estimate + half
    return WinRate(estimate, low, high, weight, classical, n, total, estimate - float(f_N.mean()))


def _expect(f_N: Floats, f_n: Floats, y_n: Floats) -> None:
    if f_n.shape != y_n.shape or f_n.ndim != 1 or f_N.ndim != 1:
        raise ValueError(
            f"anchors have to pair by position: {f_n.shape} judged and {y_n.shape} human labels"
        )
    if len(y_n) < FEWEST_ANCHORS:
        raise ValueError(f"{len(y_n)} anchors are too few: at least {FEWEST_ANCHORS}")
    if len(f_N) < len(y_n):
        raise ValueError(
            f"{len(f_N)} judged items are fewer than the {len(y_n)} anchors among them"
        )
    for name, values in (("judge_all", f_N), ("judge_anchored", f_n), ("human_anchored", y_n)):
        if not (np.isfinite(values).all() and values.min() >= 0 and values.max() <= 1):
            raise ValueError(f"{name} holds a value outside 0 to 1")


def _interval(
    estimate: float, variance: float, freedom: float, alpha: float
) -> tuple[float, float]:
    half = t_quantile(1 - alpha / 2, freedom) * math.sqrt(variance)
    return estimate - half, estimate + half


def rogan_gladen(judged: float, sensitivity: float, specificity: float) -> float:
    """The true share behind the share that a judge calls a win.

        p = (judged + specificity - 1) / (sensitivity + specificity - 1), kept within 0 and 1

    Rogan and Gladen 1978, American Journal of Epidemiology 107:71-76, equation 2. Raises
    `ValueError` for a judge that is no better than chance (sensitivity + specificity <= 1).
    """
    better = sensitivity + specificity - 1
    if better <= 0:
        raise ValueError(
            f"a judge with sensitivity {sensitivity:.3f} and specificity {specificity:.3f} is no "
            "better than chance: its share of wins says nothing"
        )
    return min(1.0, max(0.0, (judged + specificity - 1) / better))
