"""Metrics that know how to be added up.

Micro-batches of one step are merged with `merge`, so that a step's metric is the same whether
the step was computed in one piece or in eight.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Mean:
    """A mean carried as total and count: `Mean.of(0.5, count=2).result() == 0.5`."""

    total: float
    count: float

    @classmethod
    def of(cls, value: float, count: float = 1.0) -> Mean:
        return cls(value * count, count)

    def merge(self, other: Mean) -> Mean:
        return Mean(self.total + other.total, self.count + other.count)

    def result(self) -> float:
        return self.total / self.count if self.count else float("nan")


@dataclass(frozen=True, slots=True)
class Sum:
    """A total over the step, such as a token count."""

    total: float

    def merge(self, other: Sum) -> Sum:
        return Sum(self.total + other.total)

    def result(self) -> float:
        return self.total


@dataclass(frozen=True, slots=True)
class Max:
    """The largest value seen in the step."""

    value: float

    def merge(self, other: Max) -> Max:
        return Max(max(self.value, other.value))

    def result(self) -> float:
        return self.value


Metric = Mean | Sum | Max


def merge(left: Mapping[str, Metric], right: Mapping[str, Metric]) -> dict[str, Metric]:
    """Merge two sets of metrics by name; a name in both must have the same reduction."""
    merged = dict(left)
    for name, metric in right.items():
        seen = merged.get(name)
        if seen is None:
            merged[name] = metric
        elif type(seen) is type(metric):
            merged[name] = seen.merge(metric)  # type: ignore[arg-type]
        else:
            raise TypeError(f"metric {name!r} is reduced in two ways: {seen} and {metric}")
    return merged


def results(metrics: Mapping[str, Metric]) -> dict[str, float]:
    """The reduced values by name; means of nothing are left out."""
    return {
        name: metric.result()
        for name, metric in metrics.items()
        if not (isinstance(metric, Mean) and metric.count == 0)
    }
