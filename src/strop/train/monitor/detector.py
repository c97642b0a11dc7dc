"""Detectors: each turns the rows of a run's log into the number that an alarm compares."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping

Row = Mapping[str, float]

START = 3
"""Rows whose mean stands for the start of a run."""


class Detector(ABC):
    """One number per row, or `None` where the row says nothing; `above` says which side is bad."""

    above = True

    @abstractmethod
    def measure(self, row: Row) -> float | None:
        """The number of this row, after all rows before it."""

    @abstractmethod
    def explain(self, value: float) -> str:
        """What the number means, as one sentence."""


class Start:
    """The mean of a metric over the first rows that have it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.seen: list[float] = []

    def see(self, row: Row) -> float | None:
        """The start's mean once it is known."""
        value = row.get(self.name)
        if value is not None and len(self.seen) < START:
            self.seen.append(value)
        return sum(self.seen) / START if len(self.seen) == START else None


def noise(row: Row) -> float:
    """Three standard errors of the difference of two held-out means."""
    count = row.get("eval_completions/count", 1.0)
    return 3 * row.get("eval_reward_std", 0.0) * math.sqrt(2 / count)
