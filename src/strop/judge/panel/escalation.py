"""From a cheap judge to a dear one: each keeps the verdicts that it is sure enough of.

Jung, Brahman, Choi 2024, "Trust or Escalate: LLM judges with provable guarantees for human
agreement" (arXiv 2407.18370), section 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from strop.stats.student import bisect

FIRST, STEPS = 3, 20


@dataclass(frozen=True, slots=True)
class Threshold:
    """`Threshold(confidence=0.83, kept=0.61, agreement=0.94, at_least=0.9)`: verdicts of at least
    this confidence are kept. Of the calibration set that is the share `kept`, of which people share
    `agreement`; of new items it is `at_least` the level that was asked for."""

    confidence: float
    kept: float
    agreement: float
    at_least: float


def threshold(
    confidences: Sequence[float],
    right: Sequence[bool],
    *,
    level: float = 0.9,
    delta: float = 0.1,
) -> Threshold | None:
    """The confidence above which most verdicts are kept while agreement with people is at least
    `level`, but for a chance of `delta` over the draw of the calibration set; `None` where no
    confidence is high enough.

    Thresholds are tried from high to low, twenty at most. Each has to pass a test of its own, the
    exact upper bound of the share of disagreements at 1 - delta (Clopper and Pearson 1934,
    Biometrika 26:404-413), and the first failure ends the search, so that no correction for their
    number is due (fixed-sequence testing; the paper's equations 5 and 6). The first keeps
    `FIRST` times as many verdicts as would pass without a miss, so that a single miss does not end
    the search. `confidences` and `right`, whether people share the verdict, are those of n labelled
    items. Raises `ValueError` without items.
    """
    if not confidences:
        raise ValueError("there are no labelled verdicts to calibrate on")
    values = np.asarray(confidences, dtype=float)
    wrong = ~np.asarray(right, dtype=bool)
    total, fewest = len(values), fewest_items(level, delta)
    if total < fewest:
        return None
    falling = np.sort(values)[::-1]
    sizes = np.linspace(min(total, FIRST * fewest), total, STEPS).round().astype(int)
    found = None
    for candidate in sorted({float(falling[size - 1]) for size in sizes}, reverse=True):
        kept = values >= candidate
        n, misses = int(kept.sum()), int((wrong & kept).sum())
        if most_wrong(misses, n, delta) > 1 - level:
            break
        found = Threshold(candidate, n / total, 1 - misses / n, level)
    return found


def fewest_items(level: float, delta: float) -> int:
    """How many verdicts without a miss show agreement of `level`: `fewest_items(0.9, 0.1) == 22`,
    because 0.9 ** 22 < 0.1."""
    return int(np.ceil(np.log(delta) / np.log(level)))


def most_wrong(misses: int, n: int, delta: float) -> float:
    """Upper bound of a share at confidence 1 - delta: the p with P(Binomial(n, p) <= misses) =
    delta."""
    if misses >= n:
        return 1.0
    logs = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, n + 1)))])
    k = np.arange(misses + 1)
    ways: NDArray[np.float64] = logs[n] - logs[k] - logs[n - k]

    def below(p: float) -> float:
        return float(np.exp(ways + k * np.log(p) + (n - k) * np.log1p(-p)).sum()) - delta

    return bisect(below, 1e-12, 1 - 1e-12)
