"""Does a judge favour answers of its own family beyond what they deserve?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from strop.stats.share import wilson


@dataclass(frozen=True, slots=True)
class SelfPreference:
    """`SelfPreference(own=0.92, other=0.78, difference=0.14, low=0.02, high=0.25, n_own=60,
    n_other=58)`: how often the judge finds the win that people saw, of an answer of its own family
    and of another's; their difference, with its 95 % interval."""

    own: float
    other: float
    difference: float
    low: float
    high: float
    n_own: int
    n_other: int


def self_preference(judged: Sequence[float], human: Sequence[float]) -> SelfPreference:
    """The equal-opportunity difference over pairs of an own answer and another's.

        P(judge: own wins | people: own wins) - P(judge: other wins | people: other wins)

    Both arguments are [n]: 1 where the judge's own family wins, 0 where the other does, 0.5 for a
    tie, which counts half. Hardt, Price, Srebro 2016 (arXiv 1610.02413), definition 2.2, applied to
    judges as by Wataoka, Takahashi, Ri 2024 (arXiv 2410.21819), section 3. The interval is
    Newcombe's of two independent shares (1998, Statistics in Medicine 17:873-890, method 10).
    Raises `ValueError` where people saw no win of one side.
    """
    votes, truth = np.asarray(judged, dtype=float), np.asarray(human, dtype=float)
    ours, theirs = votes[truth == 1], 1 - votes[truth == 0]
    if not len(ours) or not len(theirs):
        raise ValueError("people saw wins of one side only: there is nothing to compare")
    own, other = float(ours.mean()), float(theirs.mean())
    mine, yours = wilson(float(ours.sum()), len(ours)), wilson(float(theirs.sum()), len(theirs))
    difference = own - other
    return SelfPreference(
        own, other, difference,
        difference - math.hypot(own - mine.low, yours.high - other),
        difference + math.hypot(mine.high - own, other - yours.low),
        len(ours), len(theirs),
    )  # fmt: skip
