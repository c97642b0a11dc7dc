"""Paired comparisons with three answers: pass, regressed, inconclusive.

Two-sided 95 % intervals (`alpha` 0.05) of the mean difference candidate - base:

- scores 0 or 1, one per item: Tango's score interval (`tango.py`);
- anything else: cluster-robust t (`clustered.py`);
- too few changes for t to estimate their spread: Tango's interval of whole clusters (`few.py`).

`docs/statistics.md` shows by simulation that each keeps its level.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from strop.errors import MissingEvidenceError
from strop.stats.clustered import Floats, Index, MeanEstimate, number_clusters
from strop.stats.few import FewChanges
from strop.stats.ratio import Ratio
from strop.stats.tango import FlipCounts
from strop.types import VerdictName

FEWEST_CLUSTERS = 5
"""With fewer clusters, a cluster-robust error is hardly known at all."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """`Comparison(estimate=0.0, low=-0.04, high=0.04, verdict="inconclusive", n_needed=880, ...)`.

    `p_value` is one-sided, against the given bound (for a band: the larger of two). `n_needed` is
    the number of items for a pass with 80 % power if the estimate were the truth; `None` if the
    verdict is not inconclusive, or no number below ten million suffices. `detectable` is the
    minimum detectable effect: how far above the bound (for a band: inside it) the true value has to
    be for `n` such items to pass with 80 % power; `None` if no value suffices.
    """

    estimate: float
    low: float
    high: float
    verdict: VerdictName
    n_needed: int | None
    detectable: float | None
    p_value: float
    n: int
    method: str


def superiority(
    base: ArrayLike,
    candidate: ArrayLike,
    *,
    min_gain: float = 0.0,
    clusters: Sequence[Any] | NDArray[Any] | None = None,
    alpha: float = 0.05,
) -> Comparison:
    """Is the candidate better by more than `min_gain`?

    pass: lower bound above `min_gain`. regressed: upper bound below 0. Arrays hold per-item scores
    paired by position; `clusters` labels items that belong together. Raises `ValueError` for
    arrays that are no pairs, `MissingEvidenceError` for fewer than five clusters.
    """
    return _compare(base, candidate, min_gain, clusters, alpha)


def noninferiority(
    base: ArrayLike,
    candidate: ArrayLike,
    *,
    margin: float,
    clusters: Sequence[Any] | NDArray[Any] | None = None,
    alpha: float = 0.05,
) -> Comparison:
    """Is the candidate not worse by more than `margin`?

    pass: lower bound above `-margin`. regressed: upper bound below 0 (shown to be worse, and not
    shown to stay within the margin). Arrays and errors as in `superiority`.
    """
    if not margin > 0:
        raise ValueError(f"margin must be above 0, got {margin}")
    return _compare(base, candidate, -margin, clusters, alpha)


def band(
    base: ArrayLike,
    candidate: ArrayLike,
    *,
    low: float,
    high: float,
    clusters: Sequence[Any] | NDArray[Any] | None = None,
    alpha: float = 0.05,
) -> Comparison:
    """Does the ratio of means, candidate / base, lie between `low` and `high`?

    pass: Fieller's interval lies inside (two one-sided tests at alpha / 2). regressed: it lies
    wholly outside. Arrays and errors as in `superiority`; `ValueError` also where the base's mean
    is not above 0.
    """
    if not 0 < low < high:
        raise ValueError(f"expected 0 < low < high, got {low} and {high}")
    x, y, index = _pairs(base, candidate, clusters, alpha)
    if x.mean() <= 0:
        raise ValueError(f"a ratio needs a base with a mean above 0, got {x.mean()}")
    ratio = Ratio.of(x, y, index)
    left, right = ratio.interval(alpha)
    inside, outside = low < left and right < high, right < low or left > high
    verdict: VerdictName = "pass" if inside else "regressed" if outside else "inconclusive"
    return Comparison(
        estimate=ratio.estimate,
        low=left,
        high=right,
        verdict=verdict,
        n_needed=ratio.needed(low, high, alpha) if verdict == "inconclusive" else None,
        detectable=ratio.detectable(low, high, alpha),
        p_value=ratio.p_value(low, high),
        n=len(x),
        method="fieller",
    )


def _compare(
    base: ArrayLike,
    candidate: ArrayLike,
    bound: float,
    clusters: Sequence[Any] | NDArray[Any] | None,
    alpha: float,
) -> Comparison:
    x, y, index = _pairs(base, candidate, clusters, alpha)
    method, evidence = weigh(x, y, index)
    low, high = evidence.interval(alpha)
    verdict: VerdictName = "pass" if low > bound else "regressed" if high < 0 else "inconclusive"
    return Comparison(
        estimate=float((y - x).mean()),
        low=low,
        high=high,
        verdict=verdict,
        n_needed=evidence.needed(bound, alpha) if verdict == "inconclusive" else None,
        detectable=evidence.detectable(bound, alpha),
        p_value=evidence.p_value(bound),
        n=len(x),
        method=method,
    )


def weigh(x: Floats, y: Floats, index: Index) -> tuple[str, FlipCounts | FewChanges | MeanEstimate]:
    """The name of the method that fits base `x` and candidate `y` (cluster numbers `index`, all of
    shape [n]), and its estimate."""
    if index.max() + 1 == len(x) and np.isin(x, (0, 1)).all() and np.isin(y, (0, 1)).all():
        change = y - x
        return "tango", FlipCounts(float((change > 0).sum()), float((change < 0).sum()), len(x))
    few = FewChanges.of(x, y, index)
    if few.apply():
        return "tango of clusters", few
    return "cluster-t", few.mean


def _pairs(
    base: ArrayLike,
    candidate: ArrayLike,
    clusters: Sequence[Any] | NDArray[Any] | None,
    alpha: float,
) -> tuple[Floats, Floats, Index]:
    """Both sides, and the number of each item's cluster."""
    x, y = np.asarray(base, dtype=float), np.asarray(candidate, dtype=float)
    if x.ndim != 1 or x.shape != y.shape or len(x) < 2:
        raise ValueError(f"expected two vectors of one length >= 2, got {x.shape} and {y.shape}")
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise ValueError("scores must be finite: leave unscored items out on both sides")
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must lie between 0 and 1, got {alpha}")
    if clusters is None:
        return x, y, np.arange(len(x))
    if len(clusters) != len(x):
        raise ValueError(f"{len(clusters)} clusters for {len(x)} items")
    index = number_clusters(clusters)
    found = int(index.max()) + 1
    if found < min(FEWEST_CLUSTERS, len(x)):
        raise MissingEvidenceError(
            f"{len(x)} items in {found} clusters: items of one cluster rise and fall together, "
            f"so fewer than {FEWEST_CLUSTERS} clusters show nothing",
            fix=f"measure items of at least {FEWEST_CLUSTERS} clusters",
        )
    return x, y, index
