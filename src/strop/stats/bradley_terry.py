"""Strengths from paired comparisons, with what else may have decided them taken out.

    logit P(first beats second) = s_first - s_second + x . beta

Bradley and Terry 1952, Biometrika 39:324-345, with covariates x of a comparison: the difference in
length, a constant for the answer that is shown first, whether one side is the judge's own. Standard
errors are by clusters (the sandwich of Liang and Zeger 1986, Biometrika 73:13-22).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from strop.stats.clustered import Floats, number_clusters, sandwich
from strop.stats.student import t_quantile

ROUNDS = 100
RIDGE = 1e-6
"""Holds a side that always wins at a large strength instead of an infinite one."""


@dataclass(frozen=True, slots=True)
class Effect:
    """`Effect(estimate=0.8, low=0.3, high=1.3)`, in logits, with its 95 % interval."""

    estimate: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class BradleyTerry:
    """`strengths["a"] == 0.4` logits above the mean of all; `effects["length"]` of a covariate."""

    strengths: Mapping[str, float]
    effects: Mapping[str, Effect]
    _covariance: NDArray[np.float64]
    _freedom: float

    def chance(self, one: str, other: str) -> Effect:
        """The chance that `one` beats `other` with all covariates at 0, with its interval."""
        names = list(self.strengths)
        contrast = np.zeros(len(self._covariance))
        contrast[names.index(one)] += 1
        contrast[names.index(other)] -= 1
        logit = self.strengths[one] - self.strengths[other]
        half = _half_width(contrast, self._covariance, self._freedom)
        return Effect(_chance(logit), _chance(logit - half), _chance(logit + half))


def bradley_terry(
    first: Sequence[str],
    second: Sequence[str],
    outcome: ArrayLike,
    covariates: Mapping[str, ArrayLike],
    clusters: Sequence[Any],
) -> BradleyTerry:
    """Fit to [N] comparisons: `outcome` is 1 where the first side won, 0.5 for a tie.

    `covariates` are [N] values each, first minus second; `clusters` label what was compared (the
    prompt). Raises `ValueError` for fewer than 5 clusters, sides that were never compared even
    through others, values that do not pair, or a covariate that never varies without the sides.
    """
    y = np.asarray(outcome, dtype=float)
    columns = {name: np.asarray(values, dtype=float) for name, values in covariates.items()}
    names = sorted({*first, *second})
    lengths = {len(y), len(first), len(second), len(clusters), *map(len, columns.values())}
    if len(lengths) > 1:
        raise ValueError("comparisons, covariates and clusters are not of one length")
    if not len(y) or y.min() < 0 or y.max() > 1:
        raise ValueError("an outcome is outside 0 to 1")
    index = number_clusters(clusters)
    if index.max() + 1 < 5:
        raise ValueError(f"{index.max() + 1} prompts are too few to estimate errors: at least 5")
    place = {name: n for n, name in enumerate(names)}
    _expect_connected(names, first, second)
    sides = np.eye(len(names))
    apart = sides[[place[name] for name in first]] - sides[[place[name] for name in second]]
    design = np.column_stack([apart, *columns.values()])
    _expect_identified(design, len(names), list(columns))
    beta, bread = _newton(design, y)
    covariance = sandwich(design, y - _chances(design @ beta), bread, index)
    freedom = float(index.max())
    effects = {}
    for n, name in enumerate(columns, start=len(names)):
        half = _half_width(np.eye(len(beta))[n], covariance, freedom)
        effects[name] = Effect(float(beta[n]), float(beta[n] - half), float(beta[n] + half))
    mean = beta[: len(names)].mean()
    strengths = {name: float(beta[n] - mean) for name, n in place.items()}
    return BradleyTerry(strengths, effects, covariance, freedom)


def _newton(design: Floats, y: Floats) -> tuple[Floats, Floats]:
    """The maximum of the likelihood and the inverse of its information."""
    beta: Floats = np.zeros(design.shape[1])
    penalty = RIDGE * len(y) * np.eye(len(beta))
    for _ in range(ROUNDS):
        p = _chances(design @ beta)
        information = design.T @ (design * (p * (1 - p))[:, None]) + penalty
        gradient = design.T @ (y - p) - penalty @ beta
        step: Floats = np.linalg.solve(information, gradient).astype(float)
        beta += step * min(1.0, 3.0 / max(float(np.abs(step).max()), 1e-12))
        if np.abs(step).max() < 1e-10:
            break
    inverse: Floats = np.linalg.inv(information).astype(float)
    return beta, inverse


def _half_width(contrast: Floats, covariance: Floats, freedom: float) -> float:
    return t_quantile(0.975, freedom) * math.sqrt(float(contrast @ covariance @ contrast))


def _chances(logits: Floats) -> Floats:
    found: Floats = 1 / (1 + np.exp(-np.clip(logits, -700, 700)))
    return found


def _chance(logit: float) -> float:
    return float(_chances(np.array([logit]))[0])


def _expect_connected(names: Sequence[str], first: Sequence[str], second: Sequence[str]) -> None:
    """Every side reaches every other one over comparisons."""
    group = {name: name for name in names}
    for one, other in zip(first, second, strict=True):
        old, new = group[one], group[other]
        if old != new:
            group = {name: new if held == old else held for name, held in group.items()}
    apart = sorted({group[name] for name in names})
    if len(apart) > 1:
        raise ValueError(f"{apart[0]} and {apart[1]} were never compared, not even through others")


def _expect_identified(design: Floats, sides: int, names: Sequence[str]) -> None:
    """No covariate is a mix of the sides and of the covariates before it."""
    rank = int(np.linalg.matrix_rank(design[:, :sides]))
    for n, name in enumerate(names, start=1):
        rank += 1
        if int(np.linalg.matrix_rank(design[:, : sides + n])) < rank:
            raise ValueError(f"{name} never varies apart from the sides, so it has no effect of "
                             "its own to find")  # fmt: skip
