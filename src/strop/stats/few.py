"""Intervals for few changes, where a t interval is too narrow.

A t interval shrinks with the changes in the sample: if none of 50 items changed it is a point,
though in truth one in thirty may change. So with fewer than ten changed clusters (or if all changed
by the same amount) each cluster counts as one item, and its mean change as a fraction of a flip,
relative to the score range. Tango's interval then stays wide even without a flip. Of all changes
with the same mean, whole flips vary most, so the interval is rather too wide than too narrow.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from strop.stats.clustered import Floats, Index, MeanEstimate
from strop.stats.tango import FlipCounts

ENOUGH_CHANGED = 10
"""With this many changed clusters t keeps its level (docs/statistics.md)."""


@dataclass(frozen=True, slots=True)
class FewChanges:
    """`FewChanges(FlipCounts(0.5, 1.25, 20.0), unit=1.0, changed=4, groups=20, mean=...)`.

    `counts` are flips of clusters, `unit` is what one whole flip is worth in scores. Clusters of
    unequal size count as 1 / (sum of squared shares) equal clusters (Kish's effective number).
    """

    counts: FlipCounts
    unit: float
    changed: int
    groups: int
    mean: MeanEstimate

    @classmethod
    def of(cls, x: Floats, y: Floats, index: Index) -> FewChanges:
        unit = float(max(1.0, x.max(), y.max()) - min(0.0, x.min(), y.min()))
        sums = np.bincount(index, weights=y - x) / len(x) / unit
        shares = np.bincount(index) / len(x)
        effective = 1 / float((shares**2).sum())
        gained, lost = float(sums[sums > 0].sum()), float(-sums[sums < 0].sum())
        counts = FlipCounts(effective * gained, effective * lost, effective)
        changed = int((np.bincount(index, weights=x != y) > 0).sum())
        return cls(counts, unit, changed, len(sums), MeanEstimate.of(y - x, index))

    def apply(self) -> bool:
        """Whether there are too few changes for a t interval."""
        few = self.changed < min(ENOUGH_CHANGED, self.groups)
        return few or self.mean.error <= 1e-9 * self.unit

    def interval(self, alpha: float) -> tuple[float, float]:
        low, high = self.counts.interval(alpha)
        return low * self.unit, high * self.unit

    def p_value(self, bound: float) -> float:
        return self.counts.p_value(bound / self.unit)

    def needed(self, bound: float, alpha: float) -> int | None:
        """Items, in clusters like these: by Tango's interval, or by t once enough changed."""
        clusters = self.counts.needed(bound / self.unit, alpha)
        ways = [] if clusters is None else [round(clusters * self.mean.n / self.counts.n)]
        if self.changed and self.mean.error > 1e-9 * self.unit:
            items = self.mean.needed(bound, alpha)
            enough = round(self.mean.n * ENOUGH_CHANGED / self.changed)
            ways += [] if items is None else [max(items, enough)]
        return min(ways, default=None)

    def detectable(self, bound: float, alpha: float) -> float | None:
        distance = self.counts.detectable(bound / self.unit, alpha)
        return None if distance is None else distance * self.unit
