"""Ratings of two versions, side by side."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Literal

from strop.stats.sequential import Bound, expected_count

Side = Literal["canary", "stable"]
SIDES: tuple[Side, Side] = ("canary", "stable")


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a trial stands: `Standing(canary=120, stable=1080, canary_mean=0.52,
    stable_mean=0.61, blocks=120, difference=-0.09, low=-0.19, high=0.004)`. `low` and `high` bound
    the difference (canary less stable); each holds at all times with a probability of 1 - alpha."""

    canary: int
    stable: int
    canary_mean: float | None
    stable_mean: float | None
    blocks: int
    difference: float | None
    low: float
    high: float


class Ratings:
    """Takes ratings in [0, 1] as they come and bounds the difference of the two versions' means.

    A block is one rating of the canary less the mean of the `per_block` oldest ratings of the
    stable version that no block has used yet: what is rated at one time is compared, and with a
    share of 0.1 nine ratings of the stable version make its side quieter. Where the canary is no
    worse, the expected difference of a block is at least 0 whatever came before, which is all that
    `Bound` asks for.
    """

    def __init__(self, share: float, alpha: float) -> None:
        self.per_block = per_block(share)
        self.bound = Bound(alpha)
        self._waiting: dict[Side, deque[float]] = {side: deque() for side in SIDES}
        self._count = dict.fromkeys(SIDES, 0)
        self._total = dict.fromkeys(SIDES, 0.0)

    def add(self, side: Side, value: float) -> None:
        self._count[side] += 1
        self._total[side] += value
        self._waiting[side].append(value)
        new, old = self._waiting["canary"], self._waiting["stable"]
        while new and len(old) >= self.per_block:
            taken = [old.popleft() for _ in range(self.per_block)]
            self.bound.add(new.popleft() - sum(taken) / self.per_block)

    @property
    def standing(self) -> Standing:
        bound = self.bound
        return Standing(
            self._count["canary"], self._count["stable"], self._mean("canary"),
            self._mean("stable"), bound.count, bound.mean, bound.low, bound.high,
        )  # fmt: skip

    def _mean(self, side: Side) -> float | None:
        return self._total[side] / self._count[side] if self._count[side] else None


def per_block(share: float) -> int:
    """Ratings of the stable version to one of the canary: 9 at a share of 0.1."""
    return max(round((1 - share) / share), 1)


def ratings_until(drop: float, share: float, alpha: float, mean: float = 0.6) -> int:
    """About so many ratings in all (of both versions) until a drop from `mean` is shown."""
    block = per_block(share)
    worse = mean - drop
    variance = worse * (1 - worse) + mean * (1 - mean) / block
    return round(expected_count(-drop, variance, alpha) / share)
